/* SPDX-License-Identifier: MIT */
/*
 * A worker's life, and every deadline that hangs on it.
 *
 *   NONE -> STARTING -> READY -> STOPPING -> NONE
 *               \          \________/
 *                \______________\-> KILLED -> NONE
 *
 * worker_settle() is called after whatever happened to a VM: it does the step that is
 * due, if any, and leaves the time of the next one in vm.deadline_ns. A worker counts
 * against max_workers until it is reaped; a VM that finds no place waits in line (places.c).
 */
#include "base/units.h"
#include "core/internal.h"

/* Whether the VM should have a worker, were there a place for one. */
static bool wants_worker(const struct core *core, const struct vm *vm)
{
	return vm->queued_count > 0 && !vm->removing && !vm->records.awaited && !core->stopping &&
	       !core->gpus[vm->gpu].draining;
}

static void enter(struct core *core, struct vm *vm, enum core_worker_state state)
{
	vm->worker.state = state;
	vm->worker.since_ns = core->now_ns;
}

static void enable(struct core *core, struct vm *vm, bool enabled)
{
	if (vm->enabled == enabled)
		return;
	vm->enabled = enabled;
	core_policy(core)->vm_enable(core->gpus[vm->gpu].sched, core->now_ns, vm->sched, enabled);
}

static void stop(struct core *core, struct vm *vm)
{
	enable(core, vm, false);
	enter(core, vm, CORE_WORKER_STOPPING);
	core_push_action(core, CORE_ACTION_STOP_WORKER, vm);
}

void worker_kill(struct core *core, struct vm *vm)
{
	enable(core, vm, false);
	enter(core, vm, CORE_WORKER_KILLED);
	core_push_action(core, CORE_ACTION_KILL_WORKER, vm);
}

bool worker_is_failing(const struct core *core, const struct vm *vm)
{
	return vm->worker.state == CORE_WORKER_NONE &&
	       vm->worker.failed_starts >= CORE_FAILING_STARTS &&
	       core->now_ns < vm->worker.start_not_before_ns;
}

/* Whether the worker is to end as soon as it has no job. */
static bool unwanted(const struct core *core, const struct vm *vm)
{
	return vm->removing || core->stopping || vm->worker.evicted ||
	       core->gpus[vm->gpu].draining || vm->records.awaited;
}

bool worker_takes_jobs(const struct core *core, const struct vm *vm)
{
	return vm->worker.state == CORE_WORKER_READY && !unwanted(core, vm);
}

/* NONE: start if somebody wants it, there is a place, and no back-off runs. */
static int64_t settle_none(struct core *core, struct vm *vm)
{
	bool wanted = wants_worker(core, vm);

	if (wanted && core->now_ns >= vm->worker.start_not_before_ns && !place_is_free(core, vm))
		return place_wait(core, vm);
	place_leave_line(core, vm);
	if (!wanted)
		return SCHED_NEVER;
	if (core->now_ns < vm->worker.start_not_before_ns)
		return vm->worker.start_not_before_ns;
	core->worker_count++;
	core->gpus[vm->gpu].workers++;
	vm->worker.generation = ++core->last_generation;
	vm->worker.evicted = false;
	vm->worker.was_ready = false;
	vm->worker.called_off = false;
	enter(core, vm, CORE_WORKER_STARTING);
	core_push_action(core, CORE_ACTION_START_WORKER, vm);
	return SCHED_NEVER;
}

static int64_t settle_starting(struct core *core, struct vm *vm)
{
	int64_t deadline_ns = vm->worker.since_ns + core->config.worker_start_timeout_ns;

	vm->worker.called_off = unwanted(core, vm);
	if (core->now_ns < deadline_ns && !vm->worker.called_off)
		return deadline_ns;
	worker_kill(core, vm);
	return SCHED_NEVER;
}

/*
 * READY with a job in flight: how much of its limit is left; kill at the end of it. Both
 * what it was charged and an equal part of the clock count, so that whoever slips in and
 * out beside a hang does not put its end off.
 */
