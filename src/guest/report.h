/* SPDX-License-Identifier: MIT */
/*
 * What a command found out, as "key: value" lines for people or one JSON object for
 * programs, from the same calls.
 *
 * Text from the mediator (a device's name) passes through here too and may be anything:
 * control characters never reach a terminal, and JSON stays valid.
 */
#ifndef GUEST_REPORT_H
#define GUEST_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct report {
	FILE *stream;
	bool json;
	bool first; /* nothing stands in the innermost object yet */
	int depth;
};

/* Starts a report on @stream; report_end() ends it. */
void report_begin(struct report *report, FILE *stream, bool json);
void report_end(struct report *report);

/* An object inside, up to report_close(). */
void report_open(struct report *report, const char *key);
void report_close(struct report *report);

/* Keys are lower case with the unit at the end, as "p50_us". */
void report_u64(struct report *report, const char *key, uint64_t value);
void report_i64(struct report *report, const char *key, int64_t value);
void report_double(struct report *report, const char *key, double value, int decimals);
void report_bool(struct report *report, const char *key, bool value);
void report_text(struct report *report, const char *key, const char *value);
/* @value need not end with 0. */
void report_bytes(struct report *report, const char *key, const void *value, size_t bytes);
void report_hex(struct report *report, const char *key, uint64_t value);

#endif
