/* SPDX-License-Identifier: MIT */
/*
 * The health of a GPU: every rule with its hold times, every Xid, and the stories that
 * operators live through, with a clock that the test turns.
 */
#include "core/watch/health.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/units.h"
#include "base/util.h"

struct world {
	struct health *health;
	struct health_reading reading;
	int64_t now_ns;
};

static int setup(void **state)
{
	static struct world world;

	memset(&world, 0, sizeof(world));
	world.now_ns = 1000 * NS_PER_SEC;
	health_reading_put(&world.reading, HEALTH_TEMPERATURE_C, 50);
	health_reading_put(&world.reading, HEALTH_SLOWDOWN_C, 87);
	health_reading_put(&world.reading, HEALTH_CLOCK_REASONS, 1);
	health_reading_put(&world.reading, HEALTH_ECC_CORRECTED, 7);
	health_reading_put(&world.reading, HEALTH_ECC_UNCORRECTED, 3);
	health_reading_put(&world.reading, HEALTH_ROWS_PENDING, 0);
	health_reading_put(&world.reading, HEALTH_ROWS_FAILED, 0);
	health_reading_put(&world.reading, HEALTH_PAGES_PENDING, 0);
	*state = &world;
	return health_new(&world.health, world.now_ns);
}

static int teardown(void **state)
{
	struct world *world = *state;

	health_free(world->health);
	return 0;
}

/* A reading every second, @seconds long. */
static void poll(struct world *world, int seconds)
{
	for (int i = 0; i < seconds; i++) {
		world->now_ns += NS_PER_SEC;
		health_reading_came(world->health, world->now_ns, &world->reading);
	}
}

/* One reading with @value as @is, and all that follow too. */
static void see(struct world *world, enum health_value value, int64_t is)
{
	health_reading_put(&world->reading, value, is);
	poll(world, 1);
}

/* And as long as it takes to be believed, whichever way it went. */
static void see_lasting(struct world *world, enum health_value value, int64_t is)
{
	see(world, value, is);
	poll(world, HEALTH_SETTLE_S);
}

static void xid(struct world *world, uint64_t number)
{
	health_xid_came(world->health, world->now_ns, number);
}

static const struct health_reason *reason(const struct world *world, const char *code)
{
	const struct health_reason *r = NULL;

	while ((r = health_next_reason(world->health, r))) {
		if (strcmp(r->code, code) == 0)
			return r;
	}
	return NULL;
}

#define assert_state(world, wanted) \
	assert_string_equal(health_state_name(health_state((world)->health)), wanted)

/* What is told since the last time: "+code" or "-code" each, in one line. */
static const char *news(struct world *world)
{
	static char line[256];
	struct health_news item;

	line[0] = '\0';
	while (health_next_news(world->health, &item)) {
		strcat(line, item.began ? "+" : "-");
		strcat(line, item.reason->code);
	}
	return line;
}

/* ---- Rules -------------------------------------------------------------------------- */

static void test_starts_unknown(void **state)
{
	struct world *world = *state;

	assert_state(world, "unknown");
	assert_false(health_needs_drain(world->health));
	assert_string_equal(news(world), "");
	poll(world, 1);
	assert_state(world, "ok");
	assert_null(health_next_reason(world->health, NULL));
	assert_string_equal(news(world), "-no_readings");
	assert_string_equal(news(world), "");
}

static void test_overheating_and_recovery(void **state)
{
	struct world *world = *state;

	see(world, HEALTH_TEMPERATURE_C, 86);
	poll(world, 20);
	assert_state(world, "ok");
	news(world);

	/* Five seconds at the threshold, not less. */
	see(world, HEALTH_TEMPERATURE_C, 87);
	poll(world, 4);
	assert_state(world, "ok");
	poll(world, 1);
	assert_state(world, "degraded");
	assert_string_equal(news(world), "+temperature");
	assert_non_null(strstr(reason(world, "temperature")->message, "87 degrees"));
	assert_int_equal(reason(world, "temperature")->since_ns, world->now_ns);
	assert_false(health_needs_drain(world->health));

	/* A little cooler is not enough; well below, but not for long, neither. */
	see(world, HEALTH_TEMPERATURE_C, 83);
	poll(world, 30);
	assert_state(world, "degraded");
	see(world, HEALTH_TEMPERATURE_C, 82);
	poll(world, 8);
	see(world, HEALTH_TEMPERATURE_C, 84);
	see(world, HEALTH_TEMPERATURE_C, 82);
	poll(world, 9);
	assert_state(world, "degraded");
	poll(world, 1);
	assert_state(world, "ok");
	assert_string_equal(news(world), "-temperature");
}

