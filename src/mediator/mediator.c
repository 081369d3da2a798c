/* SPDX-License-Identifier: MIT */
/*
 * See mediator.h. Start and end: what is started needs what was started before it, and
 * ends in the opposite order.
 */
#include "mediator/mediator.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/timerfd.h>

#include <event2/event.h>

#include "base/clock.h"
#include "base/program.h"
#include "base/socket.h"
#include "mediator/internal.h"
#include "mediator/notify.h"

enum {
	SHUTDOWN_GRACE_S = 30, /* for jobs in flight */
	SHUTDOWN_POLL_MS = 20,
};

/* ---- Signals and the end --------------------------------------------------------------------- */

static void on_shutdown_check(evutil_socket_t fd UNUSED, short what UNUSED, void *arg)
{
	struct mediator *mediator = arg;
	struct core_stats stats;
	bool late = clock_monotonic_ns() >= mediator->shutdown_deadline_ns;
	uint32_t workers, resets = gpu_watch_resets(mediator->watch);
	bool flushed;

	core_stats(mediator->core, &stats);
	/* One that hangs in the driver may do so for ever: it is left behind. */
	workers = stats.workers - stats.stuck_workers;
	flushed = guest_server_flush(mediator->guests) && admin_server_flush(mediator->admin);
	if (!late && (stats.jobs || workers || resets || !flushed))
		return;
	if (stats.jobs || workers)
		log_warning("%u job%s and %u worker%s did not end in %d s", stats.jobs,
		            plural_s(stats.jobs), workers, plural_s(workers), SHUTDOWN_GRACE_S);
	event_base_loopbreak(mediator->base);
}

static void on_terminate(evutil_socket_t signal_number, short what UNUSED, void *arg)
{
	static const struct timeval poll = {.tv_usec = SHUTDOWN_POLL_MS * 1000};
	struct mediator *mediator = arg;

	if (mediator->shutdown_deadline_ns) {
		log_warning("signal %d again: leaving at once", (int)signal_number);
		event_base_loopbreak(mediator->base);
		return;
	}
	log_info("stopping: jobs in flight are answered first");
	notify_service_manager("STOPPING=1");
	mediator->shutdown_deadline_ns = clock_monotonic_ns() + SHUTDOWN_GRACE_S * NS_PER_SEC;
	guest_server_stop(mediator->guests);
	gpu_watch_stop(mediator->watch);
	core_shutdown(mediator->core, clock_monotonic_ns());
	mediator_pump(mediator);
	event_add(mediator->shutdown_check, &poll);
}

static void on_hangup(evutil_socket_t signal_number UNUSED, short what UNUSED, void *arg)
{
	mediator_reload(arg, NULL);
}

/* ---- Start -------------------------------------------------------------------------------------
 */

/* Creates @path and what is above it. */
static int make_directory(const char *path)
{
	char part[CONFIG_PATH_BYTES];

	for (size_t i = 1; i <= strlen(path); i++) {
		if (path[i] != '/' && path[i] != '\0')
			continue;
		snprintf(part, sizeof(part), "%.*s", (int)i, path);
		if (mkdir(part, 0755) < 0 && errno != EEXIST) {
			log_error("cannot create %s: %s", part, strerror(errno));
			return -errno;
		}
	}
	return 0;
}

/* Sockets of VMs that were removed while no mediator ran: nobody listens there. */
static void sweep_sockets(const char *path)
{
	DIR *directory = opendir(path);
	const struct dirent *entry;

	if (!directory)
		return;
	while ((entry = readdir(directory))) {
		char file[CONFIG_PATH_BYTES + 260];
		const char *end = strrchr(entry->d_name, '.');
		CLEANUP(closep) int fd = -1;

		if (!end || strcmp(end, ".sock") != 0)
			continue;
		snprintf(file, sizeof(file), "%s/%s", path, entry->d_name);
		if (socket_connect_unix(&fd, file, false) == -ECONNREFUSED)
			unlink(file);
	}
	closedir(directory);
}

/* The cpu backend's one processor: the last that we may use, so that 0 stays free. */
static int last_cpu(void)
{
	cpu_set_t set;
	int last = -1;

	if (sched_getaffinity(0, sizeof(set), &set) < 0)
		return -1;
	for (int i = 0; i < CPU_SETSIZE; i++) {
		if (CPU_ISSET(i, &set))
			last = i;
	}
	return last;
}

