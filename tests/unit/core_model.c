/* SPDX-License-Identifier: MIT */
/* See core_model.h. */
#include "core_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"

uint64_t random_below(struct play *play, uint64_t bound)
{
	play->random ^= play->random << 13;
	play->random ^= play->random >> 7;
	play->random ^= play->random << 17;
	return (play->random >> 11) % bound;
}

bool chance(struct play *play, uint64_t percent)
{
	return random_below(play, 100) < percent;
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

/* Of whoever was stuck there nobody is left. */
static void on_freed(struct play *play, const struct core_action *action)
{
	for (size_t i = 0; i < VMS; i++)
		assert_true(!play->processes[i].vm || !play->processes[i].stuck ||
		            play->processes[i].gpu != action->gpu);
}

static void on_failing(struct play *play, const struct core_action *action)
{
	assert_null(process_of(play, action->owner));
}

static uint64_t cookie_of(const struct play *play, const void *payload)
{
	return (uint64_t)((const struct record *)payload - play->records);
}

/* How many of the jobs that the process has need the GPU, or do not. */
static unsigned int count_jobs(const struct play *play, const struct process *process,
                               bool without_gpu)
{
	unsigned int count = 0;

	for (unsigned int i = 0; i < process->count; i++)
		count += play->records[process->jobs[i]].without_gpu == without_gpu;
	return count;
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
	assert_true(count_jobs(play, process, record->without_gpu) < JOBS_SENT_MAX / 2);
	if (record->without_gpu)
		assert_int_equal(count_jobs(play, process, false), 0);
	play->reached->without_gpu += record->without_gpu;
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
		assert_false(record->sent || (record->vm->untold && record->vm->condemned));
	/* The registry has been told, or cannot be. */
	if (action->answer.code == VGPU_CODE_TIMEOUT)
		assert_false(record->vm->untold);
}

static void on_store(struct play *play, const struct core_action *action)
{
	struct vm_model *vm = action->owner;

	assert_true(play->ticket_count < TICKETS);
	play->tickets[play->ticket_count++] = (struct ticket){vm, vm->life, action->store};
	if (action->store.record != CORE_RECORD_FAULT || action->store.again)
		return;
	vm->condemned |= action->store.quarantine;
	play->reached->quarantines += action->store.quarantine;
}

static void on_drained(struct play *play, const struct core_action *action)
{
	assert_true(play->draining[action->gpu] && !play->drained[action->gpu]);
	for (size_t i = 0; i < VMS; i++)
		assert_true(!play->processes[i].vm || play->processes[i].stuck ||
		            play->processes[i].gpu != action->gpu);
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
	[CORE_ACTION_WORKER_FREED] = on_freed, [CORE_ACTION_WORKER_FAILING] = on_failing,
	[CORE_ACTION_SEND_JOB] = on_send,      [CORE_ACTION_ANSWER] = on_answer,
	[CORE_ACTION_STORE] = on_store,        [CORE_ACTION_GPU_DRAINED] = on_drained,
	[CORE_ACTION_VM_GONE] = on_gone,
};

void play_drain(struct play *play)
{
	struct core_action action;

	while (core_next_action(play->core, &action)) {
		play->hash = core_action_hash(play->hash, &action);
		play->reached->actions[action.type]++;
		handlers[action.type](play, &action);
	}
	if (play->mirror)
		assert_int_equal(play->hash, trace_player_hash(play->mirror));
}

static int64_t points_of(const struct play *play, const struct vm_model *vm, enum core_fault fault)
{
	uint32_t gpu = vm->last_gpu;

	if (play->faulty[gpu] || play->now_ns < play->blameless_until_ns[gpu])
		return 0;
	if (fault == CORE_FAULT_TIMEOUT)
		return play->config.timeout_points;
	if (fault == CORE_FAULT_GPU && play->lost_detail != 700 && play->lost_detail != 719)
		return 0;
	return play->config.fault_points;
}

/* Books the faults of the event, before anything of it is answered. */
static void book_faults(struct play *play, struct vm_model *vm)
{
	struct core_vm_stats stats;

	core_vm_stats(play->core, play->now_ns, vm->number, &stats);
	for (int fault = 0; fault < CORE_FAULT_COUNT; fault++) {
		for (; vm->ledger.seen[fault] < stats.faults[fault]; vm->ledger.seen[fault]++) {
			ledger_fault(&vm->ledger, &play->config, (enum core_fault)fault,
			             play->now_ns, points_of(play, vm, (enum core_fault)fault));
			vm->untold = true;
		}
	}
}

static void look_at_place(const struct play *play, struct vm_model *vm, uint32_t gpu)
{
	if (vm->place == gpu + 1)
		return;
	vm->arrived_ns = vm->place ? play->now_ns : INT64_MIN;
	vm->place = gpu + 1;
}

void play_look(struct play *play)
{
	const char *wrong = core_check(play->core);
	uint32_t workers = 0;

	if (wrong)
		fail_msg("%s", wrong);
	for (size_t i = 0; i < VMS; i++) {
		/* One under removal may be gone already. */
		if (play->vms[i].exists && !play->vms[i].removing)
			book_faults(play, &play->vms[i]);
	}
	play_drain(play);
	for (size_t i = 0; i < VMS; i++)
		workers += play->processes[i].vm != NULL;
	/* When max_workers is lowered none is taken away. */
	assert_true(workers <= max_u64(play->workers, play->config.max_workers));
	play->workers = workers;
	for (size_t i = 0; i < VMS; i++) {
		struct core_vm_stats stats;

		if (!play->vms[i].exists)
			continue;
		book_faults(play, &play->vms[i]);
		core_vm_stats(play->core, play->now_ns, play->vms[i].number, &stats);
		look_at_place(play, &play->vms[i], stats.gpu);
		assert_int_equal(stats.depth, play->vms[i].unanswered);
		assert_int_equal(stats.fault_score,
		                 ledger_score(&play->vms[i].ledger, &play->config, play->now_ns));
	}
}