static void test_a_short_peak_is_no_reason(void **state)
{
	struct world *world = *state;

	for (int i = 0; i < 10; i++) {
		see(world, HEALTH_TEMPERATURE_C, 95);
		poll(world, 3);
		see(world, HEALTH_TEMPERATURE_C, 80);
	}
	assert_state(world, "ok");
}

static void test_temperature_without_threshold(void **state)
{
	struct world *world = *state;

	world->reading.valid &= ~(1u << HEALTH_SLOWDOWN_C);
	see(world, HEALTH_TEMPERATURE_C, 89);
	poll(world, 10);
	assert_state(world, "ok");
	see(world, HEALTH_TEMPERATURE_C, 90);
	poll(world, 5);
	assert_state(world, "degraded");
}

static void test_margin_is_believed_first(void **state)
{
	struct world *world = *state;

	health_reading_put(&world->reading, HEALTH_TEMPERATURE_C, 99);
	see(world, HEALTH_MARGIN_C, 1);
	poll(world, 10);
	assert_state(world, "ok");
	see(world, HEALTH_MARGIN_C, 0);
	poll(world, 5);
	assert_state(world, "degraded");
	see(world, HEALTH_MARGIN_C, 4);
	poll(world, 30);
	assert_state(world, "degraded");
	see(world, HEALTH_MARGIN_C, 5);
	poll(world, 10);
	assert_state(world, "ok");
}

static void test_a_missing_value_changes_nothing(void **state)
{
	struct world *world = *state;

	see(world, HEALTH_TEMPERATURE_C, 95);
	poll(world, 5);
	assert_state(world, "degraded");
	world->reading.valid &= ~(1u << HEALTH_TEMPERATURE_C);
	poll(world, 60);
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
	struct world *world = *state;

	poll(world, 1);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		see(world, HEALTH_CLOCK_REASONS, rows[i].bits);
		poll(world, 1);
		assert_state(world, "ok");
		poll(world, 1);
		assert_state(world, "degraded");
		assert_non_null(reason(world, rows[i].code));
		assert_null(health_next_reason(world->health, reason(world, rows[i].code)));
		see(world, HEALTH_CLOCK_REASONS, 0x1);
		poll(world, 9);
		assert_state(world, "degraded");
		poll(world, 1);
		assert_state(world, "ok");
	}
	/* Idle, application clocks, the power cap: all in order. */
	see(world, HEALTH_CLOCK_REASONS, 0x1 | 0x2 | 0x4 | 0x10 | 0x100);
	poll(world, 10);
	assert_state(world, "ok");
}

static void test_ecc_counts_what_happens(void **state)
{
	struct world *world = *state;
	struct health_counters counters;

	/* What was there before is not held against it. */
	poll(world, 1);
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
	poll(world, HEALTH_REPORT_S - 1);
	assert_state(world, "degraded");
	poll(world, 1);
	assert_state(world, "ok");
}

static void test_row_remap_pending(void **state)
{
	struct world *world = *state;

	poll(world, 1);
	see(world, HEALTH_ROWS_PENDING, 1);
	poll(world, 1);
	assert_state(world, "ok");
	poll(world, 1);
	assert_state(world, "degraded");
	assert_false(health_needs_drain(world->health));
	assert_false(health_needs_reset(world->health));
	poll(world, 2 * HEALTH_REPORT_S);
	assert_state(world, "degraded");
	/* The operator resets it. */
	health_readings_stopped(world->health, world->now_ns, "released");
	health_mended(world->health, world->now_ns, HEALTH_MEND_RESET);
	see_lasting(world, HEALTH_ROWS_PENDING, 0);
	assert_state(world, "ok");
}

