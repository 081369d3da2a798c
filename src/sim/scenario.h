/* SPDX-License-Identifier: MIT */
/*
 * What the simulator plays: VMs, what they submit, what goes wrong, and when.
 *
 * Read from ini files and written as such, so that a scenario that a random search
 * found can be kept and played again. tests/scenarios/README explains the keys.
 */
#ifndef SIM_SCENARIO_H
#define SIM_SCENARIO_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/util.h"
#include "core/schedule/sched.h"
#include "core/settings.h"

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

struct scenario_vm {
	char name[SCENARIO_NAME];
	struct vm_settings settings;
	enum load load;
	uint32_t outstanding;
	int64_t think_ns;
	int64_t period_ns;
	int64_t length_ns;        /* of a job, mean */
	uint32_t spread_percent;  /* sigma of a lognormal; 0 = all the same */
	int64_t alternate_ns;     /* length of every alternate_every-th job */
	uint32_t alternate_every; /* 0 = none */
	int64_t join_ns;
	int64_t leave_ns; /* 0 = stays */
	uint32_t stream;  /* of random numbers; 0 = its place among the VMs */
	bool light;       /* left out of the shares; how long it waits is what counts */
};

enum happening {
	HAPPENS_WEIGHT,     /* value: hundredths */
	HAPPENS_PRIORITY,   /* value: enum vgpu_priority */
	HAPPENS_POOL,       /* value: 0 or 1 */
	HAPPENS_HANG,       /* the next job never ends */
	HAPPENS_FAULT,      /* the next job fails on the GPU */
	HAPPENS_DEATH,      /* the worker dies */
	HAPPENS_DRAIN,      /* value: 1 drains the VM's GPU, 0 gives it back */
	HAPPENS_QUARANTINE, /* value: 1 quarantines the VM, 0 clears it */
	HAPPENS_COUNT,
};

struct scenario_event {
	int64_t at_ns;
	uint32_t vm;
	enum happening what;
	int64_t value;
};

/* What the fair rule must reach, for `vgpu-sim --expect`; 0 = no matter. */
struct scenario_expect {
	int64_t busy_permille;      /* at least */
	int64_t kept_permille;      /* at least, by the VMs that share */
	int64_t error_permille;     /* of charged shares, at most */
	int64_t gpu_error_permille; /* of shares of GPU time, at most */
	int64_t wait_p99_ns;        /* of the light VMs, at most */
};

struct scenario {
	char name[SCENARIO_NAME];
	uint64_t seed;
	int64_t duration_ns;
	int64_t warmup_ns; /* not counted in any figure */
	uint32_t gpus;     /* pool A on GPU 0, pool B on the last one */
	int64_t worker_start_ns;
	int64_t worker_reap_ns; /* from kill to gone */
	int64_t job_timeout_ns;
	struct sched_config sched;
	struct scenario_expect expect;
	struct scenario_vm vms[SCENARIO_VMS];
	uint32_t vm_count;
	struct scenario_event events[SCENARIO_EVENTS];
	uint32_t event_count;
};

/* No VMs, 20 s, the scheduler's defaults. */
void scenario_init(struct scenario *scenario);
/* A VM with the defaults of the format. */
void scenario_vm_init(struct scenario_vm *vm);

/* Returns 0, or a negative errno after having said on stderr what is wrong where. */
int scenario_read(struct scenario *out, const char *path);

/* Writes what scenario_read() reads. */
void scenario_write(const struct scenario *scenario, FILE *to);

#endif
