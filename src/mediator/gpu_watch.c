/* SPDX-License-Identifier: MIT */
/* See gpu_watch.h. With the cpu backend there is no NVML and nothing to reset. */
#include "mediator/gpu_watch.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include <event2/event.h>

#include "base/clock.h"
#include "mediator/gpu_probe.h"
#include "mediator/gpu_watch_internal.h"

enum {
	RETRY_POLLS = 30,       /* between attempts to find a library or a GPU that is not there */
	RELEASE_TIMEOUT_S = 10, /* for NVML to let go; then the command runs all the same */
	COMMAND_TIMEOUT_S = 120,
	VERIFY_TIMEOUT_S = 60,
};

const struct gpu_cause_info gpu_cause_infos[GPU_CAUSE_COUNT] = {
	[GPU_CAUSE_BY_HAND] = {"by_hand", "drained by", "vgpu-admin resume gives it back"},
	[GPU_CAUSE_STUCK] = {"worker_stuck", "a worker there survives SIGKILL",
                             "reset the GPU or reboot, then vgpu-admin resume"},
};

/* ---- Drain ----------------------------------------------------------------------------- */

static void log_news(struct watched *gpu)
{
	const struct gpu_info *info = &gpu->watch->mediator->gpus.gpus[gpu->index];
	struct health_news news;

	while (health_next_news(gpu->health, &news)) {
		if (!news.began)
			log_info("GPU %u (%s): over: %s", gpu->index, info->uuid,
			         news.reason->message);
		else
			log_warning("GPU %u (%s): %s; %s", gpu->index, info->uuid,
			            news.reason->message, news.reason->remedy);
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

static bool must_drain(const struct watched *gpu)
{
	for (int code = 0; code < GPU_CAUSE_COUNT; code++) {
		if (gpu->causes[code].active)
			return true;
	}
	return gpu->step != RESET_NONE || (gpu->health && health_needs_drain(gpu->health));
}

static void begin_reset(struct watched *gpu);

void gpu_watch_update(struct watched *gpu)
{
	struct mediator *mediator = gpu->watch->mediator;
	bool drain = must_drain(gpu);

	if (gpu->health)
		log_news(gpu);
	if (!drain)
		gpu->drained = false;
	core_gpu_set_draining(mediator->core, clock_monotonic_ns(), gpu->index, drain);
	mediator_pump(mediator);
	gpu_holds_sync(gpu);
	if (gpu->watch->restored && gpu->drained && gpu->step == RESET_NONE && gpu->health &&
	    health_needs_reset(gpu->health))
		begin_reset(gpu);
}

/* ---- Reset ------------------------------------------------------------------------------ */

static void set_timeout(struct watched *gpu, int seconds)
{
	const struct timeval after = {.tv_sec = seconds};

	event_add(gpu->timeout, &after);
}

static bool has_command(const struct watched *gpu)
{
	return gpu->watch->mediator->config.reset_command[0] != '\0';
}

/* Whether NVML has to stay closed, since some GPU is being reset. */
static bool needs_release(const struct gpu_watch *watch)
{
	for (uint32_t i = 0; i < watch->count; i++) {
		if (watch->gpus[i].step == RESET_RELEASING || watch->gpus[i].step == RESET_COMMAND)
			return true;
	}
	return false;
}

static void finish_reset(struct watched *gpu, const char *why)
{
	event_del(gpu->timeout);
	gpu->step = RESET_NONE;
	health_reset_done(gpu->health, clock_monotonic_ns(), why == NULL, why ? why : "");
	if (why)
		log_error("GPU %u: the reset failed: %s", gpu->index, why);
	else if (has_command(gpu))
		log_info("GPU %u: reset and verified", gpu->index);
	else
		log_warning("GPU %u: not reset, but a fresh context works: back in service",
		            gpu->index);
	if (!needs_release(gpu->watch))
		nvml_reader_resume(gpu->watch->reader);
	gpu_watch_update(gpu);
}

static void on_process_end(void *owner, pid_t pid, int status);

/* Runs the step's process, which has @seconds; its output goes nowhere. */
static void run_step(struct watched *gpu, enum reset_step step, const char *const *argv,
                     int seconds)
{
	CLEANUP(closep) int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	char why[256];
	int r;

	gpu->step = step;
	r = children_spawn(&gpu->pid, argv, null, STDOUT_FILENO);
	if (r == 0)
		r = children_watch(gpu->watch->mediator->children, gpu->pid, on_process_end, gpu);
	if (r == 0) {
		set_timeout(gpu, seconds);
		return;
	}
	gpu->pid = 0;
	snprintf(why, sizeof(why), "cannot run %.160s: %s", argv[0], strerror(-r));
	finish_reset(gpu, why);
}

static void verify(struct watched *gpu)
{
	struct mediator *mediator = gpu->watch->mediator;
	struct gpu_probe_command command;

	gpu_probe_command(&command, mediator->worker_program, "cuda",
	                  mediator->gpus.gpus[gpu->index].spec);
	run_step(gpu, RESET_VERIFYING, command.argv, VERIFY_TIMEOUT_S);
}

static void run_command(struct watched *gpu)
{
	struct mediator *mediator = gpu->watch->mediator;
	const char *const argv[] = {mediator->config.reset_command,
	                            mediator->gpus.gpus[gpu->index].uuid, NULL};

	log_warning("GPU %u: running %s %s", gpu->index, argv[0], argv[1]);
	run_step(gpu, RESET_COMMAND, argv, COMMAND_TIMEOUT_S);
}

static void on_process_end(void *owner, pid_t pid UNUSED, int status)
{
	struct watched *gpu = owner;
	bool command = gpu->step == RESET_COMMAND;
	char why[256];

	gpu->pid = 0;
	event_del(gpu->timeout);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
		if (command)
			verify(gpu);
		else
			finish_reset(gpu, NULL);
		return;
	}
	snprintf(why, sizeof(why), "%s %s %d", command ? "reset_command" : "the probe of a worker",
	         WIFSIGNALED(status) ? "was ended by signal" : "exited with status",
	         WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	finish_reset(gpu, why);
}

/* The step has taken too long. */
static void on_timeout(evutil_socket_t fd UNUSED, short what UNUSED, void *arg)
{
	struct watched *gpu = arg;

	if (gpu->step == RESET_RELEASING)
		run_command(gpu);
	else if (gpu->pid > 0)
		kill(gpu->pid, SIGKILL); /* its end is the step's failure */
}

static void begin_reset(struct watched *gpu)
{
	if (!has_command(gpu)) {
		verify(gpu);
		return;
	}
	if (nvml_reader_state(gpu->watch->reader) == NVML_STATE_RELEASED) {
		run_command(gpu);
		return;
	}
	gpu->step = RESET_RELEASING;
	set_timeout(gpu, RELEASE_TIMEOUT_S);
	nvml_reader_release(gpu->watch->reader);
}

/* ---- Events ------------------------------------------------------------------------------- */

static void on_reading(void *owner, uint32_t index, const struct nvml_reading *reading)
{
	struct gpu_watch *watch = owner;
	struct watched *gpu = &watch->gpus[index];

	gpu->last = *reading;
	gpu->has_reading = true;
	health_reading_came(gpu->health, reading->at_ns, &reading->health);
	gpu_watch_update(gpu);
}

static void on_xid(void *owner, uint32_t index, uint64_t xid, int64_t at_ns)
{
	struct gpu_watch *watch = owner;

	log_warning("GPU %u: Xid %llu: %s", index, (unsigned long long)xid,
	            health_xid_find(xid)->text);
	health_xid_came(watch->gpus[index].health, at_ns, xid);
	gpu_watch_update(&watch->gpus[index]);
}

static void on_state(void *owner, enum nvml_state state, const char *text)
{
	struct gpu_watch *watch = owner;

	for (uint32_t i = 0; i < watch->count; i++) {
		struct watched *gpu = &watch->gpus[i];

		if (state != NVML_STATE_UP) {
			gpu->has_reading = false;
			health_readings_stopped(gpu->health, clock_monotonic_ns(), text);
		}
		if (state == NVML_STATE_RELEASED && gpu->step == RESET_RELEASING)
			run_command(gpu);
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
		if (gpu->health && gpu->step == RESET_NONE && health_needs_drain(gpu->health))
			health_reset_done(gpu->health, clock_monotonic_ns(), true, "");
	}
	gpu_watch_update(gpu);
	gpu_holds_answer(gpu, call);
}

void gpu_watch_registry_read(struct gpu_watch *watch, const struct registry_gpu_holds *holds)
{
	for (uint32_t i = 0; i < watch->count; i++)
		gpu_holds_read(&watch->gpus[i], holds);
	watch->restored = true;
	for (uint32_t i = 0; i < watch->count; i++)
		gpu_watch_update(&watch->gpus[i]);
}

void gpu_watch_stored(struct gpu_watch *watch, uint32_t index, bool stored)
{
	gpu_holds_stored(&watch->gpus[index], stored);
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
		gpu->timeout = event_new(mediator->base, -1, 0, on_timeout, gpu);
		if (!gpu->timeout || gpu_holds_init(gpu) < 0)
			return -ENOMEM;
		if (!mediator->gpus.cuda)
			continue;
		r = health_new(&gpu->health, clock_monotonic_ns());
		if (r < 0)
			return r;
	}
	if (mediator->gpus.cuda) {
		r = start_reader(watch);
		if (r < 0)
			return r;
	}
	*out = TAKE_PTR(watch);
	return 0;
}

void gpu_watch_free(struct gpu_watch *watch)
{
	if (!watch)
		return;
	nvml_reader_free(watch->reader);
	for (uint32_t i = 0; i < watch->count; i++) {
		gpu_holds_clear(&watch->gpus[i]);
		health_free(watch->gpus[i].health);
		if (watch->gpus[i].timeout)
			event_free(watch->gpus[i].timeout);
	}
	free(watch->gpus);
	free(watch);
}
