/* SPDX-License-Identifier: MIT */
/*
 * What the simulator plays: VMs, what they submit, what goes wrong, when, and what must
 * come of it.
 *
 * Read from files and written as such, so that a scenario that a random search found can
 * be kept and played again. tests/scenarios/README.md explains sections and keys.
 */
#ifndef SIM_SCENARIO_H
#define SIM_SCENARIO_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/util.h"
#include "core/core.h"
#include "settings/settings.h"
#include "sim/policies.h"

enum {
	SCENARIO_VMS = 64,
	SCENARIO_EVENTS = 256,
	SCENARIO_NAME = 48,
};

enum load {
	LOAD_BACKLOGGED, /* `outstanding` jobs at any time */
	LOAD_CLOSED,     /* the same, each next one `think` after an answer */
	LOAD_PERIODIC,   /* one every `period`, give or take a fifth */
	LOAD_POISSON,    /* one every `period` on average */
	LOAD_COUNT,
};

/* What of a VM is compared with what should be. */
enum counts {
	COUNTS_SHARE,   /* how much it gets, beside others that share */
	COUNTS_EXCESS,  /* the same, but only what it gets beyond its part */
	COUNTS_WAIT,    /* how long its jobs wait */
	COUNTS_NOTHING, /* it is there for the others' sake */
	COUNTS_COUNT,
};

struct scenario_vm {
	char name[SCENARIO_NAME];
	struct vm_settings settings;
	enum load load;
	enum counts counts;
	uint32_t outstanding;
	int64_t think_ns;
	int64_t period_ns;
	int64_t length_ns;        /* of a job, mean */
	uint32_t spread_percent;  /* sigma of a lognormal; 0 = all the same */
	int64_t first_ns;         /* length of its first first_jobs */
	uint32_t first_jobs;      /* 0 = none */
	int64_t alternate_ns;     /* length of every alternate_every-th job */
	uint32_t alternate_every; /* 0 = none */
	uint32_t fault_every;     /* this one fails on the GPU; 0 = none */
	uint32_t hang_every;      /* this one never ends; 0 = none */
	uint32_t malformed_every; /* this one is no request; 0 = none */
	int64_t join_ns;
	int64_t leave_ns; /* 0 = stays */
	uint32_t stream;  /* of random numbers; 0 = its place among the VMs */
};

/* A number of a file: stored = written * scale. */
struct scenario_number {
	const char *key;
	int64_t scale;
	int64_t min, max; /* as written */
	enum { NUMBER_I64, NUMBER_I32, NUMBER_U32, NUMBER_U64, NUMBER_BOOL } kind;
	size_t offset;
};

/* What may change while a scenario plays. */
struct scenario_rules {
	struct core_config core;
	int64_t worker_start_ns;
	uint32_t start_fail_percent; /* of starts */
	int64_t worker_reap_ns;      /* from kill to gone */
	uint32_t slow_reap_percent;  /* of ends */
	int64_t slow_reap_ns;        /* which take this long */
	int64_t store_ns;            /* until the registry has written something down */
	uint32_t store_fail_percent;
	uint32_t hardware_percent; /* of faults on the GPU that are the hardware's */
	uint32_t twice_percent;    /* of answers that a worker sends twice */
};

/* The rows of struct scenario_rules, ended by a NULL key. */
extern const struct scenario_number scenario_rule_numbers[];

enum happening {
	HAPPENS_SETTING,    /* field, value: of the VM */
	HAPPENS_PRIORITY,   /* value: enum vgpu_priority */
	HAPPENS_POOL,       /* value: 0 or 1 */
	HAPPENS_HANG,       /* the VM's next job never ends */
	HAPPENS_FAULT,      /* the VM's next job fails on the GPU */
	HAPPENS_DEATH,      /* the VM's worker dies */
	HAPPENS_DRAIN,      /* value: 1 drains the VM's GPU, 0 gives it back */
	HAPPENS_QUARANTINE, /* value: 1 quarantines the VM, 0 clears it */
	HAPPENS_HARDWARE,   /* the hardware of the VM's GPU shows a fault */
	HAPPENS_FAULTY,     /* value: 1 the VM's GPU is not fit for work, 0 it is again */
	HAPPENS_CANCEL,     /* an operator cancels one of the VM's jobs */
	HAPPENS_HANGUP,     /* one of the VM's two clients goes */
	HAPPENS_RULE,       /* number, value: no VM's */
	HAPPENS_RESTART,    /* the mediator is killed and starts again; no VM's */
	HAPPENS_COUNT,
};

struct scenario_event {
	int64_t at_ns;
	int64_t every_ns; /* again and again; 0 = once */
	uint32_t vm;
	enum happening what;
	const struct setting_field *field;
	const struct scenario_number *number;
	int64_t value; /* stored */
};

/* In thousandths of the unit that its key names. */
struct scenario_range {
	int64_t least, most;
	bool set;
};

/* What a policy must reach; the figures are those of struct report_summary. */
struct scenario_expect {
	struct scenario_range busy_percent, kept_percent;
	struct scenario_range share_error_percent, gpu_error_percent, least_percent;
	struct scenario_range excess_turns;
	struct scenario_range failed_jobs;
	struct scenario_range wait_p50_ms, wait_p99_ms, wait_max_ms;
};

struct scenario {
	char name[SCENARIO_NAME];
	uint64_t seed;
	int64_t duration_ns;
	int64_t warmup_ns; /* not counted in any figure */
	uint32_t gpus;     /* pool A on GPU 0, pool B on the last one */
	uint32_t shared;   /* 1: both pools on all of them */
	struct scenario_rules rules;
	struct scenario_expect expect[SIM_POLICIES];
	struct scenario_vm vms[SCENARIO_VMS];
	uint32_t vm_count;
	struct scenario_event events[SCENARIO_EVENTS];
	uint32_t event_count;
};

/* No VMs, 20 s, the mediator's defaults. */
void scenario_init(struct scenario *scenario);
/* A VM with the defaults of the format. */
void scenario_vm_init(struct scenario_vm *vm);

/* Returns 0, or a negative errno after having said on stderr what is wrong where. */
int scenario_read(struct scenario *out, const char *path);

/* Whether it says what the policy must reach. */
bool scenario_expects(const struct scenario *scenario, const struct sim_policy *policy);

/* Writes what scenario_read() reads. */
void scenario_write(const struct scenario *scenario, FILE *to);

/* The number, as stored, where its row says in @base. */
int64_t scenario_get(const void *base, const struct scenario_number *number);
void scenario_put(void *base, const struct scenario_number *number, int64_t value);

#endif
