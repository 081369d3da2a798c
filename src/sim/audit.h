/* SPDX-License-Identifier: MIT */
/*
 * What must hold of jobs, workers, limits, faults and quarantines, kept beside the core
 * by simpler means and compared with what it does and shows.
 *
 *   each job is accepted or refused as a replay of what was submitted says, sent at most
 *   once, in the order of its VM, to a worker that is there, and answered exactly once,
 *   with a code that something has given cause for;
 *   workers are started, stopped and killed only where that means something, and one
 *   that does not die is told of in time;
 *   a job is over its limit when it says so, and never lives longer;
 *   every fault is stored, with its points, and the points quarantine a VM exactly when
 *   they are enough; no answer tells of a quarantine before it is stored; what was stored
 *   holds after a restart, and nothing else does.
 *
 * The files of a played world tell the audit what happens; without one they tell nobody.
 */
#ifndef SIM_AUDIT_H
#define SIM_AUDIT_H

#include "sim/scenario.h"

struct audit;
struct dated;
struct sim_job;
struct world;

/* The audit's part of a job. */
struct sim_job_watch {
	uint64_t number; /* of its VM's jobs */
	uint64_t id;     /* once it is sent */
	enum {
		WATCH_NEW,    /* on its way into the core */
		WATCH_QUEUED, /* accepted */
		WATCH_SENT,   /* a worker has it */
		WATCH_HELD,   /* its answer, `code`, waits for its fault to be stored */
	} state;
	bool reported; /* the worker has answered with `code` */
	enum vgpu_code code;
};

/* Returns 0 or -ENOMEM; the caller owns *@out. One audit watches one run at a time. */
int audit_new(struct audit **out);
void audit_free(struct audit *audit);
DEFINE_CLEANUP(audit)
/* Before each run. */
void audit_reset(struct audit *audit);
const uint64_t *audit_rare(const struct audit *audit);

/*
 * After every event of the core; @stats by VM, those of VMs that are not there mean
 * nothing. NULL, or what does not hold.
 */
const char *audit_look(struct world *world, const struct core_vm_stats *stats);

/* Before the core is told of it. */
void audit_submit(struct world *world, uint32_t vm, struct sim_job *job, enum vgpu_code malformed);
void audit_worker_answers(struct world *world, uint32_t vm, const struct dated *item,
                          const struct core_result *result);
void audit_worker_ready(struct world *world, uint32_t vm);
void audit_worker_dead(struct world *world, uint32_t vm);
void audit_store_done(struct world *world, uint32_t vm, uint64_t ticket, bool stored);
void audit_leaves(struct world *world, uint32_t vm);
void audit_changed(struct world *world, uint32_t vm);
void audit_drains(struct world *world, uint32_t gpu);
/* The GPU's hardware shows a fault, or is faulty from now on or no more. */
void audit_hardware(struct world *world, uint32_t gpu);
/* Jobs of the VM may be cancelled by this event. */
void audit_cancels(struct world *world, uint32_t vm);

/* After it. */
void audit_joined(struct world *world, uint32_t vm);
void audit_restarted(struct world *world);

/* Before the world does what the action says. */
void audit_action(struct world *world, const struct core_action *action);

#endif
