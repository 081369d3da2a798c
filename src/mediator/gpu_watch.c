/* SPDX-License-Identifier: MIT */
/* See gpu_watch.h. With the cpu backend there is no NVML and nothing to reset. */
#include "mediator/gpu_watch.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <event2/event.h>

#include "base/clock.h"
#include "mediator/gpu_watch_internal.h"

enum {
	RETRY_POLLS = 30, /* between attempts to find a library or a GPU that is not there */
};

const struct gpu_cause_info gpu_cause_infos[GPU_CAUSE_COUNT] = {
	[GPU_CAUSE_BY_HAND] = {"by_hand", "drained by",
                               "vgpu-admin resume gives it back; it is not reset meanwhile", true},
	[GPU_CAUSE_STUCK] =
		{"worker_stuck", "a worker there survives SIGKILL",
                 "reset the GPU or restart the host; it ends with the worker, or with resume",
                 true},
	[GPU_CAUSE_OLD_RESET] = {"reset_running", "a reset that nobody waits for still runs",
                                 "wait for its end; if it hangs in the driver, restart the host",
                                 false},
};

/* ---- Drain ----------------------------------------------------------------------------- */

static void log_begin(const struct watched *gpu, const char *uuid,
                      const struct health_reason *reason)
{
	enum log_level level = reason->level == HEALTH_OK ? LOG_LEVEL_INFO : LOG_LEVEL_WARNING;

	log_write(level, "GPU %u (%s): %s; %s", gpu->index, uuid, reason->message, reason->remedy);
}

static void log_news(struct watched *gpu)
{
	const struct gpu_info *info = &gpu->watch->mediator->gpus.gpus[gpu->index];
	struct health_news news;

	while (health_next_news(gpu->health, &news)) {
		if (!news.began)
			log_info("GPU %u (%s): over: %s", gpu->index, info->uuid,
			         news.reason->message);
		else
			log_begin(gpu, info->uuid, news.reason);
	}
}

const char *gpu_cause_message(char *to, size_t size, const struct watched *gpu,
                              enum gpu_cause_code code)
{
	const char *by = gpu->causes[code].by;

	snprintf(to, size, "%s%s%s", gpu_cause_infos[code].message, by[0] ? " " : "", by);
	return to;
}

void gpu_cause_begin(struct watched *gpu, enum gpu_cause_code code, int64_t since_ns,
                     const char *by)
{
	struct gpu_cause *cause = &gpu->causes[code];

	if (cause->active)
		return;
	cause->active = true;
	cause->since_ns = since_ns;
	snprintf(cause->by, sizeof(cause->by), "%s", by);
}

/* Whether the hardware or the driver is to blame for what goes wrong there. */
static bool is_faulty(const struct watched *gpu)
{
	return gpu->causes[GPU_CAUSE_STUCK].active ||
	       (gpu->health && health_needs_drain(gpu->health));
}

static bool must_drain(const struct watched *gpu)
{
	for (int code = 0; code < GPU_CAUSE_COUNT; code++) {
		if (gpu->causes[code].active)
			return true;
	}
	return gpu->reset.step != RESET_NONE || (gpu->health && health_needs_drain(gpu->health));
}

bool gpu_watch_leaves_reset(const struct watched *gpu)
{
	return gpu->causes[GPU_CAUSE_BY_HAND].active && gpu->health &&
	       health_needs_reset(gpu->health);
}

static bool may_reset(const struct watched *gpu)
{
	const struct gpu_watch *watch = gpu->watch;

	/* A reset that is broken off must be known to be due, so that comes first. */
	return watch->restored && !watch->stopping && gpu->drained && !gpu->holds.busy &&
	       gpu->reset.step == RESET_NONE && !gpu->causes[GPU_CAUSE_OLD_RESET].active &&
	       gpu->health && health_needs_reset(gpu->health) && !gpu_watch_leaves_reset(gpu);
}

void gpu_watch_update(struct watched *gpu)
{
	struct mediator *mediator = gpu->watch->mediator;
	bool drain = must_drain(gpu);

	if (gpu->health)
		log_news(gpu);
	if (!drain)
		gpu->drained = false;
	core_gpu_set_faulty(mediator->core, clock_monotonic_ns(), gpu->index, is_faulty(gpu));
	core_gpu_set_draining(mediator->core, clock_monotonic_ns(), gpu->index, drain);
	mediator_pump(mediator);
	gpu_holds_sync(gpu);
	if (may_reset(gpu))
		gpu_reset_begin(gpu);
}

