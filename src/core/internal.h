/* SPDX-License-Identifier: MIT */
/*
 * What the files of the core share among themselves; nobody else includes it.
 *
 *   core.c       events in, actions out, time
 *   vms.c        VMs come, change, move between GPUs and go
 *   jobs.c       a job's life: accepted, sent, answered
 *   schedule/    which VM's job is next
 *   limit/       what one VM may submit and use
 *   watch/       workers' lives and deadlines, faults, quarantine, GPU health
 *   count/       histograms
 *   trace/       events as numbers, and how they happen again
 *   check.c      the invariants
 */
#ifndef CORE_INTERNAL_H
#define CORE_INTERNAL_H

#include <sys/queue.h>

#include "base/units.h"
#include "core/core.h"
#include "core/limit/limit.h"
#include "core/schedule/heap.h"
#include "core/trace/trace.h"
#include "core/watch/faults.h"

/* A worker without a job for this long rests, and is the first to make room for others. */
#define WORKER_REST_NS (20 * NS_PER_MS)

/* Places for jobs to begin with; when they are all taken there are twice as many. */
enum { FIRST_SLOTS = 64 };

enum job_state {
	JOB_FREE,      /* in core.free_jobs */
	JOB_QUEUED,    /* in vm.queued */
	JOB_OFFERED,   /* there too: the scheduler may have it sent */
	JOB_IN_FLIGHT, /* in vm.in_flight: a worker has it */
	JOB_HELD,      /* in vm.held: its answer waits for its fault to be stored */
};

struct job {
	TAILQ_ENTRY(job) link;
	enum job_state state;
	uint64_t id; /* never used twice */
	uint64_t client;
	uint64_t cookie;
	uint32_t opcode;
	uint32_t bytes;
	bool without_gpu;
	void *payload;
	int64_t accepted_ns;
	int64_t sent_ns;
	struct core_answer answer; /* HELD */
	void *result;              /* HELD */
};

TAILQ_HEAD(job_list, job);

struct worker {
	enum core_worker_state state;
	uint64_t generation;
	int64_t since_ns;            /* when `state` was entered */
	int64_t idle_since_ns;       /* READY and no job; else SCHED_NEVER */
	int64_t start_not_before_ns; /* back-off after failed starts */
	uint32_t failed_starts;      /* in a row */
	bool was_ready;              /* this generation has been READY */
	bool stuck;                  /* killed long ago and still not reaped */
	bool called_off;             /* killed while STARTING since nobody wants it any more */
	bool evicted;                /* gets no more jobs, its place is wanted */
	int64_t evicted_ns;          /* since when */
	bool waits_for_place;        /* in core.waiting */
};

/* What is to be stored of a VM, one after the other. */
struct record_line {
	struct core_store entries[CORE_RECORDS_MAX]; /* oldest first */
	uint32_t count;
	uint64_t ticket;  /* of the first, which is being stored; 0 = nothing is */
	int64_t again_ns; /* after a failed attempt, else SCHED_NEVER */
	bool awaited;     /* an answer is held: until then the VM gets no work */
	bool condemned;   /* a quarantine is decided; it holds once no answer is held any more */
};

struct vm {
	uint32_t id;
	void *owner;
	struct vm_settings settings;
	bool quarantined;
	int64_t condemned_ns; /* when faults last brought a quarantine; else INT64_MIN */
	struct record_line records;
	struct fault_history history;
	bool short_limit; /* the last job to end was over its limit */
	bool removing;
	uint32_t gpu;       /* where it is now */
	uint32_t home;      /* where it belongs */
	int64_t arrived_ns; /* from another GPU; else INT64_MIN */
	struct sched_vm *sched;
	bool enabled;           /* as the scheduler knows it */
	struct job_list queued; /* OFFERED ones first */
	struct job_list in_flight;
	struct job_list held;
	struct job *last_offered; /* or NULL */
	uint32_t queued_count;
	uint32_t offered_count; /* of these: what the scheduler knows of */
	uint32_t on_gpu_count;  /* of those in flight: the same */
	uint32_t in_flight_count;
	uint32_t held_count;
	uint64_t payload_bytes;  /* of all jobs that are not answered */
	int64_t head_charged_ns; /* charge of the VM when the oldest job in flight got there */
	int64_t head_part_ns;    /* and part_ns of its GPU */
	struct worker worker;
	struct limit_rate rate;
	struct limit_budget budget;
	struct heap_node timer; /* in core.timers unless deadline_ns is SCHED_NEVER */
	int64_t deadline_ns;
	TAILQ_ENTRY(vm) waiting_link; /* in core.waiting: jobs, but no place for a worker */

