/* SPDX-License-Identifier: MIT */
/*
 * See sgemm_cpu.h. The product goes through B in blocks that fit the second-level
 * cache, takes four rows of a block at once, and adds them to a row of C: the
 * innermost loop runs along contiguous memory without a reduction, which every
 * compiler vectorises.
 */
#include "worker/sgemm_cpu.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"

enum {
	BLOCK_ROWS = 128, /* of B; a multiple of 4 */
	BLOCK_COLUMNS = 512,
};

void sgemm_cpu_generate(float *a, float *b, uint32_t n, uint32_t seed)
{
	for (uint32_t i = 0; i < n * n; i++) {
		a[i] = (float)vgpu_sgemm_a(seed, i);
		b[i] = (float)vgpu_sgemm_b(seed, i);
	}
}

/* c[0..count) += sum over @rows of a[r] * b[r * stride + 0..count). */
static void add_rows(float *restrict c, const float *restrict a, const float *restrict b,
                     size_t stride, size_t rows, size_t count)
{
	size_t r = 0;

	for (; r + 4 <= rows; r += 4) {
		const float *restrict b0 = b + r * stride;
		const float *restrict b1 = b0 + stride;
		const float *restrict b2 = b1 + stride;
		const float *restrict b3 = b2 + stride;
		const float a0 = a[r], a1 = a[r + 1], a2 = a[r + 2], a3 = a[r + 3];

		for (size_t j = 0; j < count; j++)
			c[j] += a0 * b0[j] + a1 * b1[j] + a2 * b2[j] + a3 * b3[j];
	}
	for (; r < rows; r++) {
		const float *restrict b0 = b + r * stride;
		const float a0 = a[r];

		for (size_t j = 0; j < count; j++)
			c[j] += a0 * b0[j];
	}
}

void sgemm_cpu_multiply(float *c, const float *a, const float *b, uint32_t n)
{
	const size_t stride = n;

	memset(c, 0, stride * stride * sizeof(*c));
	for (size_t k = 0; k < stride; k += BLOCK_ROWS) {
		size_t rows = min_u64(BLOCK_ROWS, stride - k);

		for (size_t j = 0; j < stride; j += BLOCK_COLUMNS) {
			size_t columns = min_u64(BLOCK_COLUMNS, stride - j);

			for (size_t i = 0; i < stride; i++)
				add_rows(c + i * stride + j, a + i * stride + k, b + k * stride + j,
				         stride, rows, columns);
		}
	}
}

uint64_t sgemm_cpu_checksum(const float *c, uint32_t n, uint32_t seed)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < n; i++) {
		const float *row = c + (size_t)i * n;
		uint64_t row_sum = 0;

		for (uint32_t j = 0; j < n; j++)
			row_sum += (uint64_t)(int64_t)row[j] * vgpu_sgemm_column_weight(seed, j);
		sum += row_sum * vgpu_sgemm_row_weight(seed, i);
	}
	return sum;
}

int sgemm_cpu(uint32_t results[VGPU_SGEMM_RESULTS], uint32_t n, uint32_t seed)
{
	const size_t elements = (size_t)n * n;
	CLEANUP(freep) float *a = malloc(elements * sizeof(*a));
	CLEANUP(freep) float *b = malloc(elements * sizeof(*b));
	CLEANUP(freep) float *c = malloc(elements * sizeof(*c));
	uint64_t checksum;

	if (!a || !b || !c)
		return -ENOMEM;
	sgemm_cpu_generate(a, b, n, seed);
	sgemm_cpu_multiply(c, a, b, n);
	checksum = sgemm_cpu_checksum(c, n, seed);
	results[0] = (uint32_t)checksum;
	results[1] = (uint32_t)(checksum >> 32);
	for (uint32_t k = 0; k < VGPU_SGEMM_SAMPLES; k++)
		memcpy(&results[2 + k], &c[vgpu_sgemm_sample(seed, n, k)], sizeof(results[0]));
	return 0;
}
