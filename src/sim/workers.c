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

void worker_answers(struct world *world, const struct dated *item)
{
	struct core_result result = {
		.code = item->faulty ? VGPU_CODE_CUDA : VGPU_CODE_OK,
		.detail = item->faulty ? 700 : 0,
		.command = UINT32_MAX,
		.gpu_time_ns = (uint64_t)item->length_ns,
		.context_lost = item->faulty,
	};
	const struct sim_vm *vm = &world->vms[item->vm];

	if (vm->present)
		core_job_done(world->core, world->now_ns, vm->core_vm, item->generation, item->job,
		              &result);
}

void worker_bury(struct world *world, uint32_t number, uint64_t generation)
{
	struct sim_vm *vm = &world->vms[number];

	if (!vm->alive || vm->generation != generation)
		return;
	vm->alive = false;
	vm->on_gpu_count = 0;
	gpu_model_kill(world->gpus[vm->gpu], world->now_ns, number);
	core_worker_dead(world->core, world->now_ns, vm->core_vm, generation, 0);
}

void worker_start(struct world *world, uint32_t number, const struct core_action *action)
{
	struct sim_vm *vm = &world->vms[number];

	vm->alive = true;
	vm->generation = action->generation;
	vm->gpu = action->gpu;
	world_later(world, &(struct dated){
				   .at_ns = world->now_ns + world->rules.worker_start_ns,
				   .thing = THING_READY,
				   .vm = number,
				   .generation = action->generation,
			   });
}

void worker_end(struct world *world, uint32_t number, const struct core_action *action)
{
	bool killed = action->type == CORE_ACTION_KILL_WORKER;

	world_later(world, &(struct dated){
				   .at_ns = world->now_ns +
	                                    (killed ? world->rules.worker_reap_ns : STOP_NS),
				   .thing = THING_REAPED,
				   .vm = number,
				   .generation = action->generation,
			   });
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
