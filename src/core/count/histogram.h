/* SPDX-License-Identifier: MIT */
/*
 * A log-linear histogram of durations: fixed memory, O(1) to record, percentiles
 * within 1/32 of the true value from 1 us to 4.8 hours.
 *
 * The layout is that of HdrHistogram (Gil Tene): each power of two is cut into the
 * same number of linear buckets. What is shorter counts in the first bucket, what is
 * longer in the last.
 */
#ifndef CORE_HISTOGRAM_H
#define CORE_HISTOGRAM_H

#include <stdint.h>

enum {
	HISTOGRAM_LINEAR_BITS = 4,
	HISTOGRAM_MIN_BITS = 10, /* 1.02 us */
	HISTOGRAM_OCTAVES = 34,
	HISTOGRAM_BUCKETS = (HISTOGRAM_OCTAVES << HISTOGRAM_LINEAR_BITS),
};

struct histogram {
	uint64_t count;
	uint64_t sum_ns;
	int64_t max_ns;
	uint64_t buckets[HISTOGRAM_BUCKETS];
};

/* Negative durations count as 0. */
void histogram_record(struct histogram *histogram, int64_t duration_ns);

/*
 * The duration that @permille of all recorded ones do not exceed (500 = median),
 * the middle of its bucket, in ns; 0 when nothing is recorded.
 */
int64_t histogram_percentile_ns(const struct histogram *histogram, uint32_t permille);

/* How many recorded durations are at most @bound_ns, as exact as the buckets are. */
uint64_t histogram_count_at_most(const struct histogram *histogram, int64_t bound_ns);

#endif
