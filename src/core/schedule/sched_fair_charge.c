/* SPDX-License-Identifier: MIT */
/*
 * How the fair scheduler turns time into charges: every nanosecond goes to the VM
 * that has the GPU by the run list, to the oldest open turn where all turns wait for
 * their next job, or to nobody.
 */
#include "core/schedule/sched_fair.h"

static struct sched_vm *vm_of_run(struct run_node *node)
{
	return CONTAINER_OF(node, struct sched_vm, run);
}

static void charge(struct sched *sched, struct sched_vm *vm, int64_t ns)
{
	vm->used_ns += ns;
	vm->job_used_ns += ns;
	vm->charged_ns += ns;
	sched->busy_ns += ns;
}

void fair_advance(struct sched *sched, int64_t now_ns)
{
	while (sched->charged_to_ns < now_ns) {
		struct run_node *head = run_list_head(&sched->run);
		int64_t from_ns = sched->charged_to_ns;

		sched->charged_to_ns = run_list_head_until_ns(&sched->run, from_ns, now_ns);
		if (head)
			charge(sched, vm_of_run(head), sched->charged_to_ns - from_ns);
		else if (sched->open_count)
			charge(sched, TAILQ_FIRST(&sched->open), sched->charged_to_ns - from_ns);
		else
			sched->idle_ns += sched->charged_to_ns - from_ns;
		run_list_rotate(&sched->run, sched->charged_to_ns);
	}
}

void fair_run_enter(struct sched *sched, struct sched_vm *vm, int64_t now_ns)
{
	run_list_enter(&sched->run, &vm->run, now_ns);
}

/* How much can be taken off the VM's turn and still leave virtual time behind it. */
static int64_t refundable_ns(const struct sched *sched, const struct sched_vm *vm)
{
	int64_t needed;

	if (vm->promise >= sched->virtual_time)
		return vm->used_ns;
	needed = (sched->virtual_time - vm->start_tag) * vm->phi - vm->tag_remainder;
	needed = (needed + SCHED_TAG_SCALE - 1) / SCHED_TAG_SCALE;
	return max_i64(0, vm->used_ns - max_i64(0, needed));
}

void fair_run_leave(struct sched *sched, struct sched_vm *vm, int64_t now_ns)
{
	struct sched_vm *head = vm_of_run(run_list_head(&sched->run));
	int64_t ns = run_list_leave(&sched->run, &vm->run, now_ns);

	ns = min_i64(ns, refundable_ns(sched, head));
	charge(sched, head, -ns);
	charge(sched, vm, ns);
}

int64_t fair_kappa(const struct sched *sched)
{
	int64_t kappa = sched->ready.count ? sched->ready.least[0].promise : INT64_MAX;
	const struct sched_vm *vm;

	TAILQ_FOREACH (vm, &sched->open, open_link)
		kappa = min_i64(kappa, max_i64(vm->promise, fair_reached_tag(vm)));
	return kappa;
}
