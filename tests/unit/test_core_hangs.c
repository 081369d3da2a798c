/* SPDX-License-Identifier: MIT */
/*
 * Thirty VMs whose every job hangs share one GPU under the fair rule, with the default
 * limit of 30 s: each still comes to its third timeout within the hour that points are
 * remembered, and is quarantined by it; and a VM that faults once a day never is.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/units.h"
#include "core/core.h"

enum { HANGERS = 30, REAP_MS = 100, DAYS = 30 };

struct hanger {
	uint32_t vm;
	uint64_t generation; /* of a killed worker that is not reaped yet; 0 = none */
	int64_t reaped_ns;
	unsigned int timeouts;
	int64_t quarantined_ns; /* 0 = not yet */
};

struct host {
	struct core *core;
	int64_t now_ns;
	struct hanger hangers[HANGERS];
};

static struct hanger *find(struct host *host, uint32_t vm)
{
	return &host->hangers[vm];
}

static void submit(struct host *host, uint32_t vm)
{
	const struct core_submission job = {.client = 1, .bytes = 64};

	assert_int_equal(core_job_submitted(host->core, host->now_ns, vm, &job), 0);
}

static void act(struct host *host, const struct core_action *action)
{
	struct hanger *hanger = find(host, action->vm);

	switch (action->type) {
	case CORE_ACTION_START_WORKER:
		core_worker_ready(host->core, host->now_ns, action->vm, action->generation);
		break;
	case CORE_ACTION_KILL_WORKER:
	case CORE_ACTION_STOP_WORKER:
		hanger->generation = action->generation;
		hanger->reaped_ns = host->now_ns + REAP_MS * NS_PER_MS;
		break;
	case CORE_ACTION_STORE:
		core_store_done(host->core, host->now_ns, action->store.ticket, true);
		if (action->store.quarantine)
			hanger->quarantined_ns = host->now_ns;
		break;
	case CORE_ACTION_ANSWER:
		if (action->answer.code == VGPU_CODE_TIMEOUT) {
			hanger->timeouts++;
			submit(host, action->vm);
		}
		break;
	default:
		break;
	}
}

static void drain(struct host *host)
{
	struct core_action action;

	while (core_next_action(host->core, &action))
		act(host, &action);
	assert_null(core_check(host->core));
}

/* The next thing that happens: a deadline of the core, or a process that is gone. */
static int64_t next_ns(const struct host *host)
{
	int64_t at_ns = core_deadline_ns(host->core);

	for (int i = 0; i < HANGERS; i++) {
		if (host->hangers[i].generation)
			at_ns = min_i64(at_ns, host->hangers[i].reaped_ns);
	}
	return at_ns;
}

static void step(struct host *host)
{
	host->now_ns = max_i64(host->now_ns, next_ns(host));
	for (int i = 0; i < HANGERS; i++) {
		struct hanger *hanger = &host->hangers[i];
		uint64_t generation = hanger->generation;

		if (!generation || hanger->reaped_ns > host->now_ns)
			continue;
		hanger->generation = 0;
		core_worker_dead(host->core, host->now_ns, hanger->vm, generation, 0);
		drain(host);
	}
	core_tick(host->core, host->now_ns);
	drain(host);
}

static void open_host(struct host *host, int vms)
{
	struct core_config config;

	memset(host, 0, sizeof(*host));
	core_config_default(&config);
	assert_ptr_equal(config.policy, &sched_fair);
	assert_int_equal(core_new(&host->core, &config, 0), 0);
	for (int i = 0; i < vms; i++)
		assert_int_equal(core_vm_add(host->core, 0, &host->hangers[i].vm,
		                             &vm_settings_default, false, NULL),
		                 0);
}

static void close_host(struct host *host)
{
	struct core_action action;

	core_abandon(host->core);
	while (core_next_action(host->core, &action))
		;
	core_free(host->core);
}

static void test_thirty_that_hang_are_all_quarantined_within_the_hour(void **state UNUSED)
{
	int64_t last_ns = 0;
	struct host host;

	open_host(&host, HANGERS);
	for (uint32_t i = 0; i < HANGERS; i++)
		submit(&host, i);
	drain(&host);
	for (int quarantined = 0; quarantined < HANGERS;) {
		step(&host);
		assert_true(host.now_ns < 3600 * NS_PER_SEC);
		quarantined = 0;
		for (int i = 0; i < HANGERS; i++)
			quarantined += host.hangers[i].quarantined_ns != 0;
	}
	for (int i = 0; i < HANGERS; i++) {
		assert_int_equal(host.hangers[i].timeouts, 3);
		last_ns = max_i64(last_ns, host.hangers[i].quarantined_ns);
	}
	print_message("the last of %d is quarantined after %lld s\n", HANGERS,
	              (long long)(last_ns / NS_PER_SEC));
	close_host(&host);
}

static void test_one_fault_a_day_never_quarantines(void **state UNUSED)
{
	struct core_vm_stats stats;
	struct host host;

	open_host(&host, 1);
	for (int day = 0; day < DAYS; day++) {
		struct core_action action;
		uint64_t generation = 0;

		host.now_ns += 86400 * NS_PER_SEC;
		submit(&host, 0);
		while (core_next_action(host.core, &action)) {
			generation = action.generation;
			act(&host, &action);
		}
		core_worker_dead(host.core, host.now_ns, 0, generation, 0);
		drain(&host);
	}
	core_vm_stats(host.core, host.now_ns, 0, &stats);
	assert_false(stats.quarantined);
	assert_int_equal(stats.faults[CORE_FAULT_DEATH], DAYS);
	assert_int_equal(stats.fault_score, 1);
	close_host(&host);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_thirty_that_hang_are_all_quarantined_within_the_hour),
		cmocka_unit_test(test_one_fault_a_day_never_quarantines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
