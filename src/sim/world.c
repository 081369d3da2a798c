/* SPDX-License-Identifier: MIT */
/* See world.h. */
#include "sim/world.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"
#include "sim/world_internal.h"

/* One way between the mediator and the GPU. */
#define LEAD_NS   (15 * NS_PER_US)
#define RETURN_NS (15 * NS_PER_US)

/* Steps at one instant that no scenario needs. */
#define STANDSTILL_MAX 1000000

/* How long a polite end takes. */
#define STOP_NS NS_PER_MS

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

bool world_vm_present(const struct world *world, uint32_t vm, uint32_t *core_vm)
{
	*core_vm = world->vms[vm].core_vm;
	return world->vms[vm].present;
}

uint32_t world_unanswered(const struct world *world)
{
	return world->unanswered;
}

void world_later(struct world *world, const struct dated *item)
{
	int r = timeline_push(&world->timeline, item);

	if (r < 0)
		world->error = r;
}

/* ---- Workers and GPUs --------------------------------------------------------- */

static void record_wait(struct world *world, uint32_t number, int64_t wait_ns)
{
	struct world_vm_result *result = &world->result->vms[number];

	if (result->wait_count == result->wait_capacity) {
		uint32_t capacity = result->wait_capacity ? 2 * result->wait_capacity : 1024;
		int64_t *waits = reallocarray(result->waits_ns, capacity, sizeof(*waits));

		if (!waits) {
			world->error = -ENOMEM;
			return;
		}
		result->waits_ns = waits;
		result->wait_capacity = capacity;
	}
	result->waits_ns[result->wait_count++] = wait_ns;
}

/* The worker has answered, or has seen a job of its context end. */
static void answer_later(struct world *world, const struct dated *sent)
{
	struct dated item = *sent;

	item.thing = THING_ANSWER;
	item.at_ns = world->now_ns + RETURN_NS;
	world_later(world, &item);
}

static void launch(struct world *world, const struct dated *item)
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

static void ended_on_gpu(struct world *world, uint32_t number)
{
	struct sim_vm *vm = &world->vms[number];
	struct dated item = vm->on_gpu[vm->on_gpu_first];

	vm->on_gpu_first = (vm->on_gpu_first + 1) % GPU_MODEL_STREAM;
	vm->on_gpu_count--;
	if (world->warm) {
		world->result->vms[number].done++;
		if (world->options->record)
			record_wait(world, number,
			            world->now_ns - item.arrived_ns - item.length_ns);
	}
	answer_later(world, &item);
}

static void worker_answers(struct world *world, const struct dated *item)
{
	struct core_result result = {
		.code = item->faulty ? VGPU_CODE_CUDA : VGPU_CODE_OK,
		.detail = item->faulty ? 700 : 0,
		.command = UINT32_MAX,
		.gpu_time_ns = (uint64_t)item->length_ns,
	};
	const struct sim_vm *vm = &world->vms[item->vm];

	if (vm->present)
		core_job_done(world->core, world->now_ns, vm->core_vm, item->generation, item->job,
		              &result);
}

/* The worker's process is gone, and its context with it. */
static void bury(struct world *world, const struct dated *item)
{
	struct sim_vm *vm = &world->vms[item->vm];

	if (!vm->alive || vm->generation != item->generation)
		return;
	vm->alive = false;
	vm->on_gpu_count = 0;
	gpu_model_kill(world->gpus[vm->gpu], world->now_ns, item->vm);
	core_worker_dead(world->core, world->now_ns, vm->core_vm, item->generation);
}

/* ---- Actions of the core ------------------------------------------------------- */

static uint64_t hash_add(uint64_t hash, uint64_t value)
{
	hash = (hash ^ value) * UINT64_C(0x9e3779b97f4a7c15);
	return hash ^ (hash >> 29);
}

static void act(struct world *world, const struct core_action *action)
{
	uint32_t number = (uint32_t)((struct sim_vm *)action->owner - world->vms);
	struct sim_vm *vm = &world->vms[number];
	struct dated item = {.vm = number, .generation = action->generation, .job = action->job};
	struct sim_job *job = action->payload;

	switch (action->type) {
	case CORE_ACTION_START_WORKER:
		vm->alive = true;
		vm->generation = action->generation;
		vm->gpu = action->gpu;
		item.thing = THING_READY;
		item.at_ns = world->now_ns + world->scenario->worker_start_ns;
		world_later(world, &item);
		break;
	case CORE_ACTION_STOP_WORKER:
	case CORE_ACTION_KILL_WORKER:
		item.thing = THING_REAPED;
		item.at_ns = world->now_ns + (action->type == CORE_ACTION_STOP_WORKER
		                                      ? STOP_NS
		                                      : world->scenario->worker_reap_ns);
		world_later(world, &item);
		break;
	case CORE_ACTION_SEND_JOB:
		world->result->sent++;
		item.thing = THING_LAUNCH;
		item.at_ns = world->now_ns + LEAD_NS;
		item.length_ns = job->length_ns;
		item.arrived_ns = job->arrived_ns;
		item.faulty = job->faulty;
		world_later(world, &item);
		break;
	case CORE_ACTION_ANSWER:
		guest_put_job(world, job);
		world->unanswered--;
		guest_answered(world, number, &action->answer);
		break;
	case CORE_ACTION_VM_GONE:
		vm->present = false;
		break;
	case CORE_ACTION_STORE:
		core_store_done(world->core, world->now_ns, action->store.ticket, true);
		break;
	default: /* what only operators cause, and no scenario does */
		break;
	}
}

