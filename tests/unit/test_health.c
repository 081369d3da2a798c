/* SPDX-License-Identifier: MIT */
/*
 * The health of a GPU: every rule with its hold times, every Xid, and what operators live
 * through, with a clock that the test turns. test_health_reset.c has what a reset mends.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/units.h"
#include "base/util.h"
#include "health_world.h"

/* ---- Rules -------------------------------------------------------------------------- */

static void test_starts_unknown(void **state)
{
	struct health_world *world = *state;

	assert_state(world, "unknown");
	assert_false(health_needs_drain(world->health));
	assert_string_equal(news(world), "");
	poll_readings(world, 1);
	assert_state(world, "ok");
	assert_null(health_next_reason(world->health, NULL));
	assert_string_equal(news(world), "-no_readings");
	assert_string_equal(news(world), "");
}

static void test_overheating_and_recovery(void **state)
{
	struct health_world *world = *state;

	see(world, HEALTH_TEMPERATURE_C, 86);
	poll_readings(world, 20);
	assert_state(world, "ok");
	news(world);

	/* Five seconds at the threshold, not less. */
	see(world, HEALTH_TEMPERATURE_C, 87);
	poll_readings(world, 4);
	assert_state(world, "ok");
	poll_readings(world, 1);
	assert_state(world, "degraded");
	assert_string_equal(news(world), "+temperature");
	assert_non_null(strstr(reason(world, "temperature")->message, "87 degrees"));
	assert_int_equal(reason(world, "temperature")->since_ns, world->now_ns);
	assert_false(health_needs_drain(world->health));

	/* A little cooler is not enough; well below, but not for long, neither. */
	see(world, HEALTH_TEMPERATURE_C, 83);
	poll_readings(world, 30);
	assert_state(world, "degraded");
	see(world, HEALTH_TEMPERATURE_C, 82);
	poll_readings(world, 8);
	see(world, HEALTH_TEMPERATURE_C, 84);
	see(world, HEALTH_TEMPERATURE_C, 82);
	poll_readings(world, 9);
	assert_state(world, "degraded");
	poll_readings(world, 1);
	assert_state(world, "ok");
	assert_string_equal(news(world), "-temperature");
}

static void test_a_short_peak_is_no_reason(void **state)
{
	struct health_world *world = *state;

	for (int i = 0; i < 10; i++) {
		see(world, HEALTH_TEMPERATURE_C, 95);
		poll_readings(world, 3);
		see(world, HEALTH_TEMPERATURE_C, 80);
	}
	assert_state(world, "ok");
}

static void test_temperature_without_threshold(void **state)
{
	struct health_world *world = *state;

	world->reading.valid &= ~(1u << HEALTH_SLOWDOWN_C);
	see(world, HEALTH_TEMPERATURE_C, 89);
	poll_readings(world, 10);
	assert_state(world, "ok");
	see(world, HEALTH_TEMPERATURE_C, 90);
	poll_readings(world, 5);
	assert_state(world, "degraded");
}

static void test_margin_is_believed_first(void **state)
{
	struct health_world *world = *state;

	health_reading_put(&world->reading, HEALTH_TEMPERATURE_C, 99);
	see(world, HEALTH_MARGIN_C, 1);
	poll_readings(world, 10);
	assert_state(world, "ok");
	see(world, HEALTH_MARGIN_C, 0);
	poll_readings(world, 5);
	assert_state(world, "degraded");
	see(world, HEALTH_MARGIN_C, 4);
	poll_readings(world, 30);
	assert_state(world, "degraded");
	see(world, HEALTH_MARGIN_C, 5);
	poll_readings(world, 10);
	assert_state(world, "ok");
}

static void test_a_missing_value_changes_nothing(void **state)
{
	struct health_world *world = *state;

	see(world, HEALTH_TEMPERATURE_C, 95);
	poll_readings(world, 5);
	assert_state(world, "degraded");
	world->reading.valid &= ~(1u << HEALTH_TEMPERATURE_C);
	poll_readings(world, 60);
	assert_state(world, "degraded");
}

static void test_throttling(void **state)
{
	static const struct {
		int64_t bits;
		const char *code;
	} rows[] = {
		{0x08, "throttle_hardware"},
		{0x48, "throttle_thermal"},
		{0x88, "throttle_power_brake"},
	};
	struct health_world *world = *state;

	poll_readings(world, 1);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		see(world, HEALTH_CLOCK_REASONS, rows[i].bits);
		poll_readings(world, 1);
		assert_state(world, "ok");
		poll_readings(world, 1);
		assert_state(world, "degraded");
		assert_non_null(reason(world, rows[i].code));
		assert_null(health_next_reason(world->health, reason(world, rows[i].code)));
		see(world, HEALTH_CLOCK_REASONS, 0x1);
		poll_readings(world, 9);
		assert_state(world, "degraded");
		poll_readings(world, 1);
		assert_state(world, "ok");
	}
	/* Idle, application clocks, the power cap: all in order. */
	see(world, HEALTH_CLOCK_REASONS, 0x1 | 0x2 | 0x4 | 0x10 | 0x100);
	poll_readings(world, 10);
	assert_state(world, "ok");
}

