/* SPDX-License-Identifier: MIT */
/*
 * What is known of the VMs at one moment, gathered once for whoever shows it, so that
 * metrics, status and weights say the same. Rates and shares are of the last minute:
 * counters are sampled once a second.
 */
#include <errno.h>
#include <stdlib.h>

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

int figures_start(struct mediator *mediator)
{
	static const struct timeval second = {.tv_sec = 1};

	mediator->sampler = event_new(mediator->base, -1, EV_PERSIST, on_sample, mediator);
	return mediator->sampler && event_add(mediator->sampler, &second) == 0 ? 0 : -ENOMEM;
}

/* What the shares of one GPU are parts of. */
struct gpu_shares {
	int64_t charged_ns; /* to all its VMs in the last minute */
	int64_t claims;     /* of all its VMs */
};

/* A VM whose jobs are refused claims nothing: the others share without it. */
static int64_t claim_of(const struct mediator *mediator, const struct vm_figures *vm)
{
	const struct vm_settings *settings = &vm->entry->settings;
	bool served = !vm->stats.quarantined && mediator->core_config.pools[settings->pool].enabled;

	return served ? core_claim(settings) : 0;
}

static double ratio(int64_t part, int64_t whole)
{
	return whole > 0 ? (double)part / (double)whole : 0;
}

static void gather(struct vm_figures *vm, struct mediator *mediator, const struct vm_entry *entry)
{
	vm->entry = entry;
	core_vm_stats(mediator->core, clock_monotonic_ns(), entry->core_vm, &vm->stats);
	vm->submission_rate = ratio(rate_gain(&entry->submitted), rate_span_s(&entry->submitted));
	gpu_watch_vm_memory(mediator->watch, entry->core_vm, &vm->memory_bytes,
	                    &vm->memory_expected_bytes);
	vm->job_average_ns = ratio((int64_t)vm->stats.job_gpu_ns, (int64_t)vm->stats.executed);
}

int figures_gather(struct mediator *mediator, struct vm_figures **out, size_t *count)
{
	struct gpu_shares gpus[CORE_MAX_GPUS] = {{0, 0}};
	const struct vm_entry *entry;
	struct vm_figures *vms;
	size_t used = 0, room = 1;

	TAILQ_FOREACH (entry, &mediator->vms, link)
		room++;
	vms = calloc(room, sizeof(*vms));
	if (!vms)
		return -ENOMEM;
	TAILQ_FOREACH (entry, &mediator->vms, link) {
		if (!entry->removing)
			gather(&vms[used++], mediator, entry);
	}
	for (size_t i = 0; i < used; i++) {
		gpus[vms[i].stats.gpu].charged_ns += rate_gain(&vms[i].entry->charged);
		gpus[vms[i].stats.gpu].claims += claim_of(mediator, &vms[i]);
	}
	for (size_t i = 0; i < used; i++) {
		const struct gpu_shares *gpu = &gpus[vms[i].stats.gpu];

		vms[i].share = ratio(rate_gain(&vms[i].entry->charged), gpu->charged_ns);
		vms[i].share_target = ratio(claim_of(mediator, &vms[i]), gpu->claims);
	}
	*out = vms;
	*count = used;
	return 0;
}
