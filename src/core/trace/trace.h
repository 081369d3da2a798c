/* SPDX-License-Identifier: MIT */
/*
 * What happened to a core, as numbers, so that it can happen again: since the same events
 * always give the same actions, a recording is enough to see every decision once more.
 *
 * Whoever listens is told of each event before it changes anything. trace_play() has the
 * same event happen to another core. Owners, payloads and results are no part of it: no
 * decision depends on them. Nor are questions: no answer changes anything.
 */
#ifndef CORE_TRACE_H
#define CORE_TRACE_H

#include "core/core.h"

enum core_event {
	CORE_EVENT_NEW, /* to whoever begins to listen */
	CORE_EVENT_CONFIG_SET,
	CORE_EVENT_VM_ADD,
	CORE_EVENT_VM_SET,
	CORE_EVENT_VM_REMOVE,
	CORE_EVENT_RECORD, /* what the registry remembers; RESTORE comes when all of it is told */
	CORE_EVENT_RESTORE,
	CORE_EVENT_JOB_SUBMITTED,
	CORE_EVENT_JOB_DONE,
	CORE_EVENT_JOB_CANCEL,
	CORE_EVENT_CLIENT_GONE,
	CORE_EVENT_WORKER_READY,
	CORE_EVENT_WORKER_DEAD,
	CORE_EVENT_STORE_DONE,
	CORE_EVENT_GPU_SET_DRAINING,
	CORE_EVENT_GPU_SET_FAULTY,
	CORE_EVENT_GPU_HARDWARE_FAULT,
	CORE_EVENT_TICK,
	CORE_EVENT_SHUTDOWN,
	CORE_EVENT_ABANDON,
	CORE_EVENT_COUNT,
};

enum { TRACE_VALUES_MAX = 32 }; /* of one event */

/* @values are those of docs/protocol.md, "Event logs"; the first is the time. */
typedef void core_listener(void *context, enum core_event event, const int64_t *values,
                           size_t count);

/* From now on @listener is told of everything; nothing may have happened yet. NULL: nobody. */
void core_listen(struct core *core, core_listener *listener, void *context);

/* @hash with what the action says of the world: two cores that act alike get the same. */
uint64_t core_action_hash(uint64_t hash, const struct core_action *action);

/* ---- Again ------------------------------------------------------------------ */

struct trace_player;

/* Who looks on while it plays; what is NULL is not called. */
struct trace_onlooker {
	/* The event, which may turn out to be impossible, is about to happen at values[0]. */
	void (*before)(void *context, struct core *core, enum core_event event,
	               const int64_t *values);
	void (*action)(void *context, const struct core_action *action);
};

/* Returns 0 or -ENOMEM; the caller owns *@out. */
int trace_player_new(struct trace_player **out, const struct trace_onlooker *onlooker,
                     void *context);
void trace_player_free(struct trace_player *player);
DEFINE_CLEANUP(trace_player)

/*
 * Has the event happen and takes all actions. Returns 0, -ENOMEM, or -EINVAL for what cannot
 * have happened: other values than belong to it, a VM that is not there, a time that is past.
 * After an error there is no going on.
 */
int trace_play(struct trace_player *player, enum core_event event, const int64_t *values,
               size_t count);

/* NULL before NEW. */
struct core *trace_player_core(const struct trace_player *player);

/* core_action_hash() of all actions so far. */
uint64_t trace_player_hash(const struct trace_player *player);

#endif
