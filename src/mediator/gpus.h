/* SPDX-License-Identifier: MIT */
/*
 * Which GPUs there are for which pool, found out once at start by asking a worker.
 */
#ifndef MEDIATOR_GPUS_H
#define MEDIATOR_GPUS_H

#include "mediator/config.h"

enum {
	GPU_TEXT_BYTES = 96,
	GPU_PROBE_TIMEOUT_S = 30,
};

struct gpu_info {
	char spec[GPU_TEXT_BYTES]; /* what a worker's --gpu takes; "" with the cpu backend */
	char uuid[GPU_TEXT_BYTES];
	char name[GPU_TEXT_BYTES];
	bool answers; /* at the start */
};

struct gpu_table {
	bool cuda;
	struct gpu_info gpus[CORE_MAX_GPUS];
	uint32_t count;
	uint32_t pool_mask[POOL_COUNT];
};

/*
 * Chooses the backend that @config asks for and fills @out. Errors are logged with their
 * remedy. Returns 0, or -ENODEV when no GPU that the configuration names answers, or one does not
 * that it names by index: then nobody knows which one it is.
 */
int gpus_find(struct gpu_table *out, const struct config *config, const char *worker_program);

#endif
