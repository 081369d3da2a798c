/* SPDX-License-Identifier: MIT */
/*
 * What comes of NVML when all is well: values and Xid errors, from libraries old and new.
 * test_nvml_trouble.c has the rest.
 */
#include "nvml_world.h"

#include <dlfcn.h>

/* ---- Values ------------------------------------------------------------------------- */

static void test_reads_everything(void **state)
{
	static const struct {
		enum health_value value;
		int64_t is;
	} expected[] = {
		{HEALTH_TEMPERATURE_C, 61},
		{HEALTH_SLOWDOWN_C, 87},
		{HEALTH_MARGIN_C, -3},
		{HEALTH_GPU_BUSY_PERCENT, 98},
		{HEALTH_MEMORY_BUSY_PERCENT, 42},
		{HEALTH_MEMORY_USED_BYTES, 123456789012},
		{HEALTH_MEMORY_TOTAL_BYTES, INT64_C(8192) << 20},
		{HEALTH_POWER_MW, 345678},
		{HEALTH_ECC_CORRECTED, 5},
		{HEALTH_ECC_UNCORRECTED, 2},
		{HEALTH_ECC_CORRECTED_LIFE, 5},
		{HEALTH_ECC_UNCORRECTED_LIFE, 2},
		{HEALTH_CLOCK_REASONS, 0x48},
		{HEALTH_ROWS_CORRECTED, 3},
		{HEALTH_ROWS_UNCORRECTED, 4},
		{HEALTH_ROWS_PENDING, 1},
		{HEALTH_ROWS_FAILED, 1},
		{HEALTH_PAGES_CORRECTED, 6},
		{HEALTH_PAGES_UNCORRECTED, 7},
		{HEALTH_PAGES_PENDING, 1},
		{HEALTH_RECOVERY_ACTION, 4},
	};
	struct nvml_world *world = *state;

	_Static_assert(ARRAY_LEN(expected) == HEALTH_VALUE_COUNT, "every value is tested");
	say(world, "temperature 61\nslowdown 87\nmargin -3\ngpu_busy 98\nmemory_busy 42\n"
	           "memory_used 123456789012\npower 345678\necc_corrected 5\necc_uncorrected 2\n"
	           "clock_reasons 0x48\nrows_corrected 3\nrows_uncorrected 4\nrows_pending 1\n"
	           "rows_failed 1\npages_corrected 6\npages_uncorrected 7\npages_pending "
	           "1\nrecovery_action 4\n"
	           "processes 4711:1073741824 12:5\ngpu 1 temperature 33");
	start(world, STANDIN_NVML);
	run_polls(world);
	assert_int_equal(world->state, NVML_STATE_UP);
	assert_string_equal(world->text, "driver 0.0-standin, 2 of 2 GPUs found");
	for (size_t i = 0; i < ARRAY_LEN(expected); i++)
		assert_int_equal(value(world, expected[i].value), expected[i].is);
	assert_int_equal(world->last[0].health.contact, HEALTH_ANSWERS);
	assert_true(world->last[0].processes_known);
	assert_int_equal(world->last[0].process_count, 2);
	assert_int_equal(world->last[0].processes[0].pid, 4711);
	assert_int_equal(world->last[0].processes[0].bytes, 1073741824);
	assert_int_equal(world->last[0].processes[1].pid, 12);
	assert_int_equal(world->last[1].health.values[HEALTH_TEMPERATURE_C], 33);
	assert_int_equal(world->last[1].process_count, 0);
	assert_true(world->last[1].processes_known);
}

