/* SPDX-License-Identifier: MIT */
/*
 * The built-in GPU kernels: PTX from kernels/, part of the program, compiled by the
 * driver for whatever GPU it finds.
 */
#ifndef WORKER_CUDA_KERNELS_H
#define WORKER_CUDA_KERNELS_H

#include "worker/cuda_api.h"

enum cuda_kernel {
	CUDA_KERNEL_NOP,
	CUDA_KERNEL_ADD,
	CUDA_KERNEL_SPIN,
	CUDA_KERNEL_FAULT,
	CUDA_KERNEL_HANG,
	CUDA_KERNEL_SGEMM_FILL,
	CUDA_KERNEL_SGEMM_MULTIPLY,
	CUDA_KERNEL_SGEMM_SUM,
	CUDA_KERNEL_SGEMM_COLLECT,
	CUDA_KERNEL_COUNT,
};

/*
 * Loads all modules into the current context and finds every kernel. 0, or a negative
 * errno with *@failure filled. The functions live as long as the context.
 */
int cuda_kernels_load(void *functions[CUDA_KERNEL_COUNT], const struct cuda_api *api,
                      struct backend_failure *failure);

#endif
