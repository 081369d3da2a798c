/* SPDX-License-Identifier: MIT */
/*
 * The parts of vgpu-client that compute: strict numbers, percentiles, the proof of a
 * matrix product, and reports that survive hostile text.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "guest/histogram.h"
#include "guest/outcome.h"
#include "guest/parse.h"
#include "guest/report.h"
#include "guest/sgemm_check.h"
#include "vgpu/vgpu.h"

static void test_parse(void **state UNUSED)
{
	static const char *const wrong[] = {"",    "-",     " 1",   "1 ",
	                                    "+1",  "12abc", "0x10", "1.0",
	                                    "--1", "11",    "-11",  "99999999999999999999",
	                                    "1e3", "\n1"};
	int64_t value = 77;

	for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
		assert_false(parse_integer(wrong[i], -10, 10, &value));
	assert_int_equal(value, 77);
	assert_true(parse_integer("-10", -10, 10, &value));
	assert_int_equal(value, -10);
	assert_true(parse_integer("10", -10, 10, &value));
	assert_true(parse_integer("007", -10, 10, &value));
	assert_int_equal(value, 7);
	assert_true(parse_integer("-2147483648", INT32_MIN, INT32_MAX, &value));
	assert_false(parse_integer("-2147483649", INT32_MIN, INT32_MAX, &value));
	assert_false(parse_integer("2147483648", INT32_MIN, INT32_MAX, &value));
	assert_false(parse_integer("9223372036854775808", 0, INT64_MAX, &value));
}

static void test_histogram(void **state UNUSED)
{
	CLEANUP(freep) struct histogram *histogram = calloc(1, sizeof(*histogram));
	uint64_t quantile;

	assert_non_null(histogram);
	assert_int_equal(histogram_quantile(histogram, 500), 0);
	for (uint64_t i = 1; i <= 100000; i++)
		histogram_add(histogram, i * 1000);
	for (unsigned int q = 1; q <= 1000; q++) {
		quantile = histogram_quantile(histogram, q);
		assert_true(quantile >= q * UINT64_C(100000));
		assert_true(quantile <= q * UINT64_C(100000) + q * UINT64_C(100000) / 64 + 1);
	}
	assert_int_equal(histogram_quantile(histogram, 1000), 100000000);
	assert_int_equal(histogram->min, 1000);
	assert_int_equal((int)histogram_mean(histogram), 50000500);
	histogram_add(histogram, UINT64_MAX / 2);
	assert_true(histogram_quantile(histogram, 1000) >= UINT64_C(1) << HISTOGRAM_TOP_BIT);
}

/* The product the long way, for what the short way must equal. */
static void multiply(uint32_t n, uint32_t seed, uint32_t *results)
{
	CLEANUP(freep) float *c = calloc((size_t)n * n, sizeof(*c));
	uint64_t checksum = 0;

	assert_non_null(c);
	for (uint32_t i = 0; i < n; i++) {
		for (uint32_t j = 0; j < n; j++) {
			float *element = &c[i * n + j];

			for (uint32_t k = 0; k < n; k++)
				*element += (float)vgpu_sgemm_a(seed, i * n + k) *
				            (float)vgpu_sgemm_b(seed, k * n + j);
			checksum += (uint64_t)(int64_t)*element * vgpu_sgemm_row_weight(seed, i) *
			            vgpu_sgemm_column_weight(seed, j);
		}
	}
	results[0] = (uint32_t)checksum;
	results[1] = (uint32_t)(checksum >> 32);
	for (uint32_t k = 0; k < VGPU_SGEMM_SAMPLES; k++)
		memcpy(&results[2 + k], &c[vgpu_sgemm_sample(seed, n, k)], 4);
}