static void test_ecc_counts_what_happens(void **state)
{
	struct health_world *world = *state;
	struct health_counters counters;

	/* What was there before is not held against it. */
	poll_readings(world, 1);
	assert_state(world, "ok");
	see(world, HEALTH_ECC_CORRECTED, 9);
	assert_state(world, "ok");
	see(world, HEALTH_ECC_UNCORRECTED, 4);
	assert_state(world, "degraded");
	assert_non_null(reason(world, "ecc_uncorrected"));
	/* Cleared by an operator: no errors, and the old state stays. */
	see(world, HEALTH_ECC_UNCORRECTED, 0);
	assert_state(world, "degraded");
	see(world, HEALTH_ECC_UNCORRECTED, 1);
	health_counters(world->health, &counters);
	assert_int_equal(counters.ecc_corrected, 2);
	assert_int_equal(counters.ecc_uncorrected, 2);
	assert_int_equal(counters.resets, 0);
	/* An hour after the last one. */
	poll_readings(world, HEALTH_REPORT_S - 1);
	assert_state(world, "degraded");
	poll_readings(world, 1);
	assert_state(world, "ok");
}

static void test_row_remap_pending(void **state)
{
	struct health_world *world = *state;

	poll_readings(world, 1);
	see(world, HEALTH_ROWS_PENDING, 1);
	poll_readings(world, 1);
	assert_state(world, "ok");
	poll_readings(world, 1);
	assert_state(world, "degraded");
	assert_false(health_needs_drain(world->health));
	assert_false(health_needs_reset(world->health));
	poll_readings(world, 2 * HEALTH_REPORT_S);
	assert_state(world, "degraded");
	/* The operator resets it. */
	health_readings_stopped(world->health, world->now_ns, "released");
	health_mended(world->health, world->now_ns, HEALTH_MEND_RESET);
	see_lasting(world, HEALTH_ROWS_PENDING, 0);
	assert_state(world, "ok");
}

static void test_pages_pending(void **state)
{
	struct health_world *world = *state;

	see_lasting(world, HEALTH_PAGES_PENDING, 1);
	assert_state(world, "degraded");
	see_lasting(world, HEALTH_PAGES_PENDING, 0);
	assert_state(world, "ok");
}

static void test_row_remap_failed(void **state)
{
	struct health_world *world = *state;

	see_lasting(world, HEALTH_ROWS_FAILED, 1);
	assert_state(world, "draining");
	assert_true(health_needs_drain(world->health));
	/* A reset cannot mend it: nobody should try for ever. */
	assert_false(health_needs_reset(world->health));
	health_mended(world->health, world->now_ns, HEALTH_MEND_RESET);
	poll_readings(world, 3);
	assert_state(world, "draining");
}

static void test_recovery_actions(void **state)
{
	struct health_world *world = *state;

	see(world, HEALTH_RECOVERY_ACTION, HEALTH_RECOVERY_NONE);
	assert_state(world, "ok");
	see_lasting(world, HEALTH_RECOVERY_ACTION, HEALTH_RECOVERY_DRAIN_AND_RESET);
	assert_state(world, "draining");
	assert_true(health_needs_reset(world->health));
	/* Somebody has reset it. */
	see_lasting(world, HEALTH_RECOVERY_ACTION, HEALTH_RECOVERY_NONE);
	assert_state(world, "ok");
	assert_int_equal(resets(world), 1);
	see_lasting(world, HEALTH_RECOVERY_ACTION, HEALTH_RECOVERY_REBOOT);
	assert_state(world, "failed");
	assert_false(health_needs_reset(world->health));
	see_lasting(world, HEALTH_RECOVERY_ACTION, 5);
	assert_state(world, "degraded");
	assert_non_null(strstr(reason(world, "recovery_wanted")->message, "action 5"));
	see_lasting(world, HEALTH_RECOVERY_ACTION, 64 + HEALTH_RECOVERY_RESET);
	assert_state(world, "degraded");
}

