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
	uint32_t queued = 0, in_flight = 0, held = 0;
	uint64_t bytes = 0;

	TAILQ_FOREACH (job, &vm->queued, link) {
		if (job->state != JOB_QUEUED)
			return "a job in a queue is not in the state QUEUED";
		queued++;
		bytes += job->bytes;
	}
	TAILQ_FOREACH (job, &vm->in_flight, link) {
		if (job->state != JOB_IN_FLIGHT)
			return "a job in flight is not in the state IN_FLIGHT";
		in_flight++;
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
	if (queued != vm->queued_count || in_flight != vm->in_flight_count)
		return "a VM's jobs and their counts differ";
	if (bytes != vm->payload_bytes)
		return "a VM's bytes and their sum differ";
	if (in_flight && vm->worker.state != CORE_WORKER_READY)
		return "jobs are in flight without a ready worker";
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

static const char *check_vm(const struct core *core, const struct vm *vm)
{
	struct sched_vm_stats stats;

	core->config.policy->vm_stats(core->gpus[vm->gpu].sched, vm->sched, &stats);
	if (stats.queued != vm->queued_count)
		return "core and scheduler count a VM's queue differently";
	if (vm->worker.state == CORE_WORKER_READY && stats.in_flight != vm->in_flight_count)
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
	return check_jobs(vm);
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
	if (workers != core->worker_count || workers > core->worker_bound)
		return "the workers and their count differ, or are too many";
	for (uint32_t i = 0; i < core->config.gpu_count; i++) {
		text = check_gpu(core, i);
		if (text)
			return text;
	}
	return NULL;
}
