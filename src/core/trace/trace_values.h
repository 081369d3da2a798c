/* SPDX-License-Identifier: MIT */
/*
 * Events as rows of numbers: first those that are an event's own, then the members of one
 * struct. One table says both; noting, playing and reading walk it.
 */
#ifndef CORE_TRACE_VALUES_H
#define CORE_TRACE_VALUES_H

#include "core/trace/trace.h"

#define TRACE_TIME_MAX_NS (INT64_C(1) << 58) /* nine years */

struct trace_member;

struct trace_shape {
	const char *name;
	size_t own; /* numbers before the members */
	const struct trace_member *members;
	size_t member_count;
};

extern const struct trace_shape trace_shapes[CORE_EVENT_COUNT];

/* How many numbers the event has. */
static inline size_t trace_value_count(enum core_event event)
{
	return trace_shapes[event].own + trace_shapes[event].member_count;
}

/* Writes the members of @what, the struct of that event. */
void trace_pack(int64_t *to, enum core_event event, const void *what);

/*
 * The other way; members that the table does not have stay as they are. Returns 0, or
 * -EINVAL when a value is out of its range.
 */
int trace_unpack(void *what, enum core_event event, const int64_t *values);

#endif
