/* SPDX-License-Identifier: MIT */
/*
 * The frame of the core: time, the queue of actions, deadlines, dispatch.
 *
 * Every event function has the same shape: advance the time, change what the event
 * changes, settle the VM's worker and deadlines, then ask the schedulers what to send.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/units.h"
#include "core/internal.h"

static bool timer_before(const struct heap_node *a, const struct heap_node *b)
{
	const struct vm *x = CONTAINER_OF(a, const struct vm, timer);
	const struct vm *y = CONTAINER_OF(b, const struct vm, timer);

	return x->deadline_ns != y->deadline_ns ? x->deadline_ns < y->deadline_ns : x->id < y->id;
}

static int64_t head_since_ns(const void *owner)
{
	const struct vm *vm = owner;

	return TAILQ_FIRST(&vm->queued)->accepted_ns;
}

void core_config_default(struct core_config *config)
{
	*config = (struct core_config){
		.policy = &sched_fair,
		.sched = sched_config_default,
		.gpu_count = 1,
		.pools = {{.enabled = true, .gpu_mask = 1}, {.enabled = true, .gpu_mask = 1}},
		.job_timeout_ns = 30 * NS_PER_SEC,
		.worker_idle_ns = 300 * NS_PER_SEC,
		.worker_start_timeout_ns = 20 * NS_PER_SEC,
		.worker_patience_ns = NS_PER_SEC,
		.worker_stop_timeout_ns = 2 * NS_PER_SEC,
		.worker_kill_timeout_ns = 10 * NS_PER_SEC,
		.worker_backoff_min_ns = 100 * NS_PER_MS,
		.worker_backoff_max_ns = 10 * NS_PER_SEC,
		.max_workers = 64,
		.max_queue_per_vm = 1024,
		.max_queued_bytes_per_vm = 262144,
		.quarantine_threshold = 9,
		.fault_points = 1,
		.timeout_points = 3,
		.fault_window_ns = 3600 * NS_PER_SEC,
	};
}

int core_new(struct core **out, const struct core_config *config, int64_t now_ns)
{
	CLEANUP(core_freep) struct core *core = calloc(1, sizeof(*core));
	int r;

	if (!core)
		return -ENOMEM;
	assert(config->gpu_count >= 1 && config->gpu_count <= CORE_MAX_GPUS);
	core->config = *config;
	core->worker_bound = config->max_workers;
	core->now_ns = now_ns;
	TAILQ_INIT(&core->free_jobs);
	TAILQ_INIT(&core->waiting);
	heap_init(&core->timers, timer_before);
	for (uint32_t i = 0; i < config->gpu_count; i++) {
		r = config->policy->create(&core->gpus[i].sched, &config->sched, head_since_ns,
		                           now_ns);
		if (r < 0)
			return r;
	}
	/* A GPU can be drained before there is any VM. */
	r = core_reserve_actions(core, 0, 0);
	if (r < 0)
		return r;
	*out = TAKE_PTR(core);
	return 0;
}

void core_free(struct core *core)
{
	if (!core)
		return;
	for (uint32_t i = 0; i < core->config.gpu_count; i++) {
		if (core->gpus[i].sched)
			core->config.policy->destroy(core->gpus[i].sched);
	}
	for (uint32_t i = 0; i < core->vm_slots; i++)
		free(core->vms[i]);
	for (uint32_t i = 0; i < core->job_slots; i++)
		free(core->jobs[i]);
	heap_fini(&core->timers);
	free(core->vms);
	free(core->jobs);
	free(core->actions);
	free(core);
}

const struct sched_policy *core_policy(const struct core *core)
{
	return core->config.policy;
}

struct vm *core_find_vm(const struct core *core, uint32_t vm)
{
	assert(vm < core->vm_slots && core->vms[vm]);
	return core->vms[vm];
}

/* ---- Actions -------------------------------------------------------------- */