static void test_sgemm(void **state UNUSED)
{
	static const uint32_t sizes[] = {1, 2, 7, 64, 97};
	uint32_t results[VGPU_SGEMM_RESULTS];
	struct sgemm_expected expected;
	const char *why;

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		multiply(sizes[i], 12345 + (uint32_t)i, results);
		assert_int_equal(sgemm_expect(&expected, sizes[i], 12345 + (uint32_t)i), 0);
		assert_true(sgemm_check(&expected, results, VGPU_SGEMM_RESULTS, &why));
	}
	assert_false(sgemm_check(&expected, results, VGPU_SGEMM_RESULTS - 1, &why));
	assert_string_equal(why, "wrong number of results");
	for (uint32_t word = 0; word < VGPU_SGEMM_RESULTS; word++) {
		results[word] ^= 0x00800000;
		assert_false(sgemm_check(&expected, results, VGPU_SGEMM_RESULTS, &why));
		assert_string_equal(why, word < 2 ? "wrong checksum" : "wrong sample");
		results[word] ^= 0x00800000;
	}
	results[2] = 0x7fc00000; /* not a number */
	assert_false(sgemm_check(&expected, results, VGPU_SGEMM_RESULTS, &why));
}

static void test_sgemm_sign_of_zero(void **state UNUSED)
{
	struct sgemm_expected expected = {.n = 1};
	uint32_t results[VGPU_SGEMM_RESULTS] = {0, 0, 0x80000000, 0, 0x80000000, 0};
	const char *why;

	assert_true(sgemm_check(&expected, results, VGPU_SGEMM_RESULTS, &why));
}

static char *render(bool json)
{
	struct report report;
	char *text = NULL;
	size_t bytes;
	FILE *stream = open_memstream(&text, &bytes);

	assert_non_null(stream);
	report_begin(&report, stream, json);
	report_text(&report, "name", "a\"b\\c\x1b[31m\n\xc3\xa9\xff\xc2\x9b\xe2\x82");
	report_u64(&report, "count", UINT64_MAX);
	report_open(&report, "inner");
	report_double(&report, "p50", 1.25, 1);
	report_bool(&report, "yes", true);
	report_close(&report);
	report_i64(&report, "last", -1);
	report_end(&report);
	fclose(stream);
	return text;
}

static void test_report(void **state UNUSED)
{
	CLEANUP(freep) char *json = render(true);
	CLEANUP(freep) char *text = render(false);

	assert_string_equal(json, "{\"name\":\"a\\\"b\\\\c?[31m?\xc3\xa9?????\","
	                          "\"count\":18446744073709551615,"
	                          "\"inner\":{\"p50\":1.2,\"yes\":true},\"last\":-1}\n");
	assert_string_equal(text, "name: a\"b\\c?[31m?\xc3\xa9?????\n"
	                          "count: 18446744073709551615\n"
	                          "inner:\n  p50: 1.2\n  yes: yes\nlast: -1\n");
}

static void test_outcome(void **state UNUSED)
{
	assert_int_equal(outcome_status(0), 0);
	assert_int_equal(outcome_status(VGPU_CODE_CUDA), 70);
	assert_int_equal(outcome_status(0x77), 70);
	assert_int_equal(outcome_status(VGPU_CODE_UNAVAILABLE), 69);
	assert_int_equal(outcome_status(-1), 69);
	assert_int_equal(outcome_status(VGPU_CODE_RATE_LIMITED), 75);
	assert_int_equal(outcome_status(VGPU_CODE_QUARANTINED), 77);
	assert_int_equal(outcome_status(VGPU_CODE_TIMEOUT), 124);
	assert_int_equal(outcome_status(VGPU_E_TIMED_OUT), 124);
	assert_string_equal(outcome_reason(VGPU_BUSY_DEPTH), "depth");
	assert_string_equal(outcome_reason(0), "unknown");
	assert_string_equal(outcome_reason(99), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),  cmocka_unit_test(test_histogram),
		cmocka_unit_test(test_sgemm),  cmocka_unit_test(test_sgemm_sign_of_zero),
		cmocka_unit_test(test_report), cmocka_unit_test(test_outcome),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
