/* SPDX-License-Identifier: MIT */
/* See histogram.h. */
#include "core/count/histogram.h"

#include "base/util.h"

enum { LINEAR = 1 << HISTOGRAM_LINEAR_BITS };

static uint32_t bucket_of(int64_t duration_ns)
{
	uint64_t value = duration_ns < 0 ? 0 : (uint64_t)duration_ns;
	uint32_t octave;

	if (value < (UINT64_C(1) << HISTOGRAM_MIN_BITS))
		return 0;
	octave = 63 - (uint32_t)__builtin_clzll(value) - HISTOGRAM_MIN_BITS;
	if (octave >= HISTOGRAM_OCTAVES)
		return HISTOGRAM_BUCKETS - 1;
	return octave * LINEAR +
	       ((value >> (octave + HISTOGRAM_MIN_BITS - HISTOGRAM_LINEAR_BITS)) & (LINEAR - 1));
}

/* The first duration that no longer belongs to @bucket. */
static int64_t bucket_end_ns(uint32_t bucket)
{
	uint32_t octave = bucket / LINEAR, step = bucket % LINEAR;

	return (int64_t)(LINEAR + step + 1)
	       << (octave + HISTOGRAM_MIN_BITS - HISTOGRAM_LINEAR_BITS);
}

static int64_t bucket_middle_ns(uint32_t bucket)
{
	int64_t width = INT64_C(1)
	                << (bucket / LINEAR + HISTOGRAM_MIN_BITS - HISTOGRAM_LINEAR_BITS);

	return bucket_end_ns(bucket) - width / 2;
}

void histogram_record(struct histogram *histogram, int64_t duration_ns)
{
	duration_ns = max_i64(duration_ns, 0);
	histogram->count++;
	histogram->sum_ns += (uint64_t)duration_ns;
	histogram->max_ns = max_i64(histogram->max_ns, duration_ns);
	histogram->buckets[bucket_of(duration_ns)]++;
}

int64_t histogram_percentile_ns(const struct histogram *histogram, uint32_t permille)
{
	uint64_t rank, seen = 0;

	if (histogram->count == 0)
		return 0;
	rank = max_u64((histogram->count * permille + 999) / 1000, 1);
	for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += histogram->buckets[i];
		if (seen >= rank)
			return min_i64(bucket_middle_ns(i), histogram->max_ns);
	}
	return histogram->max_ns;
}

uint64_t histogram_count_at_most(const struct histogram *histogram, int64_t bound_ns)
{
	uint64_t seen = 0;

	for (uint32_t i = 0; i < HISTOGRAM_BUCKETS && bucket_end_ns(i) - 1 <= bound_ns; i++)
		seen += histogram->buckets[i];
	return seen;
}
