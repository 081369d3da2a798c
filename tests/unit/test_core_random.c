/* SPDX-License-Identifier: MIT */
/*
 * The core among everything at once: random events of all kinds, from seeds that never
 * change, against a simple model of who may still expect what.
 *
 * After each event the core's own invariants hold; each accepted job is sent at most
 * once, in the order of its VM, to a worker that is there, and answered exactly once;
 * refused jobs are never sent; workers are started, stopped and killed only in states
 * where that makes sense. The same seed gives the same actions. Once the faults stop,
 * all jobs end and all VMs can go.
 */
#include "core/core.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/util.h"

enum {
	VMS = 9,
	GPUS = 3,
	CLIENTS = 4,
	EVENTS = 10000, /* of one seed */
	SEEDS = 20,
	QUEUE_MAX = 24,
	JOBS_SENT_MAX = 4,
	TICKETS = 64,
	END_STEPS = 200000,
};

struct vm_model {
	bool exists;
	bool removing;
	uint32_t number;
	uint64_t last_sent; /* cookie */
	uint64_t last_generation;
	uint32_t last_gpu;
	uint64_t unanswered;
};

struct record {
	struct vm_model *vm;
	uint64_t job; /* once it is sent */
	bool sent;
	bool answered;
	bool result_given;
};

struct process {
	struct vm_model *vm; /* NULL = free */
	uint64_t generation;
	uint32_t gpu;
	bool ready, stopping, killed, stuck;
	uint64_t jobs[JOBS_SENT_MAX]; /* cookies, oldest first */
	unsigned int count;
};

struct ticket {
	uint64_t number;
	bool quarantine;
};

/* What was reached, over all seeds: a test that reaches nothing proves nothing. */
struct reached {
	uint64_t codes[VGPU_CODE_COUNT];
	uint64_t busy[VGPU_BUSY_GPU_RESET + 1];
	uint64_t actions[CORE_ACTION_VM_GONE + 1];
	uint64_t quarantines, moves, stale, cancelled, waits;
};

struct play {
	struct core_config config;
	struct core *core;
	uint64_t random;
	uint64_t hash;
	int64_t now_ns;
	struct vm_model vms[VMS];
	struct process processes[VMS];
	struct record *records; /* by cookie */
	uint64_t submitted;
	struct ticket tickets[TICKETS];
	unsigned int ticket_count;
	bool draining[GPUS], drained[GPUS];
	uint32_t workers; /* after the last event */
	struct reached *reached;
};

static uint64_t random_below(struct play *play, uint64_t bound)
{
	play->random ^= play->random << 13;
	play->random ^= play->random >> 7;
	play->random ^= play->random << 17;
	return (play->random >> 11) % bound;
}

static bool chance(struct play *play, uint64_t percent)
{
	return random_below(play, 100) < percent;
}

/* ---- What comes out --------------------------------------------------------------- */

static void hash_in(struct play *play, uint64_t value)
{
	play->hash = (play->hash ^ value) * UINT64_C(0x100000001b3);
	play->hash ^= play->hash >> 29;
}

static struct process *process_of(struct play *play, const struct vm_model *vm)
{
	for (size_t i = 0; i < VMS; i++) {
		if (play->processes[i].vm == vm)
			return &play->processes[i];
	}
	return NULL;
}

static struct process *expect_process(struct play *play, const struct core_action *action)
{
	struct process *process = process_of(play, action->owner);

	assert_non_null(process);
	assert_int_equal(process->generation, action->generation);
	return process;
}

static void on_start(struct play *play, const struct core_action *action)
{
	struct vm_model *vm = action->owner;
	struct process *process = process_of(play, NULL);

	assert_null(process_of(play, vm));
	assert_non_null(process);
	assert_true(action->generation > vm->last_generation);
	assert_false(play->draining[action->gpu]);
	play->reached->moves += vm->last_generation && vm->last_gpu != action->gpu;
	*process = (struct process){.vm = vm, .generation = action->generation, .gpu = action->gpu};
	vm->last_generation = action->generation;
	vm->last_gpu = action->gpu;
}

static void on_stop(struct play *play, const struct core_action *action)
{
	struct process *process = expect_process(play, action);

	assert_true(process->ready && !process->stopping && !process->killed);
	assert_int_equal(process->count, 0);
	process->stopping = true;
}

