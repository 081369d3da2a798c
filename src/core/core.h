/* SPDX-License-Identifier: MIT */
/*
 * The brain: who may submit, who runs, what became of each job.
 *
 * No I/O, no clock, no threads. Events come in with the time (nanoseconds of one
 * clock that never goes back); what has to be done comes out as a queue of actions
 * that the caller drains after each event. The same events always give the same
 * actions, so that the daemon and the simulator run the same code.
 *
 * A job is accepted or refused at once, and answered exactly once: every
 * core_job_submitted() leads to one CORE_ACTION_ANSWER, whatever dies in between.
 * Payloads and results are opaque pointers: the core passes them on and never looks
 * inside; the caller owns them again with the action that hands them out.
 *
 * Workers are known by VM and generation. Generations are never used twice, so
 * that what a dead worker still had to say is recognised and dropped.
 */
#ifndef CORE_CORE_H
#define CORE_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/util.h"
#include "core/count/histogram.h"
#include "core/schedule/sched.h"
#include "core/vm_settings.h"
#include "vgpu/protocol.h"

struct core;

enum {
	CORE_MAX_GPUS = 16,
	CORE_NO_CLIENT = 0,
	CORE_RECORDS_MAX = 16, /* of one VM that wait to be stored */
	/* Jobs of one VM that need no GPU and that a worker has, at once. */
	CORE_WITHOUT_GPU_MAX = 4,
	/* So many in a row, and jobs do not wait for the next attempt any more. */
	CORE_FAILING_STARTS = 5,

	CORE_HARDWARE_BEFORE_S = 5,
	CORE_HARDWARE_AFTER_S = 5,
};

struct core_pool_config {
	bool enabled;
	uint32_t gpu_mask;      /* bit g: GPU g serves this pool; at least one bit */
	int64_t job_timeout_ns; /* 0 = core_config.job_timeout_ns */
};

struct core_config {
	const struct sched_policy *policy;
	struct sched_config sched;
	uint32_t gpu_count; /* 1..CORE_MAX_GPUS, fixed at core_new() */
	struct core_pool_config pools[POOL_COUNT];
	int64_t job_timeout_ns;
	int64_t worker_idle_ns;          /* a worker without jobs ends after this */
	int64_t worker_start_timeout_ns; /* start to ready */
	int64_t worker_patience_ns;      /* a VM waits this long for a busy worker to make room */
	int64_t worker_stop_timeout_ns;  /* a polite stop becomes a kill after this */
	int64_t worker_kill_timeout_ns;  /* a killed worker that is still there is stuck */
	int64_t worker_backoff_min_ns;   /* after the first failed start; doubles */
	int64_t worker_backoff_max_ns;
	uint32_t max_workers;
	uint32_t max_queue_per_vm;        /* jobs accepted and not answered */
	uint32_t max_queued_bytes_per_vm; /* their payloads */
	int64_t quarantine_threshold;     /* points that quarantine a VM */
	int64_t fault_points;             /* of a GPU exception or a worker's death */
	int64_t timeout_points;
	int64_t fault_window_ns; /* points are forgotten after this */
};

/* Where one VM's worker is in its life. */
enum core_worker_state {
	CORE_WORKER_NONE,     /* not there */
	CORE_WORKER_STARTING, /* START_WORKER went out */
	CORE_WORKER_READY,    /* takes jobs */
	CORE_WORKER_STOPPING, /* asked to end, not yet reaped */
	CORE_WORKER_KILLED,   /* killed, not yet reaped */
};

enum core_action_type {
	CORE_ACTION_START_WORKER,   /* vm, generation, gpu */
	CORE_ACTION_STOP_WORKER,    /* vm, generation: end politely when its jobs are done */
	CORE_ACTION_KILL_WORKER,    /* vm, generation: SIGKILL */
	CORE_ACTION_WORKER_STUCK,   /* vm, generation, gpu: not even a kill ends it */
	CORE_ACTION_WORKER_FREED,   /* gpu: the last one that was stuck there is reaped */
	CORE_ACTION_WORKER_FAILING, /* vm, gpu: CORE_FAILING_STARTS starts in a row have failed */
	CORE_ACTION_SEND_JOB,       /* vm, generation, job, payload (still the core's) */
	CORE_ACTION_ANSWER, /* vm, client, cookie, answer, payload, result: the caller's now */
	CORE_ACTION_STORE,  /* vm, store: write it down, then core_store_done() */
	/* gpu: nothing of it is used any more, but by stuck workers; vm and owner mean nothing */
	CORE_ACTION_GPU_DRAINED,
	CORE_ACTION_VM_GONE, /* vm: removed, nothing of it is left; owner is the caller's */
};

