/* SPDX-License-Identifier: MIT */
/*
 * What must be known of a VM after a restart, on its way to the registry: one record
 * after the other, in the order in which things happened.
 *
 * A fault is stored before the answer of the job to blame leaves, so that nobody can have
 * seen it and find it forgotten after a crash. Until then that one answer is held, nothing
 * of the VM is granted, and what is submitted waits in its queue. If storing fails, held
 * answers leave after that first attempt and a quarantine holds all the same; records are
 * kept and tried again, with the next one at the latest. Bounded: when too many wait, the
 * newest fault is counted with the one before it.
 */
#include <string.h>

#include "base/units.h"
#include "core/internal.h"

enum { STORE_AGAIN_S = 10 };

void records_init(struct record_line *records)
{
	records->again_ns = SCHED_NEVER;
}

static void push_store(struct core *core, struct vm *vm)
{
	struct core_store *first = &vm->records.entries[0];

	first->ticket = vm->records.ticket = ++core->last_ticket;
	vm->records.again_ns = SCHED_NEVER;
	core_push_action(core, CORE_ACTION_STORE, vm)->store = *first;
}

/* Counts it with the last fault in line. What is no fault is done without. */
static void merge(struct record_line *records, const struct core_store *what)
{
	struct core_store *last = &records->entries[records->count - 1];

	if (what->record != CORE_RECORD_FAULT)
		return;
	if (last->record != CORE_RECORD_FAULT) {
		*last = *what;
		return;
	}
	last->fault = what->fault;
	last->detail = what->detail;
	last->at_ns = what->at_ns;
	last->count += what->count;
	last->points += what->points;
	last->quarantine |= what->quarantine;
	last->again = false;
}

void record_add(struct core *core, struct vm *vm, const struct core_store *what)
{
	struct record_line *records = &vm->records;

	if (records->count == CORE_RECORDS_MAX)
		merge(records, what);
	else
		records->entries[records->count++] = *what;
	if (!records->ticket)
		push_store(core, vm);
}

void record_add_awaited(struct core *core, struct vm *vm, const struct core_store *what)
{
	vm->records.awaited = true;
	record_add(core, vm, what);
}

bool records_quarantine(const struct vm *vm)
{
	if (vm->records.condemned)
		return true;
	for (uint32_t i = 0; i < vm->records.count; i++) {
		const struct core_store *record = &vm->records.entries[i];

		if (record->record == CORE_RECORD_FAULT && record->quarantine)
			return true;
	}
	return false;
}

int64_t records_settle(struct core *core, struct vm *vm)
{
	if (vm->records.again_ns <= core->now_ns)
		push_store(core, vm);
	return vm->records.again_ns;
}

static void drop_first(struct record_line *records)
{
	records->count--;
	memmove(records->entries, records->entries + 1,
	        records->count * sizeof(records->entries[0]));
}

void core_stores_walk(const struct core *core,
                      void (*each)(void *context, const struct core_action *action), void *context)
{
	for (uint32_t i = 0; i < core->vm_slots; i++) {
		const struct vm *vm = core->vms[i];

		for (uint32_t j = vm && vm->records.ticket ? 1 : 0; vm && j < vm->records.count;
		     j++) {
			struct core_action action = {
				.type = CORE_ACTION_STORE,
				.vm = i,
				.owner = vm->owner,
				.gpu = vm->gpu,
				.store = vm->records.entries[j],
			};

			action.store.ticket = 0;
			each(context, &action);
		}
	}
}

static struct vm *find_ticket(const struct core *core, uint64_t ticket)
{
	for (uint32_t i = 0; ticket && i < core->vm_slots; i++) {
		if (core->vms[i] && core->vms[i]->records.ticket == ticket)
			return core->vms[i];
	}
	return NULL;
}

void core_store_done(struct core *core, int64_t now_ns, uint64_t ticket, bool stored)
{
	struct vm *vm = find_ticket(core, ticket);
	struct record_line *records;
	bool quarantine;

	CORE_NOTE(core, CORE_EVENT_STORE_DONE, NULL, now_ns, (int64_t)ticket, stored);
	core_advance(core, now_ns);
	if (!vm)
		return;
	records = &vm->records;
	records->ticket = 0;
	quarantine = records_quarantine(vm);
	records->condemned = stored && records->count > 1 && quarantine;
	if (stored)
		drop_first(records);
	else
		records->entries[0].again = true;
	if (stored && records->count) {
		push_store(core, vm);
	} else {
		records->again_ns =
			stored ? SCHED_NEVER : core->now_ns + STORE_AGAIN_S * NS_PER_SEC;
		records->awaited = false;
		if (quarantine)
			vm_quarantine(core, vm);
		else
			jobs_release_held(core, vm);
	}
	worker_settle(core, vm);
	core_dispatch(core);
}