static void test_pages_pending(void **state)
{
	struct world *world = *state;

	see_lasting(world, HEALTH_PAGES_PENDING, 1);
	assert_state(world, "degraded");
	see_lasting(world, HEALTH_PAGES_PENDING, 0);
	assert_state(world, "ok");
}

static void test_row_remap_failed(void **state)
{
	struct world *world = *state;

	see_lasting(world, HEALTH_ROWS_FAILED, 1);
	assert_state(world, "draining");
	assert_true(health_needs_drain(world->health));
	/* A reset cannot mend it: nobody should try for ever. */
	assert_false(health_needs_reset(world->health));
	health_mended(world->health, world->now_ns, HEALTH_MEND_RESET);
	poll(world, 3);
	assert_state(world, "draining");
}

static uint64_t resets(const struct world *world)
{
	struct health_counters counters;

	health_counters(world->health, &counters);
	return counters.resets;
}

static void test_recovery_actions(void **state)
{
	struct world *world = *state;

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
		struct world *world = *state;

		poll(world, 1);
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
			poll(world, HEALTH_SETTLE_S - 1);
			see(world, rows[i].value, rows[i].bad);
			assert_state(world, rows[i].held);
		}
		assert_string_equal(news(world), "");
		assert_int_equal(resets(world), 0);
		teardown(state);
		assert_int_equal(setup(state), 0);
	}
}

/* ---- Xid errors --------------------------------------------------------------------- */

static uint64_t xid_count(const struct world *world, uint64_t number)
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
			struct world *world = *state;

			poll(world, 1);
			xid(world, *number);
			poll(world, 1);
			assert_state(world, rows[i].state);
			assert_int_equal(health_needs_drain(world->health), i == 2);
			assert_int_equal(health_needs_reset(world->health), i == 2);
			assert_int_equal(xid_count(world, *number), 1);
			teardown(state);
			assert_int_equal(setup(state), 0);
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
	struct world *world = *state;
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

