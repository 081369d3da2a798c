/* SPDX-License-Identifier: MIT */
/*
 * What one VM has used up, by books of its own that are kept beside a core in random play:
 * jobs of its rate, and points of its faults. The core must come to the same.
 */
#ifndef TESTS_CORE_LEDGER_H
#define TESTS_CORE_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/core.h"

enum { LEDGER_FAULTS = 60 }; /* fewer than the core remembers one by one */

/* Faults with points, oldest first; kept in order by whoever adds. */
struct ledger_list {
	struct core_store faults[LEDGER_FAULTS];
	uint32_t count;
};

struct ledger {
	/* A bucket that every accepted job fills by one interval, and time empties. */
	int64_t filled_ns;
	int64_t looked_ns;
	struct ledger_list known;    /* what counts */
	struct ledger_list registry; /* what has been stored */
	struct ledger_list on_way;   /* what has not, those without points included */
	uint64_t seen[CORE_FAULT_COUNT];
};

/* Whether a job that comes now is within the rate; then it is counted. */
bool ledger_take(struct ledger *ledger, const struct vm_settings *settings, int64_t now_ns);

void ledger_fault(struct ledger *ledger, const struct core_config *config, enum core_fault fault,
                  int64_t now_ns, int64_t points);
/* The registry has written that. */
void ledger_stored(struct ledger *ledger, const struct core_config *config,
                   const struct core_store *store);
/* What happened since then was the hardware's doing; the registry hears of it later. */
void ledger_forgive(struct ledger *ledger, int64_t since_ns);
/* Somebody has ended a quarantine: what is stored counts no more. */
void ledger_clear(struct ledger *ledger);
int64_t ledger_score(const struct ledger *ledger, const struct core_config *config, int64_t now_ns);

#endif
