/* SPDX-License-Identifier: MIT */
/*
 * Random scenarios: VMs of all kinds that come, change, move, fail, hang and go, workers
 * that do not start or do not die, a registry that cannot write, restarts.
 */
#ifndef SIM_DRAW_H
#define SIM_DRAW_H

#include "sim/scenario.h"

/* The same scenario from the same seed; each seed has its own subset of what can happen. */
void draw_scenario(struct scenario *scenario, uint64_t seed);

#endif
