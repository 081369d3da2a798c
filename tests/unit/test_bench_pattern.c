/* SPDX-License-Identifier: MIT */
/*
 * The loads of the measurements: when a job is due, from when its latency counts, and
 * what is skipped. An error here would make every table a lie.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "../bench/gpu_pattern.h"
#include "base/units.h"
#include "base/util.h"
#include "vgpu/protocol.h"

enum { RAMP_NS = 1000, WINDOW_NS = 2000 };

#define END_NS (10 * NS_PER_SEC)

static void parse(struct pattern *pattern, const char *text)
{
	char copy[256];

	snprintf(copy, sizeof(copy), "%s", text);
	assert_int_equal(pattern_parse(pattern, copy), 0);
}

static void start(struct actor *actor, struct pattern *pattern, const char *text)
{
	parse(pattern, text);
	actor_init(actor, pattern, 1, RAMP_NS, WINDOW_NS, END_NS);
}

static void test_text_becomes_pattern(void **state UNUSED)
{
	struct pattern pattern;

	parse(&pattern, "name=a,socket=/x.sock,op=hang,us=5-9,depth=64,period=5000,jitter=20,"
	                "think=7,fault_every=3,start=10,stop=20,count=2,kill=30,retry=1,samples=1");
	assert_string_equal(pattern.name, "a");
	assert_string_equal(pattern.socket, "/x.sock");
	assert_int_equal(pattern.opcode, VGPU_OP_HANG);
	assert_int_equal(pattern.min_us, 5);
	assert_int_equal(pattern.max_us, 9);
	assert_int_equal(pattern.depth, 64);
	assert_int_equal(pattern.period_us, 5000);
	assert_int_equal(pattern.jitter_percent, 20);
	assert_int_equal(pattern.think_us, 7);
	assert_int_equal(pattern.fault_every, 3);
	assert_int_equal(pattern.start_ms, 10);
	assert_int_equal(pattern.stop_ms, 20);
	assert_int_equal(pattern.count, 2);
	assert_int_equal(pattern.kill_ms, 30);
	assert_int_equal(pattern.retry, 1);
	assert_int_equal(pattern.samples, 1);
}

static void test_closed_loop_keeps_its_depth(void **state UNUSED)
{
	struct pattern pattern;
	struct actor actor;

	start(&actor, &pattern, "depth=2,think=5");
	assert_int_equal(actor_due_ns(&actor, 0), RAMP_NS);
	for (int i = 0; i < 2; i++) {
		assert_true(actor_due_ns(&actor, RAMP_NS) <= RAMP_NS);
		assert_int_equal(actor_take(&actor, RAMP_NS).planned_ns, RAMP_NS);
	}
	assert_int_equal(actor_due_ns(&actor, RAMP_NS), PATTERN_NEVER);
	actor_answered(&actor, 50000);
	assert_int_equal(actor_due_ns(&actor, 50000), 50000 + 5 * NS_PER_US);
	assert_int_equal(actor_due_ns(&actor, END_NS), PATTERN_NEVER);
}

static void test_late_period_counts_from_its_plan(void **state UNUSED)
{
	struct pattern pattern;
	struct actor actor;
	int64_t first_ns;

	start(&actor, &pattern, "period=1000,depth=64");
	first_ns = actor_due_ns(&actor, 0);
	assert_in_range(first_ns, RAMP_NS, RAMP_NS + NS_PER_MS);
	/* Ten periods late: all jobs are due at once, each with its own time. */
	for (int i = 0; i < 10; i++) {
		assert_int_equal(actor_due_ns(&actor, first_ns + 9 * NS_PER_MS),
		                 first_ns + i * NS_PER_MS);
		assert_int_equal(actor_take(&actor, first_ns + 9 * NS_PER_MS).planned_ns,
		                 first_ns + i * NS_PER_MS);
	}
	assert_int_equal(actor_due_ns(&actor, first_ns + 9 * NS_PER_MS), first_ns + 10 * NS_PER_MS);
	assert_int_equal(actor.skipped, 0);
}

static void test_period_without_room_is_skipped(void **state UNUSED)
{
	struct pattern pattern;
	struct actor actor;
	int64_t first_ns;

	start(&actor, &pattern, "period=1000,depth=1");
	first_ns = actor_due_ns(&actor, 0);
	actor_take(&actor, first_ns);
	assert_int_equal(actor_due_ns(&actor, first_ns + 5 * NS_PER_MS + 1),
	                 first_ns + 6 * NS_PER_MS);
	assert_int_equal(actor.skipped, 5);
	actor_answered(&actor, first_ns + 5 * NS_PER_MS + 2);
	assert_int_equal(actor_due_ns(&actor, first_ns + 5 * NS_PER_MS + 2),
	                 first_ns + 6 * NS_PER_MS);
}

static void test_start_stop_and_count(void **state UNUSED)
{
	struct pattern pattern;
	struct actor actor;

	start(&actor, &pattern, "start=3,stop=9,count=2,depth=9,us=10-20,fault_every=2");
	assert_int_equal(actor_due_ns(&actor, 0), WINDOW_NS + 3 * NS_PER_MS);
	assert_int_equal(actor_due_ns(&actor, WINDOW_NS + 9 * NS_PER_MS), PATTERN_NEVER);
	assert_in_range(actor_take(&actor, WINDOW_NS + 3 * NS_PER_MS).us, 10, 20);
	assert_int_equal(actor_take(&actor, WINDOW_NS + 3 * NS_PER_MS).opcode, VGPU_OP_FAULT);
	assert_int_equal(actor_due_ns(&actor, WINDOW_NS + 4 * NS_PER_MS), PATTERN_NEVER);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text_becomes_pattern),
		cmocka_unit_test(test_closed_loop_keeps_its_depth),
		cmocka_unit_test(test_late_period_counts_from_its_plan),
		cmocka_unit_test(test_period_without_room_is_skipped),
		cmocka_unit_test(test_start_stop_and_count),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