int core_reserve_actions(struct core *core, uint32_t jobs, uint32_t vms)
{
	/* A job is sent and answered; a VM starts, stops, kills, stores, goes. */
	uint32_t needed = 2 * jobs + 8 * vms + 16, capacity = core->action_capacity;
	struct core_action *actions;

	if (needed <= capacity)
		return 0;
	capacity = capacity ? capacity : 64;
	while (capacity < needed)
		capacity *= 2;
	actions = malloc(capacity * sizeof(*actions));
	if (!actions)
		return -ENOMEM;
	for (uint32_t i = 0; i < core->action_count; i++)
		actions[i] = core->actions[(core->action_first + i) % core->action_capacity];
	free(core->actions);
	core->actions = actions;
	core->action_capacity = capacity;
	core->action_first = 0;
	return 0;
}

static struct core_action *core_push(struct core *core, enum core_action_type type)
{
	struct core_action *action;

	assert(core->action_count < core->action_capacity);
	action =
		&core->actions[(core->action_first + core->action_count++) % core->action_capacity];
	*action = (struct core_action){.type = type};
	return action;
}

struct core_action *core_push_action(struct core *core, enum core_action_type type, struct vm *vm)
{
	struct core_action *action = core_push(core, type);

	action->vm = vm->id;
	action->owner = vm->owner;
	action->generation = vm->worker.generation;
	action->gpu = vm->gpu;
	return action;
}

bool core_next_action(struct core *core, struct core_action *out)
{
	if (core->action_count == 0)
		return false;
	*out = core->actions[core->action_first];
	core->action_first = (core->action_first + 1) % core->action_capacity;
	core->action_count--;
	return true;
}

/* ---- Time ------------------------------------------------------------------ */

void core_advance(struct core *core, int64_t now_ns)
{
	int64_t elapsed_ns = now_ns - core->now_ns;

	if (elapsed_ns <= 0)
		return;
	for (uint32_t i = 0; i < core->config.gpu_count; i++) {
		struct gpu *gpu = &core->gpus[i];
		int64_t whole_ns = elapsed_ns + gpu->part_rest;
		struct sched_stats stats;

		core_policy(core)->stats(gpu->sched, &stats);
		gpu->part_ns += whole_ns / max_i64(stats.open, 1);
		gpu->part_rest = whole_ns % max_i64(stats.open, 1);
	}
	core->now_ns = now_ns;
}

void core_dispatch(struct core *core)
{
	places_settle(core);
	for (uint32_t i = 0; i < core->config.gpu_count; i++) {
		struct vm *vm;

		while ((vm = core_policy(core)->next(core->gpus[i].sched, core->now_ns)))
			job_send_offered(core, vm);
	}
}

void core_tick(struct core *core, int64_t now_ns)
{
	struct heap_node *node;

	CORE_NOTE(core, CORE_EVENT_TICK, NULL, now_ns);
	core_advance(core, now_ns);
	while ((node = heap_first(&core->timers))) {
		struct vm *vm = CONTAINER_OF(node, struct vm, timer);

		if (vm->deadline_ns > core->now_ns)
			break;
		worker_settle(core, vm);
	}
	core_dispatch(core);
}

int64_t core_deadline_ns(const struct core *core)
{
	const struct heap_node *node = heap_first(&core->timers);
	int64_t deadline_ns =
		node ? CONTAINER_OF(node, const struct vm, timer)->deadline_ns : SCHED_NEVER;

	for (uint32_t i = 0; i < core->config.gpu_count; i++)
		deadline_ns =
			min_i64(deadline_ns, core_policy(core)->deadline(core->gpus[i].sched));
	return deadline_ns;
}

