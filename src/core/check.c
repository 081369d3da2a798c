/* SPDX-License-Identifier: MIT */
/*
 * The invariants of the core that hold after every event, in one place.
 *
 * Tests and the simulator call core_check() after each event; the daemon does not.
 * Each policy checks its own on top.
 */
#include "core/internal.h"

static const char *check_jobs(const struct vm *vm)
{
	const struct job *job;
	uint32_t queued = 0, in_flight = 0, on_gpu = 0, held = 0;
	uint64_t bytes = 0;

	TAILQ_FOREACH (job, &vm->queued, link) {
		if (job->state != (queued < vm->offered_count ? JOB_OFFERED : JOB_QUEUED))
			return "a job in a queue is in none of its states, or in the wrong one";
		if (job->state == JOB_OFFERED && job->without_gpu)
			return "the scheduler is offered a job that needs no GPU";
		queued++;
		bytes += job->bytes;
		if (queued == vm->offered_count && job != vm->last_offered)
			return "the last job offered is another";
	}
	TAILQ_FOREACH (job, &vm->in_flight, link) {
		if (job->state != JOB_IN_FLIGHT)
			return "a job in flight is not in the state IN_FLIGHT";
		in_flight++;
		on_gpu += !job->without_gpu;
		bytes += job->bytes;
	}
	TAILQ_FOREACH (job, &vm->held, link) {
		if (job->state != JOB_HELD)
			return "a held job is not in the state HELD";
		held++;
		bytes += job->bytes;
	}
	if (held != vm->held_count || (held && !vm->records.awaited))
		return "answers are held though nothing is being stored";
	if (queued != vm->queued_count || in_flight != vm->in_flight_count ||
	    on_gpu != vm->on_gpu_count)
		return "a VM's jobs and their counts differ";
	if (bytes != vm->payload_bytes)
		return "a VM's bytes and their sum differ";
	if (in_flight && vm->worker.state != CORE_WORKER_READY)
		return "jobs are in flight without a ready worker";
	return NULL;
}

static const char *check_counts(const struct vm *vm)
{
	uint64_t answered = 0, refused = 0;

	for (int i = 0; i < CORE_OUTCOME_COUNT; i++)
		answered += vm->outcomes[i];
	for (int i = 0; i < CORE_REFUSAL_COUNT; i++)
		refused += vm->refusals[i];
	if (vm->latency.count != answered)
		return "a VM's histogram and its answers differ";
	if (vm->submitted != answered + refused + vm_depth(vm))
		return "a VM's jobs are not all answered, refused or there";
	return NULL;
}

/* What is to be stored, and what is remembered of it. */
static const char *check_faults(const struct vm *vm)
{
	const struct record_line *records = &vm->records;
	const struct fault_history *history = &vm->history;

	if (records->count > CORE_RECORDS_MAX || history->count > FAULT_HISTORY_MAX)
		return "more is remembered of a VM than there is room for";
	if (records->ticket && !records->count)
		return "nothing is being stored under a ticket";
	if (records->awaited && !records->ticket)
		return "a VM waits for a store that nobody does";
	if (records->count && !records->ticket && records->again_ns == SCHED_NEVER)
		return "what could not be stored is not tried again";
	for (uint32_t i = 0; i < history->count; i++) {
		if (history->entries[i].points <= 0)
			return "a fault without points is remembered";
		if (i && history->entries[i].at_ns < history->entries[i - 1].at_ns)
			return "faults are not remembered in the order of their time";
	}
	if (vm->quarantined && records->awaited && records_quarantine(vm))
		return "a VM is quarantined before that is stored";
	return NULL;
}

