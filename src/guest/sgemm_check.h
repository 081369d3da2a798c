/* SPDX-License-Identifier: MIT */
/*
 * Whether the answer to VGPU_OP_SGEMM is right, without multiplying matrices: the whole
 * product by its checksum, in O(n^2), and four elements each by its dot product.
 */
#ifndef GUEST_SGEMM_CHECK_H
#define GUEST_SGEMM_CHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "vgpu/sgemm.h"

/* What a right answer says. */
struct sgemm_expected {
	uint32_t n;
	uint32_t seed;
	uint64_t checksum;
	int32_t samples[VGPU_SGEMM_SAMPLES];
};

/* For @n 1..VGPU_SGEMM_MAX_N. Returns 0 or -ENOMEM. Takes about 0.2 s for the largest. */
int sgemm_expect(struct sgemm_expected *out, uint32_t n, uint32_t seed);

/* The checksum that @results, the VGPU_SGEMM_RESULTS words of an answer, claim. */
uint64_t sgemm_checksum(const uint32_t *results);

/*
 * Whether the @count @results are those that are expected. If not, *@why is a constant
 * English text. A zero may have either sign.
 */
bool sgemm_check(const struct sgemm_expected *expected, const uint32_t *results, uint32_t count,
                 const char **why);

#endif
