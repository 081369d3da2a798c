/* SPDX-License-Identifier: MIT */
/*
 * The pieces that Prometheus' text format is made of.
 */
#ifndef MEDIATOR_METRICS_FORMAT_H
#define MEDIATOR_METRICS_FORMAT_H

#include <stdio.h>

#include "core/count/histogram.h"

/* The two lines before a metric's samples. */
void metrics_write_head(FILE *out, const char *name, const char *type, const char *help);

/* label="value": backslash, quote and newline escaped, other control characters dropped. */
void metrics_write_label(FILE *out, const char *label, const char *value);

/* Which durations a histogram's buckets tell apart. */
enum metrics_buckets {
	METRICS_BUCKETS_JOB,  /* 100 us to 120 s */
	METRICS_BUCKETS_LOOP, /* 2.5 us to 1 s */
};

/* All lines of a histogram; @label is its label with value, without braces, or "". */
void metrics_write_histogram(FILE *out, const char *name, const char *label,
                             enum metrics_buckets buckets, const struct histogram *histogram);

#endif
