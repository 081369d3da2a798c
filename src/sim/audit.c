/* SPDX-License-Identifier: MIT */
/* See audit.h. */
#include "sim/audit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/audit_internal.h"

int audit_new(struct audit **out)
{
	struct audit *audit = calloc(1, sizeof(*audit));

	if (!audit)
		return -ENOMEM;
	*out = audit;
	return 0;
}

void audit_free(struct audit *audit)
{
	free(audit);
}

void audit_reset(struct audit *audit)
{
	memset(audit, 0, sizeof(*audit));
}

const uint64_t *audit_rare(const struct audit *audit)
{
	return audit->rare;
}

void audit_violated(struct audit *audit, const struct world *world, uint32_t vm, const char *what)
{
	if (!audit->violation[0])
		snprintf(audit->violation, sizeof(audit->violation), "VM %s: %s",
		         world->scenario->vms[vm].name, what);
}

int64_t audit_charged_ns(const struct world *world, uint32_t number)
{
	struct core_vm_stats stats;

	core_vm_stats(world->core, world->now_ns, world->vms[number].core_vm, &stats);
	return stats.sched.charged_ns;
}

/* The audit of a world that has one, its clock brought up to date; else NULL. */
static struct audit *audit_of(struct world *world)
{
	if (world->options->audit)
		audit_advance(world);
	return world->options->audit;
}

/* ---- What happens ------------------------------------------------------------------ */

void audit_joined(struct world *world, uint32_t number)
{
	struct audit *audit = audit_of(world);

	if (!audit)
		return;
	audit->vms[number] = (struct audit_vm){
		.present = true,
		.condemned_ns = INT64_MIN,
		.gpu_thousandths = world->vms[number].settings.gpu_thousandths,
		.bucket_at_ns = audit->now_ns,
		.balance_at_ns = audit->now_ns,
	};
}

void audit_leaves(struct world *world, uint32_t number)
{
	struct audit *audit = audit_of(world);

	if (audit)
		audit->vms[number].may_cancel = true;
}

void audit_cancels(struct world *world, uint32_t number)
{
	audit_leaves(world, number);
}

void audit_drains(struct world *world, uint32_t gpu)
{
	struct audit *audit = audit_of(world);

	if (audit)
		audit->drained_told[gpu] = false;
}

void audit_submit(struct world *world, uint32_t number, struct sim_job *job,
                  enum vgpu_code malformed)
{
	struct audit *audit = audit_of(world);

	if (!audit)
		return;
	audit->vms[number].submitted = job;
	audit_expect(world, number, malformed);
}

void audit_worker_ready(struct world *world, uint32_t number)
{
	struct audit *audit = audit_of(world);

	if (!audit || audit->vms[number].worker != CORE_WORKER_STARTING)
		return;
	audit->vms[number].worker = CORE_WORKER_READY;
	audit->vms[number].was_ready = true;
}

void audit_worker_dead(struct world *world, uint32_t number)
{
	struct audit *audit = audit_of(world);
	struct audit_vm *vm;

	if (!audit)
		return;
	vm = &audit->vms[number];
	if (vm->worker == CORE_WORKER_READY) {
		audit_fault(world, number, audit_oldest_sent(world, number), CORE_FAULT_DEATH,
		            SIM_DEATH_STATUS);
		audit->rare[RARE_DIED]++;
	}
	vm->start_failed = !vm->was_ready;
	audit->rare[RARE_START_FAILED] += !vm->was_ready;
	vm->worker = CORE_WORKER_NONE;
	if (!vm->stuck)
		return;
	vm->stuck = false;
	audit_unstuck(world, vm->gpu);
}

static struct sim_job *find_sent(const struct world *world, uint32_t number, uint64_t id)
{
	struct sim_job *job;

	TAILQ_FOREACH (job, &world->vms[number].jobs, link) {
		if (job->watch.state == WATCH_SENT && job->watch.id == id)
			return job;
	}
	return NULL;
}