static void on_kill(struct play *play, const struct core_action *action)
{
	struct process *process = expect_process(play, action);

	assert_false(process->killed);
	process->killed = true;
}

static void on_stuck(struct play *play, const struct core_action *action)
{
	struct process *process = expect_process(play, action);

	assert_true(process->killed && !process->stuck);
	process->stuck = true;
}

static uint64_t cookie_of(const struct play *play, const void *payload)
{
	return (uint64_t)((const struct record *)payload - play->records);
}

static void on_send(struct play *play, const struct core_action *action)
{
	struct process *process = expect_process(play, action);
	uint64_t cookie = cookie_of(play, action->payload);
	struct record *record = &play->records[cookie];

	assert_in_range(cookie, 1, play->submitted);
	assert_true(process->ready && !process->stopping && !process->killed);
	assert_ptr_equal(record->vm, process->vm);
	assert_false(record->sent || record->answered);
	assert_true(cookie > process->vm->last_sent);
	assert_true(process->count < JOBS_SENT_MAX);
	assert_false(play->draining[process->gpu]);
	process->vm->last_sent = cookie;
	record->sent = true;
	record->job = action->job;
	process->jobs[process->count++] = cookie;
}

static void forget_job(struct process *process, uint64_t cookie)
{
	for (unsigned int i = 0; process && i < process->count; i++) {
		if (process->jobs[i] == cookie) {
			process->count--;
			memmove(&process->jobs[i], &process->jobs[i + 1],
			        (process->count - i) * sizeof(process->jobs[0]));
			return;
		}
	}
}

static void on_answer(struct play *play, const struct core_action *action)
{
	struct record *record = &play->records[action->cookie];

	assert_in_range(action->cookie, 1, play->submitted);
	assert_ptr_equal(action->payload, record);
	assert_ptr_equal(action->owner, record->vm);
	assert_false(record->answered);
	assert_true(!action->result || action->result == &record->result_given);
	assert_int_equal(action->result != NULL, record->result_given);
	record->answered = true;
	record->vm->unanswered--;
	forget_job(process_of(play, record->vm), action->cookie);
	play->reached->codes[action->answer.code]++;
	if (action->answer.code == VGPU_CODE_RATE_LIMITED) {
		assert_in_range(action->answer.detail, VGPU_BUSY_RATE, VGPU_BUSY_GPU_RESET);
		assert_true(action->answer.retry_after_us > 0);
		assert_false(record->sent);
		play->reached->busy[action->answer.detail]++;
	}
	if (action->answer.code == VGPU_CODE_QUARANTINED)
		assert_false(record->sent);
}

static void on_store(struct play *play, const struct core_action *action)
{
	assert_true(play->ticket_count < TICKETS);
	play->tickets[play->ticket_count++] =
		(struct ticket){action->store.ticket, action->store.quarantine};
	play->reached->quarantines += action->store.quarantine;
}

static void on_drained(struct play *play, const struct core_action *action)
{
	assert_true(play->draining[action->gpu] && !play->drained[action->gpu]);
	for (size_t i = 0; i < VMS; i++)
		assert_true(!play->processes[i].vm || play->processes[i].gpu != action->gpu);
	play->drained[action->gpu] = true;
}

static void on_gone(struct play *play, const struct core_action *action)
{
	struct vm_model *vm = action->owner;

	assert_true(vm->exists && vm->removing);
	assert_int_equal(vm->unanswered, 0);
	assert_null(process_of(play, vm));
	vm->exists = false;
}

static void (*const handlers[])(struct play *, const struct core_action *) = {
	[CORE_ACTION_START_WORKER] = on_start, [CORE_ACTION_STOP_WORKER] = on_stop,
	[CORE_ACTION_KILL_WORKER] = on_kill,   [CORE_ACTION_WORKER_STUCK] = on_stuck,
	[CORE_ACTION_SEND_JOB] = on_send,      [CORE_ACTION_ANSWER] = on_answer,
	[CORE_ACTION_STORE] = on_store,        [CORE_ACTION_GPU_DRAINED] = on_drained,
	[CORE_ACTION_VM_GONE] = on_gone,
};

