/* SPDX-License-Identifier: MIT */
/*
 * Percentiles of many durations in little memory: a log-linear histogram, 64 equal
 * buckets to each power of two, so that a percentile is at most 1/64 above the truth.
 */
#ifndef GUEST_HISTOGRAM_H
#define GUEST_HISTOGRAM_H

#include <stdint.h>

enum {
	HISTOGRAM_LINEAR_BITS = 6,
	HISTOGRAM_TOP_BIT = 47, /* longer than a day, in ns; larger values count as the largest */
	HISTOGRAM_BUCKETS = (HISTOGRAM_TOP_BIT - HISTOGRAM_LINEAR_BITS + 2)
	                    << HISTOGRAM_LINEAR_BITS,
};

/* All zero is an empty histogram. */
struct histogram {
	uint64_t count;
	uint64_t sum;
	uint64_t min;
	uint64_t max;
	uint64_t buckets[HISTOGRAM_BUCKETS];
};

void histogram_add(struct histogram *histogram, uint64_t value);

/* The value that @per_mille/1000 (0..1000) of the values do not exceed: the upper edge of
 * its bucket, and never above the largest value; 0 when empty. */
uint64_t histogram_quantile(const struct histogram *histogram, unsigned int per_mille);

/* 0 when empty. */
double histogram_mean(const struct histogram *histogram);

#endif
