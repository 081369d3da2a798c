/* SPDX-License-Identifier: MIT */
/*
 * Everything that can be checked of a played world, after every event of the core: the
 * core's own invariants, the scheduler's bounds, the audit.
 */
#ifndef SIM_WATCH_H
#define SIM_WATCH_H

#include "sim/audit.h"
#include "sim/bounds.h"
#include "sim/world.h"

struct watch {
	struct bounds bounds;
	struct audit *audit;
	struct core_vm_stats stats[SCENARIO_VMS]; /* as of the last event */
};

/* Returns 0 or -ENOMEM; free @watch with watch_fini(). */
int watch_init(struct watch *watch);
void watch_fini(struct watch *watch);

/* Has the next run with @options watched; only the rule keeps the bounds. */
void watch_run(struct watch *watch, struct world_options *options);

/* At how many events, or how often, a rare path was taken in that run. */
uint64_t watch_rare(const struct watch *watch, enum rare_path path);

#endif
