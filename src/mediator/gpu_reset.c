/* SPDX-License-Identifier: MIT */
/*
 * The reset of one GPU, step by step, each bounded in time: NVML lets go of it, the
 * operator's command runs, a worker's probe verifies that a context can be made. Without
 * a command the probe is all.
 *
 * What runs is run by `vgpu-worker --guard`, which ends all of it when it is asked to and
 * when the mediator dies. The guard holds a lock on a file as long as anything of it is
 * left: what hangs in the driver can be killed by nobody, and no GPU may get work, from
 * this mediator or the next one, while an old command still works on it.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>

#include <event2/event.h>

#include "base/clock.h"
#include "mediator/gpu_watch_internal.h"

enum {
	RELEASE_TIMEOUT_S = 10, /* for NVML to let go; then the command runs all the same */
	VERIFY_TIMEOUT_S = 60,
	KILL_TIMEOUT_S = 10, /* for what was killed; then it is left behind */
	LOCK_POLL_S = 1,
	GUARD_LOCK_FD = 3,
};

static const struct gpu_info *info_of(const struct watched *gpu)
{
	return &gpu->watch->mediator->gpus.gpus[gpu->index];
}

static bool has_command(const struct watched *gpu)
{
	return gpu->watch->mediator->config.reset_command[0] != '\0';
}

static void set_timeout(struct watched *gpu, int64_t seconds)
{
	const struct timeval after = {.tv_sec = seconds};

	event_add(gpu->reset.timeout, &after);
}

/* Whether NVML has to stay closed, since some GPU is being reset. */
static bool needs_release(const struct gpu_watch *watch)
{
	for (uint32_t i = 0; i < watch->count; i++) {
		enum reset_step step = watch->gpus[i].reset.step;

		if (step == RESET_RELEASING || step == RESET_COMMAND)
			return true;
	}
	return false;
}

/* ---- The lock ------------------------------------------------------------------------ */

/* Opens and locks the GPU's file. 0, -EWOULDBLOCK if something has it, another errno. */
static int lock_take(const struct watched *gpu, int *out, int flags)
{
	char directory[CONFIG_PATH_BYTES], path[2 * CONFIG_PATH_BYTES];
	CLEANUP(closep) int fd = -1;

	snprintf(directory, sizeof(directory), "%s", gpu->watch->mediator->config.admin_socket);
	snprintf(path, sizeof(path), "%s/reset-%s.lock", dirname(directory), info_of(gpu)->uuid);
	fd = open(path, O_RDWR | O_CLOEXEC | flags, 0600);
	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
		return -errno;
	*out = TAKE_FD(fd);
	return 0;
}

static bool lock_is_held(const struct watched *gpu)
{
	CLEANUP(closep) int fd = -1;

	return lock_take(gpu, &fd, 0) == -EWOULDBLOCK;
}

static void on_lock_poll(evutil_socket_t fd UNUSED, short what UNUSED, void *arg)
{
	gpu_reset_look_for_old(arg);
}

void gpu_reset_look_for_old(struct watched *gpu)
{
	const struct timeval after = {.tv_sec = LOCK_POLL_S};
	struct gpu_cause *old = &gpu->causes[GPU_CAUSE_OLD_RESET];

	if (lock_is_held(gpu)) {
		if (!old->active)
			log_error("GPU %u: a reset of before still runs: no work until it ends",
			          gpu->index);
		gpu_cause_begin(gpu, GPU_CAUSE_OLD_RESET, clock_monotonic_ns(), "");
		event_add(gpu->reset.lock_poll, &after);
	} else if (old->active) {
		log_info("GPU %u: the reset of before has ended", gpu->index);
		old->active = false;
		gpu_watch_update(gpu);
	}
}

/* ---- Steps ----------------------------------------------------------------------------- */

static void finish(struct watched *gpu, const char *why)
{
	struct gpu_reset *reset = &gpu->reset;

	event_del(reset->timeout);
	reset->step = RESET_NONE;
	reset->late = false;
	if (reset->lock >= 0)
		close(TAKE_FD(reset->lock));
	if (why) {
		health_reset_failed(gpu->health, clock_monotonic_ns(), why);
		log_error("GPU %u: the reset failed: %s", gpu->index, why);
	} else if (reset->real) {
		health_mended(gpu->health, clock_monotonic_ns(), HEALTH_MEND_RESET);
		log_info("GPU %u: reset and verified", gpu->index);
	} else {
		health_mended(gpu->health, clock_monotonic_ns(), HEALTH_MEND_FRESH);
		log_warning("GPU %u: not reset, but a fresh context works: %s", gpu->index,
		            health_needs_drain(gpu->health) ? "that is not enough"
		                                            : "back in service");
	}
	if (!needs_release(gpu->watch))
		nvml_reader_resume(gpu->watch->reader);
	/* Something of it may have been left behind. */
	gpu_reset_look_for_old(gpu);
	gpu_watch_update(gpu);
}

static void on_process_end(void *owner, pid_t pid, int status);

/* Runs the step's command, which has @seconds. */
static void run_step(struct watched *gpu, enum reset_step step, const char *const *command,
                     int64_t seconds)
{
	struct mediator *mediator = gpu->watch->mediator;
	char parent[16], why[256];
	const char *argv[16] = {
		mediator->worker_program, "--guard", "--fd", "3", "--parent", parent, "--"};
	size_t n = 7;
	int r;

	_Static_assert(GUARD_LOCK_FD == 3, "as in the arguments");
	snprintf(parent, sizeof(parent), "%d", (int)getpid());
	while (*command && n < ARRAY_LEN(argv) - 1)
		argv[n++] = *command++;
	gpu->reset.step = step;
	r = children_spawn(&gpu->reset.pid, argv,
	                   &(struct child_fd){gpu->reset.lock, GUARD_LOCK_FD}, 1);
	if (r == 0)
		r = children_watch(mediator->children, gpu->reset.pid, on_process_end, gpu);
	if (r == 0) {
		set_timeout(gpu, seconds);
		return;
	}
	gpu->reset.pid = 0;
	snprintf(why, sizeof(why), "cannot run %.160s: %s", argv[0], strerror(-r));
	finish(gpu, why);
}