/* What an answer says beside its result. */
struct core_answer {
	enum vgpu_code code;
	uint32_t detail;         /* CUresult; with RATE_LIMITED enum vgpu_busy_reason */
	uint32_t command;        /* failing command or UINT32_MAX */
	uint32_t retry_after_us; /* with RATE_LIMITED */
	uint32_t gpu_time_us;
};

/* What a VM's jobs did to their worker. */
enum core_fault {
	CORE_FAULT_GPU,     /* a job took the worker's GPU context with it */
	CORE_FAULT_TIMEOUT, /* a job ran over its limit */
	CORE_FAULT_DEATH,   /* the worker died */
	CORE_FAULT_COUNT,
};

/* What must be known of a VM after a restart. */
enum core_record {
	CORE_RECORD_FAULT,
	CORE_RECORD_RECOVERED, /* the first job that succeeded on the GPU after a timeout */
	CORE_RECORD_FORGIVEN,  /* faults of @at_ns and later bring no points: it was the hardware */
};

struct core_store {
	uint64_t ticket; /* for core_store_done() */
	enum core_record record;
	int64_t at_ns;         /* when it happened */
	enum core_fault fault; /* FAULT, as what follows */
	uint32_t detail;       /* CUresult; the limit in ms; what waitpid() said */
	uint32_t count;        /* so many faults; over 1 only after storing has failed for long */
	int64_t points;        /* that they bring, all together */
	bool again;            /* an attempt to store it has failed */
	bool quarantine; /* in the same transaction. FORGIVEN: they brought one, which stays */
};

struct core_action {
	enum core_action_type type;
	uint32_t vm;
	void *owner; /* of the VM, as given to core_vm_add() */
	uint64_t generation;
	uint32_t gpu;
	uint64_t job;
	uint32_t opcode;
	uint64_t client;
	uint64_t cookie;
	void *payload;
	void *result;
	struct core_answer answer;
	struct core_store store;
};

struct core_submission {
	uint64_t client; /* the connection; never CORE_NO_CLIENT */
	uint64_t cookie; /* comes back with the answer */
	uint32_t opcode;
	uint32_t bytes;           /* what the payload costs to keep */
	bool without_gpu;         /* takes no turn, and is charged nothing */
	enum vgpu_code malformed; /* not OK: refuse with this code */
	void *payload;
};

struct core_result {
	enum vgpu_code code;
	uint32_t detail;
	uint32_t command;
	uint64_t gpu_time_ns; /* as the worker says; at most the time that it had the job counts */
	bool context_lost;    /* and with it whatever else that worker has or gets */
	void *result;
};

enum core_refusal {
	CORE_REFUSAL_RATE,
	CORE_REFUSAL_DEPTH,
	CORE_REFUSAL_GPU_SECONDS,
	CORE_REFUSAL_QUARANTINE,
	CORE_REFUSAL_INVALID,
	CORE_REFUSAL_POOL_DISABLED,
	CORE_REFUSAL_GPU_RESET,   /* the GPU is drained */
	CORE_REFUSAL_UNAVAILABLE, /* shutdown, removal, or no worker to be had */
	CORE_REFUSAL_QUOTA,       /* never yet: no operation holds GPU memory */
	CORE_REFUSAL_COUNT,
};

enum core_outcome {
	CORE_OUTCOME_DONE,
	CORE_OUTCOME_FAILED,
	CORE_OUTCOME_TIMEOUT,
	CORE_OUTCOME_CANCELLED,
	CORE_OUTCOME_COUNT,
};

