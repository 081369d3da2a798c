/* SPDX-License-Identifier: MIT */
/*
 * The core among everything at once: random events of all kinds, from seeds that never
 * change, against a simple model of who may still expect what.
 *
 * After each event the core's own invariants hold; each accepted job is sent at most
 * once, in the order of its VM, to a worker that is there, and answered exactly once;
 * refused jobs are never sent; workers are started, stopped and killed only in states
 * where that makes sense. The same seed gives the same actions, and so do the same events
 * when they happen to another core, which is asked nothing in between. Once the faults
 * stop, all jobs end and all VMs can go.
 */
#include "core_model.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "round_robin.h"

#include "base/units.h"
#include "base/util.h"

enum {
	EVENTS = 10000, /* of one seed */
	SEEDS = 20,
	END_STEPS = 200000,
};

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
		settings->rate_thousandths =
			1 + (int64_t)random_below(play, UINT64_C(1) << random_below(play, 21));
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
	*vm = (struct vm_model){
		.exists = true,
		.cursed = chance(play, 10),
		.life = ++play->lives,
		.settings = settings,
	};
	assert_int_equal(
		core_vm_add(play->core, play->now_ns, &vm->number, &settings, chance(play, 5), vm),
		0);
	if (chance(play, 30)) {
		const struct core_store record = {
			.at_ns = play->now_ns - NS_PER_SEC,
			.points = 1 + (int64_t)random_below(play, 6),
		};

		vm->ledger.registry.faults[vm->ledger.registry.count++] = record;
		vm->ledger.known = vm->ledger.registry;
		core_vm_restore(play->core, play->now_ns, vm->number, &record, 1);
	}
}

static void event_remove(struct play *play)
{
	struct vm_model *vm = some_vm(play);

	if (!vm || vm->removing)
		return;
	vm->removing = true;
	core_vm_remove(play->core, play->now_ns, vm->number);
}

static struct core_vm_stats vm_stats(struct play *play, const struct vm_model *vm)
{
	struct core_vm_stats stats;

	core_vm_stats(play->core, play->now_ns, vm->number, &stats);
	return stats;
}

static void event_set(struct play *play)
{
	struct vm_model *vm = some_vm(play);
	bool before;

	if (!vm || vm->removing)
		return;
	random_settings(play, &vm->settings);
	before = vm_stats(play, vm).quarantined;
	core_vm_set(play->core, play->now_ns, vm->number, &vm->settings, chance(play, 4));
	if (before && !vm_stats(play, vm).quarantined) {
		ledger_clear(&vm->ledger);
		play->reached->cleared++;
	}
}

/* The registry is read again: what it has must be what the core knows without it. */
static void event_reload(struct play *play)
{
	struct vm_model *vm = some_vm(play);

	if (!vm || vm->removing)
		return;
	core_vm_restore(play->core, play->now_ns, vm->number, vm->ledger.registry.faults,
	                vm->ledger.registry.count);
	play->reached->reloads += vm->ledger.registry.count > 0;
}

/* The VM's own limits let a job in, or not, exactly as its books say. */
static void check_limits(struct play *play, struct vm_model *vm, const struct core_vm_stats *before)
{
	const struct core_vm_stats after = vm_stats(play, vm);
	const int64_t depth = vm->settings.queue_depth;
	bool refused[CORE_REFUSAL_COUNT], accepted = true;

	for (int i = 0; i < CORE_REFUSAL_COUNT; i++) {
		refused[i] = after.refusals[i] != before->refusals[i];
		accepted &= !refused[i];
	}
	if (accepted || refused[CORE_REFUSAL_RATE] || refused[CORE_REFUSAL_DEPTH])
		assert_int_equal(refused[CORE_REFUSAL_DEPTH],
		                 depth && before->depth >= (uint64_t)depth);
	if (accepted || refused[CORE_REFUSAL_RATE])
		assert_int_equal(accepted, ledger_take(&vm->ledger, &vm->settings, play->now_ns));
	play->reached->rate_kept += refused[CORE_REFUSAL_RATE];
	play->reached->depth_kept += refused[CORE_REFUSAL_DEPTH];
}

