/* SPDX-License-Identifier: MIT */
/*
 * What share of its GPU each VM gets and can claim, and how much it submits: counters
 * sampled once a second, sums per GPU made when they are asked for.
 */
#include <errno.h>

#include <event2/event.h>

#include "base/clock.h"
#include "mediator/internal.h"

static void on_sample(evutil_socket_t fd UNUSED, short what UNUSED, void *arg)
{
	struct mediator *mediator = arg;
	struct vm_entry *entry;
	struct core_vm_stats stats;

	TAILQ_FOREACH (entry, &mediator->vms, link) {
		core_vm_stats(mediator->core, clock_monotonic_ns(), entry->core_vm, &stats);
		rate_sample(&entry->charged, stats.charged_ns);
		rate_sample(&entry->submitted, (int64_t)stats.submitted);
	}
}

int shares_start(struct mediator *mediator)
{
	static const struct timeval second = {.tv_sec = 1};

	mediator->sampler = event_new(mediator->base, -1, EV_PERSIST, on_sample, mediator);
	return mediator->sampler && event_add(mediator->sampler, &second) == 0 ? 0 : -ENOMEM;
}

void shares_sum(struct mediator *mediator, struct gpu_shares *out)
{
	const struct vm_entry *entry;

	for (uint32_t i = 0; i < CORE_MAX_GPUS; i++)
		out[i] = (struct gpu_shares){0, 0};
	TAILQ_FOREACH (entry, &mediator->vms, link) {
		struct gpu_shares *gpu = &out[core_vm_gpu(mediator->core, entry->core_vm)];

		if (entry->removing)
			continue;
		gpu->charged_ns += rate_gain(&entry->charged);
		gpu->claims += core_claim(&entry->settings);
	}
}

double shares_now(const struct gpu_shares *gpu, const struct vm_entry *entry)
{
	return gpu->charged_ns > 0 ? (double)rate_gain(&entry->charged) / (double)gpu->charged_ns
	                           : 0;
}

double shares_target(const struct gpu_shares *gpu, const struct vm_entry *entry)
{
	return gpu->claims > 0 ? (double)core_claim(&entry->settings) / (double)gpu->claims : 0;
}
