/* SPDX-License-Identifier: MIT */
/*
 * Makes a scenario that fails as small and plain as it goes and still fails.
 */
#ifndef SIM_SHRINK_H
#define SIM_SHRINK_H

#include "sim/scenario.h"

/* Whether the scenario fails, and when. */
typedef bool shrink_fails(void *context, const struct scenario *scenario, int64_t *at_ns);

/*
 * Takes away VMs, events, and whatever is not as usual, one by one, as long as @fails; and
 * ends it soon after it fails. Returns 0 or -ENOMEM.
 */
int shrink(struct scenario *scenario, shrink_fails *fails, void *context);

#endif
