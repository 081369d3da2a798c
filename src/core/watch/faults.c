/* SPDX-License-Identifier: MIT */
/* See faults.h. */
#include "core/watch/faults.h"

#include <string.h>

#include "base/util.h"

static void drop_oldest(struct fault_history *history)
{
	history->count--;
	memmove(history->entries, history->entries + 1,
	        history->count * sizeof(history->entries[0]));
}

void fault_history_add(struct fault_history *history, int64_t at_ns, int64_t points)
{
	if (points == 0)
		return;
	if (history->count)
		at_ns = max_i64(at_ns, history->entries[history->count - 1].at_ns);
	if (history->count == FAULT_HISTORY_MAX) {
		history->entries[1].points += history->entries[0].points;
		drop_oldest(history);
	}
	history->entries[history->count].at_ns = at_ns;
	history->entries[history->count].points = points;
	history->count++;
}

void fault_history_forget(struct fault_history *history, int64_t now_ns, int64_t window_ns)
{
	while (history->count && now_ns - history->entries[0].at_ns >= window_ns)
		drop_oldest(history);
}

int64_t fault_history_score(const struct fault_history *history, int64_t now_ns, int64_t window_ns)
{
	int64_t score = 0;

	for (uint32_t i = 0; i < history->count; i++) {
		if (now_ns - history->entries[i].at_ns < window_ns)
			score += history->entries[i].points;
	}
	return score;
}

int64_t fault_history_forgive(struct fault_history *history, int64_t since_ns)
{
	int64_t points = 0;

	while (history->count && history->entries[history->count - 1].at_ns >= since_ns)
		points += history->entries[--history->count].points;
	return points;
}

void fault_history_clear(struct fault_history *history)
{
	history->count = 0;
}