static void drain(struct play *play)
{
	struct core_action action;

	while (core_next_action(play->core, &action)) {
		hash_in(play, (uint64_t)action.type << 32 | action.vm);
		hash_in(play, action.generation << 8 | action.gpu);
		hash_in(play, action.job);
		hash_in(play, action.cookie << 8 | action.client);
		hash_in(play, (uint64_t)action.answer.code << 32 | action.answer.detail);
		hash_in(play, action.answer.retry_after_us);
		play->reached->actions[action.type]++;
		handlers[action.type](play, &action);
	}
}

static void look(struct play *play)
{
	const char *wrong = core_check(play->core);
	uint32_t workers = 0;

	if (wrong)
		fail_msg("%s", wrong);
	drain(play);
	for (size_t i = 0; i < VMS; i++)
		workers += play->processes[i].vm != NULL;
	/* When max_workers is lowered none is taken away. */
	assert_true(workers <= max_u64(play->workers, play->config.max_workers));
	play->workers = workers;
	for (size_t i = 0; i < VMS; i++) {
		struct core_vm_stats stats;

		if (!play->vms[i].exists)
			continue;
		core_vm_stats(play->core, play->now_ns, play->vms[i].number, &stats);
		assert_int_equal(stats.depth, play->vms[i].unanswered);
	}
}

/* ---- What goes in -------------------------------------------------------------------- */

static struct vm_model *some_vm(struct play *play)
{
	struct vm_model *vm = &play->vms[random_below(play, VMS)];

	return vm->exists ? vm : NULL;
}

static void random_settings(struct play *play, struct vm_settings *settings)
{
	*settings = vm_settings_default;
	settings->pool = (uint32_t)random_below(play, POOL_COUNT);
	settings->priority = (uint32_t)random_below(play, 3);
	settings->weight_hundredths = 100 + (int64_t)random_below(play, 9901);
	if (chance(play, 20))
		settings->rate_thousandths = 1 + (int64_t)random_below(play, 2000000);
	if (chance(play, 20))
		settings->queue_depth = 1 + (int64_t)random_below(play, 10);
	if (chance(play, 20))
		settings->gpu_thousandths = 1 + (int64_t)random_below(play, 1000);
	if (chance(play, 50))
		settings->job_timeout_ms = 10 + (int64_t)random_below(play, 1000);
}

static void event_add(struct play *play)
{
	struct vm_model *vm = &play->vms[random_below(play, VMS)];
	struct vm_settings settings;

	if (vm->exists)
		return;
	random_settings(play, &settings);
	*vm = (struct vm_model){.exists = true};
	assert_int_equal(
		core_vm_add(play->core, play->now_ns, &vm->number, &settings, chance(play, 5), vm),
		0);
	if (chance(play, 30))
		core_vm_restore_fault(play->core, vm->number, play->now_ns - NS_PER_SEC,
		                      (int64_t)random_below(play, 6));
}

static void event_remove(struct play *play)
{
	struct vm_model *vm = some_vm(play);

	if (!vm || vm->removing)
		return;
	vm->removing = true;
	core_vm_remove(play->core, play->now_ns, vm->number);
}

static void event_set(struct play *play)
{
	struct vm_model *vm = some_vm(play);
	struct vm_settings settings;

	if (!vm || vm->removing)
		return;
	random_settings(play, &settings);
	core_vm_set(play->core, play->now_ns, vm->number, &settings, chance(play, 4));
}

static void event_submit(struct play *play)
{
	struct vm_model *vm = some_vm(play);
	struct core_submission submission = {
		.client = 1 + random_below(play, CLIENTS),
		.bytes = 32 + (uint32_t)random_below(play, 100),
	};

	if (!vm || !core_vm_has_room(play->core, vm->number))
		return;
	submission.cookie = ++play->submitted;
	submission.payload = &play->records[play->submitted];
	play->records[play->submitted].vm = vm;
	vm->unanswered++;
	if (chance(play, 3))
		submission.malformed = VGPU_CODE_INVALID_REQUEST;
	assert_int_equal(core_job_submitted(play->core, play->now_ns, vm->number, &submission), 0);
}

static void event_client_gone(struct play *play)
{
	struct vm_model *vm = some_vm(play);

	if (vm)
		core_client_gone(play->core, play->now_ns, vm->number,
		                 1 + random_below(play, CLIENTS));
}

