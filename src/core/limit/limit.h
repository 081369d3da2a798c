/* SPDX-License-Identifier: MIT */
/*
 * Limits on what one VM may submit and use.
 *
 * Jobs per second: the generic cell rate algorithm (ITU-T I.371, virtual scheduling):
 * one word of state, exact, and it knows when the next job will be let through.
 *
 * GPU seconds per second: a budget that is charged after the fact and may go into
 * debt, so that one long job is paid for by a pause after it. At most one second's
 * worth is saved up.
 */
#ifndef CORE_LIMIT_H
#define CORE_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "core/vm_settings.h"

/* Zero-initialised: nothing used yet. */
struct limit_rate {
	int64_t theoretical_arrival_ns;
};

struct limit_budget {
	int64_t balance; /* thousandths of a nanosecond of GPU time; negative = debt */
	int64_t updated_ns;
	int64_t charged_ns; /* GPU time that has been taken off so far */
};

/*
 * Takes one job at @now_ns if @settings allow it. False: *@retry_after_ns says when
 * the next one passes, if none is taken before.
 */
bool limit_rate_take(struct limit_rate *limit, const struct vm_settings *settings, int64_t now_ns,
                     int64_t *retry_after_ns);

/*
 * Brings the budget up to date: @charged_ns is all GPU time ever charged to the VM.
 * Returns for how long from now the VM is in debt; 0 = it is not, or has no limit.
 */
int64_t limit_budget_debt_ns(struct limit_budget *budget, const struct vm_settings *settings,
                             int64_t now_ns, int64_t charged_ns);

#endif
