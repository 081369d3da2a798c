/* SPDX-License-Identifier: MIT */
/*
 * What one decision of the fair scheduler costs in processor time, as the number of VMs
 * grows, and how fast the simulator is.
 */
#ifndef SIM_COST_H
#define SIM_COST_H

#include <stdbool.h>
#include <stdio.h>

/* Prints one line a number of VMs and one about the simulator, or one JSON object. Returns 0,
 * or a negative errno. */
int cost_report(FILE *to, bool json);

#endif