/* ---- Events ------------------------------------------------------------------------------- */

static void on_reading(void *owner, uint32_t index, const struct nvml_reading *reading)
{
	struct gpu_watch *watch = owner;
	struct watched *gpu = &watch->gpus[index];

	gpu->last = *reading;
	gpu->has_reading = true;
	health_reading_came(gpu->health, reading->at_ns, &reading->health);
	gpu_memory_look(gpu);
	gpu_watch_update(gpu);
}

static void on_xid(void *owner, uint32_t index, uint64_t xid, int64_t at_ns)
{
	struct gpu_watch *watch = owner;

	log_warning("GPU %u: Xid %llu: %s", index, (unsigned long long)xid,
	            health_xid_find(xid)->text);
	if (health_xid_find(xid)->class == HEALTH_XID_CONTAINED ||
	    health_xid_find(xid)->class == HEALTH_XID_RESET)
		core_gpu_hardware_fault(watch->mediator->core, clock_monotonic_ns(), index);
	health_xid_came(watch->gpus[index].health, at_ns, xid);
	gpu_watch_update(&watch->gpus[index]);
}

static void readings_end(struct watched *gpu, enum nvml_state state, const char *why)
{
	int64_t now_ns = clock_monotonic_ns();

	gpu->has_reading = false;
	gpu->use_count = 0;
	/* Closed for the reset of one it is closed for all, which is no trouble of theirs. */
	if (state == NVML_STATE_RELEASED)
		health_readings_paused(gpu->health, now_ns,
		                       "not looked at: NVML is closed while a GPU is reset");
	else
		health_readings_stopped(gpu->health, now_ns, why);
}

static void on_state(void *owner, enum nvml_state state, const char *text)
{
	struct gpu_watch *watch = owner;

	for (uint32_t i = 0; i < watch->count; i++) {
		struct watched *gpu = &watch->gpus[i];

		if (state != NVML_STATE_UP)
			readings_end(gpu, state, text);
		if (state == NVML_STATE_RELEASED)
			gpu_reset_nvml_released(gpu);
		gpu_watch_update(gpu);
	}
}

void gpu_watch_drained(struct gpu_watch *watch, uint32_t index)
{
	struct watched *gpu = &watch->gpus[index];

	log_info("GPU %u (%s) is drained", index, watch->mediator->gpus.gpus[index].name);
	gpu->drained = true;
	gpu_watch_update(gpu);
}

void gpu_watch_stuck(struct gpu_watch *watch, uint32_t index)
{
	gpu_cause_begin(&watch->gpus[index], GPU_CAUSE_STUCK, clock_monotonic_ns(), "");
	gpu_watch_update(&watch->gpus[index]);
}

void gpu_watch_freed(struct gpu_watch *watch, uint32_t index)
{
	watch->gpus[index].causes[GPU_CAUSE_STUCK].active = false;
	gpu_watch_update(&watch->gpus[index]);
}

void gpu_watch_starts_fail(struct gpu_watch *watch, uint32_t index, const char *who)
{
	struct watched *gpu = &watch->gpus[index];

	if (!gpu->health)
		return;
	health_starts_fail(gpu->health, clock_monotonic_ns(), who);
	gpu_watch_update(gpu);
}

void gpu_watch_started(struct gpu_watch *watch, uint32_t index)
{
	struct watched *gpu = &watch->gpus[index];

	if (gpu->health && health_started(gpu->health))
		gpu_watch_update(gpu);
}

void gpu_watch_set_drained(struct gpu_watch *watch, uint32_t index, bool drained, const char *by,
                           struct admin_call *call)
{
	struct watched *gpu = &watch->gpus[index];