struct core_vm_stats {
	uint64_t submitted; /* accepted and refused */
	uint64_t outcomes[CORE_OUTCOME_COUNT];
	uint64_t refusals[CORE_REFUSAL_COUNT];
	uint64_t faults[CORE_FAULT_COUNT];
	uint64_t executed;   /* jobs that a worker has answered */
	uint64_t job_gpu_ns; /* theirs, as the worker measured */
	uint32_t depth;      /* accepted and not answered */
	uint32_t in_flight;
	int64_t head_wait_ns; /* since the oldest queued job was accepted; 0 = none is queued */
	uint32_t gpu;
	enum core_worker_state worker;
	bool stuck;              /* not even SIGKILL has ended it */
	uint32_t failed_starts;  /* of its worker, in a row */
	uint64_t start_failures; /* in all */
	bool quarantined;
	int64_t fault_score;
	/*
	 * As its GPU has it, but charged_ns, which is of all GPUs that it has had. That falls
	 * a little when time turns out to have been another VM's; the other is a counter, the
	 * most that it ever was.
	 */
	struct sched_vm_stats sched;
	int64_t charged_ns;
	const struct histogram *latency; /* accepted to answered, ns; the core's */
};

struct core_stats {
	uint32_t vms;
	uint32_t workers;
	uint32_t stuck_workers; /* of these: not even SIGKILL has ended them */
	uint32_t jobs;
	uint64_t stale_events; /* from workers of the past, dropped */
};

/* Fills in the defaults of docs/configuration: one GPU that serves both pools. */
void core_config_default(struct core_config *config);

/* Returns 0 or a negative errno; the caller owns *@out. */
int core_new(struct core **out, const struct core_config *config, int64_t now_ns);

/* Frees all but payloads of unanswered jobs: core_abandon() and drain the actions first. */
void core_free(struct core *core);
DEFINE_CLEANUP(core)

/* Takes effect at once; gpu_count and policy must be those of core_new(). */
void core_config_set(struct core *core, int64_t now_ns, const struct core_config *config);

/* ---- Events ------------------------------------------------------------- */

/* Returns 0 and the VM's number, dense and reused after VM_GONE, or -ENOMEM. */
int core_vm_add(struct core *core, int64_t now_ns, uint32_t *out,
                const struct vm_settings *settings, bool quarantined, void *owner);
void core_vm_set(struct core *core, int64_t now_ns, uint32_t vm, const struct vm_settings *settings,
                 bool quarantined);

/*
 * Queued jobs are answered CANCELLED, those in flight may end within their limit;
 * then the worker ends and VM_GONE comes.
 */
void core_vm_remove(struct core *core, int64_t now_ns, uint32_t vm);

/* Returns 0, or -ENOMEM (then nothing happened and the payload is still the caller's). */
int core_job_submitted(struct core *core, int64_t now_ns, uint32_t vm,
                       const struct core_submission *submission);

/*
 * The client's queued jobs are answered CANCELLED; one in flight ends within its
 * limit and its answer goes out as any other.
 */
void core_client_gone(struct core *core, int64_t now_ns, uint32_t vm, uint64_t client);

void core_worker_ready(struct core *core, int64_t now_ns, uint32_t vm, uint64_t generation);

/*
 * The worker's process is reaped, whatever ended it; @status is what waitpid() said. One
 * that was never ready counts as a failed start; one that was ready and had not been
 * asked to end as a fault.
 */
void core_worker_dead(struct core *core, int64_t now_ns, uint32_t vm, uint64_t generation,
                      uint32_t status);

/*
 * Returns 0, or -ESTALE for a job that this worker does not have (then the result is
 * still the caller's). If the context is lost the worker is killed, and what else was
 * sent to it fails; a fault is counted.
 */
int core_job_done(struct core *core, int64_t now_ns, uint32_t vm, uint64_t generation, uint64_t job,
                  const struct core_result *result);

/*
 * A draining GPU is granted to nobody; its queued jobs and new ones are refused as busy.
 * A VM whose pool has another GPU, one that works, goes there once its worker has ended, and
 * comes back when this one works again.
 * When its last worker is reaped GPU_DRAINED comes, once; it stays drained until this is
 * called with false. Workers that are stuck are not waited for: a reset may be what ends them.
 */
