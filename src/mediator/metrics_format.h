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

/* All lines of a histogram; @label is its label with value, without braces. */
void metrics_write_histogram(FILE *out, const char *name, const char *label,
                             const struct histogram *histogram);

#endif
