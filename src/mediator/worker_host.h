/* SPDX-License-Identifier: MIT */
/*
 * Worker processes: started, fed, listened to, stopped, reaped.
 *
 * A worker is known by its generation, which the core gives it. Whatever it does wrong
 * (a packet that does not decode, a closed socket, not taking its jobs) ends in its
 * death, and that is told exactly once, after everything that it had still said.
 */
#ifndef MEDIATOR_WORKER_HOST_H
#define MEDIATOR_WORKER_HOST_H

#include <stdbool.h>
#include <stdint.h>

#include "core/core.h"
#include "mediator/message.h"
#include "proto/worker_msg.h"

struct children;
struct event_base;
struct log_limit;
struct worker_host;

struct worker_host_config {
	const char *program; /* path of vgpu-worker */
	const char *backend; /* "cpu" or "cuda" */
	uint32_t uid_base;   /* worker of VM n runs as uid_base + n; 0 = as ourselves */
	int pin_cpu;         /* the one processor of the cpu backend; -1 = any */
	bool allow_test_ops;
	const char *log_level;
};

struct worker_host_ops {
	void (*ready)(void *owner, uint32_t vm, uint64_t generation,
	              const struct worker_device *device);
	/* 0: the result is the callee's; -ESTALE: that worker does not have this job. */
	int (*done)(void *owner, uint32_t vm, uint64_t generation, uint64_t job,
	            const struct core_result *result);
	/* @status is what waitpid() said; 0 for one that could not be started. */
	void (*dead)(void *owner, uint32_t vm, uint64_t generation, int status);
};

/* @children and @config's strings must outlive the host. */
int worker_host_new(struct worker_host **out, struct event_base *base, struct children *children,
                    const struct worker_host_config *config, const struct worker_host_ops *ops,
                    void *owner);

/* Forgets its workers; children_free(), to be called first, has ended them. */
void worker_host_free(struct worker_host *host);
DEFINE_CLEANUP(worker_host)

struct worker_start {
	uint32_t vm;
	uint64_t generation;
	const char *gpu;             /* "" = the backend has none to choose */
	const char *label;           /* the VM's, for the log */
	struct log_limit *log_limit; /* the VM's, for what its workers print; outlives them */
};

/* Starts a worker. If that fails, dead() is called once the present event is over. */
void worker_host_start(struct worker_host *host, const struct worker_start *start);

/* Jobs that it has are finished first. Unknown generations are ignored here and below. */
void worker_host_stop(struct worker_host *host, uint64_t generation);
void worker_host_kill(struct worker_host *host, uint64_t generation);
void worker_host_send(struct worker_host *host, uint64_t generation, uint64_t job, uint32_t opcode,
                      const struct message *request);

struct worker_info {
	uint32_t vm;
	uint64_t generation;
	int32_t pid;
	bool ready;
	int64_t since_ns;            /* of CLOCK_MONOTONIC */
	struct worker_device device; /* once ready; used_mib is what its jobs hold */
	int64_t told_ns;             /* since when they hold that; INT64_MAX = not ready yet */
};

/* Calls @each for every worker that is not reaped yet. */
void worker_host_walk(struct worker_host *host,
                      void (*each)(void *context, const struct worker_info *info), void *context);

#endif
