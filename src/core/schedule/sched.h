/* SPDX-License-Identifier: MIT */
/*
 * Who may have work on one GPU now: the interface of a scheduling policy.
 *
 * A scheduler knows VMs and counts of jobs, never jobs themselves: it decides from
 * which VM the next job is sent, and the core takes the head of that VM's queue. It
 * has no clock and does no I/O; every call brings the time, which never goes back.
 * After any call or series of calls the core asks next() until it returns NULL, and
 * again at deadline() at the latest.
 *
 * Times are int64 nanoseconds. phi is weight times priority factor (1, 2, 4) in
 * hundredths, 100..40000. Policies are tables of functions, so that the daemon and
 * the simulator run the same code and the simulator can compare several.
 */
#ifndef CORE_SCHED_H
#define CORE_SCHED_H

#include <stdbool.h>
#include <stdint.h>

#define SCHED_NEVER INT64_MAX

/* Points in virtual time, "tags", move on by this per ns charged, divided by phi in hundredths. */
enum { SCHED_TAG_SCALE = 256 };

/* A distance of tags as GPU time, in ns, of a VM whose phi is 1.00. */
static inline int64_t sched_tag_ns(int64_t tag)
{
	return tag * 100 / SCHED_TAG_SCALE;
}

struct sched;    /* one GPU's scheduler; each policy has its own */
struct sched_vm; /* one VM in it */

struct sched_config {
	int64_t quantum_ns;       /* a turn's length, quantum_us */
	int64_t slice_ns;         /* the hardware's time slice, slice_us */
	int64_t handover_ns;      /* an idle hand-over between contexts */
	int64_t overlap_after_ns; /* overlap_after_ms */
	int64_t wake_lead_ns;     /* wake_lead_ms */
	int64_t anticipation_ns;  /* anticipation_us; 0 = off */
	int32_t overlap_max;      /* open turns at once, >= 1; 1 = exclusive */
	int32_t boost_percent;    /* scheduler_boost, 0..100 */
};

/* For an H100, with a little to spare in the slice: a mirror that is late does less harm. */
extern const struct sched_config sched_config_default;

/* What operators and tests see of one VM; what a policy does not have is 0. */
struct sched_vm_stats {
	int64_t charged_ns; /* GPU time charged since the VM was added */
	int64_t turns;
	uint32_t queued;
	uint32_t in_flight;
	bool ready;      /* waits for a turn */
	bool open;       /* has one */
	bool woken;      /* had no job when its last turn ended */
	bool admissible; /* ready, and its tag would let it in beside the open turns */
	int32_t phi;     /* in force */
	int64_t start_tag, finish_tag, key;
	int64_t estimate_turn_ns, estimate_job_ns;
	int64_t boost_ppm;     /* the discount in force, parts per million of the estimate */
	int64_t patience_ns;   /* ready: how long the open turns must have lasted to let it in */
	int64_t turn_bound_ns; /* no turn is charged more, by the longest job so far */
};

struct sched_stats {
	int64_t busy_ns;    /* time charged to anyone */
	int64_t idle_ns;    /* time charged to nobody */
	uint64_t decisions; /* whose job next, or nobody's, while somebody's could be */
	uint64_t turns;
	uint64_t context_switches; /* turns of another VM than the last */
	uint32_t open;
	uint32_t ready;
	int64_t virtual_time;
};

struct sched_policy {
	const char *name;

	/*
	 * @head_since_ns answers for a VM's owner when the head job of its queue came; it is
	 * asked only while the VM has a job queued. Returns 0 or -ENOMEM. The caller owns *@out.
	 */
	int (*create)(struct sched **out, const struct sched_config *config,
	              int64_t (*head_since_ns)(const void *owner), int64_t now_ns);
	void (*destroy)(struct sched *sched);
	void (*configure)(struct sched *sched, int64_t now_ns, const struct sched_config *config);

	/*
	 * Adds a VM, disabled and without jobs. @priority (higher first), then @id break
	 * ties; @id is unique here. @lag is what vm_remove() of the scheduler it comes from said,
	 * else 0. Returns 0 or -ENOMEM; the scheduler owns *@out until vm_remove().
	 */
	int (*vm_add)(struct sched *sched, int64_t now_ns, struct sched_vm **out, uint32_t id,
	              int32_t phi, uint32_t priority, int64_t lag, void *owner);
	/* The VM must have no job queued or in flight. Returns its lag behind virtual time. */
	int64_t (*vm_remove)(struct sched *sched, int64_t now_ns, struct sched_vm *vm);
	void (*vm_set_phi)(struct sched *sched, int64_t now_ns, struct sched_vm *vm, int32_t phi,
	                   uint32_t priority);

	/* Enabled: its worker is up, it is not throttled and not draining. */
	void (*vm_enable)(struct sched *sched, int64_t now_ns, struct sched_vm *vm, bool enabled);

	/* One more job waits in the VM's queue. */
	void (*job_queued)(struct sched *sched, int64_t now_ns, struct sched_vm *vm);
	/* @count queued jobs left without being sent. */
	void (*jobs_dropped)(struct sched *sched, int64_t now_ns, struct sched_vm *vm,
	                     uint32_t count);
	/* The oldest job in flight was answered by the worker. */
	void (*job_done)(struct sched *sched, int64_t now_ns, struct sched_vm *vm);
	/*
	 * The worker is gone (reaped), and with it every job in flight. Until this call a
	 * killed worker's VM goes on being charged. Implies vm_enable(false).
	 */
	void (*vm_reaped)(struct sched *sched, int64_t now_ns, struct sched_vm *vm);

	/*
	 * The owner of the VM whose head job is to be sent now; the job counts as in flight
	 * when this returns. NULL when nothing is to be sent now.
	 */
	void *(*next)(struct sched *sched, int64_t now_ns);
	/* When next() has to be asked again if nothing else happens, or SCHED_NEVER. */
	int64_t (*deadline)(const struct sched *sched);

	/* GPU time charged to the VM up to @now_ns. */
	int64_t (*charged_ns)(struct sched *sched, int64_t now_ns, const struct sched_vm *vm);
	void (*vm_stats)(const struct sched *sched, const struct sched_vm *vm,
	                 struct sched_vm_stats *out);
	void (*stats)(const struct sched *sched, struct sched_stats *out);

	/*
	 * For tests: NULL if every invariant of the policy holds, else English text about
	 * the first that does not.
	 */
	const char *(*check)(const struct sched *sched);
};

/* Start-time fair queuing over charged GPU time. */
extern const struct sched_policy sched_fair;

#endif
