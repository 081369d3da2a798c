/* SPDX-License-Identifier: MIT */
/*
 * See retry.h.
 */
#include "guest/retry.h"

#include "base/util.h"
#include "vgpu/vgpu.h"

static const uint32_t longest_us[] = {200000, 400000, 1000000, 2500000, 5000000};

_Static_assert(ARRAY_LEN(longest_us) == VGPU_RETRIES_MAX, "one longest sleep per retry");

int64_t retry_delay_us(unsigned int attempt, uint32_t retry_after_us, uint32_t random)
{
	uint64_t half_us = longest_us[attempt - 1] / 2;
	uint64_t drawn_us = half_us + ((half_us + 1) * random >> 32);

	return (int64_t)max_u64(drawn_us, retry_after_us);
}
