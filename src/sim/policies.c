/* SPDX-License-Identifier: MIT */
/*
 * See policies.h. Neither policy knows what a job costs: a VM is charged the time
 * in which it has a job out, which is what the core needs for the limits of jobs.
 */
#include "sim/policies.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "base/util.h"

enum { DRIVER_DEPTH = 16 }; /* what a context takes of one VM */

struct sched_vm {
	TAILQ_ENTRY(sched_vm) link;
	void *owner;
	int32_t phi;
	bool enabled;
	uint32_t queued;
	uint32_t in_flight;
	int64_t charged_ns;
	int64_t turns;
};

struct sched {
	TAILQ_HEAD(, sched_vm) vms;
	int64_t (*head_since_ns)(const void *owner);
	int64_t created_ns;
	int64_t now_ns;
	int64_t busy_ns;
	uint32_t in_flight;
	uint64_t turns;
	uint64_t switches;
	const struct sched_vm *last;
};

static void advance(struct sched *sched, int64_t now_ns)
{
	struct sched_vm *vm;

	TAILQ_FOREACH (vm, &sched->vms, link)
		if (vm->in_flight)
			vm->charged_ns += now_ns - sched->now_ns;
	if (sched->in_flight)
		sched->busy_ns += now_ns - sched->now_ns;
	sched->now_ns = now_ns;
}

static int create(struct sched **out, const struct sched_config *config UNUSED,
                  int64_t (*head_since_ns)(const void *owner), int64_t now_ns)
{
	struct sched *sched = calloc(1, sizeof(*sched));

	if (!sched)
		return -ENOMEM;
	TAILQ_INIT(&sched->vms);
	sched->head_since_ns = head_since_ns;
	sched->created_ns = now_ns;
	sched->now_ns = now_ns;
	*out = sched;
	return 0;
}

static void destroy(struct sched *sched)
{
	struct sched_vm *vm;

	while (sched && (vm = TAILQ_FIRST(&sched->vms))) {
		TAILQ_REMOVE(&sched->vms, vm, link);
		free(vm);
	}
	free(sched);
}

static void configure(struct sched *sched, int64_t now_ns, const struct sched_config *config UNUSED)
{
	advance(sched, now_ns);
}

static int vm_add(struct sched *sched, int64_t now_ns, struct sched_vm **out, uint32_t id UNUSED,
                  int32_t phi, uint32_t priority UNUSED, int64_t lag UNUSED, void *owner)
{
	struct sched_vm *vm = calloc(1, sizeof(*vm));

	if (!vm)
		return -ENOMEM;
	advance(sched, now_ns);
	vm->owner = owner;
	vm->phi = phi;
	TAILQ_INSERT_TAIL(&sched->vms, vm, link);
	*out = vm;
	return 0;
}

static int64_t vm_remove(struct sched *sched, int64_t now_ns, struct sched_vm *vm)
{
	advance(sched, now_ns);
	TAILQ_REMOVE(&sched->vms, vm, link);
	if (sched->last == vm)
		sched->last = NULL;
	free(vm);
	return 0;
}

static void vm_set_phi(struct sched *sched, int64_t now_ns, struct sched_vm *vm, int32_t phi,
                       uint32_t priority UNUSED)
{
	advance(sched, now_ns);
	vm->phi = phi;
}

static void vm_enable(struct sched *sched, int64_t now_ns, struct sched_vm *vm, bool enabled)
{
	advance(sched, now_ns);
	vm->enabled = enabled;
}

static void job_queued(struct sched *sched, int64_t now_ns, struct sched_vm *vm)
{
	advance(sched, now_ns);
	vm->queued++;
}

static void jobs_dropped(struct sched *sched, int64_t now_ns, struct sched_vm *vm, uint32_t count)
{
	advance(sched, now_ns);
	vm->queued -= count;
}

static void job_done(struct sched *sched, int64_t now_ns, struct sched_vm *vm)
{
	advance(sched, now_ns);
	assert(vm->in_flight > 0);
	vm->in_flight--;
	sched->in_flight--;
}

