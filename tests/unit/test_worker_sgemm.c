/* SPDX-License-Identifier: MIT */
/*
 * The CPU's matrix product against a naive one, and the checksum against its factored
 * form, which is what whoever asked for a product verifies it with.
 */
#include "worker/sgemm_cpu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"

/* Around the blocking's edges: rows by 4 and 128, columns by 512. */
static const uint32_t sizes[] = {1, 2, 3, 4, 5, 31, 127, 128, 129, 200, 513};

static void naive_multiply(double *c, const float *a, const float *b, uint32_t n)
{
	memset(c, 0, sizeof(*c) * n * n);
	for (uint32_t i = 0; i < n; i++) {
		for (uint32_t k = 0; k < n; k++) {
			for (uint32_t j = 0; j < n; j++)
				c[i * n + j] += (double)a[i * n + k] * b[k * n + j];
		}
	}
}

static void test_product_is_exact(void **state UNUSED)
{
	for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
		const uint32_t n = sizes[s];
		CLEANUP(freep) float *a = malloc(sizeof(*a) * n * n);
		CLEANUP(freep) float *b = malloc(sizeof(*b) * n * n);
		CLEANUP(freep) float *c = malloc(sizeof(*c) * n * n);
		CLEANUP(freep) double *expected = malloc(sizeof(*expected) * n * n);

		sgemm_cpu_generate(a, b, n, n);
		memset(c, 0xff, sizeof(*c) * n * n);
		sgemm_cpu_multiply(c, a, b, n);
		naive_multiply(expected, a, b, n);
		for (uint32_t i = 0; i < n * n; i++)
			assert_true(c[i] == expected[i]);
	}
}

static uint64_t factored_checksum(uint32_t n, uint32_t seed)
{
	uint64_t sum = 0;

	for (uint32_t k = 0; k < n; k++) {
		uint64_t left = 0, right = 0;

		for (uint32_t i = 0; i < n; i++) {
			left += vgpu_sgemm_row_weight(seed, i) *
			        (uint64_t)(int64_t)vgpu_sgemm_a(seed, i * n + k);
			right += vgpu_sgemm_column_weight(seed, i) *
			         (uint64_t)(int64_t)vgpu_sgemm_b(seed, k * n + i);
		}
		sum += left * right;
	}
	return sum;
}

static void test_checksum_factors(void **state UNUSED)
{
	for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
		uint32_t results[VGPU_SGEMM_RESULTS];
		uint64_t sum;

		assert_int_equal(sgemm_cpu(results, sizes[s], 77), 0);
		sum = results[0] | (uint64_t)results[1] << 32;
		assert_true(sum == factored_checksum(sizes[s], 77));
	}
}

static void test_checksum_sees_one_wrong_element(void **state UNUSED)
{
	enum { N = 16, SEED = 3 };
	float a[N * N], b[N * N], c[N * N];
	uint64_t right;

	sgemm_cpu_generate(a, b, N, SEED);
	sgemm_cpu_multiply(c, a, b, N);
	right = sgemm_cpu_checksum(c, N, SEED);
	for (int i = 0; i < N * N; i++) {
		c[i] += 1;
		assert_true(sgemm_cpu_checksum(c, N, SEED) != right);
		c[i] -= 1;
	}
	assert_true(sgemm_cpu_checksum(c, N, SEED) == right);
}

static void test_elements_are_small_integers_of_all_values(void **state UNUSED)
{
	unsigned int seen[9] = {0};

	for (uint32_t i = 0; i < 9000; i++) {
		assert_in_range(vgpu_sgemm_a(1, i) + 4, 0, 8);
		assert_in_range(vgpu_sgemm_b(1, i) + 4, 0, 8);
		seen[vgpu_sgemm_a(1, i) + 4]++;
	}
	for (int i = 0; i < 9; i++)
		assert_in_range(seen[i], 800, 1200);
}

static void test_samples_are_elements_of_the_product(void **state UNUSED)
{
	enum { N = 20, SEED = 9 };
	float a[N * N], b[N * N], c[N * N];
	uint32_t results[VGPU_SGEMM_RESULTS];

	sgemm_cpu_generate(a, b, N, SEED);
	sgemm_cpu_multiply(c, a, b, N);
	assert_int_equal(sgemm_cpu(results, N, SEED), 0);
	for (uint32_t k = 0; k < VGPU_SGEMM_SAMPLES; k++)
		assert_memory_equal(&results[2 + k], &c[vgpu_sgemm_sample(SEED, N, k)], 4);
	assert_int_equal(vgpu_sgemm_sample(SEED, N, 0), 0);
	assert_int_equal(vgpu_sgemm_sample(SEED, N, 1), N * N - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_product_is_exact),
		cmocka_unit_test(test_checksum_factors),
		cmocka_unit_test(test_checksum_sees_one_wrong_element),
		cmocka_unit_test(test_elements_are_small_integers_of_all_values),
		cmocka_unit_test(test_samples_are_elements_of_the_product),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
