/* SPDX-License-Identifier: MIT */
/*
 * What the files of a played world share among themselves; nobody else includes it.
 *
 *   world.c   time, workers, the core's actions, what comes out
 *   guests.c  what VMs submit, and what they do with answers
 */
#ifndef SIM_WORLD_INTERNAL_H
#define SIM_WORLD_INTERNAL_H

#include "sim/gpu_model.h"
#include "sim/random.h"
#include "sim/timeline.h"
#include "sim/world.h"

/* A job on its way: the core's payload. */
struct sim_job {
	struct sim_job *next_free;
	int64_t arrived_ns;
	int64_t length_ns;
	bool faulty;
};

struct sim_vm {
	uint32_t core_vm;
	bool present; /* in the core */
	bool leaving;
	bool alive; /* its worker */
	uint64_t generation;
	uint32_t gpu;
	struct vm_settings settings;
	struct sim_random random;
	uint64_t jobs;
	bool quarantined; /* by an operator */
	bool hang_next;
	bool fault_next;
	struct dated on_gpu[GPU_MODEL_STREAM]; /* in the context's stream, a ring */
	uint32_t on_gpu_first;
	uint32_t on_gpu_count;
	struct gpu_model_context_stats warmup;
	int64_t warmup_charged_ns;
};

struct world {
	const struct scenario *scenario;
	const struct world_options *options;
	struct world_result *result;
	struct core *core;
	struct gpu_model *gpus[2];
	struct timeline timeline;
	struct sim_vm vms[SCENARIO_VMS];
	struct sim_job *free_jobs;
	int64_t now_ns;
	uint32_t standstill; /* steps since time last went on */
	uint32_t unanswered; /* jobs that the core has */
	uint32_t bucket;
	bool warm;
	int error;
};

/* world.c */
/* Has @item happen at its time; notes in world.error when there is no memory. */
void world_later(struct world *world, const struct dated *item);

/* guests.c */
/* The VM is there: its first jobs. */
void guest_start(struct world *world, uint32_t vm);
/* A job arrives, and with an open loop the next one is on its way. */
void guest_submit(struct world *world, uint32_t vm);
/* The guest got its answer; a loop goes on. */
void guest_answered(struct world *world, uint32_t vm, const struct core_answer *answer);
/* Takes back the payload of an answered job. */
void guest_put_job(struct world *world, struct sim_job *job);

#endif