static void test_follows_changes(void **state)
{
	struct nvml_world *world = *state;

	start(world, STANDIN_NVML);
	run_polls(world);
	assert_int_equal(value(world, HEALTH_TEMPERATURE_C), 40);
	assert_int_equal(value(world, HEALTH_PAGES_PENDING), -999);
	assert_int_equal(value(world, HEALTH_PAGES_CORRECTED), -999);
	say(world, "pages_corrected 0\npages_uncorrected 3");
	run_polls(world);
	assert_int_equal(value(world, HEALTH_PAGES_CORRECTED), 0);
	assert_int_equal(value(world, HEALTH_PAGES_UNCORRECTED), 3);
	say(world, "temperature 97");
	run_polls(world);
	assert_int_equal(value(world, HEALTH_TEMPERATURE_C), 97);
	say(world, "power none\nfail nvmlDeviceGetTotalEccErrors 999");
	run_polls(world);
	assert_int_equal(value(world, HEALTH_POWER_MW), -999);
	assert_int_equal(value(world, HEALTH_ECC_CORRECTED), -999);
	assert_int_equal(world->last[0].health.contact, HEALTH_ANSWERS);
	assert_int_equal(world->states, 1);
}

/* Older drivers tell what they want in two fields instead of one. */
static void test_older_wishes(void **state)
{
	struct nvml_world *world = *state;

	say(world, "recovery_action none\nreset_status 0\ndrain_and_reset 0");
	start(world, STANDIN_NVML);
	run_polls(world);
	assert_int_equal(value(world, HEALTH_RECOVERY_ACTION), HEALTH_RECOVERY_NONE);
	say(world, "reset_status 1");
	run_polls(world);
	assert_int_equal(value(world, HEALTH_RECOVERY_ACTION), HEALTH_RECOVERY_RESET);
	say(world, "drain_and_reset 1\nreset_status none");
	run_polls(world);
	assert_int_equal(value(world, HEALTH_RECOVERY_ACTION), HEALTH_RECOVERY_DRAIN_AND_RESET);
	say(world, "drain_and_reset none");
	run_polls(world);
	assert_int_equal(value(world, HEALTH_RECOVERY_ACTION), -999);
	say(world, "recovery_action 2\ndrain_and_reset 1");
	run_polls(world);
	assert_int_equal(value(world, HEALTH_RECOVERY_ACTION), HEALTH_RECOVERY_REBOOT);
}

static void test_script_with_times(void **state)
{
	struct nvml_world *world = *state;

	say(world, "at 0.2 temperature 97\nat 0.1 temperature 80\nat 0.2 power 1");
	start(world, STANDIN_NVML);
	run_polls(world);
	assert_int_equal(value(world, HEALTH_POWER_MW), 70000);
	run_until(world, value(world, HEALTH_TEMPERATURE_C) == 97);
	run_polls(world);
	assert_int_equal(value(world, HEALTH_POWER_MW), 1);
}

static void test_old_library(void **state)
{
	struct nvml_world *world = *state;

	say(world, "memory_used 77\nclock_reasons 8\nprocesses 5:6");
	start(world, STANDIN_NVML_OLD);
	run_polls(world);
	assert_non_null(strstr(world->text, "nvmlDeviceGetPowerUsage"));
	assert_non_null(strstr(world->text, "nvmlDeviceGetRemappedRows"));
	assert_null(strstr(world->text, "nvmlDeviceGetMemoryInfo"));
	assert_int_equal(value(world, HEALTH_TEMPERATURE_C), 40);
	assert_int_equal(value(world, HEALTH_MEMORY_USED_BYTES), 77);
	assert_int_equal(value(world, HEALTH_CLOCK_REASONS), 8);
	assert_int_equal(world->last[0].processes[0].bytes, 6);
	assert_int_equal(value(world, HEALTH_POWER_MW), -999);
	assert_int_equal(value(world, HEALTH_ROWS_PENDING), -999);
	assert_int_equal(value(world, HEALTH_RECOVERY_ACTION), -999);
	say(world, "xid 31");
	run_until(world, world->xid_count == 1);
}

static void test_function_the_driver_lacks(void **state)
{
	struct nvml_world *world = *state;

	say(world, "memory_used 78\nprocesses 5:6\nfail nvmlDeviceGetMemoryInfo_v2 13\n"
	           "fail nvmlDeviceGetTemperature 13\n"
	           "fail nvmlDeviceGetComputeRunningProcesses_v3 13");
	start(world, STANDIN_NVML);
	run_polls(world);
	assert_int_equal(value(world, HEALTH_MEMORY_USED_BYTES), 78);
	assert_int_equal(value(world, HEALTH_TEMPERATURE_C), 40);
	assert_true(world->last[0].processes_known);
	assert_int_equal(world->last[0].process_count, 1);
}

