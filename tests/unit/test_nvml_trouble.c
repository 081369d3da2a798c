/* SPDX-License-Identifier: MIT */
/*
 * NVML that is missing, fails, hangs, or is to let go: the event loop notices, is told once,
 * and never waits.
 */
#include "nvml_world.h"

#include <dlfcn.h>
#include <errno.h>

static void test_no_library(void **state)
{
	struct nvml_world *world = *state;
	unsigned int beats;

	start(world, "/nonexistent/libnvidia-ml.so.1");
	run_until(world, world->states == 1);
	assert_int_equal(world->state, NVML_STATE_DOWN);
	assert_int_equal(nvml_reader_state(world->reader), NVML_STATE_DOWN);
	assert_non_null(strstr(world->text, "/nonexistent/libnvidia-ml.so.1 not found"));
	/* It tries again and again, and says nothing more about it. */
	beats = world->beats + 4 * RETRY_MS / BEAT_MS;
	run_until(world, world->beats >= beats);
	assert_int_equal(world->states, 1);
	assert_int_equal(world->readings[0], 0);
}

static void test_another_library(void **state)
{
	struct nvml_world *world = *state;

	start(world, "libc.so.6");
	run_until(world, world->states == 1);
	assert_int_equal(world->state, NVML_STATE_DOWN);
	assert_non_null(strstr(world->text, "nvmlInit"));
}

static void test_driver_comes_later(void **state)
{
	struct nvml_world *world = *state;

	say(world, "fail nvmlInit 9");
	start(world, STANDIN_NVML);
	run_until(world, world->states == 1);
	assert_int_equal(world->state, NVML_STATE_DOWN);
	assert_string_equal(world->text,
	                    "nvmlInit: No driver (9); is the nvidia kernel module loaded (lsmod)?");
	say(world, "fail nvmlInit 0");
	run_polls(world);
	assert_int_equal(world->state, NVML_STATE_UP);
	assert_int_equal(world->states, 2);
}

static void test_unknown_gpu(void **state)
{
	struct nvml_world *world = *state;

	setenv("VGPU_STANDIN_DEVICES", "1", 1);
	start(world, STANDIN_NVML);
	run_polls(world);
	assert_string_equal(world->text, "driver 0.0-standin, 1 of 2 GPUs found");
	assert_int_equal(world->last[0].health.contact, HEALTH_ANSWERS);
	assert_int_equal(world->last[1].health.contact, HEALTH_UNREACHABLE);
	assert_non_null(strstr(world->last[1].health.error, "No such thing"));
	/* Plugged in. */
	setenv("VGPU_STANDIN_DEVICES", "2", 1);
	run_until(world, world->last[1].health.contact == HEALTH_ANSWERS);
}

static void test_lost_and_back(void **state)
{
	struct nvml_world *world = *state;

	start(world, STANDIN_NVML);
	run_polls(world);
	say(world, "xid 79\nlost");
	run_polls(world);
	assert_int_equal(world->xids[0].xid, 79);
	assert_int_equal(world->last[0].health.contact, HEALTH_LOST);
	assert_int_equal(world->last[0].health.valid, 0);
	/* The other one goes on, also through the new sessions. */
	assert_int_equal(world->last[1].health.contact, HEALTH_ANSWERS);
	say(world, "back");
	run_until(world, world->last[0].health.contact == HEALTH_ANSWERS);
	/* And its events are heard again. */
	say(world, "xid 13");
	run_until(world, world->xid_count == 2);
	assert_int_equal(world->state, NVML_STATE_UP);
}

static void test_lost_in_the_middle(void **state)
{
	struct nvml_world *world = *state;

	say(world, "fail nvmlDeviceGetPowerUsage 15");
	start(world, STANDIN_NVML);
	run_polls(world);
	assert_int_equal(world->last[0].health.contact, HEALTH_LOST);
	assert_string_equal(world->last[0].health.error, "nvmlDeviceGetPowerUsage: GPU lost (15)");
}

