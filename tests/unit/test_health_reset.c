/* SPDX-License-Identifier: MIT */
/*
 * What mends a GPU that needs a reset, and what does not: a real one, ours or somebody
 * else's, a fresh context, an operator's word, a restart.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/units.h"
#include "base/util.h"
#include "health_world.h"

static void test_xid_48_needs_a_reset(void **state)
{
	struct health_world *world = *state;
	struct health_counters counters;

	poll_readings(world, 1);
	xid(world, 48);
	assert_state(world, "draining");
	assert_non_null(strstr(reason(world, "xid_reset")->message, "Xid 48"));
	/* Time heals nothing. */
	poll_readings(world, 3 * HEALTH_REPORT_S);
	assert_state(world, "draining");
	health_readings_stopped(world->health, world->now_ns, "released for the reset");
	assert_state(world, "draining");
	health_mended(world->health, world->now_ns, HEALTH_MEND_RESET);
	assert_state(world, "unknown");
	/* Counters start anew: this one is not compared with the last. */
	see_lasting(world, HEALTH_ECC_UNCORRECTED, 9);
	assert_state(world, "ok");
	health_counters(world->health, &counters);
	assert_int_equal(counters.resets, 1);
	assert_int_equal(counters.ecc_uncorrected, 0);
}

static void test_lost_and_back(void **state)
{
	struct health_world *world = *state;
	struct health_counters counters;

	poll_readings(world, 1);
	xid(world, 79);
	world->reading.contact = HEALTH_LOST;
	poll_readings(world, 1);
	assert_state(world, "failed");
	assert_true(health_needs_drain(world->health));
	assert_true(health_needs_reset(world->health));
	/* Whatever else it says now, it is not back. */
	world->reading.contact = HEALTH_UNREACHABLE;
	poll_readings(world, 60);
	assert_state(world, "failed");
	world->reading.contact = HEALTH_RESET_REQUIRED;
	poll_readings(world, 60);
	assert_state(world, "failed");
	/* One answer is not enough. */
	world->reading.contact = HEALTH_ANSWERS;
	poll_readings(world, 2);
	world->reading.contact = HEALTH_LOST;
	poll_readings(world, 1);
	world->reading.contact = HEALTH_ANSWERS;
	see(world, HEALTH_ECC_UNCORRECTED, 0);
	poll_readings(world, 2);
	assert_state(world, "failed");
	poll_readings(world, 1);
	assert_state(world, "ok");
	health_counters(world->health, &counters);
	assert_int_equal(counters.resets, 1);
	assert_int_equal(counters.ecc_uncorrected, 0);
}

static void test_reset_required(void **state)
{
	struct health_world *world = *state;

	poll_readings(world, 1);
	world->reading.contact = HEALTH_RESET_REQUIRED;
	poll_readings(world, 1);
	assert_state(world, "draining");
	assert_true(health_needs_reset(world->health));
	health_mended(world->health, world->now_ns, HEALTH_MEND_RESET);
	world->reading.contact = HEALTH_ANSWERS;
	poll_readings(world, 1);
	assert_state(world, "ok");
}

/* It did not answer at the start: a fresh context later is all that was missing. */
static void test_no_context_at_the_start(void **state)
{
	struct health_world *world = *state;

	health_no_context(world->health, world->now_ns);
	poll_readings(world, 5);
	assert_state(world, "failed");
	assert_true(health_needs_drain(world->health) && health_needs_reset(world->health));
	health_mended(world->health, world->now_ns, HEALTH_MEND_FRESH);
	assert_state(world, "ok");
	assert_false(health_needs_drain(world->health));
	health_no_context(world->health, world->now_ns);
	health_reset_failed(world->health, world->now_ns, "the probe exited with status 69");
	assert_state(world, "failed");
	assert_false(health_needs_reset(world->health));
}

static void test_reset_fails(void **state)
{
	struct health_world *world = *state;

	poll_readings(world, 1);
	xid(world, 95);
	health_reset_failed(world->health, world->now_ns, "exit status 1");
	assert_state(world, "failed");
	assert_true(health_needs_drain(world->health));
	assert_false(health_needs_reset(world->health));
	assert_non_null(strstr(reason(world, "reset_failed")->message, "exit status 1"));
	/* An operator has mended it. */
	health_mended(world->health, world->now_ns, HEALTH_MEND_RESET);
	poll_readings(world, 1);
	assert_state(world, "ok");
}

/* A context that works is no reset: it counts as none, and hides none. */
static void test_a_fresh_context_is_no_reset(void **state)
{
	struct health_world *world = *state;

	poll_readings(world, 1);
	see(world, HEALTH_ECC_UNCORRECTED, 4);
	xid(world, 48);
	xid(world, 63);
	health_mended(world->health, world->now_ns, HEALTH_MEND_FRESH);
	assert_int_equal(resets(world), 0);
	/* The need of a reset is over; what is wrong with the memory is not. */
	assert_state(world, "degraded");
	assert_false(health_needs_drain(world->health));
	assert_null(reason(world, "xid_reset"));
	assert_non_null(reason(world, "ecc_uncorrected"));
	assert_non_null(reason(world, "xid_warning"));
	/* It did not last. */
	poll_readings(world, 5);
	world->reading.contact = HEALTH_RESET_REQUIRED;
	poll_readings(world, 1);
	assert_non_null(reason(world, "reset_in_vain"));
	assert_state(world, "failed");
	/* Somebody resets it, seconds after that context. */
	world->reading.contact = HEALTH_ANSWERS;
	poll_readings(world, HEALTH_RETURN_S + 1);
	assert_state(world, "ok");
	assert_int_equal(resets(world), 1);
}