/* What comes and goes every few seconds is one piece of news, not many. */
static void test_values_that_flap(void **state)
{
	static const struct {
		enum health_value value;
		int64_t bad;
		const char *code;
		const char *held;
	} rows[] = {
		{HEALTH_ROWS_PENDING, 1, "row_remap_pending", "degraded"},
		{HEALTH_ROWS_FAILED, 1, "row_remap_failed", "draining"},
		{HEALTH_PAGES_PENDING, 1, "page_retirement_pending", "degraded"},
		{HEALTH_RECOVERY_ACTION, HEALTH_RECOVERY_RESET, "reset_wanted", "draining"},
		{HEALTH_RECOVERY_ACTION, HEALTH_RECOVERY_REBOOT, "reboot_wanted", "failed"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct health_world *world = *state;

		poll_readings(world, 1);
		news(world);
		for (int j = 0; j < 10; j++) {
			see(world, rows[i].value, rows[i].bad);
			assert_state(world, "ok");
			see(world, rows[i].value, 0);
		}
		assert_string_equal(news(world), "");
		see_lasting(world, rows[i].value, rows[i].bad);
		assert_string_equal(news(world) + 1, rows[i].code);
		for (int j = 0; j < 10; j++) {
			see(world, rows[i].value, 0);
			poll_readings(world, HEALTH_SETTLE_S - 1);
			see(world, rows[i].value, rows[i].bad);
			assert_state(world, rows[i].held);
		}
		assert_string_equal(news(world), "");
		assert_int_equal(resets(world), 0);
		health_world_free(state);
		assert_int_equal(health_world_new(state), 0);
	}
}

/* ---- Xid errors --------------------------------------------------------------------- */

static uint64_t xid_count(const struct health_world *world, uint64_t number)
{
	uint64_t is, count;

	for (size_t i = 0; health_xid_count(world->health, i, &is, &count); i++) {
		if (is == number)
			return count;
	}
	return UINT64_MAX;
}

static void test_every_xid(void **state)
{
	/* Five states for five kinds; the numbers are those of the design. */
	static const struct {
		const char *state;
		uint32_t numbers[12];
	} rows[] = {
		{"ok", {13, 31, 43, 45, 68, 109, 1, 999}},
		{"degraded", {63, 92, 94, 154}},
		{"draining", {48, 62, 64, 74, 79, 95, 119, 120, 140}},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		for (const uint32_t *number = rows[i].numbers; *number; number++) {
			struct health_world *world = *state;

			poll_readings(world, 1);
			xid(world, *number);
			poll_readings(world, 1);
			assert_state(world, rows[i].state);
			assert_int_equal(health_needs_drain(world->health), i == 2);
			assert_int_equal(health_needs_reset(world->health), i == 2);
			assert_int_equal(xid_count(world, *number), 1);
			health_world_free(state);
			assert_int_equal(health_world_new(state), 0);
		}
	}
}

static void test_xid_table_is_whole(void **state)
{
	uint32_t before = 0;

	for (size_t i = 0; i < HEALTH_XID_COUNT; i++) {
		assert_true(health_xids[i].number > before);
		assert_non_null(health_xids[i].text);
		before = health_xids[i].number;
	}
	assert_int_equal(health_xids[HEALTH_XID_COUNT].number, 0);
	assert_ptr_equal(health_xid_find(79), health_xid_find(79));
	assert_int_equal(health_xid_find(79)->number, 79);
	assert_int_equal(health_xid_find(UINT64_C(1) << 40)->class, HEALTH_XID_NOTED);
}

static void test_xid_counters(void **state)
{
	struct health_world *world = *state;
	uint64_t number, count, all = 0;
	size_t i;

	/* All of the table from the start, at 0. */
	for (i = 0; health_xid_count(world->health, i, &number, &count); i++)
		assert_int_equal(count, 0);
	assert_int_equal(i, HEALTH_XID_COUNT);
	xid(world, 31);
	xid(world, 31);
	for (uint64_t other = 500; other < 500 + 100; other++)
		xid(world, other);
	assert_int_equal(xid_count(world, 31), 2);
	assert_int_equal(xid_count(world, 500), 1);
	assert_int_equal(xid_count(world, 0), 100 - HEALTH_OTHER_XIDS);
	for (i = 0; health_xid_count(world->health, i, &number, &count); i++)
		all += count;
	assert_int_equal(all, 102);
	assert_int_equal(i, HEALTH_XID_COUNT + HEALTH_OTHER_XIDS + 1);
}

static void test_xid_94_is_contained(void **state)
{
	struct health_world *world = *state;

	poll_readings(world, 1);
	xid(world, 94);
	assert_state(world, "degraded");
	assert_false(health_needs_drain(world->health));
	/* Again: the hour starts anew, since stays. */
	poll_readings(world, HEALTH_REPORT_S - 10);
	xid(world, 94);
	poll_readings(world, HEALTH_REPORT_S - 1);
	assert_state(world, "degraded");
	assert_true(world->now_ns - reason(world, "xid_contained")->since_ns >
	            HEALTH_REPORT_S * NS_PER_SEC);
	poll_readings(world, 1);
	assert_state(world, "ok");
}

static void test_xid_154_where_the_action_is_known(void **state)
{
	struct health_world *world = *state;

	/* It is also sent when the action goes back to none. */
	see(world, HEALTH_RECOVERY_ACTION, HEALTH_RECOVERY_NONE);
	xid(world, 154);
	assert_state(world, "ok");
	see_lasting(world, HEALTH_RECOVERY_ACTION, HEALTH_RECOVERY_RESET);
	assert_state(world, "draining");
}

/* ---- Stories ------------------------------------------------------------------------ */

static void test_hang_after_119_hides_nothing(void **state)
{
	struct health_world *world = *state;

	poll_readings(world, 1);
	xid(world, 119);
	world->now_ns += 5 * NS_PER_SEC;
	health_readings_stopped(world->health, world->now_ns, "no answer for 5 s");
	assert_state(world, "draining");
	assert_true(health_needs_drain(world->health));
	assert_true(health_needs_reset(world->health));
	assert_non_null(reason(world, "no_readings"));
}

static void test_nvml_hangs_for_20_s(void **state)
{
	struct health_world *world = *state;

	see_lasting(world, HEALTH_ROWS_PENDING, 1);
	see(world, HEALTH_TEMPERATURE_C, 95);
	poll_readings(world, 5);
	assert_state(world, "degraded");
	news(world);
	world->now_ns += 5 * NS_PER_SEC;
	health_readings_stopped(world->health, world->now_ns, "no answer for 5 s");
	assert_state(world, "unknown");
	assert_false(health_needs_drain(world->health));
	assert_string_equal(news(world), "+no_readings");
	assert_non_null(strstr(reason(world, "no_readings")->message, "for 5 s"));
	/* Told again, with another text: still one piece of news. */
	health_readings_stopped(world->health, world->now_ns, "no answer for 15 s");
	assert_string_equal(news(world), "");
	world->now_ns += 15 * NS_PER_SEC;
	poll_readings(world, HEALTH_SETTLE_S);
	assert_state(world, "unknown");
	poll_readings(world, 1);
	assert_state(world, "degraded");
	assert_non_null(reason(world, "temperature"));
	assert_non_null(reason(world, "row_remap_pending"));
	assert_string_equal(news(world), "-no_readings");
}

static void test_nvml_that_flaps(void **state)
{
	struct health_world *world = *state;

	poll_readings(world, 1);
	news(world);
	for (int i = 0; i < 20; i++) {
		world->now_ns += 5 * NS_PER_SEC;
		health_readings_stopped(world->health, world->now_ns, "no answer for 5 s");
		poll_readings(world, HEALTH_SETTLE_S);
		assert_state(world, "unknown");
	}
	assert_string_equal(news(world), "+no_readings");
	/* The same with errors of one GPU. */
	poll_readings(world, 1);
	assert_string_equal(news(world), "-no_readings");
	world->reading.contact = HEALTH_UNREACHABLE;
	poll_readings(world, 3);
	for (int i = 0; i < 20; i++) {
		world->reading.contact = HEALTH_ANSWERS;
		poll_readings(world, HEALTH_SETTLE_S - 1);
		world->reading.contact = HEALTH_UNREACHABLE;
		poll_readings(world, 3);
		assert_state(world, "unknown");
	}
	assert_string_equal(news(world), "+unreachable");
}

static void test_silence_does_not_count_as_cool(void **state)
{
	struct health_world *world = *state;

	see(world, HEALTH_TEMPERATURE_C, 95);
	poll_readings(world, 5);
	see(world, HEALTH_TEMPERATURE_C, 60);
	health_readings_stopped(world->health, world->now_ns, "no answer");
	world->now_ns += 60 * NS_PER_SEC;
	poll_readings(world, HEALTH_SETTLE_S + 1);
	assert_state(world, "degraded");
	poll_readings(world, 10);
	assert_state(world, "ok");
}

/* Nobody is alarmed by a pause that was meant; what it hides is what is not known. */
static void test_readings_that_pause(void **state)
{
	struct health_world *world = *state;

	see(world, HEALTH_TEMPERATURE_C, 95);
	poll_readings(world, 3);
	news(world);
	health_readings_paused(world->health, world->now_ns, "another is reset");
	assert_state(world, "ok");
	assert_string_equal(news(world), "+readings_paused");
	assert_string_equal(reason(world, "readings_paused")->message, "another is reset");
	/* The heat has not been seen to last. */
	world->now_ns += 60 * NS_PER_SEC;
	poll_readings(world, 1);
	assert_string_equal(news(world), "-readings_paused");
	assert_state(world, "ok");
	poll_readings(world, 5);
	assert_state(world, "degraded");
	/* What held before holds during the pause. */
	health_readings_paused(world->health, world->now_ns, "another is reset");
	assert_state(world, "degraded");
	/* NVML does not come back: that is no pause any more. */
	news(world);
	health_readings_stopped(world->health, world->now_ns, "no answer");
	assert_state(world, "unknown");
	assert_string_equal(news(world), "+no_readings-readings_paused");
	/* And one that begins while nothing is known changes nothing. */
	health_readings_paused(world->health, world->now_ns, "another is reset");
	assert_state(world, "unknown");
	assert_string_equal(news(world), "");
}

static void test_nvml_absent(void **state)
{
	struct health_world *world = *state;

	health_readings_stopped(world->health, world->now_ns, "libnvidia-ml.so.1 not found");
	assert_state(world, "unknown");
	assert_false(health_needs_drain(world->health));
	assert_string_equal(reason(world, "no_readings")->message, "libnvidia-ml.so.1 not found");
}

static void test_unreachable(void **state)
{
	struct health_world *world = *state;

	poll_readings(world, 1);
	world->reading.contact = HEALTH_UNREACHABLE;
	strcpy(world->reading.error, "Not Found");
	poll_readings(world, 1);
	assert_state(world, "ok");
	poll_readings(world, 2);
	assert_state(world, "unknown");
	assert_non_null(strstr(reason(world, "unreachable")->message, "Not Found"));
	world->reading.contact = HEALTH_ANSWERS;
	poll_readings(world, HEALTH_SETTLE_S + 1);
	assert_state(world, "ok");
}

/* Whichever worker starts there: the GPU is not what keeps the others from it. */
static void test_workers_that_do_not_start(void **state)
{
	struct health_world *world = *state;

	poll_readings(world, 1);
	news(world);
	assert_false(health_started(world->health));
	health_starts_fail(world->health, world->now_ns, "VM a");
	assert_state(world, "degraded");
	assert_false(health_needs_drain(world->health));
	assert_non_null(strstr(reason(world, "starts_fail")->message, "VM a"));
	poll_readings(world, 2 * HEALTH_REPORT_S);
	assert_string_equal(news(world), "+starts_fail");
	assert_true(health_started(world->health));
	assert_string_equal(news(world), "-starts_fail");
	assert_state(world, "ok");
}

static void test_reasons_come_worst_first(void **state)
{
	struct health_world *world = *state;
	const struct health_reason *r = NULL;
	enum health_state before = HEALTH_FAILED;
	int count = 0;

	see_lasting(world, HEALTH_ROWS_PENDING, 1);
	xid(world, 94);
	xid(world, 48);
	health_readings_stopped(world->health, world->now_ns, "gone");
	health_reset_failed(world->health, world->now_ns, "no");
	while ((r = health_next_reason(world->health, r))) {
		assert_true(r->level <= before);
		assert_true(r->remedy[0] != '\0' && r->message[0] != '\0');
		before = r->level;
		count++;
	}
	assert_int_equal(count, 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_starts_unknown),
		TEST(test_overheating_and_recovery),
		TEST(test_a_short_peak_is_no_reason),
		TEST(test_temperature_without_threshold),
		TEST(test_margin_is_believed_first),
		TEST(test_a_missing_value_changes_nothing),
		TEST(test_throttling),
		TEST(test_ecc_counts_what_happens),
		TEST(test_row_remap_pending),
		TEST(test_pages_pending),
		TEST(test_row_remap_failed),
		TEST(test_recovery_actions),
		TEST(test_values_that_flap),
		TEST(test_every_xid),
		TEST(test_xid_table_is_whole),
		TEST(test_xid_counters),
		TEST(test_xid_94_is_contained),
		TEST(test_xid_154_where_the_action_is_known),
		TEST(test_hang_after_119_hides_nothing),
		TEST(test_nvml_hangs_for_20_s),
		TEST(test_nvml_that_flaps),
		TEST(test_silence_does_not_count_as_cool),
		TEST(test_readings_that_pause),
		TEST(test_nvml_absent),
		TEST(test_unreachable),
		TEST(test_workers_that_do_not_start),
		TEST(test_reasons_come_worst_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
