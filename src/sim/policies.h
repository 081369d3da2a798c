/* SPDX-License-Identifier: MIT */
/*
 * Policies to compare the fair rule with. They live in the simulator: no product
 * runs them.
 */
#ifndef SIM_POLICIES_H
#define SIM_POLICIES_H

#include "core/schedule/sched.h"

/* The hardware alone: every job goes to the GPU at once. */
extern const struct sched_policy sched_driver;

/*
 * One job at a time, and next the VM with the largest product of weight, priority,
 * queue depth and waiting time.
 */
extern const struct sched_policy sched_urgency;

/* What --policy and --compare choose from. */
struct sim_policy {
	const char *name;
	const char *what;
	const struct sched_policy *policy;
	bool exclusive; /* with overlap_max 1 */
};

enum { SIM_POLICIES = 4 };

/* Ended by a NULL name. */
extern const struct sim_policy sim_policies[SIM_POLICIES + 1];

/* The policy of that name, or NULL. */
const struct sim_policy *sim_policy_find(const char *name);

#endif