static void drain(struct world *world)
{
	struct world_result *result = world->result;
	struct core_action action;

	while (core_next_action(world->core, &action)) {
		result->hash = hash_add(result->hash, (uint64_t)world->now_ns);
		result->hash = hash_add(result->hash, (uint64_t)action.type << 32 | action.vm);
		result->hash = hash_add(result->hash, action.job ^ action.generation);
		act(world, &action);
	}
}

/* ---- VMs ------------------------------------------------------------------------ */

static void join(struct world *world, uint32_t number)
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

static void happen(struct world *world, const struct scenario_event *event)
{
	struct sim_vm *vm = &world->vms[event->vm];

	if (!vm->present || vm->leaving)
		return;
	switch (event->what) {
	case HAPPENS_WEIGHT:
		vm->settings.weight_hundredths = event->value;
		break;
	case HAPPENS_PRIORITY:
		vm->settings.priority = (uint32_t)event->value;
		break;
	case HAPPENS_POOL:
		vm->settings.pool = (uint32_t)event->value;
		break;
	case HAPPENS_HANG:
		vm->hang_next = true;
		return;
	case HAPPENS_FAULT:
		vm->fault_next = true;
		return;
	case HAPPENS_DEATH:
		bury(world, &(struct dated){.vm = event->vm, .generation = vm->generation});
		return;
	case HAPPENS_DRAIN:
		core_gpu_set_draining(world->core, world->now_ns,
		                      core_vm_gpu(world->core, vm->core_vm), event->value != 0);
		return;
	case HAPPENS_QUARANTINE:
		vm->quarantined = event->value != 0;
		break;
	case HAPPENS_COUNT:
		return;
	}
	core_vm_set(world->core, world->now_ns, vm->core_vm, &vm->settings, vm->quarantined);
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
		launch(world, item);
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
		bury(world, item);
		break;
	case THING_JOIN:
		join(world, item->vm);
		break;
	case THING_LEAVE:
		if (vm->present) {
			vm->leaving = true;
			core_vm_remove(world->core, world->now_ns, vm->core_vm);
		}
		break;
	case THING_HAPPENS:
		happen(world, &world->scenario->events[item->job]);
		break;
	}
}

/* The VM's GPU time so far, over both GPUs. */
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

static int64_t charged_ns(struct world *world, uint32_t number)
{
	struct core_vm_stats stats;

	if (!world->vms[number].present)
		return 0;
	core_vm_stats(world->core, world->now_ns, world->vms[number].core_vm, &stats);
	return stats.sched.charged_ns;
}

static void end_warmup(struct world *world)
{
	world->warm = true;
	for (uint32_t i = 0; i < world->scenario->vm_count; i++) {
		world->vms[i].warmup = gpu_time(world, i);
		world->vms[i].warmup_charged_ns = charged_ns(world, i);
	}
}

/* Figures at fixed instants, taken when time reaches them. */
static void sample(struct world *world, int64_t to_ns)
{
	const struct scenario *scenario = world->scenario;

	if (!world->warm && to_ns >= scenario->warmup_ns) {
		world->now_ns = max_i64(world->now_ns, min_i64(to_ns, scenario->warmup_ns));
		end_warmup(world);
	}
	while (world->options->record && world->bucket <= WORLD_BUCKETS) {
		int64_t at_ns = scenario->duration_ns / WORLD_BUCKETS * world->bucket;

		if (at_ns > to_ns)
			break;
		world->now_ns = max_i64(world->now_ns, at_ns);
		for (uint32_t i = 0; i < scenario->vm_count; i++)
			world->result->vms[i].occupied_at_ns[world->bucket] =
				gpu_time(world, i).occupied_ns;
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
			ended_on_gpu(world, (uint32_t)number);
		return true;
	}
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

	core_config_default(&config);
	config.policy = world->options->policy->policy;
	config.sched = scenario->sched;
	if (world->options->policy->exclusive)
		config.sched.overlap_max = 1;
	config.gpu_count = scenario->gpus;
	config.pools[0].gpu_mask = 1;
	config.pools[1].gpu_mask = 1u << (scenario->gpus - 1);
	config.job_timeout_ns = scenario->job_timeout_ns;
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
	for (uint32_t i = 0; i < world->scenario->vm_count; i++) {
		struct gpu_model_context_stats time = gpu_time(world, i);

		result->vms[i].useful_ns = time.useful_ns - world->vms[i].warmup.useful_ns;
		result->vms[i].occupied_ns = time.occupied_ns - world->vms[i].warmup.occupied_ns;
		result->vms[i].charged_ns = charged_ns(world, i) - world->vms[i].warmup_charged_ns;
	}
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
	while ((job = world->free_jobs)) {
		world->free_jobs = job->next_free;
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
