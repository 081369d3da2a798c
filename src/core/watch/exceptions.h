/* SPDX-License-Identifier: MIT */
/*
 * Whose doing is it that a GPU context is lost? The driver's error tells, though not for
 * certain: what a job can do to itself it can also suffer from hardware that fails, and
 * then the GPU's own messages tell (core_gpu_hardware_fault()).
 */
#ifndef CORE_EXCEPTIONS_H
#define CORE_EXCEPTIONS_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Whether a kernel that is wrong brings this CUresult. False for all others: memory and
 * links that fail, a system that is not ready, a GPU that is gone, errors unknown.
 */
bool exception_is_the_jobs(uint32_t cuda_result);

#endif