static void finish_job(struct play *play, struct process *process, unsigned int index,
                       enum vgpu_code code, uint32_t detail)
{
	uint64_t cookie = process->jobs[index];
	struct record *record = &play->records[cookie];
	const struct core_result result = {
		.code = code,
		.detail = detail,
		.command = UINT32_MAX,
		.gpu_time_ns = random_below(play, UINT64_C(1) << (8 + random_below(play, 50))),
		.result = &record->result_given,
	};
	bool expected = !process->killed;

	record->result_given |= expected;
	assert_int_equal(core_job_done(play->core, play->now_ns, process->vm->number,
	                               process->generation, record->job, &result),
	                 expected ? 0 : -ESTALE);
}

static void process_ends(struct play *play, struct process *process)
{
	const struct process dead = *process;

	process->vm = NULL;
	core_worker_dead(play->core, play->now_ns, dead.vm->number, dead.generation);
}

static void process_with_jobs(struct play *play, struct process *process)
{
	unsigned int last = process->count - 1;

	switch (random_below(play, 24)) {
	case 0:
		process_ends(play, process);
		break;
	case 1:
		finish_job(play, process, 0, VGPU_CODE_CUDA, 700); /* an exception */
		break;
	case 2:
		finish_job(play, process, last, VGPU_CODE_CUDA, 2);
		break;
	case 3:
		finish_job(play, process, last, VGPU_CODE_OK, 0);
		break;
	case 4:
		finish_job(play, process, 0, VGPU_CODE_UNSUPPORTED, 0);
		break;
	default:
		finish_job(play, process, 0, VGPU_CODE_OK, 0);
	}
}

static void event_process(struct play *play)
{
	struct process *process = &play->processes[random_below(play, VMS)];

	if (!process->vm)
		return;
	if (process->killed || process->stopping) {
		if (process->count && chance(play, 30))
			finish_job(play, process, 0, VGPU_CODE_OK, 0);
		else if (chance(play, 60))
			process_ends(play, process);
	} else if (!process->ready) {
		process->ready = chance(play, 90);
		if (process->ready)
			core_worker_ready(play->core, play->now_ns, process->vm->number,
			                  process->generation);
		else
			process_ends(play, process);
	} else if (process->count) {
		process_with_jobs(play, process);
	} else if (chance(play, 2)) {
		process_ends(play, process);
	}
}

/* From workers of the past and of nowhere. */
static void event_stale(struct play *play)
{
	uint64_t cookie = 1 + random_below(play, play->submitted + 1);
	const struct record *record = &play->records[cookie <= play->submitted ? cookie : 0];
	uint32_t number = (uint32_t)random_below(play, VMS + 2);
	uint64_t generation = random_below(play, 400);
	const struct core_result result = {.code = VGPU_CODE_OK};

	for (size_t i = 0; i < VMS; i++) {
		if (play->processes[i].vm && play->processes[i].generation == generation)
			return;
	}
	core_worker_ready(play->core, play->now_ns, number, generation);
	core_worker_dead(play->core, play->now_ns, number, generation);
	assert_int_equal(
		core_job_done(play->core, play->now_ns, number, generation, record->job, &result),
		-ESTALE);
	play->reached->stale++;
}

static void event_time(struct play *play)
{
	int64_t deadline_ns = core_deadline_ns(play->core);

	if (deadline_ns != SCHED_NEVER && chance(play, 15)) {
		play->now_ns = max_i64(play->now_ns, deadline_ns);
		play->reached->waits++;
	} else {
		play->now_ns += (int64_t)random_below(play, UINT64_C(1) << random_below(play, 30));
	}
	core_tick(play->core, play->now_ns);
}

static void event_config(struct play *play)
{
	struct core_config *config = &play->config;

	for (int pool = 0; pool < POOL_COUNT; pool++) {
		config->pools[pool].enabled = chance(play, 95);
		config->pools[pool].gpu_mask = 1 + (uint32_t)random_below(play, (1 << GPUS) - 1);
		config->pools[pool].job_timeout_ns = chance(play, 50) ? NS_PER_SEC : 0;
	}
	config->max_workers = 1 + (uint32_t)random_below(play, VMS);
	config->sched.overlap_max = 1 + (int32_t)random_below(play, 8);
	config->sched.quantum_ns = (1 + (int64_t)random_below(play, 8)) * NS_PER_MS;
	config->worker_idle_ns = (1 + (int64_t)random_below(play, 20)) * NS_PER_SEC;
	config->quarantine_threshold = 5 + (int64_t)random_below(play, 30);
	core_config_set(play->core, play->now_ns, config);
}

