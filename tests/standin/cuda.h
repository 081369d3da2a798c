/* SPDX-License-Identifier: MIT */
/*
 * The functions of libcuda.so.1 that the stand-in has, under their real names.
 * Handles are opaque to callers; here they are indexes or pointers of its own.
 */
#ifndef STANDIN_CUDA_H
#define STANDIN_CUDA_H

#include <stddef.h>
#include <stdint.h>

struct event;
struct kernel;

int cuInit(unsigned int flags);
int cuDriverGetVersion(int *version);
int cuGetErrorName(int error, const char **name);
int cuGetErrorString(int error, const char **text);
int cuDeviceGetCount(int *count);
int cuDeviceGet(int *device, int index);
int cuDeviceGetName(char *name, int bytes, int device);
int cuDeviceGetUuid(uint8_t uuid[16], int device);
int cuDeviceTotalMem_v2(size_t *bytes, int device);
int cuDeviceGetAttribute(int *value, int attribute, int device);
int cuCtxCreate_v2(void **context, unsigned int flags, int device);
int cuCtxDestroy_v2(void *context);
int cuCtxSynchronize(void);
int cuModuleLoadData(const char **module, const char *image);
int cuModuleGetFunction(const struct kernel **function, const char *module, const char *name);
int cuMemAlloc_v2(uint64_t *address, size_t bytes);
int cuMemsetD8_v2(uint64_t address, unsigned char value, size_t bytes);
int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t bytes);
int cuMemHostAlloc(void **memory, size_t bytes, unsigned int flags);
int cuMemHostGetDevicePointer_v2(uint64_t *address, void *memory, unsigned int flags);
int cuStreamCreate(void **stream, unsigned int flags);
int cuStreamQuery(void *stream);
int cuEventCreate(struct event **event, unsigned int flags);
int cuEventRecord(struct event *event, void *stream);
int cuEventQuery(struct event *event);
int cuEventSynchronize(struct event *event);
int cuEventElapsedTime(float *ms, struct event *from, struct event *to);
int cuLaunchKernel(const struct kernel *kernel, unsigned int grid_x, unsigned int grid_y,
                   unsigned int grid_z, unsigned int block_x, unsigned int block_y,
                   unsigned int block_z, unsigned int shared_bytes, void *stream, void **params,
                   void **extra);

#endif