	uint64_t submitted;
	uint64_t outcomes[CORE_OUTCOME_COUNT];
	uint64_t refusals[CORE_REFUSAL_COUNT];
	uint64_t faults[CORE_FAULT_COUNT];
	uint64_t start_failures;
	uint64_t executed;
	uint64_t job_gpu_ns;
	int64_t charged_before_ns; /* on GPUs that it has left */
	int64_t charged_ns;        /* the most ever told: a counter does not fall */
	struct histogram latency;
};

TAILQ_HEAD(vm_list, vm);

/* Jobs accepted and not answered. */
static inline uint32_t vm_depth(const struct vm *vm)
{
	return vm->queued_count + vm->in_flight_count + vm->held_count;
}

struct gpu {
	struct sched *sched;
	int64_t weight;    /* sum of weight_hundredths of its VMs */
	uint32_t workers;  /* in any state but NONE */
	uint32_t stuck;    /* of these */
	int64_t part_ns;   /* what one of those with an open turn has had of the clock */
	int64_t part_rest; /* below the count of open turns: so that steps of 1 ns add up */
	bool draining;
	bool drained_told; /* GPU_DRAINED went out for this draining */
	bool faulty;
	int64_t blameless_until_ns; /* what VMs do is held against the hardware */
};

struct core {
	struct core_config config;
	int64_t now_ns;
	bool stopping;

	struct vm **vms; /* by number; NULL = free */
	uint32_t vm_slots;
	uint32_t vm_count;

	struct job **jobs; /* all there are, used or free */
	uint32_t job_slots;
	uint32_t job_count; /* accepted and unanswered */
	uint32_t job_peak;  /* the most that there ever were */
	uint64_t last_job;
	struct job_list free_jobs;

	struct gpu gpus[CORE_MAX_GPUS];
	struct pool {
		struct histogram wait;
		struct histogram execution;
	} pools[POOL_COUNT];
	struct heap timers; /* of VMs, by deadline */
	struct vm_list waiting;
	uint32_t waiting_count;
	bool line_changed;     /* places_settle() has something to do */
	uint32_t worker_count; /* in any state but NONE */
	uint32_t worker_bound; /* max_workers, or what there was when it was lowered */
	uint64_t last_generation;
	uint64_t last_ticket;
	uint64_t stale_events;

	core_listener *listener; /* or NULL */
	void *listener_context;

	struct core_action *actions; /* ring */
	uint32_t action_capacity;
	uint32_t action_first;
	uint32_t action_count;
};

/* core.c */
void core_advance(struct core *core, int64_t now_ns);
void core_dispatch(struct core *core);
/* Room for what @jobs jobs and @vms VMs can lead to in one event. 0 or -ENOMEM. */
int core_reserve_actions(struct core *core, uint32_t jobs, uint32_t vms);
/* Appends an action for @vm; there is always room. The caller fills in the rest. */
struct core_action *core_push_action(struct core *core, enum core_action_type type, struct vm *vm);
/* Tells that a draining GPU is drained, if it is. */
void core_gpu_check_drained(struct core *core, uint32_t gpu);
struct vm *core_find_vm(const struct core *core, uint32_t vm);
const struct sched_policy *core_policy(const struct core *core);

