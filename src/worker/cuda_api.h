/* SPDX-License-Identifier: MIT */
/*
 * The part of NVIDIA's driver API that the cuda backend uses, found in libcuda.so.1
 * at run time: nothing of NVIDIA's is needed to build. Types are declared here from the
 * API's documented binary interface; handles are opaque pointers.
 *
 * Functions return a CUresult: 0 is success.
 */
#ifndef WORKER_CUDA_API_H
#define WORKER_CUDA_API_H

#include <stddef.h>
#include <stdint.h>

#include "worker/backend.h"

enum {
	CUDA_SUCCESS = 0,
	CUDA_ERROR_OUT_OF_MEMORY = 2,
	CUDA_ERROR_NOT_READY = 600,

	CUDA_ATTRIBUTE_MULTIPROCESSORS = 16,
	CUDA_ATTRIBUTE_THREADS_PER_MULTIPROCESSOR = 39,
	CUDA_ATTRIBUTE_CAPABILITY_MAJOR = 75,
	CUDA_ATTRIBUTE_CAPABILITY_MINOR = 76,

	CUDA_CONTEXT_YIELD = 2,
	CUDA_CONTEXT_BLOCKING = 4,
	CUDA_CONTEXT_MAP_HOST = 8,
	CUDA_STREAM_NON_BLOCKING = 1, /* not ordered with the default stream */
	CUDA_EVENT_BLOCKING = 1,
	CUDA_HOST_ALLOC_MAPPED = 2,
};

struct cuda_uuid {
	uint8_t bytes[16];
};

struct cuda_api {
	int (*init)(unsigned int flags);
	int (*driver_version)(int *version);
	int (*error_name)(int error, const char **name);
	int (*error_string)(int error, const char **text);
	int (*device_count)(int *count);
	int (*device_get)(int *device, int index);
	int (*device_name)(char *name, int bytes, int device);
	int (*device_uuid)(struct cuda_uuid *uuid, int device);
	int (*device_memory)(size_t *bytes, int device);
	int (*device_attribute)(int *value, int attribute, int device);
	int (*context_create)(void **context, unsigned int flags, int device);
	int (*context_destroy)(void *context);
	int (*context_synchronize)(void);
	int (*module_load)(void **module, const void *image);
	int (*module_function)(void **function, void *module, const char *name);
	int (*memory_alloc)(uint64_t *address, size_t bytes);
	int (*memory_fill)(uint64_t address, unsigned char value, size_t bytes);
	int (*memory_read)(void *to, uint64_t address, size_t bytes);
	int (*host_alloc)(void **memory, size_t bytes, unsigned int flags);
	int (*host_address)(uint64_t *address, void *memory, unsigned int flags);
	int (*stream_create)(void **stream, unsigned int flags);
	int (*stream_query)(void *stream);
	int (*event_create)(void **event, unsigned int flags);
	int (*event_record)(void *event, void *stream);
	int (*event_query)(void *event);
	int (*event_synchronize)(void *event);
	int (*event_elapsed)(float *ms, void *from, void *to);
	int (*launch)(void *function, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z,
	              unsigned int block_x, unsigned int block_y, unsigned int block_z,
	              unsigned int shared_bytes, void *stream, void **params, void **extra);
};

/*
 * Loads libcuda.so.1 and every symbol of struct cuda_api. 0, or a negative errno with
 * *@failure saying what is missing. The library stays loaded until the process ends:
 * the driver's threads run in it.
 */
int cuda_api_load(struct cuda_api *out, struct backend_failure *failure);

/*
 * For a CUresult of @call while starting: fills @failure with its name, its meaning and
 * what may help. Returns -EIO.
 */
int cuda_api_fail(const struct cuda_api *api, struct backend_failure *failure, int result,
                  const char *call);

#endif
