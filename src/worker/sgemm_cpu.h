/* SPDX-License-Identifier: MIT */
/*
 * The matrix product of vgpu/sgemm.h on one CPU. Built with -O3 on its own, so
 * that its loops are vectorised whatever the rest of the build uses.
 */
#ifndef WORKER_SGEMM_CPU_H
#define WORKER_SGEMM_CPU_H

#include <stddef.h>
#include <stdint.h>

#include "vgpu/sgemm.h"

/* Fills @a and @b, n * n elements each, from @seed. */
void sgemm_cpu_generate(float *a, float *b, uint32_t n, uint32_t seed);

/* C = A * B, all n x n, row-major, not overlapping. */
void sgemm_cpu_multiply(float *c, const float *a, const float *b, uint32_t n);

/* The checksum of a product @c of integers. */
uint64_t sgemm_cpu_checksum(const float *c, uint32_t n, uint32_t seed);

/*
 * The whole operation: generates, multiplies, sums. @n is 1..VGPU_SGEMM_MAX_N; needs
 * 12 * n * n bytes, freed before it returns. 0 or -ENOMEM.
 */
int sgemm_cpu(uint32_t results[VGPU_SGEMM_RESULTS], uint32_t n, uint32_t seed);

#endif
