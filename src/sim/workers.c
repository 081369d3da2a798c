/* SPDX-License-Identifier: MIT */
/*
 * The workers of a played world: what the core wants of them becomes things that happen
 * later on the GPU, and what happens there becomes events of the core.
 */
#include "base/units.h"
#include "sim/world_internal.h"

/* One way from the mediator to the GPU. */
#define LEAD_NS (15 * NS_PER_US)

/* How long a polite end takes. */
#define STOP_NS NS_PER_MS

/* The worker has answered, or has seen a job of its context end. */
static void answer_later(struct world *world, const struct dated *sent)
{
	struct dated item = *sent;

	item.thing = THING_ANSWER;
	item.at_ns = world->now_ns + WORLD_RETURN_NS;
	world_later(world, &item);
	if (world_chance(world, world->rules.twice_percent)) {
		item.at_ns += (int64_t)sim_random_below(&world->random, NS_PER_MS);
		world_later(world, &item);
	}
}

void worker_launch(struct world *world, const struct dated *item)
{
	struct sim_vm *vm = &world->vms[item->vm];

	if (!vm->alive || vm->generation != item->generation)
		return;
	if (item->length_ns == 0) { /* a request that does not touch the GPU */
		answer_later(world, item);
		return;
	}
	vm->on_gpu[(vm->on_gpu_first + vm->on_gpu_count++) % GPU_MODEL_STREAM] = *item;
	gpu_model_launch(world->gpus[vm->gpu], world->now_ns, item->vm, item->length_ns);
}

void worker_ended_on_gpu(struct world *world, uint32_t number)
{
	struct sim_vm *vm = &world->vms[number];
	struct dated item = vm->on_gpu[vm->on_gpu_first];

	vm->on_gpu_first = (vm->on_gpu_first + 1) % GPU_MODEL_STREAM;
	vm->on_gpu_count--;
	answer_later(world, &item);
}

/* What a job did to itself, or what the hardware did to it. */
static uint32_t exception(struct world *world)
{
	return world_chance(world, world->rules.hardware_percent) ? SIM_HARDWARE_ERROR
	                                                          : SIM_JOBS_ERROR;
}

void worker_answers(struct world *world, const struct dated *item)
{
	struct core_result result = {
		.code = item->faulty ? VGPU_CODE_CUDA : VGPU_CODE_OK,
		.detail = item->faulty ? exception(world) : 0,
		.context_lost = item->faulty,
		.command = UINT32_MAX,
		.gpu_time_ns = (uint64_t)item->length_ns,
	};
	const struct sim_vm *vm = &world->vms[item->vm];

	if (!vm->present)
		return;
	audit_worker_answers(world, item->vm, item, &result);
	core_job_done(world->core, world->now_ns, vm->core_vm, item->generation, item->job,
	              &result);
}

void worker_ready(struct world *world, uint32_t number, uint64_t generation)
{
	const struct sim_vm *vm = &world->vms[number];

	if (!vm->alive || vm->generation != generation)
		return;
	audit_worker_ready(world, number);
	core_worker_ready(world->core, world->now_ns, vm->core_vm, generation);
}

void worker_bury(struct world *world, uint32_t number, uint64_t generation)
{
	struct sim_vm *vm = &world->vms[number];

	if (!vm->alive || vm->generation != generation)
		return;
	vm->alive = false;
	vm->on_gpu_count = 0;
	gpu_model_kill(world->gpus[vm->gpu], world->now_ns, number);
	audit_worker_dead(world, number);
	core_worker_dead(world->core, world->now_ns, vm->core_vm, generation, SIM_DEATH_STATUS);
}

/* Something about this worker happens in @in_ns. */
static void later(struct world *world, enum thing thing, uint32_t number, uint64_t generation,
                  int64_t in_ns)
{
	world_later(world, &(struct dated){
				   .at_ns = world->now_ns + in_ns,
				   .thing = thing,
				   .vm = number,
				   .generation = generation,
			   });
}

void worker_start(struct world *world, uint32_t number, const struct core_action *action)
{
	bool fails = world_chance(world, world->rules.start_fail_percent);
	struct sim_vm *vm = &world->vms[number];

	vm->alive = true;
	vm->generation = action->generation;
	vm->gpu = action->gpu;
	later(world, fails ? THING_REAPED : THING_READY, number, action->generation,
	      world->rules.worker_start_ns);
}

void worker_end(struct world *world, uint32_t number, const struct core_action *action)
{
	int64_t in_ns =
		action->type == CORE_ACTION_KILL_WORKER ? world->rules.worker_reap_ns : STOP_NS;

	if (world_chance(world, world->rules.slow_reap_percent))
		in_ns = world->rules.slow_reap_ns;
	later(world, THING_REAPED, number, action->generation, in_ns);
}

void worker_send(struct world *world, uint32_t number, const struct core_action *action)
{
	const struct sim_job *job = action->payload;

	world_later(world, &(struct dated){
				   .at_ns = world->now_ns + LEAD_NS,
				   .thing = THING_LAUNCH,
				   .vm = number,
				   .generation = action->generation,
				   .job = action->job,
				   .length_ns = job->length_ns,
				   .faulty = job->faulty,
			   });
}