	log_info("GPU %u: %s by %s", index, drained ? "drained" : "resumed", by);
	if (drained) {
		gpu_cause_begin(gpu, GPU_CAUSE_BY_HAND, clock_monotonic_ns(), by);
	} else {
		gpu->causes[GPU_CAUSE_BY_HAND].active = gpu->causes[GPU_CAUSE_STUCK].active = false;
		/* Whoever resumes a GPU vouches for it; what is still wrong comes back. */
		if (gpu->health && gpu->reset.step == RESET_NONE && health_needs_drain(gpu->health))
			health_mended(gpu->health, clock_monotonic_ns(), HEALTH_MEND_WORD);
	}
	gpu_watch_update(gpu);
	gpu_holds_answer(gpu, call);
}

void gpu_watch_registry_read(struct gpu_watch *watch, const struct registry_gpu_holds *holds)
{
	for (uint32_t i = 0; i < watch->count; i++) {
		gpu_holds_read(&watch->gpus[i], holds);
		if (watch->reader && !watch->restored)
			gpu_reset_look_for_old(&watch->gpus[i]);
	}
	watch->restored = true;
	for (uint32_t i = 0; i < watch->count; i++)
		gpu_watch_update(&watch->gpus[i]);
}

void gpu_watch_stored(struct gpu_watch *watch, uint32_t index, bool stored)
{
	gpu_holds_stored(&watch->gpus[index], stored);
	gpu_watch_update(&watch->gpus[index]);
}

/* ---- Start and end ------------------------------------------------------------------------------
 */

static int start_reader(struct gpu_watch *watch)
{
	static const struct nvml_reader_ops ops = {
		.reading = on_reading, .xid = on_xid, .state = on_state};
	const struct mediator *mediator = watch->mediator;
	const char *uuids[CORE_MAX_GPUS];
	const struct nvml_reader_options options = {
		.uuids = uuids,
		.gpu_count = watch->count,
		.poll_ms = (uint32_t)mediator->config.nvml_poll_ms,
		.retry_ms = RETRY_POLLS * (uint32_t)mediator->config.nvml_poll_ms,
	};

	for (uint32_t i = 0; i < watch->count; i++)
		uuids[i] = mediator->gpus.gpus[i].uuid;
	return nvml_reader_new(&watch->reader, mediator->base, &options, &ops, watch);
}

int gpu_watch_new(struct gpu_watch **out, struct mediator *mediator)
{
	CLEANUP(gpu_watch_freep) struct gpu_watch *watch = calloc(1, sizeof(*watch));
	int r;

	if (!watch)
		return -ENOMEM;
	watch->mediator = mediator;
	watch->gpus = calloc(mediator->gpus.count, sizeof(*watch->gpus));
	if (!watch->gpus)
		return -ENOMEM;
	watch->count = mediator->gpus.count;
	for (uint32_t i = 0; i < watch->count; i++) {
		struct watched *gpu = &watch->gpus[i];

		gpu->watch = watch;
		gpu->index = i;
		memory_watch_init(&gpu->memory);
		if (gpu_reset_init(gpu) < 0 || gpu_holds_init(gpu) < 0)
			return -ENOMEM;
		if (!mediator->gpus.cuda)
			continue;
		r = health_new(&gpu->health, clock_monotonic_ns());
		if (r < 0)
			return r;
		if (!mediator->gpus.gpus[i].answers)
			health_no_context(gpu->health, clock_monotonic_ns());
	}
	if (mediator->gpus.cuda) {
		r = start_reader(watch);
		if (r < 0)
			return r;
	}
	*out = TAKE_PTR(watch);
	return 0;
}

void gpu_watch_stop(struct gpu_watch *watch)
{
	watch->stopping = true;
	for (uint32_t i = 0; i < watch->count; i++)
		gpu_reset_abandon(&watch->gpus[i]);
}

uint32_t gpu_watch_resets(const struct gpu_watch *watch)
{
	uint32_t running = 0;

	for (uint32_t i = 0; i < watch->count; i++)
		running += watch->gpus[i].reset.step != RESET_NONE;
	return running;
}

void gpu_watch_free(struct gpu_watch *watch)
{
	if (!watch)
		return;
	nvml_reader_free(watch->reader);
	for (uint32_t i = 0; i < watch->count; i++) {
		gpu_reset_clear(&watch->gpus[i]);
		gpu_holds_clear(&watch->gpus[i]);
		health_free(watch->gpus[i].health);
	}
	free(watch->gpus);
	free(watch);
}
