/* SPDX-License-Identifier: MIT */
/*
 * What the files that watch the GPUs share; nobody else includes it.
 *
 *   gpu_watch.c           events, drain and reset
 *   gpu_watch_describe.c  what operators see
 */
#ifndef MEDIATOR_GPU_WATCH_INTERNAL_H
#define MEDIATOR_GPU_WATCH_INTERNAL_H

#include "mediator/internal.h"

/* Where the reset of one GPU is. */
enum reset_step {
	RESET_NONE,
	RESET_RELEASING, /* NVML is asked to let go */
	RESET_COMMAND,   /* the operator's command runs */
	RESET_VERIFYING, /* a probe runs */
};

struct watched {
	struct gpu_watch *watch;
	uint32_t index;
	struct health *health;
	struct nvml_reading last;
	bool has_reading;
	bool by_hand; /* an operator drained it */
	bool stuck;   /* a worker there cannot be killed */
	bool drained; /* the core has said so */
	enum reset_step step;
	pid_t pid; /* of the step's process; 0 = none */
	struct event *timeout;
};

struct gpu_watch {
	struct mediator *mediator;
	struct nvml_reader *reader; /* NULL with the cpu backend */
	struct watched *gpus;
	uint32_t count;
};

#endif
