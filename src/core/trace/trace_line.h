/* SPDX-License-Identifier: MIT */
/*
 * Events as lines of text, which docs/protocol.md describes: a name and whole numbers, one
 * space before each. What is written is the only way to write it, so that reading is strict.
 */
#ifndef CORE_TRACE_LINE_H
#define CORE_TRACE_LINE_H

#include "core/trace/trace.h"

/* The first line begins with this; then comes the version of the program that wrote it. */
#define TRACE_HEADER "vgpu-events 2 "

/* Lines are of the kinds of enum core_event, and of these. */
enum {
	TRACE_CHECK = CORE_EVENT_COUNT, /* core_action_hash() of all actions so far */
	TRACE_END,                      /* why: enum trace_end */
	TRACE_KINDS,
};

enum trace_end {
	TRACE_END_STOPPED, /* the mediator has ended */
	TRACE_END_FULL,    /* the file is as large as it may be */
	TRACE_END_SLOW,    /* the disk could not keep up */
	TRACE_END_COUNT,
};

enum { TRACE_LINE_BYTES = 768 }; /* with its newline, at most */

struct trace_line {
	uint32_t kind;
	size_t count;
	int64_t values[TRACE_VALUES_MAX];
};

const char *trace_kind_name(uint32_t kind);

/* Writes the line with its newline and no NUL; returns its length. */
size_t trace_line_format(char to[static TRACE_LINE_BYTES], uint32_t kind, const int64_t *values,
                         size_t count);

/* Reads a line without its newline. Returns 0, or -EINVAL with what is wrong in *@why. */
int trace_line_parse(struct trace_line *out, const char *text, size_t length, const char **why);

#endif
