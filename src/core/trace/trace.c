/* SPDX-License-Identifier: MIT */
/* See trace.h: who listens, and what of an action counts. */
#include "core/trace/trace.h"

#include <string.h>

#include "core/internal.h"
#include "core/trace/trace_values.h"

void core_note(const struct core *core, enum core_event event, const void *what, const int64_t *own)
{
	int64_t values[TRACE_VALUES_MAX];

	memcpy(values, own, trace_shapes[event].own * sizeof(*own));
	/* That is when it happens: somebody may have asked for figures of a later time. */
	values[0] = max_i64(values[0], core->now_ns);
	trace_pack(values + trace_shapes[event].own, event, what);
	core->listener(core->listener_context, event, values, trace_value_count(event));
}

void core_listen(struct core *core, core_listener *listener, void *context)
{
	core->listener = listener;
	core->listener_context = context;
	CORE_NOTE(core, CORE_EVENT_NEW, &core->config, core->now_ns);
}

static uint64_t hash_in(uint64_t hash, uint64_t value)
{
	hash = (hash ^ value) * UINT64_C(0x9e3779b97f4a7c15);
	return hash ^ (hash >> 29);
}

uint64_t core_action_hash(uint64_t hash, const struct core_action *action)
{
	const struct core_answer *answer = &action->answer;
	const struct core_store *store = &action->store;

	hash = hash_in(hash, (uint64_t)action->type << 32 | action->vm);
	hash = hash_in(hash, action->generation << 8 | action->gpu);
	hash = hash_in(hash, action->job);
	hash = hash_in(hash, action->opcode);
	hash = hash_in(hash, action->client);
	hash = hash_in(hash, action->cookie);
	hash = hash_in(hash, (uint64_t)answer->code << 32 | answer->detail);
	hash = hash_in(hash, (uint64_t)answer->command << 32 | answer->retry_after_us);
	hash = hash_in(hash, answer->gpu_time_us);
	hash = hash_in(hash, store->ticket << 2 | (uint64_t)store->quarantine << 1 | store->again);
	hash = hash_in(hash, (uint64_t)store->record << 32 | (uint64_t)store->fault);
	hash = hash_in(hash, (uint64_t)store->at_ns);
	hash = hash_in(hash, (uint64_t)store->detail << 32 | store->count);
	return hash_in(hash, (uint64_t)store->points);
}