static int start_workers(struct mediator *mediator)
{
	const struct worker_host_config config = {
		.program = mediator->worker_program,
		.backend = mediator->gpus.cuda ? "cuda" : "cpu",
		.uid_base = geteuid() == 0 ? (uint32_t)mediator->config.worker_uid_base : 0,
		.pin_cpu = mediator->gpus.cuda ? -1 : last_cpu(),
		.allow_test_ops = mediator->config.allow_test_ops,
		.log_level = log_level_names[mediator->config.log_level],
	};

	return worker_host_new(&mediator->workers, mediator->base, mediator->children, &config,
	                       &mediator_worker_ops, mediator);
}

/* Somebody looks for what is wrong: that it cannot be recorded is no reason not to serve. */
static void start_event_log(struct mediator *mediator)
{
	const char *path = mediator->config.event_log;
	int64_t max_mb = mediator->config.event_log_max_mb;
	int r;

	if (!path[0])
		return;
	r = event_log_new(&mediator->event_log, mediator->core, path, max_mb * 1024 * 1024);
	if (r < 0)
		log_error("event log %s: %s: nothing is recorded", path,
		          r == -EEXIST ? "that is no file" : strerror(-r));
	else
		log_info("event log %s: recording, up to %" PRId64 " MiB", path, max_mb);
}

static int start_core(struct mediator *mediator)
{
	struct core_config *config = &mediator->core_config;
	int r;

	core_config_default(config);
	config_to_core(&mediator->config, mediator->gpus.cuda, config);
	config->gpu_count = mediator->gpus.count;
	for (uint32_t i = 0; i < POOL_COUNT; i++)
		config->pools[i].gpu_mask = mediator->gpus.pool_mask[i];
	r = core_new(&mediator->core, config, clock_monotonic_ns());
	if (r == 0)
		start_event_log(mediator);
	return r;
}

static void on_watchdog(evutil_socket_t fd UNUSED, short what UNUSED, void *arg UNUSED)
{
	notify_service_manager("WATCHDOG=1");
}

/* The service manager restarts a daemon that is ready and whose loop has stopped turning. */
static int start_watchdog(struct mediator *mediator)
{
	uint64_t half_us = notify_watchdog_us() / 2;
	const struct timeval interval = {.tv_sec = (time_t)(half_us / 1000000),
	                                 .tv_usec = (suseconds_t)(half_us % 1000000)};

	if (half_us == 0)
		return 0;
	mediator->watchdog = event_new(mediator->base, -1, EV_PERSIST, on_watchdog, NULL);
	return mediator->watchdog && event_add(mediator->watchdog, &interval) == 0 ? 0 : -ENOMEM;
}

/* Somebody waits for an answer, and so for the loop. */
static bool has_jobs(void *owner)
{
	const struct mediator *mediator = owner;
	struct core_stats stats;

	core_stats(mediator->core, &stats);
	return stats.jobs > 0;
}

static int start_events(struct mediator *mediator)
{
	static const struct {
		int number;
		event_callback_fn handler;
	} signals[] = {{SIGTERM, on_terminate}, {SIGINT, on_terminate}, {SIGHUP, on_hangup}};

	mediator->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (mediator->timer_fd < 0)
		return -errno;
	mediator->timer = event_new(mediator->base, mediator->timer_fd, EV_READ | EV_PERSIST,
	                            mediator_on_timer, mediator);
	mediator->shutdown_check =
		event_new(mediator->base, -1, EV_PERSIST, on_shutdown_check, mediator);
	if (!mediator->timer || !mediator->shutdown_check || event_add(mediator->timer, NULL) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < ARRAY_LEN(signals); i++) {
		mediator->signals[i] = evsignal_new(mediator->base, signals[i].number,
		                                    signals[i].handler, mediator);
		if (!mediator->signals[i] || event_add(mediator->signals[i], NULL) < 0)
			return -ENOMEM;
	}
	return figures_start(mediator);
}

static int start_sockets(struct mediator *mediator)
{
	const struct config *config = &mediator->config;
	int r;

	r = make_directory(config->listen_dir);
	if (r < 0)
		return r;
	r = admin_server_new(&mediator->admin, mediator->base, config->admin_socket, admin_methods,
	                     mediator);
	if (r < 0) {
		log_error("admin socket %s: %s", config->admin_socket,
		          r == -EADDRINUSE ? "another mediator is running there" : strerror(-r));
		return r;
	}
	sweep_sockets(config->listen_dir);
	r = guest_server_new(&mediator->guests, mediator->base, &mediator_guest_ops, mediator);
	if (r < 0)
		return r;
	guest_server_set_limits(mediator->guests, config_guest_limits(config));
	if (!config->legacy_socket[0])
		return 0;
	r = guest_server_open_legacy(mediator->guests, config->legacy_socket);
	if (r < 0)
		log_error("legacy socket %s: %s", config->legacy_socket, strerror(-r));
	else
		log_warning("legacy socket %s: whoever can reach it can claim to be any VM",
		            config->legacy_socket);
	return r;
}