static void test_reset_required(void **state)
{
	struct nvml_world *world = *state;

	say(world, "ecc_uncorrected 4");
	start(world, STANDIN_NVML);
	run_polls(world);
	say(world, "reset_required");
	run_polls(world);
	assert_int_equal(world->last[0].health.contact, HEALTH_RESET_REQUIRED);
	say(world, "reset");
	run_until(world, world->last[0].health.contact == HEALTH_ANSWERS);
	assert_int_equal(value(world, HEALTH_ECC_UNCORRECTED), 0);
	assert_int_equal(value(world, HEALTH_ECC_UNCORRECTED_LIFE), 4);
}

static void test_everything_fails(void **state)
{
	static const char *const calls[] = {
		"Temperature",       "TemperatureThreshold",
		"MarginTemperature", "UtilizationRates",
		"MemoryInfo_v2",     "PowerUsage",
		"TotalEccErrors",    "CurrentClocksEventReasons",
		"RemappedRows",      "RetiredPagesPendingStatus",
		"RetiredPages",      "TemperatureV",
		"FieldValues",       "ComputeRunningProcesses_v3",
	};
	struct nvml_world *world = *state;
	char line[128];

	for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
		snprintf(line, sizeof(line), "fail nvmlDeviceGet%s 999", calls[i]);
		say(world, line);
	}
	start(world, STANDIN_NVML);
	run_polls(world);
	assert_int_equal(world->last[0].health.contact, HEALTH_UNREACHABLE);
	assert_non_null(strstr(world->last[0].health.error, "999"));
}

/*
 * A call that does not return until it is told to: were the event loop to wait for the
 * thread anywhere, this test could not go on.
 */
static void test_hang(void **state)
{
	struct nvml_world *world = *state;
	unsigned int readings, beats;

	start(world, STANDIN_NVML);
	run_polls(world);
	world->longest_ns = 0;
	say(world, "hang nvmlDeviceGetPowerUsage");
	run_until(world, world->state == NVML_STATE_SILENT);
	assert_non_null(strstr(world->text, "nvmlDeviceGetPowerUsage has not returned for 0.3 s"));
	assert_int_equal(world->states, 2);
	readings = world->readings[0];
	beats = world->beats + 3 * SILENT_MS / BEAT_MS;
	run_until(world, world->beats >= beats);
	/* Said once. */
	assert_int_equal(world->states, 2);
	assert_int_equal(world->readings[0], readings);
	say(world, "go");
	run_polls(world);
	assert_int_equal(world->state, NVML_STATE_UP);
	assert_string_equal(world->text, "it answers again");
	print_message("longest stall of the event loop: %.1f ms\n",
	              (double)world->longest_ns / NS_PER_MS);
}

static void test_hang_at_start(void **state)
{
	struct nvml_world *world = *state;

	say(world, "hang nvmlInit");
	start(world, STANDIN_NVML);
	run_until(world, world->state == NVML_STATE_SILENT);
	assert_non_null(strstr(world->text, "nvmlInit has not returned"));
	say(world, "go");
	run_polls(world);
	assert_int_equal(world->state, NVML_STATE_UP);
}

static void test_hung_thread_is_left_behind(void **state)
{
	struct nvml_world *world = *state;

	start(world, STANDIN_NVML);
	run_polls(world);
	say(world, "hang");
	run_until(world, world->state == NVML_STATE_SILENT);
	/* Returns although the call does not. */
	nvml_reader_free(TAKE_PTR(world->reader));
	/* The thread may end now, and frees what it had. */
	say(world, "go");
	start(world, STANDIN_NVML);
	run_polls(world);
	assert_int_equal(world->state, NVML_STATE_UP);
}

static void test_free_at_once(void **state)
{
	struct nvml_world *world = *state;

	for (int i = 0; i < 20; i++) {
		start(world, STANDIN_NVML);
		nvml_reader_free(TAKE_PTR(world->reader));
	}
	assert_int_equal(world->states, 0);
}

