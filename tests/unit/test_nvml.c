/* SPDX-License-Identifier: MIT */
/*
 * The NVML thread beside an event loop, on the stand-in library: every test writes a
 * script, lets the loop run until what it waits for has come, and writes on.
 *
 * No test sleeps. One that waits in vain ends in run_until() after TEST_TIMEOUT_S.
 */
#include "mediator/nvml_reader.h"

#include <dlfcn.h>
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <event2/event.h>

#include "base/log.h"

enum {
	GPUS = 2,
	POLL_MS = 20,
	SILENT_MS = 300,
	RETRY_MS = 60,
	BEAT_MS = 5,
	TEST_TIMEOUT_S = 60,
	XIDS_KEPT = 1024,
};

struct world {
	struct event_base *base;
	struct event *beat;
	struct nvml_reader *reader;
	char script[64];
	FILE *script_file;

	enum nvml_state state;
	char text[512];
	unsigned int states, readings[GPUS], xid_count;
	struct nvml_reading last[GPUS];
	struct {
		uint32_t gpu;
		uint64_t xid;
	} xids[XIDS_KEPT];
	unsigned int (*xids_left)(void); /* set: the first Xid waits until none is left */

	/* How long the event loop was ever held up. */
	int64_t beat_ns, longest_ns;
	unsigned int beats;
};

/* ---- The owner ---------------------------------------------------------------------- */

static void on_reading(void *owner, uint32_t gpu, const struct nvml_reading *reading)
{
	struct world *world = owner;

	assert_int_equal(world->state, NVML_STATE_UP);
	assert_true(gpu < GPUS);
	world->last[gpu] = *reading;
	world->readings[gpu]++;
}

static void on_xid(void *owner, uint32_t gpu, uint64_t xid, int64_t at_ns)
{
	struct world *world = owner;

	assert_true(at_ns > 0 && at_ns <= clock_monotonic_ns());
	assert_true(world->xid_count < XIDS_KEPT);
	world->xids[world->xid_count].gpu = gpu;
	world->xids[world->xid_count++].xid = xid;
	while (world->xids_left && world->xids_left() > 0)
		sched_yield();
}

static void on_state(void *owner, enum nvml_state state, const char *text)
{
	struct world *world = owner;

	world->state = state;
	snprintf(world->text, sizeof(world->text), "%s", text);
	world->states++;
}

static const struct nvml_reader_ops ops = {
	.reading = on_reading,
	.xid = on_xid,
	.state = on_state,
};

static void on_beat(evutil_socket_t fd UNUSED, short what UNUSED, void *arg)
{
	struct world *world = arg;
	int64_t now_ns = clock_monotonic_ns();

	world->longest_ns = max_i64(world->longest_ns, now_ns - world->beat_ns);
	world->beat_ns = now_ns;
	world->beats++;
}

static int setup(void **state)
{
	static struct world world;
	const struct timeval period = {.tv_usec = BEAT_MS * 1000};
	int fd;

	memset(&world, 0, sizeof(world));
	strcpy(world.script, "/tmp/vgpu-nvml-XXXXXX");
	fd = mkstemp(world.script);
	world.script_file = fd < 0 ? NULL : fdopen(fd, "w");
	if (!world.script_file)
		return -1;
	setenv("VGPU_STANDIN_NVML_SCRIPT", world.script, 1);
	setenv("VGPU_STANDIN_DEVICES", "2", 1);
	world.base = event_base_new();
	world.beat = event_new(world.base, -1, EV_PERSIST, on_beat, &world);
	event_add(world.beat, &period);
	world.beat_ns = clock_monotonic_ns();
	*state = &world;
	return 0;
}

static int teardown(void **state)
{
	struct world *world = *state;

	nvml_reader_free(world->reader);
	event_free(world->beat);
	event_base_free(world->base);
	fclose(world->script_file);
	unlink(world->script);
	strcat(world->script, ".users");
	unlink(world->script);
	return 0;
}

static void start(struct world *world, const char *library)
{
	static const char *const uuids[GPUS] = {
		"GPU-5747414e-4400-0000-0000-000000000000",
		"GPU-5747414e-4400-0000-0000-000000000001",
	};
	const struct nvml_reader_options options = {
		.library = library,
		.uuids = uuids,
		.gpu_count = GPUS,
		.poll_ms = POLL_MS,
		.silent_ms = SILENT_MS,
		.retry_ms = RETRY_MS,
		.stop_ms = 200,
	};

	assert_int_equal(nvml_reader_new(&world->reader, world->base, &options, &ops, world), 0);
}

