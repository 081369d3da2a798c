/* SPDX-License-Identifier: MIT */
/* See exceptions.h. */
#include "core/watch/exceptions.h"

#include <stddef.h>

#include "base/util.h"

bool exception_is_the_jobs(uint32_t cuda_result)
{
	static const uint16_t exceptions[] = {
		700, /* illegal address */
		702, /* launch timed out */
		710, /* assert */
		714, /* hardware stack error */
		715, /* illegal instruction */
		716, /* misaligned address */
		717, /* invalid address space */
		718, /* invalid program counter */
		719, /* launch failed */
		721, /* tensor memory not given back */
	};

	for (size_t i = 0; i < ARRAY_LEN(exceptions); i++) {
		if (exceptions[i] == cuda_result)
			return true;
	}
	return false;
}
