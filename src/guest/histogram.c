/* SPDX-License-Identifier: MIT */
/*
 * See histogram.h. Values below 2 << LINEAR_BITS have a bucket each; above, the bucket is
 * told by the position of the highest bit and the LINEAR_BITS below it.
 */
#include "guest/histogram.h"

#include "base/util.h"

static unsigned int bucket_of(uint64_t value)
{
	unsigned int shift;

	value = min_u64(value, (UINT64_C(2) << HISTOGRAM_TOP_BIT) - 1);
	if (value < UINT64_C(2) << HISTOGRAM_LINEAR_BITS)
		return (unsigned int)value;
	shift = 63 - (unsigned int)__builtin_clzll(value) - HISTOGRAM_LINEAR_BITS;
	return (shift << HISTOGRAM_LINEAR_BITS) + (unsigned int)(value >> shift);
}

/* The largest value that falls into @bucket. */
static uint64_t bucket_edge(unsigned int bucket)
{
	unsigned int shift;
	uint64_t step;

	if (bucket < 2u << HISTOGRAM_LINEAR_BITS)
		return bucket;
	shift = (bucket >> HISTOGRAM_LINEAR_BITS) - 1;
	step = bucket - (shift << HISTOGRAM_LINEAR_BITS);
	return ((step + 1) << shift) - 1;
}

void histogram_add(struct histogram *histogram, uint64_t value)
{
	histogram->min = histogram->count ? min_u64(histogram->min, value) : value;
	histogram->max = max_u64(histogram->max, value);
	histogram->count++;
	histogram->sum += value;
	histogram->buckets[bucket_of(value)]++;
}

uint64_t histogram_quantile(const struct histogram *histogram, unsigned int per_mille)
{
	uint64_t rank = max_u64(1, (histogram->count * per_mille + 999) / 1000);
	uint64_t seen = 0;

	for (unsigned int i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += histogram->buckets[i];
		if (seen >= rank)
			return min_u64(bucket_edge(i), histogram->max);
	}
	return histogram->max;
}

double histogram_mean(const struct histogram *histogram)
{
	return histogram->count ? (double)histogram->sum / (double)histogram->count : 0;
}
