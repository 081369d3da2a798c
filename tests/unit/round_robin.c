/* SPDX-License-Identifier: MIT */
/* See round_robin.h. */
#include "round_robin.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/queue.h>

#include "base/util.h"

struct sched_vm {
	TAILQ_ENTRY(sched_vm) all_link;
	TAILQ_ENTRY(sched_vm) link; /* in sched.ready while ready */
	void *owner;
	uint32_t queued;
	bool in_flight;
	bool enabled;
	bool ready;
	int64_t charged_ns;
	int64_t turns;
};

TAILQ_HEAD(rr_vm_list, sched_vm);

struct sched {
	struct rr_vm_list all;
	struct rr_vm_list ready;
	struct sched_vm *running; /* its worker has a job */
	struct sched_vm *last;
	int64_t charged_until_ns;
	struct sched_stats stats;
};

static void charge(struct sched *sched, int64_t now_ns)
{
	int64_t elapsed_ns = now_ns - sched->charged_until_ns;

	if (sched->running) {
		sched->running->charged_ns += elapsed_ns;
		sched->stats.busy_ns += elapsed_ns;
	} else {
		sched->stats.idle_ns += elapsed_ns;
	}
	sched->charged_until_ns = now_ns;
}

static void settle(struct sched *sched, struct sched_vm *vm)
{
	bool ready = vm->enabled && vm->queued && !vm->in_flight;

	if (ready == vm->ready)
		return;
	vm->ready = ready;
	if (ready) {
		TAILQ_INSERT_TAIL(&sched->ready, vm, link);
		sched->stats.ready++;
	} else {
		TAILQ_REMOVE(&sched->ready, vm, link);
		sched->stats.ready--;
	}
}

static int rr_create(struct sched **out, const struct sched_config *config UNUSED,
                     int64_t (*head_since_ns)(const void *owner) UNUSED, int64_t now_ns)
{
	struct sched *sched = calloc(1, sizeof(*sched));

	if (!sched)
		return -ENOMEM;
	TAILQ_INIT(&sched->all);
	TAILQ_INIT(&sched->ready);
	sched->charged_until_ns = now_ns;
	*out = sched;
	return 0;
}

static void rr_destroy(struct sched *sched)
{
	struct sched_vm *vm;

	while ((vm = TAILQ_FIRST(&sched->all))) {
		TAILQ_REMOVE(&sched->all, vm, all_link);
		free(vm);
	}
	free(sched);
}

static void rr_configure(struct sched *sched UNUSED, int64_t now_ns UNUSED,
                         const struct sched_config *config UNUSED)
{
}

static int rr_vm_add(struct sched *sched, int64_t now_ns UNUSED, struct sched_vm **out,
                     uint32_t id UNUSED, int32_t phi UNUSED, uint32_t priority UNUSED,
                     int64_t lag UNUSED, void *owner)
{
	struct sched_vm *vm = calloc(1, sizeof(*vm));

	if (!vm)
		return -ENOMEM;
	vm->owner = owner;
	TAILQ_INSERT_TAIL(&sched->all, vm, all_link);
	*out = vm;
	return 0;
}

static int64_t rr_vm_remove(struct sched *sched, int64_t now_ns, struct sched_vm *vm)
{
	assert(vm->queued == 0 && !vm->in_flight);
	charge(sched, now_ns);
	if (sched->last == vm)
		sched->last = NULL;
	TAILQ_REMOVE(&sched->all, vm, all_link);
	free(vm);
	return 0;
}

static void rr_vm_set_phi(struct sched *sched UNUSED, int64_t now_ns UNUSED,
                          struct sched_vm *vm UNUSED, int32_t phi UNUSED, uint32_t priority UNUSED)
{
}

static void rr_vm_enable(struct sched *sched, int64_t now_ns, struct sched_vm *vm, bool enabled)
{
	charge(sched, now_ns);
	vm->enabled = enabled;
	settle(sched, vm);
}

static void rr_job_queued(struct sched *sched, int64_t now_ns, struct sched_vm *vm)
{
	charge(sched, now_ns);
	vm->queued++;
	settle(sched, vm);
}

static void rr_jobs_dropped(struct sched *sched, int64_t now_ns, struct sched_vm *vm,
                            uint32_t count)
{
	charge(sched, now_ns);
	assert(count <= vm->queued);
	vm->queued -= count;
	settle(sched, vm);
}

static void job_ended(struct sched *sched, struct sched_vm *vm)
{
	if (!vm->in_flight)
		return;
	assert(sched->running == vm);
	sched->running = NULL;
	sched->stats.open = 0;
	vm->in_flight = false;
}

static void rr_job_done(struct sched *sched, int64_t now_ns, struct sched_vm *vm)
{
	charge(sched, now_ns);
	job_ended(sched, vm);
	settle(sched, vm);
}

static void rr_vm_reaped(struct sched *sched, int64_t now_ns, struct sched_vm *vm)
{
	charge(sched, now_ns);
	job_ended(sched, vm);
	vm->enabled = false;
	settle(sched, vm);
}

static void *rr_next(struct sched *sched, int64_t now_ns)
{
	struct sched_vm *vm = TAILQ_FIRST(&sched->ready);

	charge(sched, now_ns);
	if (sched->running || !vm)
		return NULL;
	vm->queued--;
	vm->in_flight = true;
	vm->turns++;
	settle(sched, vm);
	sched->running = vm;
	sched->stats.open = 1;
	sched->stats.turns++;
	sched->stats.context_switches += sched->last != vm;
	sched->last = vm;
	return vm->owner;
}

static int64_t rr_deadline(const struct sched *sched UNUSED)
{
	return SCHED_NEVER;
}

static int64_t rr_charged_ns(struct sched *sched, int64_t now_ns, const struct sched_vm *vm)
{
	charge(sched, now_ns);
	return vm->charged_ns;
}

static void rr_vm_stats(const struct sched *sched UNUSED, const struct sched_vm *vm,
                        struct sched_vm_stats *out)
{
	*out = (struct sched_vm_stats){
		.charged_ns = vm->charged_ns,
		.turns = vm->turns,
		.queued = vm->queued,
		.in_flight = vm->in_flight,
		.ready = vm->ready,
		.open = vm->in_flight,
	};
}

static void rr_stats(const struct sched *sched, struct sched_stats *out)
{
	*out = sched->stats;
}

static const char *rr_check(const struct sched *sched)
{
	const struct sched_vm *vm;
	uint32_t ready = 0;

	TAILQ_FOREACH (vm, &sched->ready, link) {
		if (!vm->enabled || !vm->queued || vm->in_flight)
			return "a VM in the ready list cannot run";
		ready++;
	}
	if (ready != sched->stats.ready)
		return "the ready list and its count differ";
	if (sched->running && !sched->running->in_flight)
		return "the running VM has no job in flight";
	return NULL;
}

const struct sched_policy sched_round_robin = {
	.name = "round-robin",
	.create = rr_create,
	.destroy = rr_destroy,
	.configure = rr_configure,
	.vm_add = rr_vm_add,
	.vm_remove = rr_vm_remove,
	.vm_set_phi = rr_vm_set_phi,
	.vm_enable = rr_vm_enable,
	.job_queued = rr_job_queued,
	.jobs_dropped = rr_jobs_dropped,
	.job_done = rr_job_done,
	.vm_reaped = rr_vm_reaped,
	.next = rr_next,
	.deadline = rr_deadline,
	.charged_ns = rr_charged_ns,
	.vm_stats = rr_vm_stats,
	.stats = rr_stats,
	.check = rr_check,
};