/* How often NVML is open in this process. */
static int open_count(void)
{
	int (*power)(void *, uint32_t *);
	int (*handle)(const char *, void **);
	void *library = dlopen(STANDIN_NVML, RTLD_NOW | RTLD_NOLOAD), *gpu;
	uint32_t ignored;

	assert_non_null(library);
	*(void **)&power = dlsym(library, "nvmlDeviceGetPowerUsage");
	*(void **)&handle = dlsym(library, "nvmlDeviceGetHandleByUUID");
	assert_int_equal(handle("GPU-5747414e-4400-0000-0000-000000000000", &gpu), 0);
	return power(gpu, &ignored) == NVML_UNINITIALIZED ? 0 : 1;
}

static void test_release_and_resume(void **state)
{
	struct nvml_world *world = *state;
	unsigned int readings;

	start(world, STANDIN_NVML);
	run_polls(world);
	assert_int_equal(open_count(), 1);
	nvml_reader_release(world->reader);
	run_until(world, world->state == NVML_STATE_RELEASED);
	assert_int_equal(open_count(), 0);
	readings = world->readings[0];
	say(world, "reset\ntemperature 35");
	nvml_reader_resume(world->reader);
	run_polls(world);
	assert_int_equal(world->state, NVML_STATE_UP);
	assert_true(world->readings[0] > readings);
	assert_int_equal(value(world, HEALTH_TEMPERATURE_C), 35);
}

/* Released, opened and released again before the thread has had its turn. */
static void test_release_again_at_once(void **state)
{
	struct nvml_world *world = *state;

	start(world, STANDIN_NVML);
	run_polls(world);
	for (int i = 0; i < 20; i++) {
		nvml_reader_release(world->reader);
		run_until(world, world->state == NVML_STATE_RELEASED);
		nvml_reader_resume(world->reader);
		assert_int_equal(nvml_reader_state(world->reader), NVML_STATE_DOWN);
		world->state = NVML_STATE_DOWN;
		nvml_reader_release(world->reader);
		run_until(world, world->state == NVML_STATE_RELEASED);
		assert_int_equal(open_count(), 0);
		nvml_reader_resume(world->reader);
		run_polls(world);
		assert_int_equal(world->state, NVML_STATE_UP);
	}
}

/* What was closed a moment ago and is being opened is not closed. */
static void test_opening_is_not_released(void **state)
{
	struct nvml_world *world = *state;

	start(world, STANDIN_NVML);
	run_polls(world);
	nvml_reader_release(world->reader);
	run_until(world, world->state == NVML_STATE_RELEASED);
	say(world, "hang nvmlInit");
	nvml_reader_resume(world->reader);
	nvml_reader_release(world->reader);
	nvml_reader_resume(world->reader);
	run_until(world, world->state == NVML_STATE_SILENT);
	nvml_reader_release(world->reader);
	assert_int_not_equal(nvml_reader_state(world->reader), NVML_STATE_RELEASED);
	say(world, "go");
	run_until(world, world->state == NVML_STATE_RELEASED);
	assert_int_equal(open_count(), 0);
}

static void test_options_are_checked(void **state)
{
	struct nvml_world *world = *state;
	const struct nvml_reader_options none = {.gpu_count = 0};
	const struct nvml_reader_options many = {.gpu_count = NVML_GPUS_MAX + 1};

	assert_int_equal(
		nvml_reader_new(&world->reader, world->base, &none, &nvml_world_ops, world),
		-EINVAL);
	assert_int_equal(
		nvml_reader_new(&world->reader, world->base, &many, &nvml_world_ops, world),
		-EINVAL);
	assert_null(world->reader);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_no_library),
		TEST(test_another_library),
		TEST(test_driver_comes_later),
		TEST(test_unknown_gpu),
		TEST(test_lost_and_back),
		TEST(test_lost_in_the_middle),
		TEST(test_reset_required),
		TEST(test_everything_fails),
		TEST(test_hang),
		TEST(test_hang_at_start),
		TEST(test_hung_thread_is_left_behind),
		TEST(test_free_at_once),
		TEST(test_release_and_resume),
		TEST(test_release_again_at_once),
		TEST(test_opening_is_not_released),
		TEST(test_options_are_checked),
	};

	log_init("test_nvml_trouble", LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
