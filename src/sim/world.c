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

/* In which everything has been tried again that failed. */
#define SETTLE_NS (15 * NS_PER_SEC)

struct core *world_core(const struct world *world)
{
	return world->core;
}

int64_t world_now_ns(const struct world *world)
{
	return world->now_ns;
}

uint32_t world_epoch(const struct world *world)
{
	return world->epoch;
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
	if (world->scenario->shared)
		config.pools[0].gpu_mask = config.pools[1].gpu_mask =
			(1u << world->scenario->gpus) - 1;
	return config;
}

void world_later(struct world *world, const struct dated *item)
{
	struct dated dated = *item;
	int r;

	dated.epoch = world->epoch;
	r = timeline_push(&world->timeline, &dated);
	if (r < 0)
		world->error = r;
}

bool world_chance(struct world *world, uint32_t percent)
{
	return percent && sim_random_below(&world->random, 100) < percent;
}

uint32_t world_number_of(const struct world *world, const struct core_action *action)
{
	return (uint32_t)((const struct sim_vm *)action->owner - world->vms);
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
	uint32_t number =
		action->type == CORE_ACTION_GPU_DRAINED ? 0 : world_number_of(world, action);

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
		registry_store(world, number, &action->store);
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
		audit_action(world, &action);
		act(world, &action);
	}
}

/* ---- Time ------------------------------------------------------------------------- */

/* From a mediator of the past, or a worker of it: nobody is there to take it. */
static bool is_past(const struct world *world, const struct dated *item)
{
	switch (item->thing) {
	case THING_LAUNCH:
	case THING_ANSWER:
	case THING_READY:
	case THING_REAPED:
	case THING_STORED:
		return item->epoch != world->epoch;
	default:
		return false;
	}
}