static void event_submit(struct play *play)
{
	struct vm_model *vm = some_vm(play);
	struct core_submission submission = {
		.client = 1 + random_below(play, CLIENTS),
		.bytes = 32 + (uint32_t)random_below(play, 100),
	};
	struct core_vm_stats before;

	if (!vm || !core_vm_has_room(play->core, vm->number))
		return;
	submission.cookie = ++play->submitted;
	submission.payload = &play->records[play->submitted];
	play->records[play->submitted].vm = vm;
	submission.without_gpu = play->records[play->submitted].without_gpu = chance(play, 30);
	vm->unanswered++;
	if (chance(play, 3))
		submission.malformed = VGPU_CODE_INVALID_REQUEST;
	before = vm_stats(play, vm);
	assert_int_equal(core_job_submitted(play->core, play->now_ns, vm->number, &submission), 0);
	check_limits(play, vm, &before);
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
		.context_lost = detail != 0 && detail != 2,
		.result = &record->result_given,
	};
	bool expected = !process->killed;

	record->result_given |= expected;
	if (result.context_lost)
		play->lost_detail = detail;
	assert_int_equal(core_job_done(play->core, play->now_ns, process->vm->number,
	                               process->generation, record->job, &result),
	                 expected ? 0 : -ESTALE);
}

static void process_ends(struct play *play, struct process *process)
{
	const struct process dead = *process;

	process->vm = NULL;
	core_worker_dead(play->core, play->now_ns, dead.vm->number, dead.generation, 9);
}