static void test_newest_version_is_used(void **state)
{
	struct nvml_world *world = *state;

	say(world, "fail nvmlDeviceGetComputeRunningProcesses_v2 999\n"
	           "fail nvmlDeviceGetComputeRunningProcesses 999");
	start(world, STANDIN_NVML);
	run_polls(world);
	assert_true(world->last[0].processes_known);
}

static void test_more_processes_than_fit(void **state)
{
	struct nvml_world *world = *state;
	char line[256];

	start(world, STANDIN_NVML);
	run_polls(world);
	assert_true(world->last[0].processes_known);
	/* The stand-in reads 511 characters a line: say so by its error instead. */
	snprintf(line, sizeof(line), "fail nvmlDeviceGetComputeRunningProcesses_v3 %d",
	         NVML_INSUFFICIENT_SIZE);
	say(world, line);
	run_polls(world);
	assert_false(world->last[0].processes_known);
	assert_int_equal(world->last[0].process_count, 0);
}

/* ---- Xid errors --------------------------------------------------------------------- */

static void test_xids_come_as_they_happen(void **state)
{
	struct nvml_world *world = *state;

	start(world, STANDIN_NVML);
	run_polls(world);
	say(world, "xid 31\ngpu 1 xid 79\nxid 48");
	run_until(world, world->xid_count == 3);
	assert_int_equal(world->xids[0].gpu, 0);
	assert_int_equal(world->xids[0].xid, 31);
	assert_int_equal(world->xids[1].gpu, 1);
	assert_int_equal(world->xids[1].xid, 79);
	assert_int_equal(world->xids[2].xid, 48);
	run_polls(world);
	assert_int_equal(world->xid_count, 3);
}

/* The event loop is held up until the thread has heard of every one. */
static void test_xid_flood_is_bounded(void **state)
{
	struct nvml_world *world = *state;
	void *library;

	start(world, STANDIN_NVML);
	run_polls(world);
	library = dlopen(STANDIN_NVML, RTLD_NOW | RTLD_NOLOAD);
	*(void **)&world->xids_left = dlsym(library, "standin_nvml_xids_left");
	assert_non_null(world->xids_left);
	for (int i = 0; i < 3 * NVML_XIDS_MAX; i++)
		fprintf(world->script_file, "xid 13\n");
	say(world, "xid 14");
	run_until(world, world->xid_count > 0);
	run_polls(world);
	/* What came with the first, and what there is room for. */
	assert_in_range(world->xid_count, NVML_XIDS_MAX, 2 * NVML_XIDS_MAX);
	world->xids_left = NULL;
	say(world, "xid 15");
	run_until(world, world->xids[world->xid_count - 1].xid == 15);
}

static void test_polls_without_events(void **state)
{
	struct nvml_world *world = *state;

	say(world, "fail nvmlEventSetCreate 3");
	start(world, STANDIN_NVML);
	run_polls(world);
	run_polls(world);
	assert_non_null(strstr(world->text, "Xid errors cannot be seen"));
}

static void test_waiting_fails(void **state)
{
	struct nvml_world *world = *state;

	start(world, STANDIN_NVML);
	run_polls(world);
	say(world, "fail nvmlEventSetWait 999");
	run_polls(world);
	run_polls(world);
	say(world, "fail nvmlEventSetWait 0\nxid 92");
	run_until(world, world->xid_count == 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_reads_everything),
		TEST(test_follows_changes),
		TEST(test_older_wishes),
		TEST(test_script_with_times),
		TEST(test_old_library),
		TEST(test_function_the_driver_lacks),
		TEST(test_newest_version_is_used),
		TEST(test_more_processes_than_fit),
		TEST(test_xids_come_as_they_happen),
		TEST(test_xid_flood_is_bounded),
		TEST(test_polls_without_events),
		TEST(test_waiting_fails),
	};

	log_init("test_nvml", LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
