/* SPDX-License-Identifier: MIT */
/*
 * A scheduling policy for tests of the core: one job at a time, VM after VM. It shares
 * the number of jobs, not GPU time, and is exact about who runs when, so that a test can
 * say what the next action has to be.
 */
#ifndef TESTS_ROUND_ROBIN_H
#define TESTS_ROUND_ROBIN_H

#include "core/schedule/sched.h"

extern const struct sched_policy sched_round_robin;

#endif
