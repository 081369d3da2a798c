/* SPDX-License-Identifier: MIT */
/*
 * A scenario played in virtual time: the daemon's own core, with workers, guests and
 * GPUs that exist only in the model.
 *
 * Nothing here decides anything: core actions become things that happen later, and
 * what happens becomes core events.
 */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "core/core.h"
#include "sim/policies.h"
#include "sim/scenario.h"

struct audit;

enum { WORLD_BUCKETS = 240 }; /* of a timeline picture */

/* What became of one VM, without the warm-up. */
struct world_vm_result {
	int64_t charged_ns;     /* by the policy */
	int64_t occupied_ns;    /* of the GPU, what it took to turn to it included */
	int64_t useful_ns;      /* its jobs ran */
	double due_charged_ns;  /* its part by weight of what the VMs that share were charged, */
	double due_occupied_ns; /* and of the GPU time that they had */
	int64_t turn_ns;        /* what one turn of it can be charged at most */
	uint64_t done;
	uint64_t refused;
	uint64_t failed;
	/*
	 * Arrival to the end on the GPU, less the job's length; with world_options.record.
	 * Of a job without an answer, so far.
	 */
	int64_t *waits_ns;
	uint32_t wait_count;
	uint32_t wait_capacity;
	int64_t occupied_at_ns[WORLD_BUCKETS + 1];
};

struct world_result {
	struct world_vm_result vms[SCENARIO_VMS];
	int64_t elapsed_ns;
	uint64_t gpu_switches;
	uint64_t decisions; /* of the scheduler: whose job next, or nobody's */
	uint64_t turns;
	uint64_t sent;         /* jobs */
	uint64_t events;       /* of the core */
	uint64_t hash;         /* of all actions and when they came */
	const char *violation; /* NULL, or what did not hold */
	int64_t violation_ns;
};

struct world;

/* Called after every event of the core; returns NULL or what does not hold. */
typedef const char *world_observer(void *context, struct world *world);

struct world_options {
	const struct sim_policy *policy;
	bool record; /* waits and pictures */
	bool settle; /* at the end nothing goes wrong any more: all must come to an end */
	world_observer *observer;
	void *observer_context;
	struct audit *audit; /* NULL = none */
};

/* Returns 0 or -ENOMEM; free *@out with world_result_fini(). */
int world_run(struct world_result *out, const struct scenario *scenario,
              const struct world_options *options);
void world_result_fini(struct world_result *result);

/* For observers. */
struct core *world_core(const struct world *world);
int64_t world_now_ns(const struct world *world);
/* How often the mediator was killed. */
uint32_t world_epoch(const struct world *world);
const struct scenario *world_scenario(const struct world *world);
const struct scenario_rules *world_rules(const struct world *world);
/* Jobs handed to the core and not yet answered. */
uint32_t world_unanswered(const struct world *world);
/* The VM's number in the core, or false while it is not there. */
bool world_vm_present(const struct world *world, uint32_t vm, uint32_t *core_vm);

#endif
