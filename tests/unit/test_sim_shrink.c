/* SPDX-License-Identifier: MIT */
/*
 * Shrinking: whatever does not belong to a failure goes, and what does stays.
 *
 * What fails here is made up: a condition on the scenario, so that the smallest one that
 * meets it is known.
 */
#include "sim/shrink.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/units.h"
#include "sim/draw.h"
#include "sim/watch.h"

/* A VM that leaves, while its worker dies again and again, under a short quantum. */
static bool leaving_vm_whose_worker_dies(void *context, const struct scenario *scenario,
                                         int64_t *at_ns)
{
	int *calls = context;

	(*calls)++;
	*at_ns = 123456789;
	if (scenario->rules.core.sched.quantum_ns >= 3 * NS_PER_MS)
		return false;
	for (uint32_t i = 0; i < scenario->event_count; i++) {
		const struct scenario_event *event = &scenario->events[i];

		if (event->what == HAPPENS_DEATH && event->every_ns &&
		    scenario->vms[event->vm].leave_ns)
			return true;
	}
	return false;
}

static void test_nothing_is_left_but_what_fails(void **state UNUSED)
{
	static struct scenario scenario, usual;
	uint64_t seed = 0;
	int calls = 0;

	do
		draw_scenario(&scenario, ++seed);
	while (scenario.vm_count < 4);
	scenario.rules.core.sched.quantum_ns = 2 * NS_PER_MS;
	scenario.vms[2].leave_ns = 400 * NS_PER_MS;
	scenario.vms[2].settings.weight_hundredths = 250;
	scenario.event_count = 4;
	for (uint32_t i = 0; i < 4; i++)
		scenario.events[i] = (struct scenario_event){
			.at_ns = (int64_t)i * NS_PER_MS,
			.every_ns = NS_PER_MS,
			.vm = i,
			.what = i == 2   ? HAPPENS_DEATH
		                : i == 3 ? HAPPENS_RESTART
		                         : HAPPENS_HANG,
		};
	assert_int_equal(shrink(&scenario, leaving_vm_whose_worker_dies, &calls), 0);

	scenario_init(&usual);
	assert_int_equal(scenario.vm_count, 1);
	assert_int_equal(scenario.event_count, 1);
	assert_int_equal(scenario.events[0].what, HAPPENS_DEATH);
	assert_int_equal(scenario.events[0].vm, 0);
	assert_true(scenario.events[0].every_ns == NS_PER_MS);
	assert_string_equal(scenario.vms[0].name, "vm-2");
	assert_int_equal(scenario.vms[0].stream, 3);
	assert_true(scenario.vms[0].leave_ns == 400 * NS_PER_MS);
	assert_int_equal(scenario.vms[0].settings.weight_hundredths, 100);
	assert_int_equal(scenario.gpus, 1);
	assert_true(scenario.duration_ns == 124 * NS_PER_MS);
	assert_true(scenario.rules.core.sched.quantum_ns == 2 * NS_PER_MS);
	usual.rules.core.sched.quantum_ns = 2 * NS_PER_MS;
	assert_memory_equal(&scenario.rules, &usual.rules, sizeof(usual.rules));
	/* It tries one thing at a time, and nothing for ever. */
	assert_true(calls < 1000);
}

/* The same with runs: a fault on the GPU counts as a violation. */
struct injected {
	struct watch watch;
	world_observer *observe;
	struct audit *audit;
};

static const char *says_no_to_faults(void *context, struct world *world)
{
	struct injected *injected = context;
	const char *wrong = injected->observe(&injected->watch, world);

	if (!wrong && audit_rare(injected->audit)[RARE_FAULTED])
		return "a job has failed on the GPU";
	return wrong;
}

static bool plays_badly(void *context, const struct scenario *scenario, int64_t *at_ns)
{
	struct injected *injected = context;
	struct world_options options = {.policy = &sim_policies[0]};
	struct world_result result;
	bool failed;

	watch_run(&injected->watch, &options);
	injected->observe = options.observer;
	injected->audit = options.audit;
	options.observer = says_no_to_faults;
	options.observer_context = injected;
	assert_int_equal(world_run(&result, scenario, &options), 0);
	failed = result.violation != NULL;
	*at_ns = result.violation_ns;
	world_result_fini(&result);
	return failed;
}

static void test_violation_of_a_run(void **state UNUSED)
{
	static struct injected injected;
	static struct scenario scenario;
	uint64_t seed = 0;
	int64_t at_ns;

	assert_int_equal(watch_init(&injected.watch), 0);
	do
		draw_scenario(&scenario, ++seed);
	while (!plays_badly(&injected, &scenario, &at_ns));
	assert_int_equal(shrink(&scenario, plays_badly, &injected), 0);
	assert_int_equal(scenario.vm_count, 1);
	assert_true(scenario.event_count + (scenario.vms[0].fault_every > 0) == 1);
	assert_true(plays_badly(&injected, &scenario, &at_ns));
	watch_fini(&injected.watch);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_is_left_but_what_fails),
		cmocka_unit_test(test_violation_of_a_run),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