static void verify(struct watched *gpu)
{
	const char *const command[] = {gpu->watch->mediator->worker_program,
	                               "--probe",
	                               "--backend",
	                               "cuda",
	                               "--gpu",
	                               info_of(gpu)->spec,
	                               NULL};

	run_step(gpu, RESET_VERIFYING, command, VERIFY_TIMEOUT_S);
}

static void run_command(struct watched *gpu)
{
	const struct config *config = &gpu->watch->mediator->config;
	const char *const command[] = {config->reset_command, info_of(gpu)->uuid, NULL};

	log_warning("GPU %u: running %s %s", gpu->index, command[0], command[1]);
	gpu->reset.real = true;
	run_step(gpu, RESET_COMMAND, command, config->reset_timeout_s);
}

static const char *step_name(const struct watched *gpu)
{
	return gpu->reset.step == RESET_COMMAND ? "reset_command" : "the probe of a worker";
}

static void on_process_end(void *owner, pid_t pid UNUSED, int status)
{
	struct watched *gpu = owner;
	struct gpu_reset *reset = &gpu->reset;
	char why[256];

	reset->pid = 0;
	event_del(reset->timeout);
	if (reset->late)
		snprintf(why, sizeof(why), "%s did not end in time and was killed", step_name(gpu));
	else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		snprintf(why, sizeof(why), "%s %s %d", step_name(gpu),
		         WIFSIGNALED(status) ? "was ended by signal" : "exited with status",
		         WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	else
		why[0] = '\0';
	if (!why[0] && reset->step == RESET_COMMAND)
		verify(gpu);
	else
		finish(gpu, why[0] ? why : NULL);
}

/* The step has taken too long. */
static void on_timeout(evutil_socket_t fd UNUSED, short what UNUSED, void *arg)
{
	struct watched *gpu = arg;
	struct gpu_reset *reset = &gpu->reset;
	char why[256];

	if (reset->step == RESET_RELEASING) {
		run_command(gpu);
	} else if (!reset->late) {
		/* The guard kills what it runs; its end is the step's failure. */
		reset->late = true;
		kill(reset->pid, SIGTERM);
		set_timeout(gpu, KILL_TIMEOUT_S);
	} else {
		snprintf(why, sizeof(why),
		         "%s survives SIGKILL: it hangs in the driver and is left behind as "
		         "process %d",
		         step_name(gpu), (int)reset->pid);
		children_forget(gpu->watch->mediator->children, reset->pid);
		reset->pid = 0;
		finish(gpu, why);
	}
}

/* ---- Interface --------------------------------------------------------------------------- */

void gpu_reset_begin(struct watched *gpu)
{
	int r = lock_take(gpu, &gpu->reset.lock, O_CREAT);
	char why[128];

	if (r == -EWOULDBLOCK) {
		gpu_reset_look_for_old(gpu);
	} else if (r < 0) {
		snprintf(why, sizeof(why), "no lock beside the admin socket: %s", strerror(-r));
		finish(gpu, why);
	} else if (!has_command(gpu)) {
		gpu->reset.real = false;
		verify(gpu);
	} else if (nvml_reader_state(gpu->watch->reader) == NVML_STATE_RELEASED) {
		run_command(gpu);
	} else {
		gpu->reset.step = RESET_RELEASING;
		set_timeout(gpu, RELEASE_TIMEOUT_S);
		nvml_reader_release(gpu->watch->reader);
	}
}

void gpu_reset_nvml_released(struct watched *gpu)
{
	if (gpu->reset.step == RESET_RELEASING)
		run_command(gpu);
}

void gpu_reset_abandon(struct watched *gpu)
{
	if (gpu->reset.step != RESET_RELEASING)
		return;
	event_del(gpu->reset.timeout);
	gpu->reset.step = RESET_NONE;
}

int gpu_reset_init(struct watched *gpu)
{
	struct event_base *base = gpu->watch->mediator->base;

	gpu->reset.lock = -1;
	gpu->reset.timeout = evtimer_new(base, on_timeout, gpu);
	gpu->reset.lock_poll = evtimer_new(base, on_lock_poll, gpu);
	return gpu->reset.timeout && gpu->reset.lock_poll ? 0 : -ENOMEM;
}

/* Asks the guard to end what it runs, and leaves what cannot be ended to it. */
static void stop_guard(struct watched *gpu)
{
	int64_t deadline_ns = clock_monotonic_ns() + CHILDREN_KILL_MS * NS_PER_MS;
	pid_t pid = gpu->reset.pid;

	log_warning("GPU %u: %s is ended in the middle of a reset", gpu->index, step_name(gpu));
	children_forget(gpu->watch->mediator->children, pid);
	kill(pid, SIGTERM);
	if (children_reap(pid, deadline_ns, NULL) < 0)
		log_error("GPU %u: %s survives SIGKILL: process %d is left behind", gpu->index,
		          step_name(gpu), (int)pid);
}

void gpu_reset_clear(struct watched *gpu)
{
	if (gpu->reset.pid > 0)
		stop_guard(gpu);
	closep(&gpu->reset.lock);
	if (gpu->reset.timeout)
		event_free(gpu->reset.timeout);
	if (gpu->reset.lock_poll)
		event_free(gpu->reset.lock_poll);
}
