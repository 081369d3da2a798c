/* SPDX-License-Identifier: MIT */
/*
 * What a backend is: a small table of functions over a device that executes jobs
 * one after another.
 *
 * Jobs are submitted ahead of their turn, up to WORKER_QUEUE_JOBS, so that the
 * device has the next one before the last has ended. They end in the order of
 * their submission, and only the oldest is ever asked about.
 */
#ifndef WORKER_BACKEND_H
#define WORKER_BACKEND_H

#include <stdbool.h>
#include <stdint.h>

#include "base/util.h"
#include "proto/worker_msg.h"
#include "worker/operation.h"

enum {
	WORKER_QUEUE_JOBS = 8, /* in flight at once; further packets wait in the socket */
};

struct job {
	uint64_t id;                       /* the mediator's name for it */
	const struct operation *operation; /* NULL when the request was refused */
	uint32_t params[OPERATION_PARAMS];
	unsigned int slot; /* below WORKER_QUEUE_JOBS, unique among jobs in flight */
	/* The outcome, complete once the job has ended. */
	bool ended;
	uint32_t code;     /* enum vgpu_code */
	uint32_t detail;   /* CUresult or errno */
	bool context_lost; /* because of it, or of one before it */
	uint32_t results[OPERATION_RESULTS];
	uint32_t result_count;
	const char *data; /* text behind the results, or NULL */
	uint64_t gpu_time_ns;
};

/* Why a backend did not start, in the terms of START_FAILED. */
struct backend_failure {
	uint32_t code;   /* enum vgpu_code */
	uint32_t detail; /* CUresult or errno */
	char text[512];  /* English, with the remedy where one is known */
};

struct backend_options {
	const char *gpu; /* index or "GPU-<uuid>"; NULL is the first */
	bool blocking;   /* sleep in the driver rather than spin */
	bool test_ops;   /* SPIN will be asked for */
};

struct backend_info {
	struct worker_device device; /* used_mib: what this worker's jobs hold now */
	char uuid[48];
	char driver[32]; /* version, or "" */
};

/* Conditions of submit and poll. */
enum {
	BACKEND_E_RUNNING = 1, /* the job has not ended yet */
	BACKEND_E_LOST,        /* the device context is dead; job->detail says why */
};

/* Every backend's own structure begins with this one. */
struct backend {
	const struct backend_ops *ops;
	struct backend_info info;
};

struct backend_ops {
	const char *name;

	/*
	 * How long the worker looks for another job before it sleeps, since waking up costs
	 * more than a short job; 0 where the device is this very processor. It looks as long as
	 * jobs come that soon.
	 */
	int64_t linger_ns;
	/*
	 * Opens the device. 0, or a negative errno with *@failure filled. The caller
	 * owns *@out and hands it to stop.
	 */
	int (*start)(struct backend **out, const struct backend_options *options,
	             struct backend_failure *failure);

	/* Frees everything; nothing may be in flight. */
	void (*stop)(struct backend *backend);

	/*
	 * Queues @job, whose operation needs the device. A job that cannot be
	 * launched is ended with its code at once. 0 or BACKEND_E_LOST.
	 */
	int (*submit)(struct backend *backend, struct job *job);

	/*
	 * Has @job, the oldest that has not ended, ended? 0 with the outcome filled,
	 * BACKEND_E_RUNNING or BACKEND_E_LOST. May take as long as the job does where
	 * the device is this very thread, or where options.blocking was asked for.
	 */
	int (*poll)(struct backend *backend, struct job *job);
};

extern const struct backend_ops cpu_backend;
extern const struct backend_ops cuda_backend;

/* The backend called @name, or NULL. */
const struct backend_ops *backend_find(const char *name);

/* Fills @failure; always returns @error, a negative errno. */
int backend_fail(struct backend_failure *failure, int error, uint32_t code, uint32_t detail,
                 const char *format, ...) PRINTF(5, 6);

#endif