void audit_worker_answers(struct world *world, uint32_t number, const struct dated *item,
                          const struct core_result *result)
{
	struct audit *audit = audit_of(world);
	struct audit_vm *vm;
	struct sim_job *job = NULL;

	if (!audit)
		return;
	vm = &audit->vms[number];
	if (vm->worker == CORE_WORKER_READY && vm->generation == item->generation)
		job = find_sent(world, number, item->job);
	if (!job) {
		audit->rare[RARE_STALE]++;
		return;
	}
	if (result->context_lost) {
		vm->context_lost = true;
		audit->rare[RARE_FAULTED]++;
		audit_fault(world, number, job, CORE_FAULT_GPU, result->detail);
		return;
	}
	vm->settled = true;
	job->watch.reported = true;
	job->watch.code = result->code;
	vm->answer_due = job;
	if (result->code == VGPU_CODE_OK && job->length_ns)
		audit_success(world, number);
}

static void restarted_vm(struct world *world, uint32_t number)
{
	struct audit *audit = world->options->audit;
	struct audit_vm *vm = &audit->vms[number];
	const struct sim_vm *now = &world->vms[number];

	audit->rare[RARE_RESTART_LOST_JOBS] += vm->unanswered > 0;
	*vm = (struct audit_vm){
		.present = now->present,
		.gpu_thousandths = now->settings.gpu_thousandths,
		.bucket_at_ns = audit->now_ns,
		.balance_at_ns = audit->now_ns,
	};
	if (!now->present)
		return;
	audit_restore(audit, vm, now);
	audit->rare[RARE_RESTART_QUARANTINED] += vm->quarantined;
	audit->rare[RARE_RESTART_POINTS] += !vm->quarantined && audit_score(world, vm) > 0;
}

void audit_restarted(struct world *world)
{
	struct audit *audit = audit_of(world);

	if (!audit)
		return;
	audit->rare[RARE_RESTARTED]++;
	audit->rare[RARE_RESTART_DRAINING] += world->draining[0] || world->draining[1];
	for (uint32_t g = 0; g < 2; g++) {
		audit->part_ns[g] = audit->part_rest[g] = 0;
		audit->drained_told[g] = false;
		audit->blameless_until_ns[g] = 0;
	}
	for (uint32_t i = 0; i < world->scenario->vm_count; i++)
		restarted_vm(world, i);
}

static void check_drained(struct world *world, uint32_t gpu)
{
	struct audit *audit = world->options->audit;

	if (!world->draining[gpu] || audit->drained_told[gpu])
		audit_violated(audit, world, 0, "a GPU is drained that nobody drains");
	audit->drained_told[gpu] = true;
	audit->rare[RARE_DRAINED]++;
	for (uint32_t i = 0; i < world->scenario->vm_count; i++)
		if (audit->vms[i].worker != CORE_WORKER_NONE && audit->vms[i].gpu == gpu &&
		    !audit->vms[i].stuck)
			audit_violated(audit, world, i, "a GPU is drained that the VM uses");
}

static void check_gone(struct world *world, uint32_t number)
{
	struct audit *audit = world->options->audit;
	struct audit_vm *vm = &audit->vms[number];

	if (vm->unanswered || vm->worker != CORE_WORKER_NONE || !world->vms[number].leaving)
		audit_violated(audit, world, number, "the VM is gone and something of it is left");
	vm->present = false;
}

void audit_action(struct world *world, const struct core_action *action)
{
	struct audit *audit = audit_of(world);
	uint32_t number;

	if (!audit)
		return;
	if (action->type == CORE_ACTION_GPU_DRAINED) {
		check_drained(world, action->gpu);
		return;
	}
	number = world_number_of(world, action);
	switch (action->type) {
	case CORE_ACTION_SEND_JOB:
		audit_check_send(world, number, action);
		break;
	case CORE_ACTION_ANSWER:
		if (audit->vms[number].answer_due == action->payload)
			audit->vms[number].answer_due = NULL;
		audit_check_answer(world, number, action);
		break;
	case CORE_ACTION_STORE:
		audit_check_store(world, number, &action->store);
		break;
	case CORE_ACTION_VM_GONE:
		check_gone(world, number);
		break;
	default:
		audit_check_worker(world, number, action);
		break;
	}
}

