/* SPDX-License-Identifier: MIT */
/*
 * The ready VMs of the fair scheduler in their order: a binary heap whose places
 * know the least of what admission asks for in their subtree.
 *
 * The first VM overall is at the root. The first one that may be admitted beside
 * open turns need not be, since it must also meet two thresholds; the search for it
 * goes down from the root, stops at a VM that passes (below it keys only grow) and
 * skips every subtree where nobody can.
 */
#include <assert.h>
#include <errno.h>

#include "core/schedule/sched_fair.h"

static bool before(const struct sched_vm *a, const struct sched_vm *b)
{
	if (a->key != b->key)
		return a->key < b->key;
	if (a->priority != b->priority)
		return a->priority > b->priority;
	if (a->ready_since_ns != b->ready_since_ns)
		return a->ready_since_ns < b->ready_since_ns;
	return a->id < b->id;
}

int fair_ready_reserve(struct fair_ready *ready, uint32_t count)
{
	uint32_t capacity = ready->capacity ? ready->capacity : 16;
	struct sched_vm **vms;
	struct fair_least *least;

	if (count <= ready->capacity)
		return 0;
	while (capacity < count)
		capacity *= 2;
	vms = reallocarray(ready->vms, capacity, sizeof(*vms));
	if (!vms)
		return -ENOMEM;
	ready->vms = vms;
	least = reallocarray(ready->least, capacity, sizeof(*least));
	if (!least)
		return -ENOMEM;
	ready->least = least;
	ready->capacity = capacity;
	return 0;
}

static struct fair_least least_of(const struct fair_ready *ready, uint32_t at)
{
	const struct sched_vm *vm = ready->vms[at];
	struct fair_least least = {vm->promise, vm->lead_tag, vm->patience_ns, vm->start_tag};

	for (uint32_t child = 2 * at + 1; child <= 2 * at + 2 && child < ready->count; child++) {
		const struct fair_least *other = &ready->least[child];

		least.promise = min_i64(least.promise, other->promise);
		least.lead_tag = min_i64(least.lead_tag, other->lead_tag);
		least.patience_ns = min_i64(least.patience_ns, other->patience_ns);
		least.start_tag = min_i64(least.start_tag, other->start_tag);
	}
	return least;
}

static void put(struct fair_ready *ready, uint32_t at, struct sched_vm *vm)
{
	ready->vms[at] = vm;
	vm->ready_index = at + 1;
}

/* Brings the minima of @at and of every place above it up to date. */
static void refresh(struct fair_ready *ready, uint32_t at)
{
	for (;; at = (at - 1) / 2) {
		ready->least[at] = least_of(ready, at);
		if (at == 0)
			break;
	}
}

/* Brings what stands at @at to its place. */
static void restore(struct fair_ready *ready, uint32_t at)
{
	struct sched_vm *vm = ready->vms[at];
	uint32_t deepest = at;

	while (at && before(vm, ready->vms[(at - 1) / 2])) {
		put(ready, at, ready->vms[(at - 1) / 2]);
		at = (at - 1) / 2;
	}
	for (;;) {
		uint32_t child = 2 * at + 1;

		if (child >= ready->count)
			break;
		if (child + 1 < ready->count && before(ready->vms[child + 1], ready->vms[child]))
			child++;
		if (before(vm, ready->vms[child]))
			break;
		put(ready, at, ready->vms[child]);
		at = child;
	}
	put(ready, at, vm);
	refresh(ready, at > deepest ? at : deepest);
}

void fair_ready_insert(struct fair_ready *ready, struct sched_vm *vm)
{
	assert(vm->ready_index == 0 && ready->count < ready->capacity);
	put(ready, ready->count++, vm);
	restore(ready, ready->count - 1);
}

void fair_ready_remove(struct fair_ready *ready, struct sched_vm *vm)
{
	uint32_t at = vm->ready_index - 1;
	uint32_t last = ready->count - 1;

	assert(vm->ready_index > 0);
	vm->ready_index = 0;
	ready->count--;
	if (at != last) {
		put(ready, at, ready->vms[last]);
		restore(ready, at);
	}
	if (last)
		refresh(ready, (last - 1) / 2);
}

struct sched_vm *fair_ready_first(const struct fair_ready *ready)
{
	return ready->count ? ready->vms[0] : NULL;
}

static struct sched_vm *search(const struct fair_ready *ready, const struct fair_gate *gate,
                               uint32_t at, struct sched_vm *best)
{
	const struct fair_least *least;
	struct sched_vm *vm;

	if (at >= ready->count)
		return best;
	vm = ready->vms[at];
	least = &ready->least[at];
	if ((best && !before(vm, best)) || least->lead_tag > gate->kappa ||
	    (least->patience_ns > gate->shortest_ns && least->start_tag > gate->overrun_tag))
		return best;
	if (vm->lead_tag <= gate->kappa &&
	    (vm->patience_ns <= gate->shortest_ns || vm->start_tag <= gate->overrun_tag))
		return vm;
	best = search(ready, gate, 2 * at + 1, best);
	return search(ready, gate, 2 * at + 2, best);
}

struct sched_vm *fair_ready_first_admissible(const struct fair_ready *ready,
                                             const struct fair_gate *gate)
{
	return search(ready, gate, 0, NULL);
}

static int64_t search_patience(const struct fair_ready *ready, int64_t kappa, uint32_t at,
                               int64_t best)
{
	if (at >= ready->count || ready->least[at].lead_tag > kappa ||
	    ready->least[at].patience_ns >= best)
		return best;
	if (ready->vms[at]->lead_tag <= kappa)
		best = min_i64(best, ready->vms[at]->patience_ns);
	best = search_patience(ready, kappa, 2 * at + 1, best);
	return search_patience(ready, kappa, 2 * at + 2, best);
}

int64_t fair_ready_least_patience_ns(const struct fair_ready *ready, int64_t kappa)
{
	return search_patience(ready, kappa, 0, INT64_MAX);
}

const char *fair_ready_check(const struct fair_ready *ready)
{
	for (uint32_t at = 0; at < ready->count; at++) {
		struct fair_least least = least_of(ready, at);
		const struct fair_least *kept = &ready->least[at];

		if (ready->vms[at]->ready_index != at + 1)
			return "a ready VM is not where it says it is";
		if (at && before(ready->vms[at], ready->vms[(at - 1) / 2]))
			return "the ready VMs are out of order";
		if (kept->promise != least.promise || kept->lead_tag != least.lead_tag ||
		    kept->patience_ns != least.patience_ns || kept->start_tag != least.start_tag)
			return "a subtree of the ready VMs has a wrong minimum";
	}
	return NULL;
}
