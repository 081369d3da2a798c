/* SPDX-License-Identifier: MIT */
/*
 * What lies ahead in virtual time: a heap of dated things, first come first served
 * among those of the same instant.
 */
#ifndef SIM_TIMELINE_H
#define SIM_TIMELINE_H

#include <stdbool.h>
#include <stdint.h>

enum thing {
	THING_SUBMIT,  /* vm: a job arrives */
	THING_LAUNCH,  /* vm, generation, job, length: reaches the GPU */
	THING_ANSWER,  /* vm, generation, job, length: the worker's answer arrives */
	THING_READY,   /* vm, generation: the worker is up */
	THING_REAPED,  /* vm, generation: the worker is gone */
	THING_STORED,  /* job: ticket; the registry has written something down, or could not */
	THING_JOIN,    /* vm */
	THING_LEAVE,   /* vm */
	THING_HAPPENS, /* job: index of a scenario_event */
};

struct dated {
	int64_t at_ns;
	uint64_t order; /* set by timeline_push() */
	enum thing thing;
	uint32_t epoch; /* of the mediator that it concerns */
	uint32_t vm;
	uint64_t generation;
	uint64_t job;
	int64_t length_ns;
	bool faulty;
};

struct timeline {
	struct dated *items;
	uint32_t count;
	uint32_t capacity;
	uint64_t pushed;
};

/* Returns 0 or -ENOMEM. */
int timeline_push(struct timeline *timeline, const struct dated *item);
/* The earliest; the timeline must not be empty. */
struct dated timeline_pop(struct timeline *timeline);
/* When the earliest is, or INT64_MAX. */
int64_t timeline_next_ns(const struct timeline *timeline);
void timeline_fini(struct timeline *timeline);

#endif
