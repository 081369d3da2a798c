/* SPDX-License-Identifier: MIT */
/*
 * What the files of the fair scheduler share among themselves; nobody else includes
 * it.
 *
 *   sched_fair.c         the interface: VMs and jobs come and go
 *   sched_fair_turn.c    who gets a turn, when it ends, what is sent
 *   sched_fair_charge.c  time becomes charges, charges become tags
 *   sched_fair_ready.c   the ready VMs in their order
 *   sched_fair_check.c   statistics and invariants
 *
 * A tag is virtual time: SCHED_TAG_SCALE * ns / phi, phi in hundredths.
 */
#ifndef CORE_SCHED_FAIR_H
#define CORE_SCHED_FAIR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/units.h"
#include "base/util.h"
#include "core/schedule/run_list.h"
#include "core/schedule/sched.h"

enum {
	FAIR_OPEN_MAX = 32, /* no overlap_max is larger */
	FAIR_DEPTH_MAX = 4, /* jobs in flight of one VM */
	FAIR_HIT_MAX = 3,
	FAIR_HIT_WAITS = 2,    /* from here on the GPU waits for the next job */
	FAIR_BOOST_DEPTH = 32, /* jobs queued that earn the whole of their half */
	FAIR_AVERAGE_OF = 8,   /* alpha = 1/8 */
	FAIR_MARGIN_OF = 8,    /* r's estimate is 1/8 longer */
};

#define FAIR_ORDER_CAP_NS      (64 * NS_PER_MS)  /* estimates count in K up to this */
#define FAIR_ESTIMATE_CAP_NS   NS_PER_SEC        /* and in P and r up to this */
#define FAIR_FIRST_PATIENCE_NS (64 * NS_PER_MS)  /* r's estimate before the first turn */
#define FAIR_OVERRUN_NS        NS_PER_SEC        /* from here on an open turn is thinned */
#define FAIR_LOOK_AGAIN_NS     (200 * NS_PER_US) /* while only the tag keeps a VM out */
#define FAIR_SHORT_JOB_NS      (250 * NS_PER_US) /* below, four in flight, else two */
#define FAIR_WAIT_MAX_NS       (500 * NS_PER_US)
#define FAIR_GAP_NS            (30 * NS_PER_US) /* g: worker's answer to next job */
#define FAIR_BOOST_WAIT_NS     NS_PER_SEC       /* waits that earn the whole of their half */

struct sched_vm {
	struct run_node run; /* in sched.run while jobs are in flight */
	TAILQ_ENTRY(sched_vm) all_link;
	TAILQ_ENTRY(sched_vm) open_link; /* in sched.open while a turn is open */
	uint32_t ready_index;            /* in sched.ready, + 1; 0 = not ready */

	uint32_t id;
	void *owner;
	int32_t phi;
	int32_t next_phi; /* takes effect when no turn is open */
	uint32_t priority;

	bool enabled;
	bool open;
	bool waiting; /* open and kept so for a job that has not come */
	bool woken;   /* had no job when its last turn ended */
	bool answered_once;
	uint32_t queued;
	uint32_t in_flight;
	uint32_t deepest; /* in flight at once, so far */
	uint32_t hit;

	int64_t start_tag;   /* S */
	int64_t finish_tag;  /* F */
	int64_t promise;     /* P: virtual time may not pass it while the VM is ready or open */
	int64_t key;         /* K */
	int64_t lead_tag;    /* S, less wake_lead if woken: admitted up to kappa */
	int64_t patience_ns; /* r: how long each open turn must have lasted */
	int64_t boost_ppm;
	int64_t tag_remainder; /* below phi */
	int64_t moved_lag;     /* brought from another GPU and not yet caught up with */

	int64_t ready_since_ns;
	int64_t opened_ns;
	int64_t wait_until_ns;
	int64_t last_answer_ns;

	int64_t used_ns;          /* charged in the open turn */
	int64_t job_used_ns;      /* charged since the last answer */
	int64_t charged_ns;       /* since the VM was added */
	int64_t longest_job_ns;   /* the most charged between two answers */
	int64_t estimate_turn_ns; /* mean used_ns */
	int64_t last_turn_ns;     /* used_ns of the last turn */
	int64_t estimate_job_ns;  /* mean job_used_ns; 0 = unknown */
	int64_t turns;
};

TAILQ_HEAD(fair_vm_list, sched_vm);

/*
 * The ready VMs as a binary heap by key. Each place also holds the least of what
 * admission asks for among itself and everything below it, so that a search need
 * not enter where nobody can pass.
 */
struct fair_least {
	int64_t promise;
	int64_t lead_tag;
	int64_t patience_ns;
	int64_t start_tag;
};

struct fair_ready {
	struct sched_vm **vms;
	struct fair_least *least;
	uint32_t count;
	uint32_t capacity;
};

