/* SPDX-License-Identifier: MIT */
/*
 * The matrix product of VGPU_OP_SGEMM, defined so that GPU, CPU and guest agree
 * to the bit.
 *
 * C = A * B, all n x n, float32, row-major. Element i of A (i = row * n + column) is
 * vgpu_sgemm_a(seed, i), an integer from -4 to 4, and likewise for B. A dot product is
 * then an integer of at most 16 * 4096 = 65536 < 2^24, so that every partial sum is
 * exact in float32 in any order and with or without fused multiply-add.
 *
 * The checksum is the sum over all elements of c[i][j] * u[i] * v[j] modulo 2^64, where
 * u and v are pseudo-random weights of row and column. It does not depend on the order
 * either, and because the weights factor, whoever asked can verify the whole product in
 * O(n^2) without multiplying matrices: it equals
 *     sum over k of (sum over i of u[i] * a[i][k]) * (sum over j of v[j] * b[k][j]).
 * (After R. Freivalds, "Probabilistic machines can use less running time", 1977.)
 *
 * Request: parameters n (1..VGPU_SGEMM_MAX_N) and seed. Response: checksum low word,
 * high word, then VGPU_SGEMM_SAMPLES elements of C as float32 bit patterns.
 */
#ifndef VGPU_SGEMM_H
#define VGPU_SGEMM_H

#include <stdint.h>

#define VGPU_SGEMM_MAX_N   4096
#define VGPU_SGEMM_SAMPLES 4
#define VGPU_SGEMM_RESULTS (2 + VGPU_SGEMM_SAMPLES)

/* What keeps the streams of numbers made from one seed apart. */
enum vgpu_sgemm_stream {
	VGPU_SGEMM_STREAM_A = 0x0a,
	VGPU_SGEMM_STREAM_B = 0x0b,
	VGPU_SGEMM_STREAM_ROW = 0x17,
	VGPU_SGEMM_STREAM_COLUMN = 0x29,
	VGPU_SGEMM_STREAM_SAMPLE = 0x3d,
};

/*
 * A counter-based generator: the finaliser of MurmurHash3 (Austin Appleby, public
 * domain) over counter, seed and stream. Arithmetic is modulo 2^32.
 */
static inline uint32_t vgpu_sgemm_mix(uint32_t seed, uint32_t stream, uint32_t counter)
{
	uint32_t h = counter * 0x9e3779b1u + seed;

	h ^= stream * 0x85ebca77u;
	h ^= h >> 16;
	h *= 0x85ebca6bu;
	h ^= h >> 13;
	h *= 0xc2b2ae35u;
	h ^= h >> 16;
	return h;
}

/* Element @index of A. */
static inline int32_t vgpu_sgemm_a(uint32_t seed, uint32_t index)
{
	return (int32_t)(vgpu_sgemm_mix(seed, VGPU_SGEMM_STREAM_A, index) % 9) - 4;
}

/* Element @index of B. */
static inline int32_t vgpu_sgemm_b(uint32_t seed, uint32_t index)
{
	return (int32_t)(vgpu_sgemm_mix(seed, VGPU_SGEMM_STREAM_B, index) % 9) - 4;
}

/* Checksum weight of row @i. */
static inline uint64_t vgpu_sgemm_row_weight(uint32_t seed, uint32_t i)
{
	return vgpu_sgemm_mix(seed, VGPU_SGEMM_STREAM_ROW, i);
}

/* Checksum weight of column @j. */
static inline uint64_t vgpu_sgemm_column_weight(uint32_t seed, uint32_t j)
{
	return vgpu_sgemm_mix(seed, VGPU_SGEMM_STREAM_COLUMN, j);
}

/* Index into C of sample @k: the first and the last element, then two by the seed. */
static inline uint32_t vgpu_sgemm_sample(uint32_t seed, uint32_t n, uint32_t k)
{
	if (k == 0)
		return 0;
	if (k == 1)
		return n * n - 1;
	return vgpu_sgemm_mix(seed, VGPU_SGEMM_STREAM_SAMPLE, k) % (n * n);
}

#endif
