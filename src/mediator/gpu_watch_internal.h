/* SPDX-License-Identifier: MIT */
/*
 * What the files that watch the GPUs share; nobody else includes it.
 *
 *   gpu_watch.c           events, what drains a GPU
 *   gpu_reset.c           the steps of a reset
 *   gpu_watch_describe.c  what operators see
 *   gpu_holds.c           what must outlive a restart
 *   gpu_memory.c          whose processes hold its memory
 */
#ifndef MEDIATOR_GPU_WATCH_INTERNAL_H
#define MEDIATOR_GPU_WATCH_INTERNAL_H

#include "core/watch/memory.h"
#include "mediator/internal.h"

/* Where the reset of one GPU is. */
enum reset_step {
	RESET_NONE,
	RESET_RELEASING, /* NVML is asked to let go */
	RESET_COMMAND,   /* the operator's command runs */
	RESET_VERIFYING, /* a probe runs */
};

struct gpu_reset {
	enum reset_step step;
	pid_t pid; /* of the step's guard; 0 = none */
	bool late; /* the step's time is over: the guard was told to end it */
	bool real; /* a command does it; else a fresh context is all that is tried */
	int lock;  /* from the first step to the last; else -1 */
	struct event *timeout;
	struct event *lock_poll; /* pending while something of before has the lock */
};

/* What drains a GPU and is no matter of its health. */
enum gpu_cause_code {
	GPU_CAUSE_BY_HAND,   /* an operator wants it */
	GPU_CAUSE_STUCK,     /* a worker there cannot be killed */
	GPU_CAUSE_OLD_RESET, /* one that nobody waits for any more still runs */
	GPU_CAUSE_COUNT,
};

struct gpu_cause {
	bool active;
	int64_t since_ns;
	char by[STORE_BY_BYTES]; /* the person; "" = nobody */
};

struct gpu_cause_info {
	const char *code;
	const char *message;
	const char *remedy;
	bool kept; /* across restarts, in the registry */
};

/* gpu_watch.c */
extern const struct gpu_cause_info gpu_cause_infos[GPU_CAUSE_COUNT];

/* An admin socket's `drain` or `resume` that waits until it is recorded. */
struct hold_waiter {
	TAILQ_ENTRY(hold_waiter) link;
	struct admin_call *call;
};

/* What holds a GPU, and how far the registry knows it. */
struct gpu_holds {
	struct store_holds stored;  /* as the registry has them */
	struct store_holds storing; /* being written */
	bool busy;                  /* `storing` means something */
	bool stale;                 /* the registry may have others than `stored` */
	struct event *again;        /* pending after a failure */
	TAILQ_HEAD(, hold_waiter) waiters;
};

struct watched {
	struct gpu_watch *watch;
	uint32_t index;
	struct health *health;
	struct nvml_reading last;
	bool has_reading;
	struct gpu_cause causes[GPU_CAUSE_COUNT];
	bool drained; /* the core has said so */
	struct memory_watch memory;
	struct memory_use uses[NVML_PROCESSES_MAX]; /* of the last reading */
	uint32_t use_vms[NVML_PROCESSES_MAX];       /* the core's numbers, of those that are ours */
	uint32_t use_count;
	struct gpu_reset reset;
	struct gpu_holds holds;
};

struct gpu_watch {
	struct mediator *mediator;
	struct nvml_reader *reader; /* NULL with the cpu backend */
	struct watched *gpus;
	uint32_t count;
	bool restored; /* what the registry knows is taken over */
	bool stopping; /* no reset begins any more */
};

/* gpu_watch.c */
/* The sentence for an active cause; returns @to. */
const char *gpu_cause_message(char *to, size_t size, const struct watched *gpu,
                              enum gpu_cause_code code);
void gpu_cause_begin(struct watched *gpu, enum gpu_cause_code code, int64_t since_ns,
                     const char *by);
/* Brings the core and the registry in line with what is known of the GPU. */
void gpu_watch_update(struct watched *gpu);
/* It needs a reset, which is left to the operator who has taken it out of service. */
bool gpu_watch_leaves_reset(const struct watched *gpu);

/* gpu_reset.c */
/* 0 or -ENOMEM. */
int gpu_reset_init(struct watched *gpu);
/* Ends what runs. */
void gpu_reset_clear(struct watched *gpu);
/* Of a drained GPU, while no reset of it runs. Tells the health how it went. */
void gpu_reset_begin(struct watched *gpu);
/* Gives up one that runs nothing yet. */
void gpu_reset_abandon(struct watched *gpu);
void gpu_reset_nvml_released(struct watched *gpu);
/* Begins or ends GPU_CAUSE_OLD_RESET, and looks again as long as it holds. */
void gpu_reset_look_for_old(struct watched *gpu);

/* gpu_memory.c */
/* The last reading has come: who is on the GPU, and with how much? */
void gpu_memory_look(struct watched *gpu);
/* The sentence about what is noted of a process; returns @to. */
const char *gpu_memory_note(char *to, size_t size, const struct memory_use *use);

/* gpu_holds.c */
/* 0 or -ENOMEM. */
int gpu_holds_init(struct watched *gpu);
void gpu_holds_clear(struct watched *gpu);
/* Writes what holds the GPU, if that is not what the registry has. */
void gpu_holds_sync(struct watched *gpu);
/* The registry has been read, or written. */
void gpu_holds_read(struct watched *gpu, const struct registry_gpu_holds *holds);
void gpu_holds_stored(struct watched *gpu, bool stored);
/* Answers @call, which it owns from here on, once the registry has what holds the GPU. */
void gpu_holds_answer(struct watched *gpu, struct admin_call *call);

#endif