/* What a VM must meet to be admitted beside the open turns. */
struct fair_gate {
	int64_t kappa;       /* its lead_tag is not beyond this, and */
	int64_t shortest_ns; /* its patience is not beyond this, or */
	int64_t overrun_tag; /* its start_tag is not beyond this */
};

struct sched {
	struct sched_config config;
	struct sched_config widest; /* of each time, the most it has ever been: for bounds */
	int64_t (*head_since_ns)(const void *owner);
	struct fair_vm_list all;
	uint32_t vm_count;
	struct fair_ready ready;
	struct fair_vm_list open; /* oldest turn first */
	uint32_t open_count;
	uint32_t open_bound; /* overlap_max, or what was open when it was lowered */
	struct run_list run;

	int64_t virtual_time; /* v */
	int64_t finish_max;   /* F_max */
	int64_t created_ns;
	int64_t charged_to_ns; /* the clock, as far as it is charged */
	int64_t busy_ns;
	int64_t idle_ns;
	int64_t gone_ns;    /* charged to VMs that are no longer here */
	int64_t look_at_ns; /* deadline() */

	uint64_t decisions;
	uint64_t turns;
	uint64_t context_switches;
	const struct sched_vm *last_granted;
};

/* sched_fair_charge.c */

/* Virtual time that @ns of GPU time are worth at @phi, rounded down. */
static inline int64_t fair_tag(int64_t ns, int32_t phi)
{
	return SCHED_TAG_SCALE * ns / phi;
}

/* Where the open turn's charge has brought the VM: S + used / phi. */
static inline int64_t fair_reached_tag(const struct sched_vm *vm)
{
	return vm->start_tag + (SCHED_TAG_SCALE * vm->used_ns + vm->tag_remainder) / vm->phi;
}

/* Charges everything up to @now_ns. Every call of the interface does this first. */
void fair_advance(struct sched *sched, int64_t now_ns);
/* The VM's first job was sent, its last one was answered or is gone. */
void fair_run_enter(struct sched *sched, struct sched_vm *vm, int64_t now_ns);
void fair_run_leave(struct sched *sched, struct sched_vm *vm, int64_t now_ns);
/* kappa: virtual time may go up to here; INT64_MAX when nobody is ready or open. */
int64_t fair_kappa(const struct sched *sched);

/* sched_fair_turn.c */

/* A: how long a turn may be kept for the VM's next job. */
int64_t fair_wait_ns(const struct sched *sched, const struct sched_vm *vm);
/* Puts a VM that qualifies among the ready ones; @woken: it had no job before. */
void fair_make_ready(struct sched *sched, struct sched_vm *vm, int64_t now_ns, bool woken);
/* What a ready VM must meet to be admitted; its S, phi and woken are set. */
void fair_set_admission(const struct sched *sched, struct sched_vm *vm);
/* A new weight takes effect unless a turn is open: tags keep their worth in GPU time. */
void fair_apply_phi(struct sched *sched, struct sched_vm *vm);
void fair_end_turn(struct sched *sched, struct sched_vm *vm, int64_t now_ns);
/* The last job in flight was answered: goes on, waits for the next job, or ends. */
void fair_turn_ran_out(struct sched *sched, struct sched_vm *vm, int64_t now_ns);
/* When nobody is ready or open, virtual time takes up all that was charged. */
void fair_settle_idle(struct sched *sched);
void *fair_next(struct sched *sched, int64_t now_ns);

/* sched_fair_ready.c */

/* Makes room for @count VMs in all. Returns 0 or -ENOMEM. */
int fair_ready_reserve(struct fair_ready *ready, uint32_t count);
void fair_ready_insert(struct fair_ready *ready, struct sched_vm *vm);
void fair_ready_remove(struct fair_ready *ready, struct sched_vm *vm);
/* The first in order, or NULL. */
struct sched_vm *fair_ready_first(const struct fair_ready *ready);
/* The first in order that passes, or NULL. */
struct sched_vm *fair_ready_first_admissible(const struct fair_ready *ready,
                                             const struct fair_gate *gate);
/* The least patience among those whose lead_tag passes, or INT64_MAX. */
int64_t fair_ready_least_patience_ns(const struct fair_ready *ready, int64_t kappa);
/* For check(): NULL or what is wrong. */
const char *fair_ready_check(const struct fair_ready *ready);

/* sched_fair_check.c */

/* L: no turn of the VM is charged more, given the longest job it has had. */
int64_t fair_turn_bound_ns(const struct sched *sched, const struct sched_vm *vm);
void fair_vm_stats(const struct sched *sched, const struct sched_vm *vm,
                   struct sched_vm_stats *out);
void fair_stats(const struct sched *sched, struct sched_stats *out);
const char *fair_check(const struct sched *sched);

#endif