static int64_t settle_running(struct core *core, struct vm *vm)
{
	int64_t used_ns =
		core_policy(core)->charged_ns(core->gpus[vm->gpu].sched, core->now_ns, vm->sched) -
		vm->head_charged_ns;
	int64_t part_ns = core->gpus[vm->gpu].part_ns - vm->head_part_ns;
	int64_t left_ns = job_limit_ns(core, vm) - max_i64(used_ns, part_ns);

	/* Neither grows faster than the clock: earlier it cannot be over. */
	if (left_ns > 0)
		return core->now_ns + left_ns;
	worker_kill(core, vm);
	vm_fault(core, vm, CORE_FAULT_TIMEOUT, (uint32_t)(job_limit_ns(core, vm) / NS_PER_MS));
	jobs_blame_oldest(core, vm, VGPU_CODE_TIMEOUT);
	return SCHED_NEVER;
}

/* Over its GPU seconds: no grants until the debt is paid. Returns when that is. */
static int64_t settle_budget(struct core *core, struct vm *vm)
{
	struct sched *sched = core->gpus[vm->gpu].sched;
	int64_t debt_ns;

	if (vm->settings.gpu_thousandths == 0) {
		enable(core, vm, !unwanted(core, vm));
		return SCHED_NEVER;
	}
	debt_ns =
		limit_budget_debt_ns(&vm->budget, &vm->settings, core->now_ns,
	                             core_policy(core)->charged_ns(sched, core->now_ns, vm->sched));
	enable(core, vm, !unwanted(core, vm) && debt_ns == 0);
	return debt_ns ? core->now_ns + debt_ns : SCHED_NEVER;
}

static int64_t settle_ready(struct core *core, struct vm *vm)
{
	int64_t budget_ns = settle_budget(core, vm), idle_ns;

	jobs_move_on(core, vm);
	if (vm->in_flight_count) {
		vm->worker.idle_since_ns = SCHED_NEVER;
		return min_i64(budget_ns, settle_running(core, vm));
	}
	if (unwanted(core, vm)) {
		stop(core, vm);
		return SCHED_NEVER;
	}
	if (vm->queued_count) {
		vm->worker.idle_since_ns = SCHED_NEVER;
		return budget_ns;
	}
	if (vm->worker.idle_since_ns == SCHED_NEVER)
		vm->worker.idle_since_ns = core->now_ns;
	idle_ns = core->now_ns - vm->worker.idle_since_ns;
	if (idle_ns >= core->config.worker_idle_ns) {
		stop(core, vm);
		return SCHED_NEVER;
	}
	/* From here on it can make room for others. */
	if (idle_ns < WORKER_REST_NS)
		return min_i64(budget_ns, vm->worker.idle_since_ns + WORKER_REST_NS);
	core->line_changed = true;
	return min_i64(budget_ns, vm->worker.idle_since_ns + core->config.worker_idle_ns);
}

static int64_t settle_stopping(struct core *core, struct vm *vm)
{
	int64_t deadline_ns = vm->worker.since_ns + core->config.worker_stop_timeout_ns;

	if (core->now_ns < deadline_ns)
		return deadline_ns;
	worker_kill(core, vm);
	return SCHED_NEVER;
}

/* A process that survives SIGKILL sits in the driver: nobody is left waiting for it. */
static int64_t settle_killed(struct core *core, struct vm *vm)
{
	int64_t deadline_ns = vm->worker.since_ns + core->config.worker_kill_timeout_ns;

	if (vm->worker.stuck)
		return SCHED_NEVER;
	if (core->now_ns < deadline_ns)
		return deadline_ns;
	vm->worker.stuck = true;
	core->gpus[vm->gpu].stuck++;
	core_push_action(core, CORE_ACTION_WORKER_STUCK, vm);
	core_gpu_check_drained(core, vm->gpu);
	jobs_answer_queued(core, vm, CORE_NO_CLIENT, VGPU_CODE_UNAVAILABLE);
	return SCHED_NEVER;
}

void worker_settle(struct core *core, struct vm *vm)
{
	static int64_t (*const settle[])(struct core *, struct vm *) = {
		[CORE_WORKER_NONE] = settle_none,     [CORE_WORKER_STARTING] = settle_starting,
		[CORE_WORKER_READY] = settle_ready,   [CORE_WORKER_STOPPING] = settle_stopping,
		[CORE_WORKER_KILLED] = settle_killed,
	};

	enum core_worker_state state;

	/* A step into another state leaves the deadline to that state. */
	do {
		state = vm->worker.state;
		vm->deadline_ns = settle[state](core, vm);
	} while (vm->worker.state != state);
	vm->deadline_ns = min_i64(vm->deadline_ns, records_settle(core, vm));
	if (vm->deadline_ns == SCHED_NEVER)
		heap_remove(&core->timers, &vm->timer);
	else if (heap_contains(&vm->timer))
		heap_update(&core->timers, &vm->timer);
	else
		heap_insert(&core->timers, &vm->timer);
	if (vm->removing && vm->worker.state == CORE_WORKER_NONE && !vm->held_count)
		vm_finish(core, vm);
}