void core_config_set(struct core *core, int64_t now_ns, const struct core_config *config)
{
	assert(config->gpu_count == core->config.gpu_count);
	assert(config->policy == core->config.policy);
	CORE_NOTE(core, CORE_EVENT_CONFIG_SET, config, now_ns);
	core_advance(core, now_ns);
	core->config = *config;
	core->worker_bound = max_u64(core->worker_count, config->max_workers);
	for (uint32_t i = 0; i < config->gpu_count; i++)
		core_policy(core)->configure(core->gpus[i].sched, core->now_ns, &config->sched);
	for (uint32_t i = 0; i < core->vm_slots; i++) {
		if (core->vms[i]) {
			vm_place(core, core->vms[i]);
			worker_settle(core, core->vms[i]);
		}
	}
	core_dispatch(core);
}

void core_shutdown(struct core *core, int64_t now_ns)
{
	CORE_NOTE(core, CORE_EVENT_SHUTDOWN, NULL, now_ns);
	core_advance(core, now_ns);
	core->stopping = true;
	for (uint32_t i = 0; i < core->vm_slots; i++) {
		if (core->vms[i]) {
			jobs_answer_queued(core, core->vms[i], CORE_NO_CLIENT,
			                   VGPU_CODE_UNAVAILABLE);
			worker_settle(core, core->vms[i]);
		}
	}
	core_dispatch(core);
}

void core_abandon(struct core *core)
{
	CORE_NOTE(core, CORE_EVENT_ABANDON, NULL, core->now_ns);
	for (uint32_t i = 0; i < core->vm_slots; i++) {
		if (!core->vms[i])
			continue;
		jobs_answer_queued(core, core->vms[i], CORE_NO_CLIENT, VGPU_CODE_UNAVAILABLE);
		jobs_fail_in_flight(core, core->vms[i], VGPU_CODE_UNAVAILABLE);
		jobs_release_held(core, core->vms[i]);
	}
}

void core_gpu_check_drained(struct core *core, uint32_t index)
{
	struct gpu *gpu = &core->gpus[index];

	if (!gpu->draining || gpu->drained_told || gpu->workers > gpu->stuck)
		return;
	gpu->drained_told = true;
	core_push(core, CORE_ACTION_GPU_DRAINED)->gpu = index;
}

void core_gpu_set_draining(struct core *core, int64_t now_ns, uint32_t index, bool draining)
{
	struct gpu *gpu = &core->gpus[index];

	CORE_NOTE(core, CORE_EVENT_GPU_SET_DRAINING, NULL, now_ns, index, draining);
	core_advance(core, now_ns);
	if (gpu->draining == draining)
		return;
	gpu->draining = draining;
	gpu->drained_told = false;
	for (uint32_t i = 0; i < core->vm_slots; i++) {
		struct vm *vm = core->vms[i];

		if (!vm)
			continue;
		vm_place(core, vm);
		if (draining && vm->gpu == index)
			jobs_answer_queued(core, vm, CORE_NO_CLIENT, VGPU_CODE_RATE_LIMITED);
		worker_settle(core, vm);
	}
	core_gpu_check_drained(core, index);
	core_dispatch(core);
}

/* ---- Queries ----------------------------------------------------------------- */

bool core_vm_has_room(const struct core *core, uint32_t number)
{
	const struct vm *vm = core_find_vm(core, number);

	return vm_depth(vm) < core->config.max_queue_per_vm &&
	       vm->payload_bytes + VGPU_MESSAGE_BYTES <= core->config.max_queued_bytes_per_vm;
}

uint32_t core_vm_gpu(const struct core *core, uint32_t number)
{
	return core_find_vm(core, number)->gpu;
}

