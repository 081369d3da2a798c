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

	if (world->settling)
		return;
	vm->settings = what->settings;
	world->error =
		core_vm_add(world->core, world->now_ns, &vm->core_vm, &vm->settings, false, vm);
	if (world->error < 0)
		return;
	vm->present = true;
	audit_joined(world, number);
	guest_start(world, number);
}

void happen_leave(struct world *world, uint32_t number)
{
	struct sim_vm *vm = &world->vms[number];

	if (!vm->present || vm->leaving)
		return;
	vm->leaving = true;
	audit_leaves(world, number);
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
		if (!vm->quarantined)
			vm->record_count = 0;
		break;
	default:
		return;
	}
	audit_changed(world, (uint32_t)(vm - world->vms));
	core_vm_set(world->core, world->now_ns, vm->core_vm, &vm->settings, vm->quarantined);
}

void happen_drain(struct world *world, uint32_t gpu, bool draining)
{
	if (world->draining[gpu] == draining)
		return;
	audit_drains(world, gpu);
	world->draining[gpu] = draining;
	core_gpu_set_draining(world->core, world->now_ns, gpu, draining);
}

static void set_faulty(struct world *world, uint32_t gpu, bool faulty)
{
	if (world->faulty[gpu] == faulty)
		return;
	world->faulty[gpu] = faulty;
	audit_hardware(world, gpu);
	core_gpu_set_faulty(world->core, world->now_ns, gpu, faulty);
}

/* One of the VM's jobs, each with the same chance: reservoir sampling. */
struct choice {
	struct world *world;
	const struct sim_vm *vm;
	uint64_t seen;
	uint64_t id;
};

static void consider(void *context, const struct core_job_info *info)
{
	struct choice *choice = context;

	if (info->owner == choice->vm &&
	    sim_random_below(&choice->world->random, ++choice->seen) == 0)
		choice->id = info->id;
}

static void cancel(struct world *world, uint32_t number)
{
	struct choice choice = {.world = world, .vm = &world->vms[number]};

	core_jobs_walk(world->core, consider, &choice);
	if (choice.seen == 0)
		return;
	audit_cancels(world, number);
	core_job_cancel(world->core, world->now_ns, choice.id);
}

static void hang_up(struct world *world, uint32_t number)
{
	uint64_t client = 1 + sim_random_below(&world->random, SIM_CLIENTS);

	audit_cancels(world, number);
	core_client_gone(world->core, world->now_ns, world->vms[number].core_vm, client);
}

void happen(struct world *world, uint64_t number)
{
	const struct scenario_event *event = &world->scenario->events[number];
	struct sim_vm *vm = &world->vms[event->vm];

	if (world->settling)
		return;
	if (event->every_ns)
		world_later(world, &(struct dated){.at_ns = world->now_ns + event->every_ns,
		                                   .thing = THING_HAPPENS,
		                                   .job = number});
	if (event->what == HAPPENS_RULE || event->what == HAPPENS_RESTART) {
		if (event->what == HAPPENS_RULE)
			change_rule(world, event);
		else
			registry_restart(world);
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
		happen_drain(world, core_vm_gpu(world->core, vm->core_vm), event->value != 0);
		break;
	case HAPPENS_HARDWARE:
		audit_hardware(world, core_vm_gpu(world->core, vm->core_vm));
		core_gpu_hardware_fault(world->core, world->now_ns,
		                        core_vm_gpu(world->core, vm->core_vm));
		break;
	case HAPPENS_FAULTY:
		set_faulty(world, core_vm_gpu(world->core, vm->core_vm), event->value != 0);
		break;
	case HAPPENS_CANCEL:
		cancel(world, event->vm);
		break;
	case HAPPENS_HANGUP:
		hang_up(world, event->vm);
		break;
	default:
		change_vm(world, vm, event);
		break;
	}
}