/* The VM whose worker that is, or NULL for one of the past. */
static struct vm *find_worker(struct core *core, uint32_t number, uint64_t generation)
{
	struct vm *vm = number < core->vm_slots ? core->vms[number] : NULL;

	if (vm && vm->worker.state != CORE_WORKER_NONE && vm->worker.generation == generation)
		return vm;
	core->stale_events++;
	return NULL;
}

void core_worker_ready(struct core *core, int64_t now_ns, uint32_t number, uint64_t generation)
{
	struct vm *vm = find_worker(core, number, generation);

	CORE_NOTE(core, CORE_EVENT_WORKER_READY, NULL, now_ns, number, (int64_t)generation);
	core_advance(core, now_ns);
	if (!vm)
		return;
	if (vm->worker.state != CORE_WORKER_STARTING) {
		core->stale_events++; /* killed meanwhile, or says it twice */
		return;
	}
	enter(core, vm, CORE_WORKER_READY);
	vm->worker.was_ready = true;
	vm->worker.failed_starts = 0;
	vm->worker.idle_since_ns = SCHED_NEVER;
	worker_settle(core, vm);
	core_dispatch(core);
}

/* A start that failed by itself: what waited for it is told, and the next attempt waits longer. */
static void start_failed(struct core *core, struct vm *vm)
{
	int64_t backoff_ns = core->config.worker_backoff_min_ns;

	for (uint32_t i = 0; i < min_u64(vm->worker.failed_starts, 32); i++)
		backoff_ns = min_i64(2 * backoff_ns, core->config.worker_backoff_max_ns);
	vm->start_failures++;
	vm->worker.failed_starts++;
	vm->worker.start_not_before_ns = core->now_ns + backoff_ns;
	if (vm->worker.failed_starts == CORE_FAILING_STARTS)
		core_push_action(core, CORE_ACTION_WORKER_FAILING, vm);
	jobs_answer_queued(core, vm, CORE_NO_CLIENT, VGPU_CODE_UNAVAILABLE);
}

/* The driver has let go of it after all. */
static void freed(struct core *core, struct vm *vm)
{
	struct gpu *gpu = &core->gpus[vm->gpu];

	vm->worker.stuck = false;
	gpu->stuck--;
	if (gpu->stuck == 0)
		core_push_action(core, CORE_ACTION_WORKER_FREED, vm);
}

void core_worker_dead(struct core *core, int64_t now_ns, uint32_t number, uint64_t generation,
                      uint32_t status)
{
	struct vm *vm = find_worker(core, number, generation);
	enum core_worker_state was;

	CORE_NOTE(core, CORE_EVENT_WORKER_DEAD, NULL, now_ns, number, (int64_t)generation, status);
	core_advance(core, now_ns);
	if (!vm)
		return;
	was = vm->worker.state;
	enter(core, vm, CORE_WORKER_NONE);
	core->worker_count--;
	core->worker_bound = max_u64(core->worker_count, core->config.max_workers);
	core->gpus[vm->gpu].workers--;
	if (vm->worker.stuck)
		freed(core, vm);
	vm->worker.idle_since_ns = SCHED_NEVER;
	vm->enabled = false;
	if (was == CORE_WORKER_READY) {
		vm_fault(core, vm, CORE_FAULT_DEATH, status);
		jobs_blame_oldest(core, vm, VGPU_CODE_CUDA);
	}
	core_policy(core)->vm_reaped(core->gpus[vm->gpu].sched, core->now_ns, vm->sched);
	if (!vm->worker.was_ready && !vm->worker.called_off)
		start_failed(core, vm);
	core_gpu_check_drained(core, vm->gpu);
	vm_place(core, vm);
	core->line_changed = true;
	worker_settle(core, vm);
	core_dispatch(core);
}