static void dispatch(struct world *world, const struct dated *item)
{
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
		worker_ready(world, item->vm, item->generation);
		break;
	case THING_REAPED:
		worker_bury(world, item->vm, item->generation);
		break;
	case THING_STORED:
		registry_stored(world, item->job);
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

static void violate(struct world *world, const char *what)
{
	world->result->violation = what;
	world->result->violation_ns = world->now_ns;
}

static void observe(struct world *world)
{
	const char *what = NULL;

	if (world->options->observer)
		what = world->options->observer(world->options->observer_context, world);
	if (world->standstill > STANDSTILL_MAX)
		what = "time stands still: a deadline asks for itself again";
	if (what)
		violate(world, what);
}

static void core_event(struct world *world, bool timer)
{
	dues_before_event(world);
	if (timer) {
		core_tick(world->core, world->now_ns);
	} else {
		struct dated item = timeline_pop(&world->timeline);

		if (is_past(world, &item))
			return;
		dispatch(world, &item);
		if (world->error < 0 || item.thing == THING_LAUNCH)
			return;
	}
	world->result->events++;
	drain(world);
	dues_after_event(world);
	observe(world);
}

/* Has the next thing happen. False when there is nothing more until @until_ns. */
static bool step(struct world *world, int64_t until_ns)
{
	int64_t thing_ns = timeline_next_ns(&world->timeline);
	int64_t next_ns = min_i64(thing_ns, core_deadline_ns(world->core));
	int64_t gpu_ns = GPU_MODEL_NEVER;
	uint32_t gpu = 0;

	for (uint32_t g = 0; g < world->scenario->gpus; g++) {
		int64_t at_ns = gpu_model_next_ns(world->gpus[g]);

		if (at_ns < gpu_ns) {
			gpu_ns = at_ns;
			gpu = g;
		}
	}
	next_ns = min_i64(next_ns, gpu_ns);
	if (next_ns > until_ns)
		return false;
	world->standstill = next_ns > world->now_ns ? 0 : world->standstill + 1;
	sample(world, next_ns);
	world->now_ns = max_i64(world->now_ns, next_ns);
	if (gpu_ns == next_ns) {
		int64_t number = gpu_model_step(world->gpus[gpu]);

		if (number >= 0)
			worker_ended_on_gpu(world, (uint32_t)number);
	} else {
		core_event(world, thing_ns != next_ns);
	}
	return true;
}

static bool goes_on(const struct world *world)
{
	return world->error == 0 && !world->result->violation;
}

static int set_up(struct world *world)
{
	const struct scenario *scenario = world->scenario;
	struct core_config config;
	int r = 0;

	world->rules = scenario->rules;
	TAILQ_INIT(&world->free_jobs);
	TAILQ_INIT(&world->stores);
	sim_random_seed(&world->random, scenario->seed, UINT32_MAX);
	config = world_core_config(world);
	r = core_new(&world->core, &config, 0);
	for (uint32_t g = 0; r == 0 && g < scenario->gpus; g++)
		r = gpu_model_new(&world->gpus[g], &gpu_model_h100, scenario->vm_count);
	for (uint32_t i = 0; r == 0 && i < scenario->vm_count; i++) {
		const struct scenario_vm *what = &scenario->vms[i];

		TAILQ_INIT(&world->vms[i].jobs);
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

void world_count(struct world *world)
{
	for (uint32_t g = 0; g < world->scenario->gpus; g++) {
		struct sched_stats stats;

		core_gpu_stats(world->core, g, &stats);
		world->result->turns += stats.turns;
		world->result->decisions += stats.decisions;
	}
}

static void collect(struct world *world)
{
	struct world_result *result = world->result;

	result->elapsed_ns = world->scenario->duration_ns - world->scenario->warmup_ns;
	world_count(world);
	for (uint32_t g = 0; g < world->scenario->gpus; g++)
		result->gpu_switches += gpu_model_switches(world->gpus[g]);
	for (uint32_t i = 0; i < world->scenario->vm_count; i++)
		guest_count_unanswered(world, i);
	dues_end(world);
}

/* ---- The end ------------------------------------------------------------------------ */

/* From here on nothing goes wrong any more, and nobody asks for anything. */
static void heal(struct world *world)
{
	struct core_config config;

	world->settling = true;
	world->rules.start_fail_percent = 0;
	world->rules.slow_reap_percent = 0;
	world->rules.store_fail_percent = 0;
	world->rules.core.pools[0].enabled = true;
	world->rules.core.pools[1].enabled = true;
	config = world_core_config(world);
	core_config_set(world->core, world->now_ns, &config);
	for (uint32_t g = 0; g < world->scenario->gpus; g++)
		happen_drain(world, g, false);
}

/* Goes on until @reached says so, for a day at most. */
static void go_on_until(struct world *world, bool (*reached)(const struct core_stats *stats),
                        const char *what)
{
	int64_t until_ns = world->now_ns + 86400 * NS_PER_SEC;
	struct core_stats stats;

	for (;;) {
		core_stats(world->core, &stats);
		if (reached(&stats) || !goes_on(world))
			return;
		if (!step(world, until_ns))
			break;
	}
	violate(world, what);
}

static bool no_jobs(const struct core_stats *stats)
{
	return stats->jobs == 0;
}

/* Time for what is tried again and again: a quarantine that could not be stored. */
static void go_on_for(struct world *world, int64_t for_ns)
{
	int64_t until_ns = world->now_ns + for_ns;

	while (goes_on(world) && step(world, until_ns))
		;
	world->now_ns = max_i64(world->now_ns, until_ns);
}

static bool no_vms(const struct core_stats *stats)
{
	return stats->vms == 0 && stats->workers == 0;
}

static void settle(struct world *world)
{
	heal(world);
	drain(world);
	observe(world);
	go_on_until(world, no_jobs, "nothing goes wrong any more, and a job is not answered");
	go_on_for(world, SETTLE_NS);
	if (goes_on(world) && !registry_is_right(world))
		violate(world, "a quarantine is not in the registry, or one that is no more");
	for (uint32_t i = 0; i < world->scenario->vm_count && goes_on(world); i++) {
		happen_leave(world, i);
		drain(world);
		observe(world);
	}
	go_on_until(world, no_vms, "all VMs are to go, and one does not");
}

static void free_jobs(struct sim_job_list *jobs)
{
	struct sim_job *job;

	while ((job = TAILQ_FIRST(jobs))) {
		TAILQ_REMOVE(jobs, job, link);
		free(job);
	}
}

static void tear_down(struct world *world)
{
	core_free(world->core);
	gpu_model_free(world->gpus[0]);
	gpu_model_free(world->gpus[1]);
	timeline_fini(&world->timeline);
	registry_clear(world);
	free_jobs(&world->free_jobs);
	for (uint32_t i = 0; i < world->scenario->vm_count; i++)
		free_jobs(&world->vms[i].jobs);
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
	while (r == 0 && goes_on(world) && step(world, scenario->duration_ns))
		r = world->error;
	if (r == 0 && goes_on(world)) {
		sample(world, scenario->duration_ns);
		world->now_ns = max_i64(world->now_ns, scenario->duration_ns);
		collect(world);
		if (options->settle)
			settle(world);
		r = world->error;
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
