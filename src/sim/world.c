/* SPDX-License-Identifier: MIT */
/* See world.h. */
#include "sim/world.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"
#include "sim/world_internal.h"

/* Steps at one instant that no scenario needs. */
#define STANDSTILL_MAX 1000000

struct core *world_core(const struct world *world)
{
	return world->core;
}

int64_t world_now_ns(const struct world *world)
{
	return world->now_ns;
}

const struct scenario *world_scenario(const struct world *world)
{
	return world->scenario;
}

const struct scenario_rules *world_rules(const struct world *world)
{
	return &world->rules;
}

bool world_vm_present(const struct world *world, uint32_t vm, uint32_t *core_vm)
{
	*core_vm = world->vms[vm].core_vm;
	return world->vms[vm].present;
}

uint32_t world_unanswered(const struct world *world)
{
	return world->unanswered;
}

struct core_config world_core_config(const struct world *world)
{
	struct core_config config = world->rules.core;

	config.policy = world->options->policy->policy;
	if (world->options->policy->exclusive)
		config.sched.overlap_max = 1;
	config.gpu_count = world->scenario->gpus;
	config.pools[0].gpu_mask = 1;
	config.pools[1].gpu_mask = 1u << (world->scenario->gpus - 1);
	return config;
}

void world_later(struct world *world, const struct dated *item)
{
	int r = timeline_push(&world->timeline, item);

	if (r < 0)
		world->error = r;
}

/* ---- Actions of the core ------------------------------------------------------- */

static uint64_t hash_add(uint64_t hash, uint64_t value)
{
	hash = (hash ^ value) * UINT64_C(0x9e3779b97f4a7c15);
	return hash ^ (hash >> 29);
}

static void hash_action(struct world *world, const struct core_action *action)
{
	uint64_t hash = world->result->hash;

	hash = hash_add(hash, (uint64_t)world->now_ns);
	hash = hash_add(hash, (uint64_t)action->type << 32 | action->vm);
	hash = hash_add(hash, action->generation << 8 | action->gpu);
	hash = hash_add(hash, action->job);
	hash = hash_add(hash, (uint64_t)action->answer.code << 32 | action->answer.detail);
	hash = hash_add(hash, action->answer.retry_after_us);
	hash = hash_add(hash, action->store.ticket << 8 | (uint64_t)action->store.quarantine);
	world->result->hash = hash_add(hash, (uint64_t)action->store.points);
}

static void act(struct world *world, const struct core_action *action)
{
	uint32_t number = (uint32_t)((struct sim_vm *)action->owner - world->vms);

	switch (action->type) {
	case CORE_ACTION_START_WORKER:
		worker_start(world, number, action);
		break;
	case CORE_ACTION_STOP_WORKER:
	case CORE_ACTION_KILL_WORKER:
		worker_end(world, number, action);
		break;
	case CORE_ACTION_SEND_JOB:
		world->result->sent++;
		worker_send(world, number, action);
		break;
	case CORE_ACTION_ANSWER:
		world->unanswered--;
		guest_answered(world, number, action->payload, &action->answer);
		break;
	case CORE_ACTION_VM_GONE:
		world->vms[number].present = false;
		break;
	case CORE_ACTION_STORE:
		core_store_done(world->core, world->now_ns, action->store.ticket, true);
		break;
	case CORE_ACTION_WORKER_STUCK: /* what follows from these is for operators to decide */
	case CORE_ACTION_WORKER_FREED:
	case CORE_ACTION_WORKER_FAILING:
	case CORE_ACTION_GPU_DRAINED:
		break;
	}
}

static void drain(struct world *world)
{
	struct core_action action;

	while (core_next_action(world->core, &action)) {
		hash_action(world, &action);
		act(world, &action);
	}
}

/* ---- Time ------------------------------------------------------------------------- */

static void dispatch(struct world *world, const struct dated *item)
{
	struct sim_vm *vm = &world->vms[item->vm];

	switch (item->thing) {
	case THING_SUBMIT:
		guest_submit(world, item->vm);
		break;
	case THING_LAUNCH:
		worker_launch(world, item);
		break;
	case THING_ANSWER:
		worker_answers(world, item);
		break;
	case THING_READY:
		if (vm->alive)
			core_worker_ready(world->core, world->now_ns, vm->core_vm,
			                  item->generation);
		break;
	case THING_REAPED:
		worker_bury(world, item->vm, item->generation);
		break;
	case THING_JOIN:
		happen_join(world, item->vm);
		break;
	case THING_LEAVE:
		happen_leave(world, item->vm);
		break;
	case THING_HAPPENS:
		happen(world, item->job);
		break;
	}
}

/* Figures at fixed instants, taken when time reaches them. */
static void sample(struct world *world, int64_t to_ns)
{
	const struct scenario *scenario = world->scenario;

	if (!world->warm && to_ns >= scenario->warmup_ns) {
		world->now_ns = max_i64(world->now_ns, min_i64(to_ns, scenario->warmup_ns));
		world->warm = true;
		dues_start(world);
	}
	while (world->options->record && world->bucket <= WORLD_BUCKETS) {
		int64_t at_ns = scenario->duration_ns / WORLD_BUCKETS * world->bucket;

		if (at_ns > to_ns)
			break;
		world->now_ns = max_i64(world->now_ns, at_ns);
		for (uint32_t i = 0; i < scenario->vm_count; i++)
			world->result->vms[i].occupied_at_ns[world->bucket] =
				dues_occupied_ns(world, i);
		world->bucket++;
	}
}

