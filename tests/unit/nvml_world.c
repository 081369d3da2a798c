/* SPDX-License-Identifier: MIT */
/* See nvml_world.h. */
#include "nvml_world.h"

#include <sched.h>

/* ---- The owner ---------------------------------------------------------------------- */

static void on_reading(void *owner, uint32_t gpu, const struct nvml_reading *reading)
{
	struct nvml_world *world = owner;

	assert_int_equal(world->state, NVML_STATE_UP);
	assert_true(gpu < GPUS);
	world->last[gpu] = *reading;
	world->readings[gpu]++;
}

static void on_xid(void *owner, uint32_t gpu, uint64_t xid, int64_t at_ns)
{
	struct nvml_world *world = owner;

	assert_true(at_ns > 0 && at_ns <= clock_monotonic_ns());
	assert_true(world->xid_count < XIDS_KEPT);
	world->xids[world->xid_count].gpu = gpu;
	world->xids[world->xid_count++].xid = xid;
	while (world->xids_left && world->xids_left() > 0)
		sched_yield();
}

static void on_state(void *owner, enum nvml_state state, const char *text)
{
	struct nvml_world *world = owner;

	world->state = state;
	snprintf(world->text, sizeof(world->text), "%s", text);
	world->states++;
}

const struct nvml_reader_ops nvml_world_ops = {
	.reading = on_reading,
	.xid = on_xid,
	.state = on_state,
};

static void on_beat(evutil_socket_t fd UNUSED, short what UNUSED, void *arg)
{
	struct nvml_world *world = arg;
	int64_t now_ns = clock_monotonic_ns();

	world->longest_ns = max_i64(world->longest_ns, now_ns - world->beat_ns);
	world->beat_ns = now_ns;
	world->beats++;
}

int nvml_world_new(void **state)
{
	static struct nvml_world world;
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

int nvml_world_free(void **state)
{
	struct nvml_world *world = *state;

	nvml_reader_free(world->reader);
	event_free(world->beat);
	event_base_free(world->base);
	fclose(world->script_file);
	unlink(world->script);
	strcat(world->script, ".users");
	unlink(world->script);
	return 0;
}

void start(struct nvml_world *world, const char *library)
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

	assert_int_equal(
		nvml_reader_new(&world->reader, world->base, &options, &nvml_world_ops, world), 0);
}

void say(struct nvml_world *world, const char *line)
{
	fprintf(world->script_file, "%s\n", line);
	fflush(world->script_file);
}

void run_polls(struct nvml_world *world)
{
	unsigned int enough[GPUS] = {world->readings[0] + 2, world->readings[1] + 2};

	run_until(world, world->readings[0] >= enough[0] && world->readings[1] >= enough[1]);
}

int64_t value(const struct nvml_world *world, enum health_value which)
{
	int64_t is = -999;

	health_reading_get(&world->last[0].health, which, &is);
	return is;
}
