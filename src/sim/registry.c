/* SPDX-License-Identifier: MIT */
/*
 * What a played world's mediator writes down, and what is left of it when it is killed:
 * quarantines and faults that were stored, GPUs that are drained, and nothing else.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"
#include "sim/world_internal.h"

void registry_store(struct world *world, uint32_t number, const struct core_store *what)
{
	struct sim_store *store = calloc(1, sizeof(*store));

	if (!store) {
		world->error = -ENOMEM;
		return;
	}
	store->vm = number;
	store->what = *what;
	TAILQ_INSERT_TAIL(&world->stores, store, link);
	world_later(world, &(struct dated){
				   .at_ns = world->now_ns + world->rules.store_ns,
				   .thing = THING_STORED,
				   .job = what->ticket,
			   });
}

/* It was the hardware: what the VM did since then brings no points. */
static void forgive(struct sim_vm *vm, int64_t since_ns)
{
	for (uint32_t i = 0; i < vm->record_count; i++)
		if (vm->records[i].at_ns >= since_ns)
			vm->records[i].points = 0;
}

/* Written: from here on it survives. */
static void commit(struct world *world, const struct sim_store *store)
{
	struct sim_vm *vm = &world->vms[store->vm];

	if (store->what.record == CORE_RECORD_FORGIVEN) {
		forgive(vm, store->what.at_ns);
		return;
	}
	if (vm->record_count == SIM_RECORDS) {
		memmove(vm->records, vm->records + 1, sizeof(vm->records) - sizeof(vm->records[0]));
		vm->record_count--;
	}
	vm->records[vm->record_count++] = store->what;
	vm->quarantined |= store->what.quarantine;
}

static void forget_store(struct world *world, struct sim_store *store)
{
	TAILQ_REMOVE(&world->stores, store, link);
	free(store);
}

void registry_stored(struct world *world, uint64_t ticket)
{
	bool stored = !world_chance(world, world->rules.store_fail_percent);
	struct sim_store *store;

	TAILQ_FOREACH (store, &world->stores, link) {
		if (store->what.ticket != ticket)
			continue;
		if (stored)
			commit(world, store);
		audit_store_done(world, store->vm, ticket, stored);
		forget_store(world, store);
		core_store_done(world->core, world->now_ns, ticket, stored);
		return;
	}
}

bool registry_is_right(struct world *world)
{
	for (uint32_t i = 0; i < world->scenario->vm_count; i++) {
		struct sim_vm *vm = &world->vms[i];
		struct core_vm_stats stats;

		if (!vm->present || vm->leaving)
			continue;
		core_vm_stats(world->core, world->now_ns, vm->core_vm, &stats);
		if (stats.quarantined != vm->quarantined)
			return false;
	}
	return true;
}

void registry_clear(struct world *world)
{
	struct sim_store *store;

	while ((store = TAILQ_FIRST(&world->stores)))
		forget_store(world, store);
}

/* ---- A mediator that is killed ---------------------------------------------------- */

/* What was being written has been written, or not. */
static void end_stores(struct world *world)
{
	struct sim_store *store;

	while ((store = TAILQ_FIRST(&world->stores))) {
		if (world_chance(world, 50))
			commit(world, store);
		forget_store(world, store);
	}
}

static void end_core(struct world *world)
{
	struct core_action action;

	world_count(world);
	core_abandon(world->core);
	while (core_next_action(world->core, &action))
		if (action.type == CORE_ACTION_ANSWER)
			guest_lost(world, world_number_of(world, &action), action.payload);
	core_free(TAKE_PTR(world->core));
	world->unanswered = 0;
}

static void end_workers(struct world *world)
{
	for (uint32_t i = 0; i < world->scenario->vm_count; i++) {
		struct sim_vm *vm = &world->vms[i];

		if (vm->alive)
			gpu_model_kill(world->gpus[vm->gpu], world->now_ns, i);
		vm->alive = false;
		vm->on_gpu_count = 0;
		vm->generation = 0;
	}
	world->epoch++; /* what they still had on the way comes to nobody */
}

/* As the registry has it. */
static void add_again(struct world *world, struct sim_vm *vm)
{
	world->error = core_vm_add(world->core, world->now_ns, &vm->core_vm, &vm->settings,
	                           vm->quarantined, vm);
	if (world->error < 0)
		return;
	core_vm_restore(world->core, world->now_ns, vm->core_vm, vm->records, vm->record_count);
}

void registry_restart(struct world *world)
{
	struct core_config config = world_core_config(world);

	end_stores(world);
	dues_before_restart(world);
	end_core(world);
	end_workers(world);
	world->error = core_new(&world->core, &config, world->now_ns);
	for (uint32_t g = 0; g < world->scenario->gpus && world->error == 0; g++)
		if (world->draining[g])
			core_gpu_set_draining(world->core, world->now_ns, g, true);
	world->faulty[0] = world->faulty[1] = false;
	for (uint32_t i = 0; i < world->scenario->vm_count && world->error == 0; i++) {
		struct sim_vm *vm = &world->vms[i];

		vm->present &= !vm->leaving; /* its row is gone */
		if (vm->present)
			add_again(world, vm);
	}
	audit_restarted(world);
}
