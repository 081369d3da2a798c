/* SPDX-License-Identifier: MIT */
/*
 * See cuda_api.h. Symbols have versions: the suffixed name is the one that goes with
 * the signature declared there, the plain one an older variant.
 */
#include "worker/cuda_api.h"

#include <dlfcn.h>
#include <errno.h>

#include "base/util.h"

#define SYMBOL(name, member)                            \
	{                                               \
		name, offsetof(struct cuda_api, member) \
	}

static const struct {
	const char *name;
	size_t offset; /* of the pointer in struct cuda_api */
} symbols[] = {
	SYMBOL("cuInit", init),
	SYMBOL("cuDriverGetVersion", driver_version),
	SYMBOL("cuGetErrorName", error_name),
	SYMBOL("cuGetErrorString", error_string),
	SYMBOL("cuDeviceGetCount", device_count),
	SYMBOL("cuDeviceGet", device_get),
	SYMBOL("cuDeviceGetName", device_name),
	SYMBOL("cuDeviceGetUuid", device_uuid),
	SYMBOL("cuDeviceTotalMem_v2", device_memory),
	SYMBOL("cuDeviceGetAttribute", device_attribute),
	SYMBOL("cuCtxCreate_v2", context_create),
	SYMBOL("cuCtxDestroy_v2", context_destroy),
	SYMBOL("cuCtxSynchronize", context_synchronize),
	SYMBOL("cuModuleLoadData", module_load),
	SYMBOL("cuModuleGetFunction", module_function),
	SYMBOL("cuMemAlloc_v2", memory_alloc),
	SYMBOL("cuMemsetD8_v2", memory_fill),
	SYMBOL("cuMemcpyDtoH_v2", memory_read),
	SYMBOL("cuMemHostAlloc", host_alloc),
	SYMBOL("cuMemHostGetDevicePointer_v2", host_address),
	SYMBOL("cuStreamCreate", stream_create),
	SYMBOL("cuStreamQuery", stream_query),
	SYMBOL("cuEventCreate", event_create),
	SYMBOL("cuEventRecord", event_record),
	SYMBOL("cuEventQuery", event_query),
	SYMBOL("cuEventSynchronize", event_synchronize),
	SYMBOL("cuEventElapsedTime", event_elapsed),
	SYMBOL("cuLaunchKernel", launch),
};

_Static_assert(sizeof(struct cuda_api) == ARRAY_LEN(symbols) * sizeof(void *),
               "every function has its symbol");

/* What helps against errors that operators meet. */
static const struct {
	int result;
	const char *remedy;
} remedies[] = {
	{2, "GPU memory is full: lower max_workers or worker_idle_s"},
	{3, "the driver is not ready: is the nvidia kernel module loaded (lsmod)?"},
	{100, "is there an NVIDIA GPU (lspci), and does nvidia-smi show it?"},
	{222, "the driver is too old for the built-in kernels: update it"},
	{802, "the NVSwitch fabric is not ready: is nvidia-fabricmanager running?"},
	{803, "kernel module and library differ in version: reboot after a driver update"},
	{999, "does nvidia-smi work, and may the worker's uid open /dev/nvidia*?"},
};

int cuda_api_load(struct cuda_api *out, struct backend_failure *failure)
{
	void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);

	if (!library)
		return backend_fail(failure, -ENOENT, VGPU_CODE_UNAVAILABLE, ENOENT,
		                    "libcuda.so.1 not found: is the NVIDIA driver installed in "
		                    "this system? (%s)",
		                    dlerror());
	for (size_t i = 0; i < ARRAY_LEN(symbols); i++) {
		void *symbol = dlsym(library, symbols[i].name);

		if (!symbol)
			return backend_fail(failure, -ENOSYS, VGPU_CODE_UNAVAILABLE, ENOSYS,
			                    "libcuda.so.1 has no symbol %s: the NVIDIA driver is "
			                    "too old (CUDA 11.4 or newer is needed)",
			                    symbols[i].name);
		*(void **)(void *)((char *)out + symbols[i].offset) = symbol;
	}
	return 0;
}

int cuda_api_fail(const struct cuda_api *api, struct backend_failure *failure, int result,
                  const char *call)
{
	const char *name = "unknown error", *text = "no text", *remedy = "";

	api->error_name(result, &name);
	api->error_string(result, &text);
	for (size_t i = 0; i < ARRAY_LEN(remedies); i++) {
		if (remedies[i].result == result)
			remedy = remedies[i].remedy;
	}
	return backend_fail(failure, -EIO, VGPU_CODE_CUDA, (uint32_t)result, "%s: %s (%d, %s)%s%s",
	                    call, name, result, text, *remedy ? "; " : "", remedy);
}