/* Reads the registry for the first time; the sockets are there when this returns. */
static int start_registry(struct mediator *mediator)
{
	struct registry_error why;
	int r = store_new(&mediator->store, mediator->base, mediator->config.db,
	                  &mediator_store_ops, mediator, &why);

	if (r != 0) {
		log_error("registry: %s", why.text);
		return r < 0 ? r : -EIO;
	}
	r = mediator_load_registry(mediator);
	if (r < 0)
		return r;
	while (!TAILQ_EMPTY(&mediator->reloads)) {
		if (event_base_loop(mediator->base, EVLOOP_ONCE) != 0)
			return -EIO;
	}
	return store_ok(mediator->store) ? 0 : -EIO;
}

int mediator_new(struct mediator **out, struct event_base *base, const struct config *config,
                 const struct config_source *source)
{
	CLEANUP(mediator_freep) struct mediator *mediator = calloc(1, sizeof(*mediator));
	int r;

	if (!mediator)
		return -ENOMEM;
	mediator->base = base;
	mediator->config = *config;
	mediator->source = source;
	mediator->started_ns = clock_monotonic_ns();
	mediator->armed_ns = SCHED_NEVER;
	mediator->timer_fd = -1;
	TAILQ_INIT(&mediator->vms);
	TAILQ_INIT(&mediator->reloads);

	r = program_beside(mediator->worker_program, sizeof(mediator->worker_program),
	                   "vgpu-worker");
	if (r == 0 && !program_exists(mediator->worker_program))
		r = -ENOENT;
	if (r < 0) {
		log_error("%s cannot be run: %s; install it beside vgpu-mediator",
		          mediator->worker_program, strerror(-r));
		return r;
	}
	r = gpus_find(&mediator->gpus, config, mediator->worker_program);
	if (r == 0)
		r = start_events(mediator);
	if (r == 0)
		r = children_new(&mediator->children, base);
	if (r == 0)
		r = start_core(mediator);
	if (r == 0)
		r = lag_new(&mediator->lag, base, has_jobs, mediator);
	if (r == 0)
		r = start_workers(mediator);
	if (r == 0)
		r = gpu_watch_new(&mediator->watch, mediator);
	if (r == 0)
		r = start_sockets(mediator);
	if (r == 0)
		r = start_registry(mediator);
	if (r == 0)
		r = start_watchdog(mediator);
	if (r < 0)
		return r;
	*out = TAKE_PTR(mediator);
	return 0;
}

void mediator_free(struct mediator *mediator)
{
	struct pending_reload *reload;
	struct core_action action;

	if (!mediator)
		return;
	while ((reload = TAILQ_FIRST(&mediator->reloads)))
		reload_free(mediator, reload);
	admin_server_free(mediator->admin);
	/* Dies first, so that nothing is told any more; then what is unanswered is freed. */
	gpu_watch_free(mediator->watch);
	children_free(mediator->children);
	worker_host_free(mediator->workers);
	if (mediator->core) {
		core_abandon(mediator->core);
		while (core_next_action(mediator->core, &action)) {
			event_log_action(mediator->event_log, &action);
			free(action.payload);
			free(action.result);
		}
		event_log_free(TAKE_PTR(mediator->event_log));
		if (mediator->store)
			mediator_store_rest(mediator);
	}
	vm_table_free(mediator);
	guest_server_free(mediator->guests);
	store_free(mediator->store);
	core_free(mediator->core);
	for (size_t i = 0; i < ARRAY_LEN(mediator->signals); i++) {
		if (mediator->signals[i])
			event_free(mediator->signals[i]);
	}
	lag_free(mediator->lag);
	if (mediator->watchdog)
		event_free(mediator->watchdog);
	if (mediator->sampler)
		event_free(mediator->sampler);
	if (mediator->shutdown_check)
		event_free(mediator->shutdown_check);
	if (mediator->timer)
		event_free(mediator->timer);
	closep(&mediator->timer_fd);
	free(mediator);
}