static void test_xid_48_needs_a_reset(void **state)
{
	struct world *world = *state;
	struct health_counters counters;

	poll(world, 1);
	xid(world, 48);
	assert_state(world, "draining");
	assert_non_null(strstr(reason(world, "xid_reset")->message, "Xid 48"));
	/* Time heals nothing. */
	poll(world, 3 * HEALTH_REPORT_S);
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

static void test_xid_94_is_contained(void **state)
{
	struct world *world = *state;

	poll(world, 1);
	xid(world, 94);
	assert_state(world, "degraded");
	assert_false(health_needs_drain(world->health));
	/* Again: the hour starts anew, since stays. */
	poll(world, HEALTH_REPORT_S - 10);
	xid(world, 94);
	poll(world, HEALTH_REPORT_S - 1);
	assert_state(world, "degraded");
	assert_true(world->now_ns - reason(world, "xid_contained")->since_ns >
	            HEALTH_REPORT_S * NS_PER_SEC);
	poll(world, 1);
	assert_state(world, "ok");
}

static void test_xid_154_where_the_action_is_known(void **state)
{
	struct world *world = *state;

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
	struct world *world = *state;

	poll(world, 1);
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
	struct world *world = *state;

	see_lasting(world, HEALTH_ROWS_PENDING, 1);
	see(world, HEALTH_TEMPERATURE_C, 95);
	poll(world, 5);
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
	poll(world, HEALTH_SETTLE_S);
	assert_state(world, "unknown");
	poll(world, 1);
	assert_state(world, "degraded");
	assert_non_null(reason(world, "temperature"));
	assert_non_null(reason(world, "row_remap_pending"));
	assert_string_equal(news(world), "-no_readings");
}

static void test_nvml_that_flaps(void **state)
{
	struct world *world = *state;

	poll(world, 1);
	news(world);
	for (int i = 0; i < 20; i++) {
		world->now_ns += 5 * NS_PER_SEC;
		health_readings_stopped(world->health, world->now_ns, "no answer for 5 s");
		poll(world, HEALTH_SETTLE_S);
		assert_state(world, "unknown");
	}
	assert_string_equal(news(world), "+no_readings");
	/* The same with errors of one GPU. */
	poll(world, 1);
	assert_string_equal(news(world), "-no_readings");
	world->reading.contact = HEALTH_UNREACHABLE;
	poll(world, 3);
	for (int i = 0; i < 20; i++) {
		world->reading.contact = HEALTH_ANSWERS;
		poll(world, HEALTH_SETTLE_S - 1);
		world->reading.contact = HEALTH_UNREACHABLE;
		poll(world, 3);
		assert_state(world, "unknown");
	}
	assert_string_equal(news(world), "+unreachable");
}

static void test_silence_does_not_count_as_cool(void **state)
{
	struct world *world = *state;

	see(world, HEALTH_TEMPERATURE_C, 95);
	poll(world, 5);
	see(world, HEALTH_TEMPERATURE_C, 60);
	health_readings_stopped(world->health, world->now_ns, "no answer");
	world->now_ns += 60 * NS_PER_SEC;
	poll(world, HEALTH_SETTLE_S + 1);
	assert_state(world, "degraded");
	poll(world, 10);
	assert_state(world, "ok");
}

static void test_nvml_absent(void **state)
{
	struct world *world = *state;

	health_readings_stopped(world->health, world->now_ns, "libnvidia-ml.so.1 not found");
	assert_state(world, "unknown");
	assert_false(health_needs_drain(world->health));
	assert_string_equal(reason(world, "no_readings")->message, "libnvidia-ml.so.1 not found");
}

static void test_lost_and_back(void **state)
{
	struct world *world = *state;
	struct health_counters counters;

	poll(world, 1);
	xid(world, 79);
	world->reading.contact = HEALTH_LOST;
	poll(world, 1);
	assert_state(world, "failed");
	assert_true(health_needs_drain(world->health));
	assert_true(health_needs_reset(world->health));
	/* Whatever else it says now, it is not back. */
	world->reading.contact = HEALTH_UNREACHABLE;
	poll(world, 60);
	assert_state(world, "failed");
	world->reading.contact = HEALTH_RESET_REQUIRED;
	poll(world, 60);
	assert_state(world, "failed");
	/* One answer is not enough. */
	world->reading.contact = HEALTH_ANSWERS;
	poll(world, 2);
	world->reading.contact = HEALTH_LOST;
	poll(world, 1);
	world->reading.contact = HEALTH_ANSWERS;
	see(world, HEALTH_ECC_UNCORRECTED, 0);
	poll(world, 2);
	assert_state(world, "failed");
	poll(world, 1);
	assert_state(world, "ok");
	health_counters(world->health, &counters);
	assert_int_equal(counters.resets, 1);
	assert_int_equal(counters.ecc_uncorrected, 0);
}

static void test_unreachable(void **state)
{
	struct world *world = *state;

	poll(world, 1);
	world->reading.contact = HEALTH_UNREACHABLE;
	strcpy(world->reading.error, "Not Found");
	poll(world, 1);
	assert_state(world, "ok");
	poll(world, 2);
	assert_state(world, "unknown");
	assert_non_null(strstr(reason(world, "unreachable")->message, "Not Found"));
	world->reading.contact = HEALTH_ANSWERS;
	poll(world, HEALTH_SETTLE_S + 1);
	assert_state(world, "ok");
}

static void test_reset_required(void **state)
{
	struct world *world = *state;

	poll(world, 1);
	world->reading.contact = HEALTH_RESET_REQUIRED;
	poll(world, 1);
	assert_state(world, "draining");
	assert_true(health_needs_reset(world->health));
	health_mended(world->health, world->now_ns, HEALTH_MEND_RESET);
	world->reading.contact = HEALTH_ANSWERS;
	poll(world, 1);
	assert_state(world, "ok");
}

static void test_reset_fails(void **state)
{
	struct world *world = *state;

	poll(world, 1);
	xid(world, 95);
	health_reset_failed(world->health, world->now_ns, "exit status 1");
	assert_state(world, "failed");
	assert_true(health_needs_drain(world->health));
	assert_false(health_needs_reset(world->health));
	assert_non_null(strstr(reason(world, "reset_failed")->message, "exit status 1"));
	/* An operator has mended it. */
	health_mended(world->health, world->now_ns, HEALTH_MEND_RESET);
	poll(world, 1);
	assert_state(world, "ok");
}

/* A context that works is no reset: it counts as none, and hides none. */
static void test_a_fresh_context_is_no_reset(void **state)
{
	struct world *world = *state;

	poll(world, 1);
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
	poll(world, 5);
	world->reading.contact = HEALTH_RESET_REQUIRED;
	poll(world, 1);
	assert_non_null(reason(world, "reset_in_vain"));
	assert_state(world, "failed");
	/* Somebody resets it, seconds after that context. */
	world->reading.contact = HEALTH_ANSWERS;
	poll(world, HEALTH_RETURN_S + 1);
	assert_state(world, "ok");
	assert_int_equal(resets(world), 1);
}

static void test_an_operators_word_is_no_reset(void **state)
{
	struct world *world = *state;

	poll(world, 1);
	xid(world, 95);
	health_reset_failed(world->health, world->now_ns, "exit status 1");
	health_mended(world->health, world->now_ns, HEALTH_MEND_WORD);
	poll(world, 1);
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
		struct world *world = *state;

		see_lasting(world, values[i], 1);
		xid(world, 48);
		health_reset_failed(world->health, world->now_ns, "exit status 1");
		assert_state(world, "failed");
		see_lasting(world, values[i], 0);
		assert_state(world, "ok");
		assert_int_equal(resets(world), 1);
		teardown(state);
		assert_int_equal(setup(state), 0);
	}
}

