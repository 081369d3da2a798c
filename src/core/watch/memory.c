/* SPDX-License-Identifier: MIT */
/* See memory.h. A suspect is a process about which something would be noted if it lasts. */
#include "core/watch/memory.h"

#include "base/units.h"
#include "base/util.h"

#define MIB (UINT64_C(1) << 20)

void memory_watch_init(struct memory_watch *watch)
{
	*watch = (struct memory_watch){.context_bytes = MEMORY_UNKNOWN};
}

/* The driver's figure is a moment old: only what has been told for long belongs to it. */
static void learn(struct memory_watch *watch, int64_t now_ns, const struct memory_use *use)
{
	if (!use->ours || use->bytes == MEMORY_UNKNOWN || use->bytes <= use->told_bytes ||
	    use->told_ns > now_ns - MEMORY_SETTLED_S * NS_PER_SEC)
		return;
	watch->context_bytes = min_u64(watch->context_bytes, use->bytes - use->told_bytes);
}

static enum memory_note judge(const struct memory_watch *watch, struct memory_use *use)
{
	uint64_t context = watch->context_bytes;

	use->expected_bytes = MEMORY_UNKNOWN;
	if (!use->ours)
		return MEMORY_FOREIGN;
	if (context == MEMORY_UNKNOWN)
		return MEMORY_FINE;
	use->expected_bytes = context + use->told_bytes;
	if (use->bytes == MEMORY_UNKNOWN)
		return MEMORY_FINE;
	return use->bytes > use->expected_bytes + max_u64(MEMORY_ALLOWANCE_MIB * MIB,
	                                                  context / MEMORY_ALLOWANCE_PART)
	               ? MEMORY_EXCESS
	               : MEMORY_FINE;
}

static struct memory_suspect *find(struct memory_suspect *suspects, size_t count, int32_t pid,
                                   enum memory_note note)
{
	for (size_t i = 0; i < count; i++) {
		if (suspects[i].pid == pid && suspects[i].note == note)
			return &suspects[i];
	}
	return NULL;
}

void memory_watch_look(struct memory_watch *watch, int64_t now_ns, struct memory_use *uses,
                       size_t count, memory_tell *tell, void *context)
{
	struct memory_suspect now[MEMORY_USES_MAX];
	size_t now_count = 0;

	for (size_t i = 0; i < count; i++)
		learn(watch, now_ns, &uses[i]);
	for (size_t i = 0; i < count && now_count < MEMORY_USES_MAX; i++) {
		enum memory_note note = judge(watch, &uses[i]);
		const struct memory_suspect *before =
			find(watch->suspects, watch->suspect_count, uses[i].pid, note);
		struct memory_suspect suspect = {uses[i].pid, note, now_ns, false};

		uses[i].note = MEMORY_FINE;
		if (note == MEMORY_FINE)
			continue;
		if (before)
			suspect = *before;
		if (now_ns - suspect.since_ns >= MEMORY_LASTS_S * NS_PER_SEC) {
			uses[i].note = note;
			if (!suspect.told)
				tell(context, &uses[i], note, true);
			suspect.told = true;
		}
		now[now_count++] = suspect;
	}
	for (size_t i = 0; i < watch->suspect_count; i++) {
		const struct memory_suspect *before = &watch->suspects[i];
		const struct memory_use gone = {.pid = before->pid, .bytes = MEMORY_UNKNOWN};

		if (before->told && !find(now, now_count, before->pid, before->note))
			tell(context, &gone, before->note, false);
	}
	for (size_t i = 0; i < now_count; i++)
		watch->suspects[i] = now[i];
	watch->suspect_count = now_count;
}