static void say(struct world *world, const char *line)
{
	fprintf(world->script_file, "%s\n", line);
	fflush(world->script_file);
}

#define run_until(world, condition)                                                  \
	do {                                                                         \
		int64_t end_ns = clock_monotonic_ns() + TEST_TIMEOUT_S * NS_PER_SEC; \
		while (!(condition)) {                                               \
			assert_true(clock_monotonic_ns() < end_ns);                  \
			event_base_loop((world)->base, EVLOOP_ONCE);                 \
		}                                                                    \
	} while (0)

/* Until both GPUs were read again from the beginning on: what was said before is seen. */
static void run_polls(struct world *world)
{
	unsigned int enough[GPUS] = {world->readings[0] + 2, world->readings[1] + 2};

	run_until(world, world->readings[0] >= enough[0] && world->readings[1] >= enough[1]);
}

/* The value of GPU 0, or -999 when it is not known. */
static int64_t value(const struct world *world, enum health_value which)
{
	int64_t is = -999;

	health_reading_get(&world->last[0].health, which, &is);
	return is;
}

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
	struct world *world = *state;

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
	struct world *world = *state;

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
	struct world *world = *state;

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
	struct world *world = *state;

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
	struct world *world = *state;

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
	struct world *world = *state;

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
	struct world *world = *state;

	say(world, "fail nvmlDeviceGetComputeRunningProcesses_v2 999\n"
	           "fail nvmlDeviceGetComputeRunningProcesses 999");
	start(world, STANDIN_NVML);
	run_polls(world);
	assert_true(world->last[0].processes_known);
}

static void test_more_processes_than_fit(void **state)
{
	struct world *world = *state;
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
	struct world *world = *state;

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
	struct world *world = *state;
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
	struct world *world = *state;

	say(world, "fail nvmlEventSetCreate 3");
	start(world, STANDIN_NVML);
	run_polls(world);
	run_polls(world);
	assert_non_null(strstr(world->text, "Xid errors cannot be seen"));
}

static void test_waiting_fails(void **state)
{
	struct world *world = *state;

	start(world, STANDIN_NVML);
	run_polls(world);
	say(world, "fail nvmlEventSetWait 999");
	run_polls(world);
	run_polls(world);
	say(world, "fail nvmlEventSetWait 0\nxid 92");
	run_until(world, world->xid_count == 1);
}

/* ---- Trouble ------------------------------------------------------------------------ */

static void test_no_library(void **state)
{
	struct world *world = *state;
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
	struct world *world = *state;

	start(world, "libc.so.6");
	run_until(world, world->states == 1);
	assert_int_equal(world->state, NVML_STATE_DOWN);
	assert_non_null(strstr(world->text, "nvmlInit"));
}

static void test_driver_comes_later(void **state)
{
	struct world *world = *state;

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
	struct world *world = *state;

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
	struct world *world = *state;

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
	struct world *world = *state;

	say(world, "fail nvmlDeviceGetPowerUsage 15");
	start(world, STANDIN_NVML);
	run_polls(world);
	assert_int_equal(world->last[0].health.contact, HEALTH_LOST);
	assert_string_equal(world->last[0].health.error, "nvmlDeviceGetPowerUsage: GPU lost (15)");
}

static void test_reset_required(void **state)
{
	struct world *world = *state;

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
	struct world *world = *state;
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
	struct world *world = *state;
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
	struct world *world = *state;

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
	struct world *world = *state;

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
	struct world *world = *state;

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
	struct world *world = *state;
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
	struct world *world = *state;

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
	struct world *world = *state;

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
	struct world *world = *state;
	const struct nvml_reader_options none = {.gpu_count = 0};
	const struct nvml_reader_options many = {.gpu_count = NVML_GPUS_MAX + 1};

	assert_int_equal(nvml_reader_new(&world->reader, world->base, &none, &ops, world), -EINVAL);
	assert_int_equal(nvml_reader_new(&world->reader, world->base, &many, &ops, world), -EINVAL);
	assert_null(world->reader);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

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

	log_init("test_nvml", LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
