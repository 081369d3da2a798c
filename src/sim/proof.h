/* SPDX-License-Identifier: MIT */
/*
 * Random scenarios against every bound of the scheduler: VMs of all kinds that come,
 * change, move, fail, hang and go, checked after every event; each played twice, so
 * that the same seed gives the same actions.
 */
#ifndef SIM_PROOF_H
#define SIM_PROOF_H

#include <stdint.h>
#include <stdio.h>

/*
 * Plays @scenarios of them from @seed on, and goes on until the scheduler has decided @decisions
 * times. Returns 0, or a negative errno after the first violation, which is shrunk and printed.
 */
int proof_run(FILE *to, uint64_t seed, int64_t scenarios, int64_t decisions);

/* Prints the scenario of a seed. Returns 0 or -ENOMEM. */
int proof_show(FILE *to, uint64_t seed);

#endif
