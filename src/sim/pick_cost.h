/* SPDX-License-Identifier: MIT */
/*
 * What one decision of the fair scheduler costs in processor time, as the number of VMs
 * grows.
 */
#ifndef SIM_PICK_COST_H
#define SIM_PICK_COST_H

#include <stdio.h>

/* Prints one line a number of VMs. Returns 0, or a negative errno. */
int pick_cost_report(FILE *to);

#endif
