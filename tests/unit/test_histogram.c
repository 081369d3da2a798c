/* SPDX-License-Identifier: MIT */
/*
 * The histogram of durations: nothing is lost, percentiles are within 1/32 of the
 * truth, counts up to a bound are exact where the buckets end.
 */
#include "core/count/histogram.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/units.h"
#include "base/util.h"

#define LONGEST_NS (INT64_C(1) << (HISTOGRAM_MIN_BITS + HISTOGRAM_OCTAVES)) /* 4.9 hours */

static struct histogram *new_histogram(void)
{
	struct histogram *histogram = calloc(1, sizeof(*histogram));

	assert_non_null(histogram);
	return histogram;
}

static uint64_t in_buckets(const struct histogram *histogram)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < ARRAY_LEN(histogram->buckets); i++)
		sum += histogram->buckets[i];
	return sum;
}

static void test_empty(void **state UNUSED)
{
	struct histogram *histogram = new_histogram();

	assert_int_equal(histogram_percentile_ns(histogram, 500), 0);
	assert_int_equal(histogram_count_at_most(histogram, INT64_MAX), 0);
	free(histogram);
}

static void test_one_value(void **state UNUSED)
{
	static const int64_t values[] = {
		0,
		1,
		1023,
		1024,
		1025,
		1087,
		1088,
		2047,
		2048,
		999999,
		NS_PER_MS,
		NS_PER_SEC,
		3600 * NS_PER_SEC,
		LONGEST_NS - 1,
		LONGEST_NS,
		INT64_MAX,
	};

	for (size_t i = 0; i < ARRAY_LEN(values); i++) {
		struct histogram *histogram = new_histogram();
		int64_t value = values[i], percentile;

		histogram_record(histogram, value);
		assert_int_equal(histogram->count, 1);
		assert_int_equal(histogram->sum_ns, value);
		assert_int_equal(histogram->max_ns, value);
		assert_int_equal(in_buckets(histogram), 1);
		for (uint32_t permille = 0; permille <= 1000; permille += 250) {
			percentile = histogram_percentile_ns(histogram, permille);
			assert_true(percentile <= value);
			if (value >= NS_PER_US && value < LONGEST_NS)
				assert_true(value - percentile <= value / 32 + 1);
		}
		assert_int_equal(histogram_count_at_most(histogram, INT64_MAX), 1);
		free(histogram);
	}
}

static void test_negative_counts_as_zero(void **state UNUSED)
{
	struct histogram *histogram = new_histogram();

	histogram_record(histogram, -5);
	histogram_record(histogram, INT64_MIN);
	assert_int_equal(histogram->count, 2);
	assert_int_equal(histogram->sum_ns, 0);
	assert_int_equal(histogram->max_ns, 0);
	assert_int_equal(histogram_percentile_ns(histogram, 999), 0);
	free(histogram);
}

/* Each bucket begins where the one before it ends, from the first to the last. */
static void test_buckets_have_no_gaps(void **state UNUSED)
{
	for (int bits = HISTOGRAM_MIN_BITS; bits < HISTOGRAM_MIN_BITS + HISTOGRAM_OCTAVES; bits++) {
		int64_t width = INT64_C(1) << (bits - HISTOGRAM_LINEAR_BITS);

		for (int64_t step = 0; step < 1 << HISTOGRAM_LINEAR_BITS; step++) {
			struct histogram *histogram = new_histogram();
			int64_t first = (INT64_C(1) << bits) + step * width;

			histogram_record(histogram, first);
			histogram_record(histogram, first + width - 1);
			assert_int_equal(histogram_count_at_most(histogram, first + width - 2), 0);
			assert_int_equal(histogram_count_at_most(histogram, first + width - 1), 2);
			/* What is longer than all buckets counts in the last one. */
			if (first + width < LONGEST_NS)
				histogram_record(histogram, first + width);
			assert_int_equal(histogram_count_at_most(histogram, first + width - 1), 2);
			free(histogram);
		}
	}
}

static int compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static void test_percentiles_of_many(void **state UNUSED)
{
	enum { COUNT = 20000 };
	static int64_t values[COUNT];
	struct histogram *histogram = new_histogram();
	uint64_t random = 123456789, sum = 0;

	for (int i = 0; i < COUNT; i++) {
		random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		/* All magnitudes are as frequent: 1 us to 17 s. */
		values[i] = NS_PER_US << (random >> 60) << ((random >> 58) & 1);
		values[i] += (int64_t)((random >> 20) % (uint64_t)values[i]);
		sum += (uint64_t)values[i];
		histogram_record(histogram, values[i]);
	}
	qsort(values, COUNT, sizeof(values[0]), compare);
	assert_int_equal(histogram->count, COUNT);
	assert_int_equal(histogram->sum_ns, sum);
	assert_int_equal(histogram->max_ns, values[COUNT - 1]);
	for (uint32_t permille = 1; permille <= 1000; permille++) {
		int64_t truth = values[(COUNT * permille + 999) / 1000 - 1];
		int64_t said = histogram_percentile_ns(histogram, permille);

		assert_true(llabs(said - truth) <= truth / 32 + 1);
	}
	for (int64_t bound = NS_PER_US; bound < 20 * NS_PER_SEC; bound += bound / 3) {
		uint64_t at_most = histogram_count_at_most(histogram, bound), surely = 0,
			 perhaps = 0;

		for (int i = 0; i < COUNT; i++) {
			surely += values[i] <= bound - bound / 16;
			perhaps += values[i] <= bound;
		}
		assert_true(at_most >= surely && at_most <= perhaps);
	}
	free(histogram);
}

/* A bucket takes more than 2^32 durations: days of short jobs. */
static void test_a_bucket_does_not_wrap(void **state UNUSED)
{
	struct histogram *histogram = new_histogram();

	histogram_record(histogram, 5 * NS_PER_US);
	for (size_t i = 0; i < ARRAY_LEN(histogram->buckets); i++) {
		if (histogram->buckets[i])
			histogram->buckets[i] = UINT32_MAX;
	}
	histogram->count = UINT32_MAX;
	histogram_record(histogram, 5 * NS_PER_US);
	assert_int_equal(histogram_count_at_most(histogram, NS_PER_MS), UINT64_C(1) << 32);
	free(histogram);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_one_value),
		cmocka_unit_test(test_negative_counts_as_zero),
		cmocka_unit_test(test_buckets_have_no_gaps),
		cmocka_unit_test(test_percentiles_of_many),
		cmocka_unit_test(test_a_bucket_does_not_wrap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
