/* SPDX-License-Identifier: MIT */
/*
 * One reading of one GPU: every value that NVML has, each marked as known or not.
 *
 * Any call may hang, so each is announced in a struct nvml_watch first, where another
 * thread can see which one it is and since when.
 */
#ifndef MEDIATOR_NVML_SAMPLE_H
#define MEDIATOR_NVML_SAMPLE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "core/watch/health.h"
#include "mediator/nvml_api.h"

enum { NVML_PROCESSES_MAX = 256 };

struct nvml_use {
	int32_t pid;    /* as the driver sees it: of the host's pid namespace */
	uint64_t bytes; /* NVML_VALUE_NOT_AVAILABLE */
};

struct nvml_reading {
	int64_t at_ns; /* CLOCK_MONOTONIC */
	struct health_reading health;
	bool processes_known; /* false also when there are more than fit */
	uint32_t process_count;
	struct nvml_use processes[NVML_PROCESSES_MAX];
};

struct nvml_watch {
	_Atomic int64_t since_ns; /* a call runs since then; 0 = none does */
	_Atomic(const char *) call;
};

static inline void nvml_watch_begin(struct nvml_watch *watch, const char *call)
{
	atomic_store(&watch->call, call);
	atomic_store(&watch->since_ns, clock_monotonic_ns());
}

static inline void nvml_watch_end(struct nvml_watch *watch)
{
	atomic_store(&watch->since_ns, 0);
}

/* Fills @out for the GPU behind @handle. */
void nvml_sample(struct nvml_reading *out, const struct nvml_api *api, void *handle,
                 struct nvml_watch *watch);

/* Marks @out as that of a GPU for which @call has failed with @result. */
void nvml_sample_error(struct nvml_reading *out, const struct nvml_api *api, int result,
                       const char *call);

#endif
