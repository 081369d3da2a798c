/* SPDX-License-Identifier: MIT */
/*
 * The points that faults of a VM's jobs bring it, each forgotten a fixed time after it
 * happened. Bounded: when too many are remembered the two oldest become one, as old as
 * the younger of them, so that points are never forgotten early.
 */
#ifndef CORE_FAULTS_H
#define CORE_FAULTS_H

#include <stdint.h>

enum { FAULT_HISTORY_MAX = 64 };

/* Zero-initialised: nothing has happened. */
struct fault_history {
	struct {
		int64_t at_ns;
		int64_t points;
	} entries[FAULT_HISTORY_MAX]; /* oldest first */
	uint32_t count;
};

/* Faults come in the order of their time; one that claims to be earlier is as old as the last. */
void fault_history_add(struct fault_history *history, int64_t at_ns, int64_t points);

/* Drops what is older than @window_ns. */
void fault_history_forget(struct fault_history *history, int64_t now_ns, int64_t window_ns);

/* The points of the last @window_ns. Asking changes nothing. */
int64_t fault_history_score(const struct fault_history *history, int64_t now_ns, int64_t window_ns);

/* Forgets those of @since_ns and later. Returns their points. */
int64_t fault_history_forgive(struct fault_history *history, int64_t since_ns);

void fault_history_clear(struct fault_history *history);

#endif
