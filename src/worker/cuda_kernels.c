/* SPDX-License-Identifier: MIT */
/*
 * See cuda_kernels.h. The texts themselves are put into the program by
 * cuda_kernels.S.
 */
#include "worker/cuda_kernels.h"

#include <stdio.h>

#include "base/util.h"

extern const char cuda_ptx_basic[];
extern const char cuda_ptx_test[];
extern const char cuda_ptx_sgemm[];

enum module {
	MODULE_BASIC,
	MODULE_TEST,
	MODULE_SGEMM,
	MODULE_COUNT,
};

static const struct {
	const char *name;
	const char *ptx;
} modules[MODULE_COUNT] = {
	[MODULE_BASIC] = {"basic", cuda_ptx_basic},
	[MODULE_TEST] = {"test", cuda_ptx_test},
	[MODULE_SGEMM] = {"sgemm", cuda_ptx_sgemm},
};

static const struct {
	enum module module;
	const char *name;
} kernels[CUDA_KERNEL_COUNT] = {
	[CUDA_KERNEL_NOP] = {MODULE_BASIC, "vgpu_nop"},
	[CUDA_KERNEL_ADD] = {MODULE_BASIC, "vgpu_add"},
	[CUDA_KERNEL_SPIN] = {MODULE_TEST, "vgpu_spin"},
	[CUDA_KERNEL_FAULT] = {MODULE_TEST, "vgpu_fault"},
	[CUDA_KERNEL_HANG] = {MODULE_TEST, "vgpu_hang"},
	[CUDA_KERNEL_SGEMM_FILL] = {MODULE_SGEMM, "vgpu_sgemm_fill"},
	[CUDA_KERNEL_SGEMM_MULTIPLY] = {MODULE_SGEMM, "vgpu_sgemm_multiply"},
	[CUDA_KERNEL_SGEMM_SUM] = {MODULE_SGEMM, "vgpu_sgemm_sum"},
	[CUDA_KERNEL_SGEMM_COLLECT] = {MODULE_SGEMM, "vgpu_sgemm_collect"},
};

int cuda_kernels_load(void *functions[CUDA_KERNEL_COUNT], const struct cuda_api *api,
                      struct backend_failure *failure)
{
	void *loaded[MODULE_COUNT];
	char what[80];
	int r;

	for (size_t i = 0; i < MODULE_COUNT; i++) {
		r = api->module_load(&loaded[i], modules[i].ptx);
		if (r != CUDA_SUCCESS) {
			snprintf(what, sizeof(what), "compiling the built-in kernels \"%s\"",
			         modules[i].name);
			return cuda_api_fail(api, failure, r, what);
		}
	}
	for (size_t i = 0; i < CUDA_KERNEL_COUNT; i++) {
		r = api->module_function(&functions[i], loaded[kernels[i].module], kernels[i].name);
		if (r != CUDA_SUCCESS) {
			snprintf(what, sizeof(what), "finding the kernel %s", kernels[i].name);
			return cuda_api_fail(api, failure, r, what);
		}
	}
	return 0;
}