/* trace/trace.c */
/* Tells the listener; @own are as many numbers as the event's row in trace_shapes[] says. */
void core_note(const struct core *core, enum core_event event, const void *what,
               const int64_t *own);

/* The same if anybody listens: the event's struct or NULL, then its numbers, the time first. */
#define CORE_NOTE(core, event, what, ...)                                             \
	do {                                                                          \
		if ((core)->listener)                                                 \
			core_note(core, event, what, (const int64_t[]){__VA_ARGS__}); \
	} while (0)

/* vms.c */
/* Looks again where the VM should be, and moves it there if nothing of it runs. */
void vm_place(struct core *core, struct vm *vm);
/* Nothing of a VM under removal is left: VM_GONE. */
void vm_finish(struct core *core, struct vm *vm);

/* jobs.c */
/* The scheduler wants it: the oldest job, which is OFFERED. */
void job_send_offered(struct core *core, struct vm *vm);
/*
 * Sends what is next in the VM's queue and needs no GPU, if the worker takes jobs and has none
 * on the GPU, and offers what comes behind it to the scheduler.
 */
void jobs_move_on(struct core *core, struct vm *vm);
/* Answers that were kept until something is stored leave. */
void jobs_release_held(struct core *core, struct vm *vm);
/* Queued jobs of @client, or of all with CORE_NO_CLIENT. */
void jobs_answer_queued(struct core *core, struct vm *vm, uint64_t client, enum vgpu_code code);
/* The worker has failed, and with it all that it has. */
void jobs_fail_in_flight(struct core *core, struct vm *vm, enum vgpu_code code);
/* The same because of the oldest: @code is held for it, the others get CONTEXT_LOST. */
void jobs_blame_oldest(struct core *core, struct vm *vm, enum vgpu_code code);
int64_t job_limit_ns(const struct core *core, const struct vm *vm);

/* workers.c */
/* Does what is due for the VM's worker now and sets the VM's next deadline. */
void worker_settle(struct core *core, struct vm *vm);
/* Ends the VM's worker because of what a job of it did. */
void worker_kill(struct core *core, struct vm *vm);

/* Whether jobs can be sent to the VM's worker. */
bool worker_takes_jobs(const struct core *core, const struct vm *vm);

/* Whether jobs are refused, since a worker that never starts waits for its next attempt. */
bool worker_is_failing(const struct core *core, const struct vm *vm);

/* places.c */
/* Whether a worker may start for the VM now: there is a place, and nobody is before it. */
bool place_is_free(const struct core *core, const struct vm *vm);
/* Puts the VM in line, unless it is. Returns when to look again. */
int64_t place_wait(struct core *core, struct vm *vm);
void place_leave_line(struct core *core, struct vm *vm);
/* The VM's worker is to end once it has no job in flight. */
void place_evict(struct core *core, struct vm *vm);
/* Starts who is next in line, and has others make room. At the end of every event. */
void places_settle(struct core *core);

/* records.c */
void records_init(struct record_line *records);
/* Has it stored, after what waits already. */
void record_add(struct core *core, struct vm *vm, const struct core_store *what);
/* The same; until it is stored, or cannot be, answers are held and the VM gets no work. */
void record_add_awaited(struct core *core, struct vm *vm, const struct core_store *what);
/* Whether a quarantine is decided and not in force yet. */
bool records_quarantine(const struct vm *vm);
/* Tries again to store what could not be stored; returns when to look again. */
int64_t records_settle(struct core *core, struct vm *vm);

/* quarantine.c */
/*
 * Counts a fault, with the points that it brings, and has it stored: the answer of the
 * job to blame has to be held.
 */
void vm_fault(struct core *core, struct vm *vm, enum core_fault fault, uint32_t detail);
/* A job of the VM has succeeded on the GPU. */
void vm_success(struct core *core, struct vm *vm);
void vm_quarantine(struct core *core, struct vm *vm);
/* As the registry has it. */
void vm_set_quarantined(struct core *core, struct vm *vm, bool quarantined);

#endif
