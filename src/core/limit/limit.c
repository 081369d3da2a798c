/* SPDX-License-Identifier: MIT */
/* See limit.h. */
#include "core/limit/limit.h"

#include "base/units.h"
#include "base/util.h"

bool limit_rate_take(struct limit_rate *limit, const struct vm_settings *settings, int64_t now_ns,
                     int64_t *retry_after_ns)
{
	int64_t interval_ns, burst, early_ns;

	if (settings->rate_thousandths == 0)
		return true;
	/* Rounded up: the limit is never exceeded by the rounding. */
	interval_ns =
		(1000 * NS_PER_SEC + settings->rate_thousandths - 1) / settings->rate_thousandths;
	burst = settings->burst_jobs ? settings->burst_jobs
	                             : max_i64(settings->rate_thousandths / 1000, 1);
	/* Further off than this limit could have put it: it was a lower one, which is over. */
	limit->theoretical_arrival_ns =
		min_i64(limit->theoretical_arrival_ns, now_ns + burst * interval_ns);
	early_ns = limit->theoretical_arrival_ns - (burst - 1) * interval_ns - now_ns;
	if (early_ns > 0) {
		*retry_after_ns = early_ns;
		return false;
	}
	limit->theoretical_arrival_ns =
		max_i64(limit->theoretical_arrival_ns, now_ns) + interval_ns;
	return true;
}

int64_t limit_budget_debt_ns(struct limit_budget *budget, const struct vm_settings *settings,
                             int64_t now_ns, int64_t charged_ns)
{
	int64_t rate = settings->gpu_thousandths;
	int64_t elapsed_ns = min_i64(now_ns - budget->updated_ns, 1000000 * NS_PER_SEC);
	int64_t used_ns = charged_ns - budget->charged_ns;

	budget->updated_ns = now_ns;
	budget->charged_ns = charged_ns;
	if (rate == 0) {
		budget->balance = 0;
		return 0;
	}
	budget->balance = min_i64(budget->balance + elapsed_ns * rate, rate * NS_PER_SEC);
	budget->balance -= used_ns * 1000;
	return budget->balance >= 0 ? 0 : (-budget->balance + rate - 1) / rate;
}
