/* SPDX-License-Identifier: MIT */
/*
 * What faults lead to: points, and quarantine when they are too many.
 *
 * Points are for what a VM's jobs do, never for hardware that fails: a fault brings none
 * while the GPU is faulty or shortly after it showed a sign of it, and those of shortly
 * before are forgiven. What is counted is stored first (records.c).
 */
#include "base/units.h"
#include "core/internal.h"
#include "core/watch/exceptions.h"

/* ---- Points --------------------------------------------------------------------------- */

/* Whether what happens on the VM's GPU now may be the hardware's doing. */
static bool is_blameless(const struct core *core, const struct vm *vm)
{
	const struct gpu *gpu = &core->gpus[vm->gpu];

	return gpu->faulty || core->now_ns < gpu->blameless_until_ns;
}

static int64_t points_of(const struct core *core, const struct vm *vm, enum core_fault fault,
                         uint32_t detail)
{
	if (is_blameless(core, vm))
		return 0;
	if (fault == CORE_FAULT_TIMEOUT)
		return core->config.timeout_points;
	if (fault == CORE_FAULT_GPU && !exception_is_the_jobs(detail))
		return 0;
	return core->config.fault_points;
}

static int64_t score(const struct core *core, const struct vm *vm)
{
	return fault_history_score(&vm->history, core->now_ns, core->config.fault_window_ns);
}

static void forget(const struct core *core, struct vm *vm)
{
	fault_history_forget(&vm->history, core->now_ns, core->config.fault_window_ns);
}

void vm_fault(struct core *core, struct vm *vm, enum core_fault fault, uint32_t detail)
{
	struct core_store record = {
		.record = CORE_RECORD_FAULT,
		.at_ns = core->now_ns,
		.fault = fault,
		.detail = detail,
		.count = 1,
		.points = points_of(core, vm, fault, detail),
	};

	vm->faults[fault]++;
	forget(core, vm);
	fault_history_add(&vm->history, core->now_ns, record.points);
	record.quarantine = record.points > 0 && !vm->quarantined && !records_quarantine(vm) &&
	                    score(core, vm) >= core->config.quarantine_threshold;
	if (record.quarantine)
		vm->condemned_ns = core->now_ns;
	if (fault == CORE_FAULT_TIMEOUT)
		vm->short_limit |= !is_blameless(core, vm);
	record_add_awaited(core, vm, &record);
}

void vm_success(struct core *core, struct vm *vm)
{
	const struct core_store record = {
		.record = CORE_RECORD_RECOVERED,
		.at_ns = core->now_ns,
	};

	if (!vm->short_limit)
		return;
	vm->short_limit = false;
	record_add(core, vm, &record);
}

/* ---- What the registry says ---------------------------------------------------------------- */

static void replay(struct vm *vm, const struct core_store *record)
{
	switch (record->record) {
	case CORE_RECORD_FAULT:
		fault_history_add(&vm->history, record->at_ns, record->points);
		vm->short_limit |= record->fault == CORE_FAULT_TIMEOUT && record->points > 0;
		break;
	case CORE_RECORD_RECOVERED:
		vm->short_limit = false;
		break;
	case CORE_RECORD_FORGIVEN:
		fault_history_forgive(&vm->history, record->at_ns);
		break;
	}
}

/* What is known of the VM from now on: @records, and what is on its way to the registry. */
static void replay_all(struct vm *vm, const struct core_store *records, size_t count)
{
	fault_history_clear(&vm->history);
	for (size_t i = 0; i < count; i++)
		replay(vm, &records[i]);
	for (uint32_t i = 0; i < vm->records.count; i++)
		replay(vm, &vm->records.entries[i]);
}

void core_vm_restore(struct core *core, int64_t now_ns, uint32_t number,
                     const struct core_store *records, size_t count)
{
	struct vm *vm = core_find_vm(core, number);

	for (size_t i = 0; i < count; i++)
		CORE_NOTE(core, CORE_EVENT_RECORD, &records[i], now_ns);
	CORE_NOTE(core, CORE_EVENT_RESTORE, NULL, now_ns, number);
	core_advance(core, now_ns);
	/* Timeouts without points do not tell, in the registry, whose doing they were. */
	vm->short_limit &= core->config.timeout_points == 0;
	replay_all(vm, records, count);
	worker_settle(core, vm);
	core_dispatch(core);
}

/* ---- Quarantine ---------------------------------------------------------------------------- */

void vm_quarantine(struct core *core, struct vm *vm)
{
	vm->quarantined = true;
	/* An operator's quarantine is no reason to tell of a fault that is not stored. */
	if (!vm->records.awaited)
		jobs_release_held(core, vm);
	jobs_answer_queued(core, vm, CORE_NO_CLIENT, VGPU_CODE_QUARANTINED);
}

void vm_set_quarantined(struct core *core, struct vm *vm, bool quarantined)
{
	/* What the registry said before it has stored our own decision is out of date. */
	if (records_quarantine(vm) || vm->quarantined == quarantined)
		return;
	if (quarantined) {
		vm_quarantine(core, vm);
		return;
	}
	vm->quarantined = false;
	vm->short_limit = false;
	replay_all(vm, NULL, 0);
}

/* ---- Hardware ------------------------------------------------------------------------------ */

static void forgive(struct core *core, struct vm *vm, int64_t since_ns)
{
	struct core_store record = {
		.record = CORE_RECORD_FORGIVEN,
		/* What it did on another GPU is not this one's doing. */
		.at_ns = max_i64(since_ns, vm->arrived_ns + 1),
	};

	forget(core, vm);
	record.points = fault_history_forgive(&vm->history, record.at_ns);
	if (record.points == 0)
		return;
	record.quarantine = vm->condemned_ns >= record.at_ns;
	record_add(core, vm, &record);
}

/* The hardware shows, or has shown, that it is not to be trusted just now. */
static void hardware_fault(struct core *core, uint32_t index)
{
	core->gpus[index].blameless_until_ns = core->now_ns + CORE_HARDWARE_AFTER_S * NS_PER_SEC;
	for (uint32_t i = 0; i < core->vm_slots; i++) {
		if (core->vms[i] && core->vms[i]->gpu == index)
			forgive(core, core->vms[i],
			        core->now_ns - CORE_HARDWARE_BEFORE_S * NS_PER_SEC);
	}
	core_dispatch(core);
}

void core_gpu_hardware_fault(struct core *core, int64_t now_ns, uint32_t index)
{
	CORE_NOTE(core, CORE_EVENT_GPU_HARDWARE_FAULT, NULL, now_ns, index);
	core_advance(core, now_ns);
	hardware_fault(core, index);
}

void core_gpu_set_faulty(struct core *core, int64_t now_ns, uint32_t index, bool faulty)
{
	struct gpu *gpu = &core->gpus[index];

	CORE_NOTE(core, CORE_EVENT_GPU_SET_FAULTY, NULL, now_ns, index, faulty);
	core_advance(core, now_ns);
	if (gpu->faulty == faulty)
		return;
	gpu->faulty = faulty;
	hardware_fault(core, index);
}