static void vm_reaped(struct sched *sched, int64_t now_ns, struct sched_vm *vm)
{
	advance(sched, now_ns);
	vm->enabled = false;
	sched->in_flight -= vm->in_flight;
	vm->in_flight = 0;
}

static void *send(struct sched *sched, struct sched_vm *vm)
{
	vm->queued--;
	vm->in_flight++;
	vm->turns++;
	sched->in_flight++;
	sched->turns++;
	sched->switches += sched->last != vm;
	sched->last = vm;
	return vm->owner;
}

static void *next_for_driver(struct sched *sched, int64_t now_ns)
{
	struct sched_vm *vm;

	advance(sched, now_ns);
	TAILQ_FOREACH (vm, &sched->vms, link)
		if (vm->enabled && vm->queued && vm->in_flight < DRIVER_DEPTH)
			return send(sched, vm);
	return NULL;
}

static void *next_by_urgency(struct sched *sched, int64_t now_ns)
{
	struct sched_vm *vm, *best = NULL;
	uint64_t most = 0;

	advance(sched, now_ns);
	if (sched->in_flight)
		return NULL;
	TAILQ_FOREACH (vm, &sched->vms, link) {
		uint64_t waits_us, product;

		if (!vm->enabled || vm->queued == 0)
			continue;
		waits_us = (uint64_t)(now_ns - sched->head_since_ns(vm->owner)) / 1000;
		product = (uint64_t)vm->phi * vm->queued * waits_us;
		if (!best || product > most) {
			best = vm;
			most = product;
		}
	}
	return best ? send(sched, best) : NULL;
}

static int64_t deadline(const struct sched *sched UNUSED)
{
	return SCHED_NEVER;
}

static int64_t charged_ns(struct sched *sched, int64_t now_ns, const struct sched_vm *vm)
{
	advance(sched, now_ns);
	return vm->charged_ns;
}

static void vm_stats(const struct sched *sched UNUSED, const struct sched_vm *vm,
                     struct sched_vm_stats *out)
{
	*out = (struct sched_vm_stats){
		.charged_ns = vm->charged_ns,
		.turns = vm->turns,
		.queued = vm->queued,
		.in_flight = vm->in_flight,
		.ready = vm->enabled && vm->queued && vm->in_flight == 0,
		.open = vm->in_flight > 0,
	};
}

static void stats(const struct sched *sched, struct sched_stats *out)
{
	*out = (struct sched_stats){
		.busy_ns = sched->busy_ns,
		.idle_ns = sched->now_ns - sched->created_ns - sched->busy_ns,
		.turns = sched->turns,
		.context_switches = sched->switches,
	};
}

static const char *check(const struct sched *sched UNUSED)
{
	return NULL;
}

#define POLICY(text, next_function)                                                             \
	{                                                                                       \
		.name = text, .create = create, .destroy = destroy, .configure = configure,     \
		.vm_add = vm_add, .vm_remove = vm_remove, .vm_set_phi = vm_set_phi,             \
		.vm_enable = vm_enable, .job_queued = job_queued, .jobs_dropped = jobs_dropped, \
		.job_done = job_done, .vm_reaped = vm_reaped, .next = next_function,            \
		.deadline = deadline, .charged_ns = charged_ns, .vm_stats = vm_stats,           \
		.stats = stats, .check = check,                                                 \
	}

const struct sched_policy sched_driver = POLICY("driver", next_for_driver);
const struct sched_policy sched_urgency = POLICY("urgency", next_by_urgency);

const struct sim_policy sim_policies[SIM_POLICIES + 1] = {
	{"fair", "the rule: fair queuing over charged GPU time", &sched_fair, false},
	{"exclusive", "the rule with one open turn at a time", &sched_fair, true},
	{"driver", "the hardware alone: everything is sent at once", &sched_driver, false},
	{"urgency", "priority x weight x depth x waiting, largest first", &sched_urgency, false},
	{NULL, NULL, NULL, false},
};

const struct sim_policy *sim_policy_find(const char *name)
{
	for (const struct sim_policy *policy = sim_policies; policy->name; policy++)
		if (strcmp(policy->name, name) == 0)
			return policy;
	return NULL;
}
