/* SPDX-License-Identifier: MIT */
/*
 * Places for workers, of which there are max_workers: who waits for one, and who makes
 * room.
 *
 * A VM that finds no place waits in line, and whoever came first starts first. As many idle
 * workers as there are VMs in line make room at once, those that have been idle longest. If
 * that is not enough, the first in line has patience for a while; then the worker that has
 * been there longest gets no more jobs and ends with those that it has. That is a promise
 * for as long a while only: a job may be long, and then another worker makes room as well.
 */
#include "core/internal.h"

void place_leave_line(struct core *core, struct vm *vm)
{
	if (!vm->worker.waits_for_place)
		return;
	TAILQ_REMOVE(&core->waiting, vm, waiting_link);
	core->waiting_count--;
	vm->worker.waits_for_place = false;
}

bool place_is_free(const struct core *core, const struct vm *vm)
{
	const struct vm *first = TAILQ_FIRST(&core->waiting);

	return core->worker_count < core->config.max_workers && (!first || first == vm);
}

int64_t place_wait(struct core *core, struct vm *vm)
{
	if (!vm->worker.waits_for_place) {
		vm->worker.waits_for_place = true;
		vm->worker.since_ns = core->now_ns;
		TAILQ_INSERT_TAIL(&core->waiting, vm, waiting_link);
		core->waiting_count++;
	}
	core->line_changed = true;
	return core->now_ns + core->config.worker_patience_ns;
}

void place_evict(struct core *core, struct vm *vm)
{
	if (vm->worker.evicted)
		return;
	vm->worker.evicted = true;
	vm->worker.evicted_ns = core->now_ns;
}

/* Whether the worker is leaving. One that is stuck may never go. */
static bool is_leaving(const struct vm *vm)
{
	return vm->worker.state == CORE_WORKER_STOPPING ||
	       (vm->worker.state == CORE_WORKER_KILLED && !vm->worker.stuck);
}

/* Whether it has promised not long ago to leave when its jobs in flight end. */
static bool has_promised(const struct core *core, const struct vm *vm)
{
	return vm->worker.state == CORE_WORKER_READY && vm->worker.evicted &&
	       core->now_ns - vm->worker.evicted_ns < core->config.worker_patience_ns;
}

/* Places that are free or soon will be; below 0 when there are more workers than places. */
static int64_t places_to_come(const struct core *core, bool promises)
{
	int64_t places = (int64_t)core->config.max_workers - core->worker_count;

	for (uint32_t i = 0; i < core->vm_slots; i++) {
		const struct vm *vm = core->vms[i];

		places += vm && (is_leaving(vm) || (promises && has_promised(core, vm)));
	}
	return places;
}

/* A pause between two jobs of a program that waits for each is no rest. */
static bool is_resting(const struct core *core, const struct vm *vm)
{
	return vm->worker.idle_since_ns != SCHED_NEVER &&
	       core->now_ns >= vm->worker.idle_since_ns + WORKER_REST_NS;
}

static int64_t since_ns(const struct vm *vm, bool resting)
{
	return resting ? vm->worker.idle_since_ns : vm->worker.since_ns;
}

/* Of those that rest the one that has for the longest; of the others the one that has been
 * there the longest. NULL: there is none. */
static struct vm *longest(const struct core *core, bool resting)
{
	struct vm *found = NULL;

	for (uint32_t i = 0; i < core->vm_slots; i++) {
		struct vm *vm = core->vms[i];

		if (vm && vm->worker.state == CORE_WORKER_READY && !vm->worker.evicted &&
		    is_resting(core, vm) == resting &&
		    (!found || since_ns(vm, resting) < since_ns(found, resting)))
			found = vm;
	}
	return found;
}

/*
 * Has ready workers make room until @wanted places are to come, as far as there are any: of
 * those that rest whatever others have promised, since they can go at once.
 */
static void make_room(struct core *core, int64_t wanted, bool resting)
{
	for (int64_t places = places_to_come(core, !resting); places < wanted; places++) {
		struct vm *vm = longest(core, resting);

		if (!vm)
			return;
		place_evict(core, vm);
		worker_settle(core, vm);
	}
}

void places_settle(struct core *core)
{
	const struct vm *first;

	if (!core->line_changed)
		return;
	while ((first = TAILQ_FIRST(&core->waiting)) && place_is_free(core, first))
		worker_settle(core, TAILQ_FIRST(&core->waiting));
	if (first) {
		make_room(core, core->waiting_count, true);
		if (core->now_ns - first->worker.since_ns >= core->config.worker_patience_ns)
			make_room(core, 1, false);
	}
	core->line_changed = false;
}
