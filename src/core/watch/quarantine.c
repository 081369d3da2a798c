/* SPDX-License-Identifier: MIT */
/*
 * What faults lead to: points, and quarantine when they are too many.
 *
 * A quarantine is stored before the answer of the job that brought it leaves, so that
 * nobody can have seen it and find it forgotten after a crash. Until then that one
 * answer is held, nothing of the VM is granted, and what is submitted waits in its
 * queue. If storing fails, the VM is quarantined all the same, its answers leave, and
 * storing is tried again.
 */
#include <assert.h>

#include "base/units.h"
#include "core/internal.h"

enum { STORE_AGAIN_S = 10 };

static void push_store(struct core *core, struct vm *vm, enum core_fault fault, uint32_t detail,
                       int64_t points, bool quarantine)
{
	struct core_action *action = core_push_action(core, CORE_ACTION_STORE, vm);

	action->store = (struct core_store){
		.ticket = ++core->last_ticket,
		.fault = fault,
		.detail = detail,
		.points = points,
		.quarantine = quarantine,
	};
	if (quarantine)
		vm->quarantine_ticket = action->store.ticket;
}

bool vm_fault(struct core *core, struct vm *vm, enum core_fault fault, uint32_t detail)
{
	int64_t points = fault == CORE_FAULT_TIMEOUT ? core->config.timeout_points
	                                             : core->config.fault_points;
	bool quarantine;

	vm->faults[fault]++;
	fault_history_add(&vm->history, core->now_ns, points);
	quarantine =
		!vm->quarantined && !vm->quarantine_ticket &&
		fault_history_score(&vm->history, core->now_ns, core->config.fault_window_ns) >=
			core->config.quarantine_threshold;
	push_store(core, vm, fault, detail, points, quarantine);
	return quarantine;
}

void vm_quarantine(struct core *core, struct vm *vm)
{
	vm->quarantined = true;
	jobs_release_held(core, vm);
	jobs_answer_queued(core, vm, CORE_NO_CLIENT, VGPU_CODE_QUARANTINED);
}

void vm_set_quarantined(struct core *core, struct vm *vm, bool quarantined)
{
	/* What the registry said before it has stored our own decision is out of date. */
	if (vm->quarantine_ticket || vm->quarantined == quarantined)
		return;
	if (quarantined) {
		vm_quarantine(core, vm);
		return;
	}
	vm->quarantined = false;
	vm->short_limit = false;
	fault_history_clear(&vm->history);
}

int64_t quarantine_settle(struct core *core, struct vm *vm)
{
	if (!vm->quarantine_ticket || vm->store_again_ns > core->now_ns)
		return vm->quarantine_ticket ? vm->store_again_ns : SCHED_NEVER;
	push_store(core, vm, CORE_FAULT_COUNT, 0, 0, true);
	vm->store_again_ns = SCHED_NEVER;
	return SCHED_NEVER;
}

static struct vm *find_ticket(const struct core *core, uint64_t ticket)
{
	for (uint32_t i = 0; i < core->vm_slots; i++) {
		if (core->vms[i] && core->vms[i]->quarantine_ticket == ticket)
			return core->vms[i];
	}
	return NULL;
}

void core_store_done(struct core *core, int64_t now_ns, uint64_t ticket, bool stored)
{
	struct vm *vm = find_ticket(core, ticket);

	core_advance(core, now_ns);
	if (!vm)
		return;
	if (stored)
		vm->quarantine_ticket = 0;
	else
		vm->store_again_ns = core->now_ns + STORE_AGAIN_S * NS_PER_SEC;
	vm_quarantine(core, vm);
	worker_settle(core, vm);
	core_dispatch(core);
}

void core_vm_restore_fault(struct core *core, uint32_t number, int64_t at_ns, int64_t points)
{
	fault_history_add(&core_find_vm(core, number)->history, at_ns, points);
}
