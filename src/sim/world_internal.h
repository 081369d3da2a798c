/* SPDX-License-Identifier: MIT */
/*
 * What the files of a played world share among themselves; nobody else includes it.
 *
 *   world.c       time, and the core's actions
 *   happenings.c  what the scenario has happen
 *   guests.c      what VMs submit, and what they do with answers
 *   workers.c     workers and what they do on the GPUs
 *   registry.c    what is stored, and a mediator that is killed and starts again
 *   dues.c        what each VM had and what it was due
 */
#ifndef SIM_WORLD_INTERNAL_H
#define SIM_WORLD_INTERNAL_H

#include <sys/queue.h>

#include "sim/audit.h"
#include "sim/gpu_model.h"
#include "sim/random.h"
#include "sim/timeline.h"
#include "sim/world.h"

/* One way from the GPU to the mediator. */
#define WORLD_RETURN_NS (15 * NS_PER_US)

enum {
	SIM_CLIENTS = 2,   /* of a VM */
	SIM_RECORDS = 128, /* of a VM that the registry keeps */

	SIM_JOBS_ERROR = 700,     /* CUresults: an illegal address, */
	SIM_HARDWARE_ERROR = 214, /* memory that fails */
	SIM_DEATH_STATUS = 9,     /* of a worker, as waitpid() says it */
};

/* A job on its way: the core's payload. */
struct sim_job {
	TAILQ_ENTRY(sim_job) link; /* in sim_vm.jobs, or among world.free_jobs */
	int64_t arrived_ns;
	int64_t length_ns; /* INT64_MAX = it never ends */
	uint64_t client;
	bool faulty;
	struct sim_job_watch watch;
};

TAILQ_HEAD(sim_job_list, sim_job);

/* What the registry has been asked to write and has not yet written. */
struct sim_store {
	TAILQ_ENTRY(sim_store) link;
	uint32_t vm;
	struct core_store what;
};

TAILQ_HEAD(sim_store_list, sim_store);

/* What decides a VM's part. */
struct stand {
	bool present;
	uint32_t gpu;
	int32_t claim;
};

struct due {
	struct stand stand; /* since the last settlement */
	int64_t before_ns;  /* charged by mediators of the past */
	int64_t charged_ns, occupied_ns, useful_ns;
	int64_t settled_charged_ns, settled_occupied_ns;
	int64_t start_charged_ns, start_occupied_ns, start_useful_ns; /* after the warm-up */
	double due_charged_ns, due_occupied_ns;
	int64_t turn_ns; /* what a turn of it can be charged */
};

struct sim_vm {
	uint32_t core_vm;
	bool present; /* in the core */
	bool leaving;
	bool alive; /* its worker */
	uint64_t generation;
	uint32_t gpu;
	struct vm_settings settings;
	struct sim_random random;
	uint64_t submitted;
	struct sim_job_list jobs;               /* unanswered, oldest first */
	bool quarantined;                       /* in the registry, as what follows */
	struct core_store records[SIM_RECORDS]; /* oldest first */
	uint32_t record_count;
	bool hang_next;
	bool fault_next;
	struct dated on_gpu[GPU_MODEL_STREAM]; /* in the context's stream, a ring */
	uint32_t on_gpu_first;
	uint32_t on_gpu_count;
	struct due due;
};

struct world {
	const struct scenario *scenario;
	struct scenario_rules rules; /* in force now */
	const struct world_options *options;
	struct world_result *result;
	struct core *core;
	struct gpu_model *gpus[2];
	struct timeline timeline;
	struct sim_vm vms[SCENARIO_VMS];
	struct sim_job_list free_jobs;
	struct sim_store_list stores; /* oldest first */
	struct sim_random random;     /* for what goes wrong around the VMs */
	bool draining[2];
	bool faulty[2];
	uint32_t epoch; /* how often the mediator was killed */
	int64_t now_ns;
	uint32_t standstill; /* steps since time last went on */
	uint32_t unanswered; /* jobs that the core has */
	uint32_t bucket;
	bool warm;
	bool settling; /* nobody submits, nothing more goes wrong */
	int error;
};

/* world.c */
/* Has @item happen at its time; notes in world.error when there is no memory. */
void world_later(struct world *world, const struct dated *item);
/* Adds what the core has counted to the result, before it goes. */
void world_count(struct world *world);
/* True in so many cases of a hundred. */
bool world_chance(struct world *world, uint32_t percent);
/* The VM that an action is about. */
uint32_t world_number_of(const struct world *world, const struct core_action *action);
/* The core's configuration under the rules in force. */
struct core_config world_core_config(const struct world *world);

/* happenings.c */
void happen_join(struct world *world, uint32_t vm);
void happen_leave(struct world *world, uint32_t vm);
/* @number of the scenario's events. */
void happen(struct world *world, uint64_t number);

void happen_drain(struct world *world, uint32_t gpu, bool draining);

/* guests.c */
/* The VM is there: its first jobs. */
void guest_start(struct world *world, uint32_t vm);
/* A job arrives, and with an open loop the next one is on its way. */
void guest_submit(struct world *world, uint32_t vm);
/* The guest got its answer to @job, which goes back; a loop goes on. */
void guest_answered(struct world *world, uint32_t vm, struct sim_job *job,
                    const struct core_answer *answer);
/* The mediator is gone, and the job with it; a loop goes on. */
void guest_lost(struct world *world, uint32_t vm, struct sim_job *job);
/* At the end: jobs that never got an answer have waited, too. */
void guest_count_unanswered(struct world *world, uint32_t vm);

/* workers.c: what the core wants */
void worker_start(struct world *world, uint32_t vm, const struct core_action *action);
void worker_end(struct world *world, uint32_t vm, const struct core_action *action);
void worker_send(struct world *world, uint32_t vm, const struct core_action *action);
/* and what happens */
void worker_launch(struct world *world, const struct dated *item);
void worker_ended_on_gpu(struct world *world, uint32_t vm);
void worker_answers(struct world *world, const struct dated *item);
void worker_ready(struct world *world, uint32_t vm, uint64_t generation);
/* The worker's process is gone, and its context with it. */
void worker_bury(struct world *world, uint32_t vm, uint64_t generation);

/* registry.c */
void registry_store(struct world *world, uint32_t vm, const struct core_store *what);
void registry_stored(struct world *world, uint64_t ticket);
/* Whether the core knows the quarantines that the registry has. */
bool registry_is_right(struct world *world);
/* Drops what is still to be written. */
void registry_clear(struct world *world);
/* The mediator is killed and a new one starts. */
void registry_restart(struct world *world);

/* dues.c */
/* Before each event of the core, and after it. */
void dues_before_event(struct world *world);
void dues_after_event(struct world *world);
void dues_before_restart(struct world *world);
/* The warm-up is over; the end is there. */
void dues_start(struct world *world);
void dues_end(struct world *world);
/* GPU time so far. */
int64_t dues_occupied_ns(const struct world *world, uint32_t vm);

#endif