/* Has the next thing happen. False at the end of the scenario. */
static bool step(struct world *world)
{
	int64_t thing_ns = timeline_next_ns(&world->timeline);
	int64_t tick_ns = core_deadline_ns(world->core);
	int64_t next_ns = min_i64(thing_ns, tick_ns), gpu_ns = GPU_MODEL_NEVER;
	uint32_t gpu = 0;

	for (uint32_t g = 0; g < world->scenario->gpus; g++) {
		int64_t at_ns = gpu_model_next_ns(world->gpus[g]);

		if (at_ns < gpu_ns) {
			gpu_ns = at_ns;
			gpu = g;
		}
	}
	next_ns = min_i64(next_ns, gpu_ns);
	if (next_ns > world->scenario->duration_ns)
		return false;
	world->standstill = next_ns > world->now_ns ? 0 : world->standstill + 1;
	sample(world, next_ns);
	world->now_ns = max_i64(world->now_ns, next_ns);
	if (gpu_ns == next_ns) {
		int64_t number = gpu_model_step(world->gpus[gpu]);

		if (number >= 0)
			worker_ended_on_gpu(world, (uint32_t)number);
		return true;
	}
	dues_before_event(world);
	if (thing_ns == next_ns) {
		struct dated item = timeline_pop(&world->timeline);

		dispatch(world, &item);
		if (item.thing == THING_LAUNCH)
			return true;
	} else {
		core_tick(world->core, world->now_ns);
	}
	world->result->events++;
	drain(world);
	dues_after_event(world);
	return true;
}

static void observe(struct world *world)
{
	if (world->options->observer)
		world->result->violation =
			world->options->observer(world->options->observer_context, world);
	if (world->standstill > STANDSTILL_MAX)
		world->result->violation = "time stands still: a deadline asks for itself again";
	if (world->result->violation)
		world->result->violation_ns = world->now_ns;
}

static int set_up(struct world *world)
{
	const struct scenario *scenario = world->scenario;
	struct core_config config;
	int r = 0;

	world->rules = scenario->rules;
	config = world_core_config(world);
	r = core_new(&world->core, &config, 0);
	for (uint32_t g = 0; r == 0 && g < scenario->gpus; g++)
		r = gpu_model_new(&world->gpus[g], &gpu_model_h100, scenario->vm_count);
	for (uint32_t i = 0; r == 0 && i < scenario->vm_count; i++) {
		const struct scenario_vm *what = &scenario->vms[i];

		sim_random_seed(&world->vms[i].random, scenario->seed,
		                what->stream ? what->stream : i + 1);
		world_later(world,
		            &(struct dated){.at_ns = what->join_ns, .thing = THING_JOIN, .vm = i});
		if (what->leave_ns)
			world_later(world, &(struct dated){.at_ns = what->leave_ns,
			                                   .thing = THING_LEAVE,
			                                   .vm = i});
	}
	for (uint32_t i = 0; r == 0 && i < scenario->event_count; i++)
		world_later(world, &(struct dated){.at_ns = scenario->events[i].at_ns,
		                                   .thing = THING_HAPPENS,
		                                   .job = i});
	return r < 0 ? r : world->error;
}

static void collect(struct world *world)
{
	struct world_result *result = world->result;

	result->elapsed_ns = world->scenario->duration_ns - world->scenario->warmup_ns;
	for (uint32_t g = 0; g < world->scenario->gpus; g++) {
		struct sched_stats stats;

		core_gpu_stats(world->core, g, &stats);
		result->turns += stats.turns;
		result->gpu_switches += gpu_model_switches(world->gpus[g]);
	}
	for (uint32_t i = 0; i < world->scenario->vm_count; i++)
		guest_count_unanswered(world, i);
	dues_end(world);
}

static void tear_down(struct world *world)
{
	struct core_action action;
	struct sim_job *job;

	if (world->core) {
		core_abandon(world->core);
		while (core_next_action(world->core, &action))
			if (action.type == CORE_ACTION_ANSWER)
				guest_put_job(world, action.payload);
		core_free(world->core);
	}
	gpu_model_free(world->gpus[0]);
	gpu_model_free(world->gpus[1]);
	timeline_fini(&world->timeline);
	while ((job = LIST_FIRST(&world->free_jobs))) {
		LIST_REMOVE(job, link);
		free(job);
	}
	free(world);
}

int world_run(struct world_result *out, const struct scenario *scenario,
              const struct world_options *options)
{
	struct world *world = calloc(1, sizeof(*world));
	int r;

	if (!world)
		return -ENOMEM;
	memset(out, 0, sizeof(*out));
	world->scenario = scenario;
	world->options = options;
	world->result = out;
	r = set_up(world);
	while (r == 0 && !out->violation && step(world)) {
		observe(world);
		r = world->error;
	}
	if (r == 0) {
		sample(world, scenario->duration_ns);
		world->now_ns = max_i64(world->now_ns, scenario->duration_ns);
		collect(world);
	}
	tear_down(world);
	if (r < 0)
		world_result_fini(out);
	return r;
}

void world_result_fini(struct world_result *result)
{
	for (uint32_t i = 0; i < SCENARIO_VMS; i++)
		free(result->vms[i].waits_ns);
	memset(result, 0, sizeof(*result));
}
