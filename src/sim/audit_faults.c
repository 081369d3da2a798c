/* SPDX-License-Identifier: MIT */
/*
 * Faults, points and quarantine again: what has happened must be stored, one record after
 * the other, with the points that it brings, and a VM is quarantined exactly when they are
 * enough. Whose fault it was the hardware's brings none.
 */
#include <string.h>

#include "sim/audit_internal.h"

/* What could not be stored is tried again after this. */
#define STORE_AGAIN_NS (10 * NS_PER_SEC)

/* ---- Points -------------------------------------------------------------------------- */

static void drop_fault(struct audit_vm *vm)
{
	memmove(vm->faults, vm->faults + 1, sizeof(vm->faults) - sizeof(vm->faults[0]));
	vm->fault_count--;
}

static void remember(struct audit_vm *vm, int64_t at_ns, int64_t points)
{
	if (points == 0)
		return;
	if (vm->fault_count == AUDIT_FAULTS)
		drop_fault(vm);
	vm->faults[vm->fault_count++] = (struct audit_fault){at_ns, points};
}

static void forget(const struct world *world, struct audit_vm *vm)
{
	int64_t since_ns = world->now_ns - world->rules.core.fault_window_ns;

	while (vm->fault_count && vm->faults[0].at_ns <= since_ns)
		drop_fault(vm);
}

int64_t audit_score(const struct world *world, const struct audit_vm *vm)
{
	int64_t since_ns = world->now_ns - world->rules.core.fault_window_ns, score = 0;

	for (uint32_t i = 0; i < vm->fault_count; i++)
		score += vm->faults[i].at_ns > since_ns ? vm->faults[i].points : 0;
	return score;
}

static bool is_blameless(const struct world *world, uint32_t number)
{
	uint32_t gpu = core_vm_gpu(world->core, world->vms[number].core_vm);
	const struct audit *audit = world->options->audit;

	return world->faulty[gpu] || audit->now_ns < audit->blameless_until_ns[gpu];
}

static int64_t points_of(const struct world *world, uint32_t number, enum core_fault fault,
                         uint32_t detail)
{
	const struct core_config *config = &world->rules.core;

	if (is_blameless(world, number) ||
	    (fault == CORE_FAULT_GPU && detail == SIM_HARDWARE_ERROR))
		return 0;
	return fault == CORE_FAULT_TIMEOUT ? config->timeout_points : config->fault_points;
}

/* Takes back the points of faults from @since_ns on; returns how many there were. */
static int64_t take_back(struct audit_vm *vm, int64_t since_ns)
{
	int64_t points = 0;

	while (vm->fault_count && vm->faults[vm->fault_count - 1].at_ns >= since_ns)
		points += vm->faults[--vm->fault_count].points;
	return points;
}

/* What those records say of the VM, one after the other. */
static void replay(struct audit_vm *vm, const struct core_store *records, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		const struct core_store *record = &records[i];

		if (record->record == CORE_RECORD_FORGIVEN) {
			take_back(vm, record->at_ns);
			continue;
		}
		if (record->record == CORE_RECORD_RECOVERED)
			vm->short_limit = false;
		else if (record->points && record->fault == CORE_FAULT_TIMEOUT)
			vm->short_limit = true;
		remember(vm, record->at_ns, record->points);
	}
}

/* ---- Records ---------------------------------------------------------------------------- */

/* The same as the core must store, after what it must already. */
static void owe(struct audit_vm *vm, const struct core_store *record)
{
	struct core_store *last = &vm->owed[CORE_RECORDS_MAX - 1];

	if (vm->owed_count < CORE_RECORDS_MAX) {
		vm->owed[vm->owed_count++] = *record;
	} else if (record->record != CORE_RECORD_FAULT) {
		return; /* what is no fault is done without */
	} else if (last->record != CORE_RECORD_FAULT) {
		*last = *record;
	} else {
		last->fault = record->fault;
		last->detail = record->detail;
		last->at_ns = record->at_ns;
		last->count += record->count;
		last->points += record->points;
		last->quarantine |= record->quarantine;
	}
}

void audit_fault(struct world *world, uint32_t number, struct sim_job *blamed,
                 enum core_fault fault, uint32_t detail)
{
	struct audit *audit = world->options->audit;
	struct audit_vm *vm = &audit->vms[number];
	struct core_store record = {
		.record = CORE_RECORD_FAULT,
		.at_ns = audit->now_ns,
		.fault = fault,
		.detail = detail,
		.count = 1,
		.points = points_of(world, number, fault, detail),
	};

	forget(world, vm);
	remember(vm, audit->now_ns, record.points);
	record.quarantine = record.points > 0 && !vm->quarantined && !vm->condemned &&
	                    audit_score(world, vm) >= world->rules.core.quarantine_threshold;
	vm->condemned |= record.quarantine;
	if (record.quarantine)
		vm->condemned_ns = audit->now_ns;
	vm->awaited = true;
	owe(vm, &record);
	if (blamed) {
		blamed->watch.state = WATCH_HELD;
		blamed->watch.code =
			fault == CORE_FAULT_TIMEOUT ? VGPU_CODE_TIMEOUT : VGPU_CODE_CUDA;
		vm->sent--;
	}
	audit->rare[RARE_HELD] += blamed != NULL;
	audit->rare[RARE_BLAMELESS] += is_blameless(world, number);
}

