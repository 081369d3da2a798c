/* SPDX-License-Identifier: MIT */
/*
 * What each VM of a played world had, and what it was due: its part by weight of what
 * all that share its GPU were given, over every stretch of time in which neither weights
 * nor who is there changed.
 */
#include "sim/world_internal.h"

static struct gpu_model_context_stats gpu_time(const struct world *world, uint32_t number)
{
	struct gpu_model_context_stats sum = {0, 0};

	for (uint32_t g = 0; g < world->scenario->gpus; g++) {
		struct gpu_model_context_stats one =
			gpu_model_context_stats(world->gpus[g], world->now_ns, number);

		sum.useful_ns += one.useful_ns;
		sum.occupied_ns += one.occupied_ns;
	}
	return sum;
}

/* Where the VM stands now: what decides its part from here on. */
static struct stand stand_of(const struct world *world, uint32_t number)
{
	const struct sim_vm *vm = &world->vms[number];

	if (!vm->present)
		return (struct stand){.gpu = 0};
	return (struct stand){
		.present = true,
		.gpu = core_vm_gpu(world->core, vm->core_vm),
		.claim = core_claim(&vm->settings),
	};
}

/* Brings what the VM had up to date. */
static void look(struct world *world, uint32_t number)
{
	struct gpu_model_context_stats time = gpu_time(world, number);
	struct sim_vm *vm = &world->vms[number];
	struct due *due = &vm->due;
	struct core_vm_stats stats;

	due->useful_ns = time.useful_ns;
	due->occupied_ns = time.occupied_ns;
	if (!vm->present)
		return;
	core_vm_stats(world->core, world->now_ns, vm->core_vm, &stats);
	due->charged_ns = due->before_ns + stats.sched.charged_ns;
	due->turn_ns = max_i64(due->turn_ns, stats.sched.turn_bound_ns);
}

/* Whether the VM, as far as settled, is one of those that GPU @g was shared among. */
static bool shares(const struct world *world, uint32_t number, uint32_t g)
{
	const struct stand *stand = &world->vms[number].due.stand;
	enum counts counts = world->scenario->vms[number].counts;

	return stand->present && stand->gpu == g &&
	       (counts == COUNTS_SHARE || counts == COUNTS_EXCESS);
}

/* Deals out to those on GPU @g what they had since the last time. */
static void settle_gpu(struct world *world, uint32_t g)
{
	const struct scenario *scenario = world->scenario;
	int64_t charged_ns = 0, occupied_ns = 0, claims = 0;

	for (uint32_t i = 0; i < scenario->vm_count; i++) {
		const struct due *due = &world->vms[i].due;

		if (!shares(world, i, g))
			continue;
		charged_ns += due->charged_ns - due->settled_charged_ns;
		occupied_ns += due->occupied_ns - due->settled_occupied_ns;
		claims += due->stand.claim;
	}
	for (uint32_t i = 0; i < scenario->vm_count; i++) {
		struct due *due = &world->vms[i].due;
		double part = (double)due->stand.claim / (double)claims;

		if (!shares(world, i, g))
			continue;
		due->due_charged_ns += part * (double)charged_ns;
		due->due_occupied_ns += part * (double)occupied_ns;
	}
}

static void settle(struct world *world)
{
	for (uint32_t i = 0; i < world->scenario->vm_count; i++)
		look(world, i);
	for (uint32_t g = 0; g < world->scenario->gpus; g++)
		settle_gpu(world, g);
	for (uint32_t i = 0; i < world->scenario->vm_count; i++) {
		struct due *due = &world->vms[i].due;

		due->stand = stand_of(world, i);
		due->settled_charged_ns = due->charged_ns;
		due->settled_occupied_ns = due->occupied_ns;
	}
}

void dues_before_event(struct world *world)
{
	for (uint32_t i = 0; i < world->scenario->vm_count; i++)
		if (world->vms[i].leaving && world->vms[i].present)
			look(world, i);
}

void dues_after_event(struct world *world)
{
	for (uint32_t i = 0; i < world->scenario->vm_count; i++) {
		struct stand now = stand_of(world, i), *was = &world->vms[i].due.stand;

		if (now.present == was->present && now.gpu == was->gpu && now.claim == was->claim)
			continue;
		settle(world);
		return;
	}
}

void dues_before_restart(struct world *world)
{
	for (uint32_t i = 0; i < world->scenario->vm_count; i++) {
		look(world, i);
		world->vms[i].due.before_ns = world->vms[i].due.charged_ns;
	}
}

void dues_start(struct world *world)
{
	settle(world);
	for (uint32_t i = 0; i < world->scenario->vm_count; i++) {
		struct due *due = &world->vms[i].due;

		due->start_charged_ns = due->charged_ns;
		due->start_occupied_ns = due->occupied_ns;
		due->start_useful_ns = due->useful_ns;
		due->due_charged_ns = 0;
		due->due_occupied_ns = 0;
	}
}

int64_t dues_occupied_ns(const struct world *world, uint32_t number)
{
	return gpu_time(world, number).occupied_ns;
}

void dues_end(struct world *world)
{
	settle(world);
	for (uint32_t i = 0; i < world->scenario->vm_count; i++) {
		struct world_vm_result *result = &world->result->vms[i];
		const struct due *due = &world->vms[i].due;

		result->charged_ns = due->charged_ns - due->start_charged_ns;
		result->occupied_ns = due->occupied_ns - due->start_occupied_ns;
		result->useful_ns = due->useful_ns - due->start_useful_ns;
		result->due_charged_ns = due->due_charged_ns;
		result->due_occupied_ns = due->due_occupied_ns;
		result->turn_ns = due->turn_ns;
	}
}