/* Where the driver says that it needs a reset, a context that works changes nothing. */
static void test_a_fresh_context_is_not_enough(void **state)
{
	static const enum health_contact contacts[] = {HEALTH_LOST, HEALTH_RESET_REQUIRED};

	for (size_t i = 0; i < ARRAY_LEN(contacts); i++) {
		struct health_world *world = *state;

		poll_readings(world, 1);
		world->reading.contact = contacts[i];
		poll_readings(world, 1);
		assert_true(health_needs_reset(world->health));
		health_mended(world->health, world->now_ns, HEALTH_MEND_FRESH);
		assert_true(health_needs_drain(world->health));
		assert_false(health_needs_reset(world->health));
		assert_state(world, "failed");
		world->reading.contact = HEALTH_ANSWERS;
		poll_readings(world, HEALTH_RETURN_S + 1);
		assert_state(world, "ok");
		assert_int_equal(resets(world), 1);
		health_world_free(state);
		assert_int_equal(health_world_new(state), 0);
	}
}

static void test_an_operators_word_is_no_reset(void **state)
{
	struct health_world *world = *state;

	poll_readings(world, 1);
	xid(world, 95);
	health_reset_failed(world->health, world->now_ns, "exit status 1");
	health_mended(world->health, world->now_ns, HEALTH_MEND_WORD);
	poll_readings(world, 1);
	assert_state(world, "ok");
	assert_int_equal(resets(world), 0);
	/* And worth another try. */
	xid(world, 95);
	assert_null(reason(world, "reset_in_vain"));
	assert_true(health_needs_reset(world->health));
}

/* Where the driver does not tell what it wants, repairs that are done tell of a reset. */
static void test_repairs_that_are_done_tell_of_a_reset(void **state)
{
	static const enum health_value values[] = {HEALTH_ROWS_PENDING, HEALTH_PAGES_PENDING};

	for (size_t i = 0; i < ARRAY_LEN(values); i++) {
		struct health_world *world = *state;

		see_lasting(world, values[i], 1);
		xid(world, 48);
		health_reset_failed(world->health, world->now_ns, "exit status 1");
		assert_state(world, "failed");
		see_lasting(world, values[i], 0);
		assert_state(world, "ok");
		assert_int_equal(resets(world), 1);
		health_world_free(state);
		assert_int_equal(health_world_new(state), 0);
	}
}

static void test_no_endless_resets(void **state)
{
	struct health_world *world = *state;

	poll_readings(world, 1);
	xid(world, 62);
	health_mended(world->health, world->now_ns, HEALTH_MEND_RESET);
	poll_readings(world, HEALTH_RESET_TRUST_S - 1);
	xid(world, 62);
	assert_state(world, "failed");
	assert_false(health_needs_reset(world->health));
	assert_non_null(reason(world, "reset_in_vain"));

	/* Long after a reset it is a new case. */
	health_mended(world->health, world->now_ns, HEALTH_MEND_RESET);
	poll_readings(world, HEALTH_RESET_TRUST_S);
	xid(world, 62);
	assert_state(world, "draining");
	assert_true(health_needs_reset(world->health));
}

static void test_what_drains_outlives_a_restart(void **state)
{
	struct health_world *world = *state;
	struct health *health = world->health;
	int64_t since_ns = world->now_ns - 5 * NS_PER_SEC;
	struct health_counters counters;

	assert_true(health_restore(health, world->now_ns, "xid_reset", since_ns, "Xid 48: …"));
	assert_true(health_restore(health, world->now_ns, "reset_failed", since_ns, "status 3"));
	assert_true(health_restore(health, world->now_ns, "lost", since_ns, "it is lost"));
	/* Those that only degrade show again by themselves. */
	assert_false(health_restore(health, world->now_ns, "temperature", since_ns, "hot"));
	assert_false(health_restore(health, world->now_ns, "by_hand", since_ns, ""));
	assert_state(world, "failed");
	assert_true(health_needs_drain(health));
	assert_false(health_needs_reset(health));
	assert_string_equal(reason(world, "reset_failed")->message, "status 3");
	assert_int_equal(reason(world, "reset_failed")->since_ns, since_ns);
	assert_string_equal(news(world), "+lost+reset_failed+xid_reset");
	/* It was lost before the restart and answers now: somebody has reset it. */
	poll_readings(world, 5);
	assert_state(world, "ok");
	health_counters(health, &counters);
	assert_int_equal(counters.resets, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_xid_48_needs_a_reset),
		TEST(test_lost_and_back),
		TEST(test_reset_required),
		TEST(test_no_context_at_the_start),
		TEST(test_reset_fails),
		TEST(test_a_fresh_context_is_no_reset),
		TEST(test_a_fresh_context_is_not_enough),
		TEST(test_an_operators_word_is_no_reset),
		TEST(test_repairs_that_are_done_tell_of_a_reset),
		TEST(test_no_endless_resets),
		TEST(test_what_drains_outlives_a_restart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
