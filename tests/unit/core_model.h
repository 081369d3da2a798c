/* SPDX-License-Identifier: MIT */
/*
 * A model of what is around a core, for random play: VMs, jobs and worker processes.
 *
 * It knows who may still expect what. Every action of the core goes through it and must
 * make sense: each accepted job is sent at most once, in the order of its VM, to a worker
 * that is there, and answered exactly once; refused jobs are never sent; workers are
 * started, stopped and killed only in states where that means something.
 */
#ifndef TESTS_CORE_MODEL_H
#define TESTS_CORE_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "core/core.h"
#include "core/trace/trace.h"
#include "core_ledger.h"

enum {
	VMS = 9,
	GPUS = 3,
	CLIENTS = 4,
	QUEUE_MAX = 24,
	JOBS_SENT_MAX = 8, /* four that need the GPU and four that do not */
	TICKETS = 64,
};

struct vm_model {
	bool exists;
	bool removing;
	uint64_t life; /* which VM this place is for */
	uint32_t number;
	uint64_t last_sent; /* cookie */
	uint64_t last_generation;
	uint32_t last_gpu;
	uint32_t place;     /* 1 + the number of its GPU; 0 = not seen yet */
	int64_t arrived_ns; /* there, from another; else INT64_MIN */
	bool cursed;        /* its workers never get ready */
	uint64_t unanswered;
	struct vm_settings settings;
	struct ledger ledger;
	bool untold;    /* faults have happened that no attempt was made to store yet */
	bool condemned; /* one of them brings a quarantine */
};

struct record {
	struct vm_model *vm;
	uint64_t job; /* once it is sent */
	bool without_gpu;
	bool sent;
	bool answered;
	bool result_given;
};

struct process {
	struct vm_model *vm; /* NULL = free */
	uint64_t generation;
	uint32_t gpu;
	bool ready, stopping, killed, stuck;
	uint64_t jobs[JOBS_SENT_MAX]; /* cookies, oldest first */
	unsigned int count;
};

struct ticket {
	struct vm_model *vm;
	uint64_t life; /* of the VM: another one may be in its place by now */
	struct core_store store;
};

/* What was reached, over all seeds: a test that reaches nothing proves nothing. */
struct reached {
	uint64_t codes[VGPU_CODE_COUNT];
	uint64_t busy[VGPU_BUSY_GPU_RESET + 1];
	uint64_t actions[CORE_ACTION_VM_GONE + 1];
	uint64_t quarantines, moves, stale, cancelled, waits, without_gpu;
	uint64_t rate_kept, depth_kept, reloads, forgiven, cleared;
};

struct play {
	struct core_config config;
	struct core *core;
	struct trace_player *mirror; /* the same happens to it, as it is told; or NULL */
	uint64_t random;
	uint64_t hash; /* of all actions */
	int64_t now_ns;
	struct vm_model vms[VMS];
	struct process processes[VMS];
	struct record *records; /* by cookie */
	uint64_t submitted;
	struct ticket tickets[TICKETS];
	unsigned int ticket_count;
	bool draining[GPUS], drained[GPUS], faulty[GPUS];
	int64_t blameless_until_ns[GPUS];
	uint32_t lost_detail; /* with which the last context was lost */
	uint64_t lives;
	uint32_t workers; /* after the last event */
	struct reached *reached;
};

/* The same numbers from the same seed. */
uint64_t random_below(struct play *play, uint64_t bound);
bool chance(struct play *play, uint64_t percent);

/* Takes the core's actions, checks each, and does to the model what it says. */
void play_drain(struct play *play);

/* After an event: the invariants, the actions, and what core and model must agree on. */
void play_look(struct play *play);

#endif
