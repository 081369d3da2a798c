/* SPDX-License-Identifier: MIT */
/*
 * Who holds memory of a GPU, and is it what each should hold?
 *
 * A worker holds its context and what its jobs have allocated. Of the latter it tells
 * itself; how much the former takes depends on GPU and driver, and is learned: it is the
 * least that any worker there was seen to hold beyond what it told. A worker that holds
 * more than both and an allowance, or a process that is none of ours, is noted once that
 * has lasted. It is a note for people: nothing follows from it.
 */
#ifndef CORE_MEMORY_H
#define CORE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	MEMORY_USES_MAX = 256, /* processes on one GPU; more are not looked at */

	MEMORY_LASTS_S = 10,  /* what is noted has lasted this long */
	MEMORY_SETTLED_S = 5, /* readings lag: what a worker told must be this old to learn from */
	MEMORY_ALLOWANCE_MIB = 64, /* at least; and MEMORY_ALLOWANCE_PART of the context */
	MEMORY_ALLOWANCE_PART = 4,
};

#define MEMORY_UNKNOWN UINT64_MAX

enum memory_note {
	MEMORY_FINE,
	MEMORY_EXCESS,  /* one of ours holds more than it should */
	MEMORY_FOREIGN, /* none of ours */
};

/* One process on the GPU. */
struct memory_use {
	int32_t pid;
	uint64_t bytes; /* as the driver says; MEMORY_UNKNOWN */
	bool ours;
	uint64_t told_bytes; /* ours: what its jobs have allocated */
	int64_t told_ns;     /* ours: since when; INT64_MAX = not ready yet */
	/* What comes out. */
	uint64_t expected_bytes; /* at most, without the allowance; MEMORY_UNKNOWN */
	enum memory_note note;
};

struct memory_watch {
	uint64_t context_bytes; /* learned; MEMORY_UNKNOWN = nothing yet */
	struct memory_suspect {
		int32_t pid;
		enum memory_note note;
		int64_t since_ns;
		bool told;
	} suspects[MEMORY_USES_MAX];
	size_t suspect_count;
};

void memory_watch_init(struct memory_watch *watch);

/* Something is noted, or no more; of a process that is gone only the pid is known. */
typedef void memory_tell(void *context, const struct memory_use *use, enum memory_note note,
                         bool began);

/* Looks at all @count processes of the GPU, at most MEMORY_USES_MAX, and fills them in. */
void memory_watch_look(struct memory_watch *watch, int64_t now_ns, struct memory_use *uses,
                       size_t count, memory_tell *tell, void *context);

#endif
