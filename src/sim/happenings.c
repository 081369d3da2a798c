/* SPDX-License-Identifier: MIT */
/*
 * What the scenario has happen: VMs come and go, settings and rules change, things go
 * wrong.
 */
#include "base/units.h"
#include "sim/world_internal.h"

void happen_join(struct world *world, uint32_t number)
{
	const struct scenario_vm *what = &world->scenario->vms[number];
	struct sim_vm *vm = &world->vms[number];

	vm->settings = what->settings;
	world->error =
		core_vm_add(world->core, world->now_ns, &vm->core_vm, &vm->settings, false, vm);
	if (world->error < 0)
		return;
	vm->present = true;
	guest_start(world, number);
}

void happen_leave(struct world *world, uint32_t number)
{
	struct sim_vm *vm = &world->vms[number];

	if (!vm->present || vm->leaving)
		return;
	vm->leaving = true;
	core_vm_remove(world->core, world->now_ns, vm->core_vm);
}

static void change_rule(struct world *world, const struct scenario_event *event)
{
	struct core_config config;

	scenario_put(&world->rules, event->number, event->value);
	config = world_core_config(world);
	core_config_set(world->core, world->now_ns, &config);
}

static void change_vm(struct world *world, struct sim_vm *vm, const struct scenario_event *event)
{
	switch (event->what) {
	case HAPPENS_SETTING:
		setting_put(&vm->settings, event->field, event->value);
		break;
	case HAPPENS_PRIORITY:
		vm->settings.priority = (uint32_t)event->value;
		break;
	case HAPPENS_POOL:
		vm->settings.pool = (uint32_t)event->value;
		break;
	case HAPPENS_QUARANTINE:
		vm->quarantined = event->value != 0;
		break;
	default:
		return;
	}
	core_vm_set(world->core, world->now_ns, vm->core_vm, &vm->settings, vm->quarantined);
}

void happen(struct world *world, uint64_t number)
{
	const struct scenario_event *event = &world->scenario->events[number];
	struct sim_vm *vm = &world->vms[event->vm];

	if (event->every_ns)
		world_later(world, &(struct dated){.at_ns = world->now_ns + event->every_ns,
		                                   .thing = THING_HAPPENS,
		                                   .job = number});
	if (event->what == HAPPENS_RULE) {
		change_rule(world, event);
		return;
	}
	if (!vm->present || vm->leaving)
		return;
	switch (event->what) {
	case HAPPENS_HANG:
		vm->hang_next = true;
		break;
	case HAPPENS_FAULT:
		vm->fault_next = true;
		break;
	case HAPPENS_DEATH:
		worker_bury(world, event->vm, vm->generation);
		break;
	case HAPPENS_DRAIN:
		core_gpu_set_draining(world->core, world->now_ns,
		                      core_vm_gpu(world->core, vm->core_vm), event->value != 0);
		break;
	default:
		change_vm(world, vm, event);
		break;
	}
}