static const char *check_gpu(const struct core *core, uint32_t index)
{
	const struct gpu *gpu = &core->gpus[index];
	uint32_t workers = 0, stuck = 0;
	int64_t weight = 0;

	for (uint32_t i = 0; i < core->vm_slots; i++) {
		const struct vm *vm = core->vms[i];

		if (!vm || vm->gpu != index)
			continue;
		workers += vm->worker.state != CORE_WORKER_NONE;
		stuck += vm->worker.stuck;
		weight += vm->settings.weight_hundredths;
	}
	if (workers != gpu->workers || stuck != gpu->stuck)
		return "a GPU's workers and their counts differ";
	if (weight != gpu->weight)
		return "a GPU's weights and their sum differ";
	if (gpu->drained_told && (!gpu->draining || workers > stuck))
		return "a GPU is said to be drained and is not";
	return core->config.policy->check(gpu->sched);
}

/* Whether all that is queued waits for something. */
static const char *check_queue(const struct core *core, const struct vm *vm)
{
	const struct job *job = TAILQ_FIRST(&vm->queued);

	while (job && job->state == JOB_OFFERED)
		job = TAILQ_NEXT(job, link);
	if (!job)
		return NULL;
	if (!job->without_gpu)
		return "a job is not offered to the scheduler";
	if (worker_takes_jobs(core, vm) && !vm->offered_count && !vm->on_gpu_count &&
	    vm->in_flight_count < CORE_WITHOUT_GPU_MAX)
		return "a job that needs no GPU waits for nothing";
	return NULL;
}

/* Whether the VM's pool has a GPU that is not drained. */
static bool has_gpu(const struct core *core, const struct vm *vm)
{
	for (uint32_t i = 0; i < core->config.gpu_count; i++) {
		if ((core->config.pools[vm->settings.pool].gpu_mask & (1u << i)) &&
		    !core->gpus[i].draining)
			return true;
	}
	return false;
}

static const char *check_vm(const struct core *core, const struct vm *vm)
{
	struct sched_vm_stats stats;
	const char *text;

	core->config.policy->vm_stats(core->gpus[vm->gpu].sched, vm->sched, &stats);
	if (stats.queued != vm->offered_count)
		return "core and scheduler count a VM's queue differently";
	if (vm->worker.state == CORE_WORKER_READY && stats.in_flight != vm->on_gpu_count)
		return "core and scheduler count a VM's jobs in flight differently";
	if (vm->enabled && vm->worker.state != CORE_WORKER_READY)
		return "a VM without a ready worker may be granted a turn";
	if (vm->quarantined && vm->queued_count)
		return "a quarantined VM has jobs queued";
	if (heap_contains(&vm->timer) != (vm->deadline_ns != SCHED_NEVER))
		return "a VM's deadline is not in the heap";
	if (vm->worker.state == CORE_WORKER_NONE && vm->queued_count &&
	    !vm->worker.waits_for_place && !vm->records.awaited && vm->deadline_ns == SCHED_NEVER)
		return "a VM with jobs waits for nothing";
	if (vm->worker.state == CORE_WORKER_NONE && core->gpus[vm->gpu].draining &&
	    has_gpu(core, vm))
		return "a VM stays at a drained GPU though its pool has another";
	text = check_jobs(vm);
	if (!text)
		text = check_queue(core, vm);
	if (!text)
		text = check_counts(vm);
	return text ? text : check_faults(vm);
}

const char *core_check(const struct core *core)
{
	uint32_t vms = 0, jobs = 0, workers = 0;
	const char *text;

	for (uint32_t i = 0; i < core->vm_slots; i++) {
		const struct vm *vm = core->vms[i];

		if (!vm)
			continue;
		vms++;
		jobs += vm_depth(vm);
		workers += vm->worker.state != CORE_WORKER_NONE;
		text = check_vm(core, vm);
		if (text)
			return text;
	}
	if (vms != core->vm_count)
		return "the VMs and their count differ";
	if (jobs != core->job_count)
		return "the jobs of all VMs and their count differ";
	if (core->job_slots > max_u64(2 * core->job_peak, FIRST_SLOTS))
		return "there are more places for jobs than there can ever have been jobs twice";
	if (workers != core->worker_count || workers > core->worker_bound)
		return "the workers and their count differ, or are too many";
	for (uint32_t i = 0; i < core->config.gpu_count; i++) {
		text = check_gpu(core, i);
		if (text)
			return text;
	}
	return NULL;
}
