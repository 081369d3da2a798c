/* SPDX-License-Identifier: MIT */
/*
 * See sgemm_check.h, and vgpu/sgemm.h for why the sum over k of (column sums of A weighted
 * by row) times (row sums of B weighted by column) is the checksum of A * B.
 */
#include "guest/sgemm_check.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"

static int32_t element(uint32_t n, uint32_t seed, uint32_t index)
{
	uint32_t row = index / n, column = index % n;
	int32_t sum = 0;

	for (uint32_t k = 0; k < n; k++)
		sum += vgpu_sgemm_a(seed, row * n + k) * vgpu_sgemm_b(seed, k * n + column);
	return sum;
}

int sgemm_expect(struct sgemm_expected *out, uint32_t n, uint32_t seed)
{
	CLEANUP(freep) uint64_t *a_sums = calloc(n, sizeof(*a_sums));
	uint64_t weight, b_sum, checksum = 0;

	if (!a_sums)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		weight = vgpu_sgemm_row_weight(seed, i);
		for (uint32_t k = 0; k < n; k++)
			a_sums[k] += weight * (uint64_t)(int64_t)vgpu_sgemm_a(seed, i * n + k);
	}
	for (uint32_t k = 0; k < n; k++) {
		b_sum = 0;
		for (uint32_t j = 0; j < n; j++)
			b_sum += vgpu_sgemm_column_weight(seed, j) *
			         (uint64_t)(int64_t)vgpu_sgemm_b(seed, k * n + j);
		checksum += a_sums[k] * b_sum;
	}
	out->n = n;
	out->seed = seed;
	out->checksum = checksum;
	for (uint32_t k = 0; k < VGPU_SGEMM_SAMPLES; k++)
		out->samples[k] = element(n, seed, vgpu_sgemm_sample(seed, n, k));
	return 0;
}

uint64_t sgemm_checksum(const uint32_t *results)
{
	return (uint64_t)results[1] << 32 | results[0];
}

bool sgemm_check(const struct sgemm_expected *expected, const uint32_t *results, uint32_t count,
                 const char **why)
{
	float sample;

	if (count != VGPU_SGEMM_RESULTS) {
		*why = "wrong number of results";
		return false;
	}
	if (sgemm_checksum(results) != expected->checksum) {
		*why = "wrong checksum";
		return false;
	}
	for (uint32_t k = 0; k < VGPU_SGEMM_SAMPLES; k++) {
		memcpy(&sample, &results[2 + k], sizeof(sample));
		if (sample != (float)expected->samples[k]) {
			*why = "wrong sample";
			return false;
		}
	}
	return true;
}