void audit_timeout(struct world *world, uint32_t number)
{
	struct audit *audit = world->options->audit;
	struct audit_vm *vm = &audit->vms[number];
	int64_t left_ns = audit_limit_left_ns(world, number, audit_charged_ns(world, number));

	/* Equal parts of the clock are rounded now and then: not to the nanosecond. */
	if (left_ns >= NS_PER_US)
		audit_violated(audit, world, number, "a worker is killed before its job's limit");
	audit->rare[RARE_TIMED_OUT]++;
	audit->rare[RARE_SHORT_LIMIT] += vm->short_limit;
	audit_fault(world, number, audit_oldest_sent(world, number), CORE_FAULT_TIMEOUT,
	            (uint32_t)(audit_limit_ns(world, number) / NS_PER_MS));
	vm->short_limit |= !is_blameless(world, number);
}

void audit_success(struct world *world, uint32_t number)
{
	struct audit *audit = world->options->audit;
	struct audit_vm *vm = &audit->vms[number];
	const struct core_store record = {
		.record = CORE_RECORD_RECOVERED,
		.at_ns = audit->now_ns,
	};

	if (!vm->short_limit)
		return;
	vm->short_limit = false;
	audit->rare[RARE_RECOVERED]++;
	owe(vm, &record);
}

static bool same_record(const struct core_store *a, const struct core_store *b)
{
	return a->record == b->record && a->at_ns == b->at_ns && a->fault == b->fault &&
	       a->detail == b->detail && a->count == b->count && a->points == b->points &&
	       a->quarantine == b->quarantine;
}

void audit_check_store(struct world *world, uint32_t number, const struct core_store *store)
{
	struct audit *audit = world->options->audit;
	struct audit_vm *vm = &audit->vms[number];

	if (vm->ticket)
		audit_violated(audit, world, number, "a record is stored before the last one is");
	else if (vm->owed_count == 0 || !same_record(&vm->owed[0], store))
		audit_violated(audit, world, number, "what is stored is not what has happened");
	audit->rare[RARE_STORED_AGAIN] += vm->failed;
	vm->failed = false;
	vm->ticket = store->ticket;
}

/* What was to be stored first is, or could not be. */
static void answer_held(struct audit *audit, struct audit_vm *vm)
{
	vm->awaited = false;
	if (!vm->condemned || vm->quarantined)
		return;
	vm->quarantined = true;
	audit->rare[RARE_QUARANTINED]++;
}

void audit_store_done(struct world *world, uint32_t number, uint64_t ticket, bool stored)
{
	struct audit *audit = world->options->audit;
	struct audit_vm *vm;

	if (!audit)
		return;
	audit_advance(world);
	vm = &audit->vms[number];
	audit->rare[RARE_STORE_FAILED] += !stored;
	if (!vm->present || vm->ticket != ticket)
		return;
	vm->ticket = 0;
	vm->failed = !stored;
	vm->failed_ns = audit->now_ns;
	if (stored) {
		vm->owed_count--;
		memmove(vm->owed, vm->owed + 1, vm->owed_count * sizeof(vm->owed[0]));
	}
	if (!stored || vm->owed_count == 0)
		answer_held(audit, vm);
	if (vm->owed_count == 0)
		vm->condemned = false;
}

const char *audit_check_records(const struct audit *audit, const struct audit_vm *vm)
{
	if (vm->owed_count == 0 || vm->ticket)
		return NULL;
	if (!vm->failed)
		return "what has happened is not stored";
	if (audit->now_ns - vm->failed_ns > STORE_AGAIN_NS)
		return "what could not be stored is not tried again";
	return NULL;
}

/* ---- What others say ----------------------------------------------------------------------- */

void audit_changed(struct world *world, uint32_t number)
{
	struct audit *audit = world->options->audit;
	bool quarantined = world->vms[number].quarantined;
	struct audit_vm *vm;

	if (!audit)
		return;
	audit_advance(world);
	vm = &audit->vms[number];
	audit_pay(audit, vm, audit_charged_ns(world, number));
	vm->gpu_thousandths = world->vms[number].settings.gpu_thousandths;
	/* What the registry says is old as long as a quarantine is still to be written. */
	if (vm->condemned || vm->quarantined == quarantined)
		return;
	vm->quarantined = quarantined;
	if (quarantined)
		return;
	audit->rare[RARE_CLEARED]++;
	vm->short_limit = false;
	vm->fault_count = 0;
	/* What the registry has not heard of yet, it cannot have cleared. */
	replay(vm, vm->owed, vm->owed_count);
}

static void forgive(struct world *world, uint32_t number, int64_t since_ns)
{
	struct audit *audit = world->options->audit;
	struct audit_vm *vm = &audit->vms[number];
	struct core_store record = {
		.record = CORE_RECORD_FORGIVEN,
		.at_ns = max_i64(since_ns, vm->arrived_ns + 1),
	};

	forget(world, vm);
	record.points = take_back(vm, record.at_ns);
	if (record.points == 0)
		return;
	record.quarantine = vm->condemned_ns >= record.at_ns;
	owe(vm, &record);
	audit->rare[RARE_FORGIVEN]++;
}

void audit_hardware(struct world *world, uint32_t gpu)
{
	struct audit *audit = world->options->audit;

	if (!audit)
		return;
	audit_advance(world);
	audit->blameless_until_ns[gpu] = audit->now_ns + CORE_HARDWARE_AFTER_S * NS_PER_SEC;
	for (uint32_t i = 0; i < world->scenario->vm_count; i++)
		if (world->vms[i].present && core_vm_gpu(world->core, world->vms[i].core_vm) == gpu)
			forgive(world, i, audit->now_ns - CORE_HARDWARE_BEFORE_S * NS_PER_SEC);
}

void audit_restore(struct audit *audit, struct audit_vm *vm, const struct sim_vm *registry)
{
	vm->quarantined = registry->quarantined;
	vm->condemned_ns = INT64_MIN;
	replay(vm, registry->records, registry->record_count);
	audit->rare[RARE_RESTART_SHORT_LIMIT] += vm->short_limit;
}
