/* SPDX-License-Identifier: MIT */
/* See core_ledger.h. */
#include "core_ledger.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/units.h"
#include "base/util.h"

bool ledger_take(struct ledger *ledger, const struct vm_settings *settings, int64_t now_ns)
{
	int64_t interval_ns, room_ns;

	if (settings->rate_thousandths == 0)
		return true;
	interval_ns = 1000 * NS_PER_SEC / settings->rate_thousandths;
	interval_ns += interval_ns * settings->rate_thousandths < 1000 * NS_PER_SEC;
	room_ns = interval_ns * (settings->burst_jobs
	                                 ? settings->burst_jobs
	                                 : max_i64(settings->rate_thousandths / 1000, 1));
	ledger->filled_ns -= now_ns - ledger->looked_ns;
	ledger->filled_ns = min_i64(max_i64(ledger->filled_ns, 0), room_ns);
	ledger->looked_ns = now_ns;
	if (ledger->filled_ns + interval_ns > room_ns)
		return false;
	ledger->filled_ns += interval_ns;
	return true;
}

static void drop(struct ledger_list *list, uint32_t count)
{
	assert_true(count <= list->count);
	list->count -= count;
	memmove(list->faults, list->faults + count, list->count * sizeof(list->faults[0]));
}

static void add(struct ledger_list *list, const struct core_store *fault)
{
	assert_true(list->count < LEDGER_FAULTS);
	list->faults[list->count++] = *fault;
}

static void forget(struct ledger_list *list, const struct core_config *config, int64_t now_ns)
{
	while (list->count && now_ns - list->faults[0].at_ns >= config->fault_window_ns)
		drop(list, 1);
}

void ledger_fault(struct ledger *ledger, const struct core_config *config, enum core_fault fault,
                  int64_t now_ns, int64_t points)
{
	const struct core_store made = {.at_ns = now_ns, .fault = fault, .points = points};

	forget(&ledger->known, config, now_ns);
	if (points)
		add(&ledger->known, &made);
	add(&ledger->on_way, &made);
}

void ledger_stored(struct ledger *ledger, const struct core_config *config,
                   const struct core_store *store)
{
	if (store->record == CORE_RECORD_FAULT) {
		drop(&ledger->on_way, store->count);
		forget(&ledger->registry, config, store->at_ns);
		if (store->points)
			add(&ledger->registry, store);
	} else if (store->record == CORE_RECORD_FORGIVEN) {
		while (ledger->registry.count &&
		       ledger->registry.faults[ledger->registry.count - 1].at_ns >= store->at_ns)
			ledger->registry.count--;
	}
}

void ledger_forgive(struct ledger *ledger, int64_t since_ns)
{
	while (ledger->known.count &&
	       ledger->known.faults[ledger->known.count - 1].at_ns >= since_ns)
		ledger->known.count--;
	for (uint32_t i = 0; i < ledger->on_way.count; i++) {
		if (ledger->on_way.faults[i].at_ns >= since_ns)
			ledger->on_way.faults[i].points = 0;
	}
}

void ledger_clear(struct ledger *ledger)
{
	ledger->registry.count = ledger->known.count = 0;
	for (uint32_t i = 0; i < ledger->on_way.count; i++) {
		if (ledger->on_way.faults[i].points)
			add(&ledger->known, &ledger->on_way.faults[i]);
	}
}

int64_t ledger_score(const struct ledger *ledger, const struct core_config *config, int64_t now_ns)
{
	int64_t score = 0;

	for (uint32_t i = 0; i < ledger->known.count; i++) {
		const struct core_store *fault = &ledger->known.faults[i];

		if (now_ns - fault->at_ns < config->fault_window_ns)
			score += fault->points;
	}
	return score;
}