static void event_drain(struct play *play)
{
	uint32_t gpu = (uint32_t)random_below(play, GPUS);

	if (!play->draining[gpu] && chance(play, 80))
		return;
	play->draining[gpu] = !play->draining[gpu];
	play->drained[gpu] = false;
	core_gpu_set_draining(play->core, play->now_ns, gpu, play->draining[gpu]);
}

/* Reservoir sampling: each job that there is with the same chance. */
struct choice {
	struct play *play;
	uint64_t seen;
	uint64_t id;
};

static void consider(void *context, const struct core_job_info *info)
{
	struct choice *choice = context;

	if (random_below(choice->play, ++choice->seen) == 0)
		choice->id = info->id;
}

static void event_cancel(struct play *play)
{
	struct choice choice = {.play = play};
	int r;

	core_jobs_walk(play->core, consider, &choice);
	r = core_job_cancel(play->core, play->now_ns, choice.id);
	assert_int_equal(r, choice.seen ? 0 : -ENOENT);
	play->reached->cancelled += choice.seen > 0;
}

static void event_store_done(struct play *play)
{
	unsigned int index;

	if (play->ticket_count == 0)
		return;
	index = (unsigned int)random_below(play, play->ticket_count);
	core_store_done(play->core, play->now_ns, play->tickets[index].number, chance(play, 80));
	play->tickets[index] = play->tickets[--play->ticket_count];
}

static const struct {
	unsigned int weight;
	void (*happen)(struct play *play);
} events[] = {
	{300, event_submit}, {600, event_process}, {150, event_time}, {40, event_store_done},
	{12, event_add},     {3, event_remove},    {10, event_set},   {10, event_client_gone},
	{4, event_config},   {4, event_drain},     {8, event_cancel}, {10, event_stale},
};

static void something_happens(struct play *play)
{
	uint64_t all = 0, chosen;

	for (size_t i = 0; i < ARRAY_LEN(events); i++)
		all += events[i].weight;
	chosen = random_below(play, all);
	for (size_t i = 0; i < ARRAY_LEN(events); i++) {
		if (chosen < events[i].weight) {
			events[i].happen(play);
			break;
		}
		chosen -= events[i].weight;
	}
	look(play);
	/* The registry is never far behind. */
	while (play->ticket_count > TICKETS / 2) {
		event_store_done(play);
		look(play);
	}
}

/* ---- The end ----------------------------------------------------------------------------- */

/* From here on nothing goes wrong any more. */
static void heal(struct play *play)
{
	for (uint32_t gpu = 0; gpu < GPUS; gpu++) {
		play->draining[gpu] = false;
		core_gpu_set_draining(play->core, play->now_ns, gpu, false);
		look(play);
	}
	for (int pool = 0; pool < POOL_COUNT; pool++)
		play->config.pools[pool].enabled = true;
	core_config_set(play->core, play->now_ns, &play->config);
	look(play);
}

/* Every process does its best, every ticket is stored, and time goes on. */
static void step_well(struct play *play)
{
	int64_t deadline_ns;

	while (play->ticket_count) {
		core_store_done(play->core, play->now_ns,
		                play->tickets[--play->ticket_count].number, true);
		look(play);
	}
	for (size_t i = 0; i < VMS; i++) {
		struct process *process = &play->processes[i];

		if (!process->vm)
			continue;
		if (process->killed || process->stopping) {
			process_ends(play, process);
		} else if (!process->ready) {
			process->ready = true;
			core_worker_ready(play->core, play->now_ns, process->vm->number,
			                  process->generation);
		} else if (process->count) {
			finish_job(play, process, 0, VGPU_CODE_OK, 0);
		}
		look(play);
	}
	deadline_ns = core_deadline_ns(play->core);
	if (deadline_ns != SCHED_NEVER)
		play->now_ns =
			max_i64(play->now_ns, min_i64(deadline_ns, play->now_ns + NS_PER_MS));
	core_tick(play->core, play->now_ns);
	look(play);
}