/* ---- After each event ------------------------------------------------------------------ */

/* What must have followed from what happened in this event. */
static const char *check_followed(struct world *world, struct audit_vm *vm)
{
	const struct audit *audit = world->options->audit;
	int64_t kill_timeout_ns = world->rules.core.worker_kill_timeout_ns;

	if (vm->answer_due && vm->answer_due->watch.state == WATCH_SENT)
		return "what a worker answered is not passed on";
	if (vm->context_lost && vm->worker == CORE_WORKER_READY)
		return "a worker goes on whose context is lost";
	if (vm->worker != CORE_WORKER_READY && vm->sent)
		return "a job waits for a worker that is not there";
	if (vm->worker == CORE_WORKER_KILLED && !vm->stuck &&
	    audit->now_ns - vm->since_ns > kill_timeout_ns)
		return "a worker survives its kill, and nobody is told";
	return audit_check_records(audit, vm);
}

static const char *compare(struct world *world, struct audit_vm *vm,
                           const struct core_vm_stats *stats)
{
	if (stats->worker != vm->worker)
		return "the worker is not in the state that the core shows";
	if (stats->depth != vm->unanswered || stats->in_flight != vm->sent)
		return "the VM has other jobs than the core shows";
	if (stats->latency->count != vm->answered)
		return "the VM had other answers than the core counts";
	if (stats->quarantined != vm->quarantined)
		return "the VM is in quarantine, or is not, otherwise than the core shows";
	if (stats->fault_score != audit_score(world, vm))
		return "the VM's points are not those of its faults";
	return NULL;
}

static void look_at_place(const struct audit *audit, struct audit_vm *vm, uint32_t gpu)
{
	if (vm->place == gpu + 1)
		return;
	vm->arrived_ns = vm->place ? audit->now_ns : INT64_MIN;
	vm->place = gpu + 1;
}

static void look_at_vm(struct world *world, uint32_t number, const struct core_vm_stats *stats)
{
	struct audit *audit = world->options->audit;
	struct audit_vm *vm = &audit->vms[number];
	const char *wrong;

	look_at_place(audit, vm, stats->gpu);
	if (vm->submitted)
		audit_accepted(world, number, vm->submitted);
	wrong = check_followed(world, vm);
	if (!wrong)
		wrong = compare(world, vm, stats);
	if (wrong)
		audit_violated(audit, world, number, wrong);
	audit_pay(audit, vm, stats->sched.charged_ns);
	if (vm->settled || vm->balance >= 0)
		vm->in_debt = vm->balance < 0;
	audit_count_failed_starts(world, number, stats->failed_starts);
	audit_look_at_head(world, number, stats->sched.charged_ns);
	audit->rare[RARE_KILLED] += vm->worker == CORE_WORKER_KILLED;
	audit->rare[RARE_NO_PLACE] +=
		vm->worker == CORE_WORKER_NONE && vm->unanswered && !vm->ticket && !vm->quarantined;
	vm->settled = vm->may_cancel = vm->start_failed = vm->context_lost = false;
	vm->answer_due = NULL;
}

const char *audit_look(struct world *world, const struct core_vm_stats *stats)
{
	struct audit *audit = audit_of(world);

	for (uint32_t i = 0; i < world->scenario->vm_count; i++)
		if (world->vms[i].present)
			look_at_vm(world, i, &stats[i]);
	for (uint32_t g = 0; g < world->scenario->gpus; g++) {
		struct sched_stats sched;

		core_gpu_stats(world->core, g, &sched);
		audit->open[g] = sched.open;
		if (audit->freed_due[g])
			audit_violated(audit, world, 0,
			               "nobody is told that a worker is stuck no more");
	}
	return audit->violation[0] ? audit->violation : NULL;
}