void core_vm_stats(struct core *core, int64_t now_ns, uint32_t number, struct core_vm_stats *out)
{
	struct vm *vm = core_find_vm(core, number);

	core_advance(core, now_ns);
	*out = (struct core_vm_stats){
		.submitted = vm->submitted,
		.executed = vm->executed,
		.job_gpu_ns = vm->job_gpu_ns,
		.depth = vm_depth(vm),
		.in_flight = vm->in_flight_count,
		.head_wait_ns = vm->queued_count ? core->now_ns - head_since_ns(vm) : 0,
		.gpu = vm->gpu,
		.worker = vm->worker.state,
		.stuck = vm->worker.stuck,
		.failed_starts = vm->worker.failed_starts,
		.start_failures = vm->start_failures,
		.quarantined = vm->quarantined,
		.fault_score = fault_history_score(&vm->history, core->now_ns,
	                                           core->config.fault_window_ns),
		.latency = &vm->latency,
	};
	memcpy(out->outcomes, vm->outcomes, sizeof(out->outcomes));
	memcpy(out->refusals, vm->refusals, sizeof(out->refusals));
	memcpy(out->faults, vm->faults, sizeof(out->faults));
	core_policy(core)->charged_ns(core->gpus[vm->gpu].sched, core->now_ns, vm->sched);
	core_policy(core)->vm_stats(core->gpus[vm->gpu].sched, vm->sched, &out->sched);
	out->sched.charged_ns += vm->charged_before_ns;
	vm->charged_ns = max_i64(vm->charged_ns, out->sched.charged_ns);
	out->charged_ns = vm->charged_ns;
}

void core_stats(const struct core *core, struct core_stats *out)
{
	*out = (struct core_stats){
		.vms = core->vm_count,
		.workers = core->worker_count,
		.jobs = core->job_count,
		.stale_events = core->stale_events,
	};
	for (uint32_t i = 0; i < core->vm_slots; i++)
		out->stuck_workers += core->vms[i] && core->vms[i]->worker.stuck;
}

void core_pool_stats(const struct core *core, uint32_t pool, struct core_pool_stats *out)
{
	out->wait = &core->pools[pool].wait;
	out->execution = &core->pools[pool].execution;
}

void core_gpu_stats(const struct core *core, uint32_t gpu, struct sched_stats *out)
{
	assert(gpu < core->config.gpu_count);
	core_policy(core)->stats(core->gpus[gpu].sched, out);
}

const char *core_worker_state_name(enum core_worker_state state)
{
	static const char *const names[] = {
		[CORE_WORKER_NONE] = "none",     [CORE_WORKER_STARTING] = "starting",
		[CORE_WORKER_READY] = "ready",   [CORE_WORKER_STOPPING] = "stopping",
		[CORE_WORKER_KILLED] = "killed",
	};

	return names[state];
}

const char *core_fault_name(enum core_fault fault)
{
	static const char *const names[CORE_FAULT_COUNT] = {
		[CORE_FAULT_GPU] = "gpu_fault",
		[CORE_FAULT_TIMEOUT] = "timeout",
		[CORE_FAULT_DEATH] = "worker_death",
	};

	return names[fault];
}

const char *core_outcome_name(enum core_outcome outcome)
{
	static const char *const names[CORE_OUTCOME_COUNT] = {
		[CORE_OUTCOME_DONE] = "done",
		[CORE_OUTCOME_FAILED] = "failed",
		[CORE_OUTCOME_TIMEOUT] = "timeout",
		[CORE_OUTCOME_CANCELLED] = "cancelled",
	};

	return names[outcome];
}

const char *core_refusal_name(enum core_refusal refusal)
{
	static const char *const names[CORE_REFUSAL_COUNT] = {
		[CORE_REFUSAL_RATE] = "rate",
		[CORE_REFUSAL_DEPTH] = "depth",
		[CORE_REFUSAL_GPU_SECONDS] = "gpu_seconds",
		[CORE_REFUSAL_QUARANTINE] = "quarantine",
		[CORE_REFUSAL_INVALID] = "invalid",
		[CORE_REFUSAL_POOL_DISABLED] = "pool_disabled",
		[CORE_REFUSAL_GPU_RESET] = "gpu_reset",
		[CORE_REFUSAL_UNAVAILABLE] = "unavailable",
		[CORE_REFUSAL_QUOTA] = "quota",
	};

	return names[refusal];
}