static struct core_stats stats_of(const struct play *play)
{
	struct core_stats stats;

	core_stats(play->core, &stats);
	return stats;
}

static void all_jobs_end(struct play *play)
{
	heal(play);
	for (int step = 0; stats_of(play).jobs; step++) {
		assert_true(step < END_STEPS);
		step_well(play);
	}
}

static void all_vms_go(struct play *play)
{
	for (size_t i = 0; i < VMS; i++) {
		if (!play->vms[i].exists || play->vms[i].removing)
			continue;
		play->vms[i].removing = true;
		core_vm_remove(play->core, play->now_ns, play->vms[i].number);
		look(play);
	}
	for (int step = 0; stats_of(play).vms; step++) {
		assert_true(step < END_STEPS);
		step_well(play);
	}
	assert_int_equal(stats_of(play).workers, 0);
	assert_int_equal(core_deadline_ns(play->core), SCHED_NEVER);
}

static void all_is_shut_down(struct play *play)
{
	core_shutdown(play->core, play->now_ns);
	look(play);
	for (int step = 0; stats_of(play).jobs || stats_of(play).workers; step++) {
		assert_true(step < END_STEPS);
		step_well(play);
	}
}

/* In the middle of everything. */
static void all_is_abandoned(struct play *play)
{
	core_abandon(play->core);
	drain(play);
}

static uint64_t play_seed(uint64_t seed, const struct sched_policy *policy, struct reached *reached)
{
	static void (*const ends[])(struct play *) = {all_vms_go, all_is_shut_down,
	                                              all_is_abandoned};
	struct play play = {.random = seed * UINT64_C(0x9e3779b97f4a7c15) | 1, .reached = reached};
	struct core_config *config = &play.config;

	core_config_default(config);
	config->policy = policy;
	config->gpu_count = GPUS;
	config->pools[0].gpu_mask = 3;
	config->pools[1].gpu_mask = 6;
	config->max_workers = 5;
	config->max_queue_per_vm = QUEUE_MAX;
	config->job_timeout_ns = 3 * NS_PER_SEC;
	config->worker_idle_ns = 5 * NS_PER_SEC;
	play.now_ns = 77 * NS_PER_SEC;
	play.records = calloc(EVENTS + 2, sizeof(*play.records));
	assert_non_null(play.records);
	assert_int_equal(core_new(&play.core, config, play.now_ns), 0);
	for (int event = 0; event < EVENTS; event++)
		something_happens(&play);
	if (seed % ARRAY_LEN(ends) == 0)
		all_jobs_end(&play);
	ends[seed % ARRAY_LEN(ends)](&play);
	for (uint64_t cookie = 1; cookie <= play.submitted; cookie++)
		assert_true(play.records[cookie].answered);
	core_free(play.core);
	free(play.records);
	return play.hash;
}

static void test_random_events(void **state UNUSED)
{
	static const struct sched_policy *const policies[] = {&sched_fair, &sched_round_robin};
	struct reached reached = {.stale = 0}, again = {.stale = 0};

	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		for (size_t i = 0; i < ARRAY_LEN(policies); i++)
			assert_int_equal(play_seed(seed, policies[i], &reached),
			                 play_seed(seed, policies[i], &again));
	}
	assert_memory_equal(&reached, &again, sizeof(reached));
	/* Every kind of answer and action that there is has occurred. */
	for (int type = 0; type <= CORE_ACTION_VM_GONE; type++)
		assert_true(reached.actions[type] > 0);
	for (int reason = VGPU_BUSY_RATE; reason <= VGPU_BUSY_GPU_RESET; reason++)
		assert_true(reached.busy[reason] > 0);
	for (int code = 0; code < VGPU_CODE_COUNT; code++) {
		bool others = code == VGPU_CODE_TOO_LARGE || code == VGPU_CODE_QUEUE_FULL ||
		              code == VGPU_CODE_INVALID_LENGTH || code == VGPU_CODE_MEMORY_QUOTA;

		assert_int_equal(reached.codes[code] > 0, !others);
	}
	assert_true(reached.quarantines > 10 && reached.moves > 10 && reached.stale > 100);
	assert_true(reached.cancelled > 10 && reached.waits > 1000);
	assert_true(reached.codes[VGPU_CODE_OK] > 5000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_events),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
