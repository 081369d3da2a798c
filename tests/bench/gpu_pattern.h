/* SPDX-License-Identifier: MIT */
/*
 * What one VM asks of the GPU, and when: the loads of the measurements, written as a
 * line of key=value pairs.
 *
 * A pattern is the text; an actor is one run of it. The actor has no clock and does no
 * I/O: it says when the next job is due and which one it is, so that the same loads go
 * through the mediator (gpu_load.c) and straight to the driver (gpu_native.c).
 *
 * Closed loops (no period) submit as long as fewer than `depth` jobs are under way, each
 * one `think` after the answer that made room. Periodic loads submit by the clock
 * whatever is under way, and their latency counts from the planned time; only at `depth`
 * jobs under way a period is skipped and counted.
 */
#ifndef BENCH_GPU_PATTERN_H
#define BENCH_GPU_PATTERN_H

#include <stdbool.h>
#include <stdint.h>

enum {
	PATTERN_DEPTH_MAX = 64,
	PATTERN_NAME_BYTES = 32,
	PATTERN_SOCKET_BYTES = 108,
};

#define PATTERN_NEVER INT64_MAX

struct pattern {
	char name[PATTERN_NAME_BYTES];
	char socket[PATTERN_SOCKET_BYTES]; /* "" for gpu_native */
	uint32_t opcode;                   /* enum vgpu_opcode: NOP, SPIN, FAULT or HANG */
	int64_t min_us, max_us;            /* length of a SPIN, uniform */
	int64_t depth;                     /* most jobs under way, 1 to PATTERN_DEPTH_MAX */
	int64_t period_us;                 /* 0: closed loop */
	int64_t jitter_percent;            /* of the period, to either side */
	int64_t think_us;                  /* from an answer to the next job */
	int64_t fault_every;               /* every n-th job is a FAULT; 0: none */
	int64_t start_ms;                  /* in the window; -1: with the ramp before it */
	int64_t stop_ms;                   /* -1: at the end */
	int64_t count;                     /* most jobs; 0: no bound */
	int64_t kill_ms;                   /* gpu_native: SIGKILL at that time; -1: never */
	int64_t retry;                     /* 1: refused jobs are tried again by the rule */
	int64_t samples;                   /* 1: every latency is reported with its time */
};

/*
 * Reads "name=a,op=spin,us=1000,depth=4". Keys are the members' names without their units,
 * with `us` (N or LOW-HIGH) for the length, `op` for the opcode. Returns 0 or -EINVAL
 * with what is wrong on standard error. @text is changed.
 */
int pattern_parse(struct pattern *out, char *text);

struct actor {
	const struct pattern *pattern;
	int64_t begin_ns, end_ns; /* jobs are submitted from the one to before the other */
	int64_t next_ns;          /* the next job is not due earlier */
	uint64_t random;
	int64_t under_way;
	uint64_t taken;   /* jobs so far */
	uint64_t skipped; /* periods without a job */
};

struct actor_job {
	uint32_t opcode;
	uint32_t us;
	int64_t planned_ns; /* what its latency counts from */
};

/* @window_ns: when the measured window begins. From @ramp_ns on, jobs may come. */
void actor_init(struct actor *actor, const struct pattern *pattern, uint64_t seed, int64_t ramp_ns,
                int64_t window_ns, int64_t end_ns);

/*
 * When the next job is due: now or in the past means at once; PATTERN_NEVER until an
 * answer comes or for good. Skips periods that have no room at @now_ns.
 */
int64_t actor_due_ns(struct actor *actor, int64_t now_ns);

/* The job that is due at @now_ns; it counts as under way. */
struct actor_job actor_take(struct actor *actor, int64_t now_ns);

/* A job has ended, however it did. */
void actor_answered(struct actor *actor, int64_t now_ns);

/* 32 uniform bits. */
uint32_t actor_random(struct actor *actor);

#endif