void core_gpu_set_draining(struct core *core, int64_t now_ns, uint32_t gpu, bool draining);

/*
 * The hardware of the GPU has failed in some way just now (an Xid that no job causes):
 * what its VMs do in the next CORE_HARDWARE_AFTER_S seconds brings no points, and what
 * they did in the CORE_HARDWARE_BEFORE_S seconds before is forgiven. A quarantine stays.
 */
void core_gpu_hardware_fault(struct core *core, int64_t now_ns, uint32_t gpu);

/* The same for as long as the GPU is not fit for work; an operator's drain is no reason. */
void core_gpu_set_faulty(struct core *core, int64_t now_ns, uint32_t gpu, bool faulty);

/*
 * What the registry remembers of the VM, oldest first: FAULTs with points and RECOVERED,
 * of which only record, fault, at_ns and points matter. @at_ns may lie before the clock's
 * beginning. It takes the place of what was known; what is not stored yet stays.
 */
void core_vm_restore(struct core *core, int64_t now_ns, uint32_t vm,
                     const struct core_store *records, size_t count);

/*
 * An operator ends a job: a queued one is taken out; with one that a worker has, the
 * worker goes, and what else was sent to it fails. No fault is counted. Returns 0, or
 * -ENOENT when there is no such job.
 */
int core_job_cancel(struct core *core, int64_t now_ns, uint64_t id);

/* Until this comes no further STORE of that VM does. What could not be stored is tried again. */
void core_store_done(struct core *core, int64_t now_ns, uint64_t ticket, bool stored);

/* Nothing happened but time. Due at core_deadline_ns(), harmless at any other time. */
void core_tick(struct core *core, int64_t now_ns);

/* No more jobs: queued ones are answered UNAVAILABLE, those in flight may end. */
void core_shutdown(struct core *core, int64_t now_ns);

/* Every job is answered UNAVAILABLE, whatever its worker does: the caller is leaving. */
void core_abandon(struct core *core);

/* ---- What comes out ------------------------------------------------------ */

/* Takes the next action. False when there is none. */
bool core_next_action(struct core *core, struct core_action *out);

/* When core_tick() has to be called if nothing else happens; SCHED_NEVER = never. */
int64_t core_deadline_ns(const struct core *core);

/* Whether the mediator's own bounds leave room for another job of this VM. */
bool core_vm_has_room(const struct core *core, uint32_t vm);

/* The number of the GPU that the VM belongs to. */
uint32_t core_vm_gpu(const struct core *core, uint32_t vm);

/* @now_ns brings the charges up to date. */
void core_vm_stats(struct core *core, int64_t now_ns, uint32_t vm, struct core_vm_stats *out);
void core_stats(const struct core *core, struct core_stats *out);

/* Since the core began; the core's. */
struct core_pool_stats {
	const struct histogram *wait;      /* accepted to sent, ns */
	const struct histogram *execution; /* as the worker measured, ns */
};

void core_pool_stats(const struct core *core, uint32_t pool, struct core_pool_stats *out);
void core_gpu_stats(const struct core *core, uint32_t gpu, struct sched_stats *out);

struct core_job_info {
	uint64_t id;
	void *owner; /* of the VM */
	uint32_t opcode;
	bool running;   /* a worker has it */
	int64_t age_ns; /* since it was accepted */
};

/* Calls @each for every job accepted and not answered, VM by VM, the oldest first. */
void core_jobs_walk(const struct core *core,
                    void (*each)(void *context, const struct core_job_info *info), void *context);

/* Calls @each with a STORE of whatever waits to be stored and was not handed out yet. */
void core_stores_walk(const struct core *core,
                      void (*each)(void *context, const struct core_action *action), void *context);

const char *core_worker_state_name(enum core_worker_state state);
const char *core_fault_name(enum core_fault fault);
const char *core_outcome_name(enum core_outcome outcome);
const char *core_refusal_name(enum core_refusal refusal);

/* For tests: NULL if every invariant holds, else English text on the first that does not. */
const char *core_check(const struct core *core);

#endif