static void test_no_endless_resets(void **state)
{
	struct world *world = *state;

	poll(world, 1);
	xid(world, 62);
	health_mended(world->health, world->now_ns, HEALTH_MEND_RESET);
	poll(world, HEALTH_RESET_TRUST_S - 1);
	xid(world, 62);
	assert_state(world, "failed");
	assert_false(health_needs_reset(world->health));
	assert_non_null(reason(world, "reset_in_vain"));

	/* Long after a reset it is a new case. */
	health_mended(world->health, world->now_ns, HEALTH_MEND_RESET);
	poll(world, HEALTH_RESET_TRUST_S);
	xid(world, 62);
	assert_state(world, "draining");
	assert_true(health_needs_reset(world->health));
}

static void test_what_drains_outlives_a_restart(void **state)
{
	struct world *world = *state;
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
	poll(world, 5);
	assert_state(world, "ok");
	health_counters(health, &counters);
	assert_int_equal(counters.resets, 1);
}

static void test_reasons_come_worst_first(void **state)
{
	struct world *world = *state;
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

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
		TEST(test_xid_48_needs_a_reset),
		TEST(test_xid_94_is_contained),
		TEST(test_xid_154_where_the_action_is_known),
		TEST(test_hang_after_119_hides_nothing),
		TEST(test_nvml_hangs_for_20_s),
		TEST(test_nvml_that_flaps),
		TEST(test_silence_does_not_count_as_cool),
		TEST(test_nvml_absent),
		TEST(test_lost_and_back),
		TEST(test_unreachable),
		TEST(test_reset_required),
		TEST(test_reset_fails),
		TEST(test_a_fresh_context_is_no_reset),
		TEST(test_an_operators_word_is_no_reset),
		TEST(test_repairs_that_are_done_tell_of_a_reset),
		TEST(test_no_endless_resets),
		TEST(test_what_drains_outlives_a_restart),
		TEST(test_reasons_come_worst_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
