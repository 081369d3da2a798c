/* SPDX-License-Identifier: MIT */
/*
 * The scheduler's bounds, watched from outside after every event of the core: what
 * relates VMs over time, beyond what the scheduler can check of itself.
 *
 *   1  a ready VM's start tag leads virtual time by at most M
 *   2  charges of two VMs, by weight, drift apart by at most (M + E) of each while the
 *      one behind always wants the GPU
 *   3  ready to granted takes at most B
 *   4  shares over a time T in which all want the GPU are right but for B / T
 *   5  no turn is charged more than L; all that was charged, some VM was charged
 *   6  a woken VM whose tag lets it in is granted within twice its patience
 */
#ifndef SIM_BOUNDS_H
#define SIM_BOUNDS_H

#include "sim/rare.h"
#include "sim/world.h"

enum { BOUNDS = 7 }; /* by number; 0 is unused */

struct bounds_vm {
	bool present;
	uint32_t gpu;
	int32_t phi;
	bool wants; /* ready or open */
	bool ready;
	bool open;
	bool excused; /* from bound 6 until the next grant: its tag or the room kept it out */
	int64_t turns;
	int64_t charged_ns;
	int64_t turn_ns;  /* L, also by the jobs it had on another GPU */
	int64_t reach_ns; /* M + E */
	int64_t ready_since_ns;
	int64_t ready_bound_ns;      /* B, the most since it became ready */
	int64_t ready_left_ns;       /* M + E of those that left meanwhile */
	int64_t opened_charged_ns;   /* charged when its turn was opened */
	int64_t together_charged_ns; /* charged when all began to want the GPU */
};

struct bounds_gpu {
	uint64_t turns;
	int64_t last_grant_ns;
	int64_t together_ns; /* since when all want the GPU; INT64_MAX = they do not */
	double phi;          /* of all its VMs */
	int64_t reach_ns;    /* M + E of all its VMs */
};

struct bounds {
	struct bounds_vm vms[SCENARIO_VMS];
	struct bounds_gpu gpus[2];
	struct sched_config sched; /* in force */
	int64_t wake_lead_ns;      /* the most it ever was */
	int64_t unaccounted_ns;    /* charged by the GPUs and to no VM that is still there */
	uint32_t epoch;
	/* The least that VM f was ahead of VM m by weight, since m wants the GPU. */
	int64_t lead_tag[SCENARIO_VMS][SCENARIO_VMS];
	double worst[BOUNDS]; /* the largest part of each bound that was used, 1 = all */
	uint64_t rare[RARE_COUNT];
	char violation[160];
};

void bounds_init(struct bounds *bounds);

/*
 * After every event of the core; @stats by VM, those of VMs that are not there mean
 * nothing. NULL, or what does not hold.
 */
const char *bounds_look(struct bounds *bounds, const struct world *world,
                        const struct core_vm_stats *stats);

#endif
