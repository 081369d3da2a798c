/* SPDX-License-Identifier: MIT */
/*
 * The fair rule once more, as plainly as it can be written, to compare the real
 * scheduler with: no heap, no list, no stored minima, every question answered by
 * looking at every VM, all arithmetic in 128 bits.
 */
#ifndef TESTS_SCHED_NAIVE_H
#define TESTS_SCHED_NAIVE_H

#include "core/schedule/sched.h"

/* At most NAIVE_VMS VMs at once. */
enum { NAIVE_VMS = 64 };

extern const struct sched_policy sched_naive;

#endif
