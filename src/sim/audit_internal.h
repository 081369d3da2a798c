/* SPDX-License-Identifier: MIT */
/*
 * What the files of the audit share among themselves; nobody else includes it.
 *
 *   audit.c         what happens, what is compared after each event
 *   audit_jobs.c    jobs and workers: what an action may say
 *   audit_limits.c  rates, depths, GPU seconds, how long a job may run
 *   audit_faults.c  faults, points, quarantine
 */
#ifndef SIM_AUDIT_INTERNAL_H
#define SIM_AUDIT_INTERNAL_H

#include "base/units.h"
#include "sim/audit.h"
#include "sim/rare.h"
#include "sim/world_internal.h"

enum { AUDIT_FAULTS = 64 };

/* Time moves between VMs by less than this when an answer comes. */
#define AUDIT_REFUND_NS (300 * NS_PER_US)

struct audit_fault {
	int64_t at_ns;
	int64_t points;
};

struct audit_vm {
	bool present;
	uint32_t place;     /* 1 + the number of its GPU; 0 = not seen yet */
	int64_t arrived_ns; /* there, from another; else INT64_MIN */

	enum core_worker_state worker;
	uint64_t generation; /* of the last worker */
	uint32_t gpu;        /* that it is on */
	int64_t since_ns;    /* when `worker` was entered */
	bool was_ready;      /* that worker */
	bool stuck;
	uint32_t failed_starts; /* in a row */
	int64_t start_not_before_ns;

	uint64_t last_sent;        /* number of a job */
	uint32_t unanswered;       /* jobs accepted */
	uint32_t sent;             /* of these: a worker has them */
	uint64_t answered;         /* of all accepted */
	struct sim_job *submitted; /* in this event */
	enum vgpu_code expected;   /* what becomes of it */
	uint32_t expected_detail;
	int64_t expected_hint_us; /* -1 = any */
	bool may_cancel;          /* in this event */
	bool start_failed;        /* in this event */
	bool context_lost;        /* in this event: its worker must not go on */

	/* Jobs per second: a bucket that drains by the clock and is filled by jobs. */
	int64_t bucket_ns;
	int64_t bucket_at_ns;
	/* GPU seconds, brought up to date as often as anything happens. */
	int64_t balance; /* thousandths of ns */
	int64_t balance_at_ns;
	int64_t balance_charged_ns;
	int64_t gpu_thousandths;
	bool settled; /* in this event the core has looked whether it is in debt */
	bool in_debt; /* and it was */
	/* The limit of the oldest job that a worker has. */
	uint64_t head; /* its number; 0 = none */
	int64_t head_charged_ns;
	int64_t head_part_ns;
	bool short_limit;
	struct sim_job *answer_due; /* what the worker has answered in this event */

	struct audit_fault faults[AUDIT_FAULTS]; /* with points, oldest first */
	uint32_t fault_count;
	struct core_store owed[CORE_RECORDS_MAX]; /* happened and not stored, oldest first */
	uint32_t owed_count;
	uint64_t ticket; /* of the first; 0 = it is not being stored */
	bool failed;     /* at the last attempt, at failed_ns */
	int64_t failed_ns;
	bool awaited;         /* an answer is held until all of it is stored, or cannot be */
	bool condemned;       /* a quarantine is among it */
	int64_t condemned_ns; /* when faults last brought one; else INT64_MIN */
	bool quarantined;
};

struct audit {
	struct audit_vm vms[SCENARIO_VMS];
	int64_t now_ns;
	int64_t part_ns[2]; /* what one of those with an open turn has had of the clock */
	int64_t part_rest[2];
	uint32_t open[2]; /* turns, since the last event */
	bool drained_told[2];
	bool freed_due[2]; /* the last stuck worker there has ended in this event */
	int64_t blameless_until_ns[2];
	uint64_t rare[RARE_COUNT];
	char violation[160];
};

/* The first thing that does not hold is what is told. */
void audit_violated(struct audit *audit, const struct world *world, uint32_t vm, const char *what);
/* The charge of a VM that is there. */
int64_t audit_charged_ns(const struct world *world, uint32_t vm);

/* audit_jobs.c */
/* The job that was submitted in this event is in. */
void audit_accepted(struct world *world, uint32_t vm, struct sim_job *job);
void audit_check_answer(struct world *world, uint32_t vm, const struct core_action *action);
void audit_check_send(struct world *world, uint32_t vm, const struct core_action *action);
/* Whether starts of the VM's worker fail again and again, and the next is not due yet. */
bool audit_is_failing(const struct audit *audit, const struct audit_vm *vm);
/* Another start has failed, if it has. */
void audit_count_failed_starts(struct world *world, uint32_t vm, uint32_t failed_starts);
/* A worker that was stuck on the GPU has ended. */
void audit_unstuck(struct world *world, uint32_t gpu);
void audit_check_worker(struct world *world, uint32_t vm, const struct core_action *action);
/* The oldest job that the VM's worker has, or NULL. */
struct sim_job *audit_oldest_sent(const struct world *world, uint32_t vm);

/* audit_limits.c */
/* What must become of a job that comes now. */
void audit_expect(struct world *world, uint32_t vm, enum vgpu_code malformed);
/* A job was accepted: the bucket fills. */
void audit_fill_bucket(struct audit *audit, struct audit_vm *vm,
                       const struct vm_settings *settings);
/* Brings the VM's GPU seconds up to date. */
void audit_pay(struct audit *audit, struct audit_vm *vm, int64_t charged_ns);
/* Brings the clock's parts up to date; before anything else in an event. */
void audit_advance(struct world *world);
/* Another job may be the oldest now. */
void audit_look_at_head(struct world *world, uint32_t vm, int64_t charged_ns);
/* How long a job of the VM may run now. */
int64_t audit_limit_ns(const struct world *world, uint32_t vm);
/* How much of its limit the oldest job has left; at most 0 when it is over. */
int64_t audit_limit_left_ns(const struct world *world, uint32_t vm, int64_t charged_ns);

/* audit_faults.c */
/* The points that count now. */
int64_t audit_score(const struct world *world, const struct audit_vm *vm);
/* A job, or the worker by itself, has done something: @blamed is held. */
void audit_fault(struct world *world, uint32_t vm, struct sim_job *blamed, enum core_fault fault,
                 uint32_t detail);
/* The worker is killed for a job over its limit. */
void audit_timeout(struct world *world, uint32_t vm);
/* A job has succeeded. */
void audit_success(struct world *world, uint32_t vm);
/* What must be true of what is to be stored, after each event. */
const char *audit_check_records(const struct audit *audit, const struct audit_vm *vm);
/* What a mediator that starts reads of the VM. */
void audit_restore(struct audit *audit, struct audit_vm *vm, const struct sim_vm *registry);
void audit_check_store(struct world *world, uint32_t vm, const struct core_store *store);

#endif