static void process_with_jobs(struct play *play, struct process *process)
{
	static const uint32_t losses[] = {700, 719, 214, 999};
	unsigned int last = process->count - 1;

	switch (random_below(play, 24)) {
	case 0:
		process_ends(play, process);
		break;
	case 1:
		finish_job(play, process, 0, VGPU_CODE_CUDA,
		           losses[random_below(play, ARRAY_LEN(losses))]);
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
		process->ready = !process->vm->cursed && chance(play, 90);
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
	core_worker_dead(play->core, play->now_ns, number, generation, 0);
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

static void event_hardware(struct play *play)
{
	uint32_t gpu = (uint32_t)random_below(play, GPUS);
	bool faulty = chance(play, 20), changes = faulty != play->faulty[gpu];

	if (chance(play, 50)) {
		core_gpu_hardware_fault(play->core, play->now_ns, gpu);
	} else {
		core_gpu_set_faulty(play->core, play->now_ns, gpu, faulty);
		play->faulty[gpu] = faulty;
		if (!changes)
			return;
	}
	play->blameless_until_ns[gpu] = play->now_ns + CORE_HARDWARE_AFTER_S * NS_PER_SEC;
	for (size_t i = 0; i < VMS; i++) {
		struct vm_model *vm = &play->vms[i];
		uint32_t before = vm->ledger.known.count;

		if (!vm->exists || core_vm_gpu(play->core, vm->number) != gpu)
			continue;
		ledger_forgive(&vm->ledger,
		               max_i64(play->now_ns - CORE_HARDWARE_BEFORE_S * NS_PER_SEC,
		                       vm->arrived_ns + 1));
		play->reached->forgiven += vm->ledger.known.count != before;
	}
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

static void finish_store(struct play *play, unsigned int index, bool stored)
{
	const struct ticket ticket = play->tickets[index];
	struct vm_model *vm = ticket.vm;

	play->tickets[index] = play->tickets[--play->ticket_count];
	if (vm->exists && vm->life == ticket.life) {
		if (stored)
			ledger_stored(&vm->ledger, &play->config, &ticket.store);
		vm->untold &= stored && vm->ledger.on_way.count > 0;
		vm->condemned &= vm->untold;
	}
	core_store_done(play->core, play->now_ns, ticket.store.ticket, stored);
}

static void event_store_done(struct play *play)
{
	if (play->ticket_count)
		finish_store(play, (unsigned int)random_below(play, play->ticket_count),
		             chance(play, 80));
}

static const struct {
	unsigned int weight;
	void (*happen)(struct play *play);
} events[] = {
	{300, event_submit}, {600, event_process}, {150, event_time}, {40, event_store_done},
	{12, event_add},     {3, event_remove},    {10, event_set},   {10, event_client_gone},
	{4, event_config},   {4, event_drain},     {8, event_cancel}, {10, event_stale},
	{2, event_hardware}, {8, event_reload},
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
	play_look(play);
	/* The registry is never far behind. */
	while (play->ticket_count > TICKETS / 2) {
		event_store_done(play);
		play_look(play);
	}
}

/* ---- The end ----------------------------------------------------------------------------- */

/* From here on nothing goes wrong any more. */
static void heal(struct play *play)
{
	for (uint32_t gpu = 0; gpu < GPUS; gpu++) {
		play->draining[gpu] = false;
		core_gpu_set_draining(play->core, play->now_ns, gpu, false);
		play_look(play);
	}
	for (int pool = 0; pool < POOL_COUNT; pool++)
		play->config.pools[pool].enabled = true;
	core_config_set(play->core, play->now_ns, &play->config);
	play_look(play);
}

/* Every process does its best, every ticket is stored, and time goes on. */
static void step_well(struct play *play)
{
	int64_t deadline_ns;

	while (play->ticket_count) {
		finish_store(play, play->ticket_count - 1, true);
		play_look(play);
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
		play_look(play);
	}
	deadline_ns = core_deadline_ns(play->core);
	if (deadline_ns != SCHED_NEVER)
		play->now_ns =
			max_i64(play->now_ns, min_i64(deadline_ns, play->now_ns + NS_PER_MS));
	core_tick(play->core, play->now_ns);
	play_look(play);
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
		play_look(play);
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
	play_look(play);
	for (int step = 0; stats_of(play).jobs || stats_of(play).workers; step++) {
		assert_true(step < END_STEPS);
		step_well(play);
	}
}

/* In the middle of everything. */
static void all_is_abandoned(struct play *play)
{
	core_abandon(play->core);
	for (size_t i = 0; i < VMS; i++)
		play->vms[i].untold = false; /* nobody waits for anything any more */
	play_drain(play);
}

static void mirror(void *context, enum core_event event, const int64_t *values, size_t count)
{
	assert_int_equal(trace_play(context, event, values, count), 0);
}

static void start(struct play *play, bool mirrored)
{
	static const struct trace_onlooker nobody = {NULL, NULL};

	assert_int_equal(core_new(&play->core, &play->config, play->now_ns), 0);
	if (!mirrored)
		return;
	assert_int_equal(trace_player_new(&play->mirror, &nobody, NULL), 0);
	core_listen(play->core, mirror, play->mirror);
}

static uint64_t play_seed(uint64_t seed, const struct sched_policy *policy, bool mirrored,
                          struct reached *reached)
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
	config->fault_window_ns = 60 * NS_PER_SEC;
	play.now_ns = 77 * NS_PER_SEC;
	play.records = calloc(EVENTS + 2, sizeof(*play.records));
	assert_non_null(play.records);
	start(&play, mirrored);
	for (int event = 0; event < EVENTS; event++)
		something_happens(&play);
	if (seed % ARRAY_LEN(ends) == 0)
		all_jobs_end(&play);
	ends[seed % ARRAY_LEN(ends)](&play);
	for (uint64_t cookie = 1; cookie <= play.submitted; cookie++)
		assert_true(play.records[cookie].answered);
	trace_player_free(play.mirror);
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
			assert_int_equal(
				play_seed(seed, policies[i], policies[i] == &sched_fair, &reached),
				play_seed(seed, policies[i], false, &again));
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
	assert_true(reached.cancelled > 10 && reached.without_gpu > 1000 && reached.waits > 1000);
	assert_true(reached.codes[VGPU_CODE_OK] > 5000);
	assert_true(reached.rate_kept > 1000 && reached.depth_kept > 1000);
	assert_true(reached.reloads > 100 && reached.forgiven > 50 && reached.cleared > 50);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_events),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
