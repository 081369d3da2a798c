/* SPDX-License-Identifier: MIT */
/*
 * See mediator.h. Whatever happens is brought to the core as one event; mediator_pump()
 * then carries out what the core wants, until it wants nothing more. Nothing that is
 * carried out calls back into the core before the pump is done with it.
 */
#include "mediator/mediator.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/timerfd.h>

#include <event2/event.h>

#include "base/clock.h"
#include "base/socket.h"
#include "mediator/internal.h"
#include "mediator/notify.h"

enum {
	SHUTDOWN_GRACE_S = 30, /* for jobs in flight */
	SHUTDOWN_POLL_MS = 20,
};

/* ---- Actions of the core ----------------------------------------------------------- */

static void do_start_worker(struct mediator *mediator, const struct core_action *action)
{
	char label[160];

	worker_host_start(mediator->workers, action->vm, action->generation,
	                  mediator->gpus.gpus[action->gpu].spec,
	                  vm_entry_label(label, sizeof(label), action->owner));
}

static void do_stop_worker(struct mediator *mediator, const struct core_action *action)
{
	worker_host_stop(mediator->workers, action->generation);
}

static void do_kill_worker(struct mediator *mediator, const struct core_action *action)
{
	worker_host_kill(mediator->workers, action->generation);
}

static void do_send_job(struct mediator *mediator, const struct core_action *action)
{
	worker_host_send(mediator->workers, action->generation, action->job, action->opcode,
	                 action->payload);
}

static void do_answer(struct mediator *mediator, const struct core_action *action)
{
	struct vm_entry *entry = action->owner;

	guest_server_answer(mediator->guests, action->client, (uint32_t)action->cookie,
	                    &action->answer, action->result);
	free(action->payload);
	free(action->result);
	if (entry->full && entry->port && core_vm_has_room(mediator->core, action->vm)) {
		entry->full = false;
		guest_port_resume(entry->port);
	}
}

static void do_store(struct mediator *mediator, const struct core_action *action)
{
	const struct vm_entry *entry = action->owner;
	const struct core_store *store = &action->store;
	bool is_fault = store->fault < CORE_FAULT_COUNT;
	struct store_fault fault = {
		.kind = is_fault ? core_fault_name(store->fault) : NULL,
		.points = store->points,
	};
	char label[160];
	int r;

	vm_entry_label(label, sizeof(label), entry);
	if (store->fault == CORE_FAULT_GPU)
		snprintf(fault.detail, sizeof(fault.detail), "CUDA error %" PRIu32, store->detail);
	if (is_fault)
		log_warning("%s: fault: %s %s", label, fault.kind, fault.detail);
	if (store->quarantine) {
		snprintf(fault.quarantine, sizeof(fault.quarantine),
		         "%" PRId64 " points within %" PRId64 " s",
		         mediator->config.quarantine_threshold, mediator->config.fault_window_s);
		log_error("%s: quarantined: %s", label, fault.quarantine);
	}
	r = store_fault(mediator->store, store->ticket, entry->uuid, &fault);
	if (r < 0) {
		log_error("%s: a fault is not recorded: %s", label, strerror(-r));
		core_store_done(mediator->core, clock_monotonic_ns(), store->ticket, false);
	}
}

static void do_gpu_drained(struct mediator *mediator, const struct core_action *action)
{
	log_info("GPU %u (%s) is drained", action->gpu, mediator->gpus.gpus[action->gpu].name);
}

static void do_vm_gone(struct mediator *mediator, const struct core_action *action)
{
	vm_table_forget(mediator, action->owner);
}

static void arm_timer(struct mediator *mediator)
{
	int64_t deadline_ns = core_deadline_ns(mediator->core);
	struct itimerspec when = {.it_interval = {0}};

	/* A timer that goes off early only asks once too often: later is left as it is. */
	if (deadline_ns >= mediator->armed_ns)
		return;
	deadline_ns = max_i64(deadline_ns, 1);
	when.it_value.tv_sec = deadline_ns / NS_PER_SEC;
	when.it_value.tv_nsec = deadline_ns % NS_PER_SEC;
	if (timerfd_settime(mediator->timer_fd, TFD_TIMER_ABSTIME, &when, NULL) < 0)
		log_error("timerfd: %s", strerror(errno));
	mediator->armed_ns = deadline_ns;
}

void mediator_pump(struct mediator *mediator)
{
	static void (*const handlers[])(struct mediator *, const struct core_action *) = {
		[CORE_ACTION_START_WORKER] = do_start_worker,
		[CORE_ACTION_STOP_WORKER] = do_stop_worker,
		[CORE_ACTION_KILL_WORKER] = do_kill_worker,
		[CORE_ACTION_SEND_JOB] = do_send_job,
		[CORE_ACTION_ANSWER] = do_answer,
		[CORE_ACTION_STORE] = do_store,
		[CORE_ACTION_GPU_DRAINED] = do_gpu_drained,
		[CORE_ACTION_VM_GONE] = do_vm_gone,
	};
	struct core_action action;

	if (mediator->pumping)
		return;
	mediator->pumping = true;
	while (core_next_action(mediator->core, &action))
		handlers[action.type](mediator, &action);
	mediator->pumping = false;
	arm_timer(mediator);
}

/* ---- Events for the core ------------------------------------------------------------- */

static void on_timer(evutil_socket_t fd, short what UNUSED, void *arg)
{
	struct mediator *mediator = arg;
	uint64_t expirations;

	if (read(fd, &expirations, sizeof(expirations)) < 0)
		return;
	mediator->armed_ns = SCHED_NEVER;
	core_tick(mediator->core, clock_monotonic_ns());
	mediator_pump(mediator);
}

static void on_submit(void *owner, void *vm, uint64_t client, uint32_t request_id,
                      enum vgpu_code malformed, uint32_t opcode, struct message *request)
{
	struct mediator *mediator = owner;
	struct vm_entry *entry = vm;
	const struct core_submission submission = {
		.client = client,
		.cookie = request_id,
		.opcode = opcode,
		.bytes = request ? request->length : 0,
		.malformed = malformed,
		.payload = request,
	};

	if (core_job_submitted(mediator->core, clock_monotonic_ns(), entry->core_vm, &submission) <
	    0) {
		const struct core_answer answer = {.code = VGPU_CODE_QUEUE_FULL};

		guest_server_answer(mediator->guests, client, request_id, &answer, NULL);
		free(request);
	}
	mediator_pump(mediator);
}

static void on_client_gone(void *owner, void *vm, uint64_t client)
{
	struct mediator *mediator = owner;
	struct vm_entry *entry = vm;

	core_client_gone(mediator->core, clock_monotonic_ns(), entry->core_vm, client);
	mediator_pump(mediator);
}

static bool has_room(void *owner, void *vm)
{
	struct mediator *mediator = owner;
	struct vm_entry *entry = vm;

	if (core_vm_has_room(mediator->core, entry->core_vm))
		return true;
	entry->full = true;
	return false;
}

static struct guest_port *find_port(void *owner, uint32_t vm_id)
{
	struct mediator *mediator = owner;
	struct vm_entry *entry;

	TAILQ_FOREACH (entry, &mediator->vms, link) {
		if (entry->vm_id == vm_id && !entry->removing)
			return entry->port;
	}
	return NULL;
}

static const struct guest_ops guest_ops = {
	.submit = on_submit,
	.client_gone = on_client_gone,
	.has_room = has_room,
	.find = find_port,
};

static void on_worker_ready(void *owner, uint32_t vm, uint64_t generation,
                            const struct worker_device *device UNUSED)
{
	struct mediator *mediator = owner;

	core_worker_ready(mediator->core, clock_monotonic_ns(), vm, generation);
	mediator_pump(mediator);
}

static void on_worker_done(void *owner, uint32_t vm, uint64_t generation, uint64_t job,
                           const struct core_result *result)
{
	struct mediator *mediator = owner;

	if (core_job_done(mediator->core, clock_monotonic_ns(), vm, generation, job, result) < 0)
		free(result->result);
	mediator_pump(mediator);
}

static void on_worker_dead(void *owner, uint32_t vm, uint64_t generation)
{
	struct mediator *mediator = owner;

	core_worker_dead(mediator->core, clock_monotonic_ns(), vm, generation);
	mediator_pump(mediator);
}

static const struct worker_host_ops worker_ops = {
	.ready = on_worker_ready,
	.done = on_worker_done,
	.dead = on_worker_dead,
};

/* ---- Registry and configuration ---------------------------------------------------------- */

static void on_stored(void *owner, uint64_t ticket, bool stored)
{
	struct mediator *mediator = owner;

	core_store_done(mediator->core, clock_monotonic_ns(), ticket, stored);
	mediator_pump(mediator);
}

static struct pending_reload *find_reload(struct mediator *mediator, uint64_t tag)
{
	struct pending_reload *reload;

	TAILQ_FOREACH (reload, &mediator->reloads, link) {
		if (reload->tag == tag)
			return reload;
	}
	return NULL;
}

static void reload_free(struct mediator *mediator, struct pending_reload *reload)
{
	TAILQ_REMOVE(&mediator->reloads, reload, link);
	json_decref(reload->changed);
	json_decref(reload->errors);
	free(reload);
}

/* Ends a reload: tells what came of it. */
static void reload_finish(struct mediator *mediator, struct pending_reload *reload,
                          const struct vm_table_report *report, const char *why)
{
	json_array_extend(reload->changed, report->changed);
	json_array_extend(reload->errors, report->errors);
	if (reload->call && why)
		admin_call_error(reload->call, ADMIN_E_FAILED, "%s", why);
	else if (reload->call)
		admin_call_result(reload->call,
		                  json_pack("{s:i, s:i, s:O, s:O}", "added", report->added,
		                            "removed", report->removed, "changed", reload->changed,
		                            "errors", reload->errors));
	reload_free(mediator, reload);
}

static void on_loaded(void *owner, uint64_t tag, const struct store_snapshot *snapshot,
                      const char *why)
{
	struct mediator *mediator = owner;
	struct pending_reload *reload = find_reload(mediator, tag);
	struct vm_table_report report = {.changed = json_array(), .errors = json_array()};

	if (snapshot && !mediator->shutdown_deadline_ns)
		vm_table_apply(mediator, snapshot, &report);
	if (report.added || report.removed || json_array_size(report.changed))
		log_info("registry: %u VMs added, %u removed, %zu changes", report.added,
		         report.removed, json_array_size(report.changed));
	if (reload)
		reload_finish(mediator, reload, &report, snapshot ? NULL : why);
	json_decref(report.changed);
	json_decref(report.errors);
}

static const struct store_ops store_ops = {.loaded = on_loaded, .stored = on_stored};

static void report_config(void *context, const char *line)
{
	struct pending_reload *reload = context;

	log_info("configuration: %s", line);
	json_array_append_new(reload->changed, json_string(line));
}

static void reload_config(struct mediator *mediator, struct pending_reload *reload)
{
	const struct guest_limits limits = {(uint32_t)mediator->config.max_connections_per_vm};
	struct config_error error;
	struct config next;

	if (config_load(&next, mediator->source, &error) < 0) {
		log_error("configuration not reloaded: %s", error.text);
		json_array_append_new(reload->errors, json_string(error.text));
		return;
	}
	config_apply(&mediator->config, &next, report_config, reload);
	config_to_core(&mediator->config, mediator->gpus.cuda, &mediator->core_config);
	core_config_set(mediator->core, clock_monotonic_ns(), &mediator->core_config);
	guest_server_set_limits(mediator->guests, &limits);
	mediator_pump(mediator);
}

static struct pending_reload *reload_new(struct mediator *mediator, struct admin_call *call)
{
	struct pending_reload *reload = calloc(1, sizeof(*reload));

	if (!reload)
		return NULL;
	reload->tag = ++mediator->last_tag;
	reload->call = call;
	reload->changed = json_array();
	reload->errors = json_array();
	TAILQ_INSERT_TAIL(&mediator->reloads, reload, link);
	return reload;
}

void mediator_reload(struct mediator *mediator, struct admin_call *call)
{
	struct pending_reload *reload = reload_new(mediator, call);
	int r = -ENOMEM;

	if (reload) {
		reload_config(mediator, reload);
		r = store_load(mediator->store, reload->tag);
	}
	if (r < 0 && call)
		admin_call_error(call, ADMIN_E_FAILED, "the registry is not read: %s",
		                 strerror(-r));
	if (r < 0 && reload)
		reload_free(mediator, reload);
}

/* ---- Signals and the end --------------------------------------------------------------------- */

static void on_shutdown_check(evutil_socket_t fd UNUSED, short what UNUSED, void *arg)
{
	struct mediator *mediator = arg;
	struct core_stats stats;
	bool late = clock_monotonic_ns() >= mediator->shutdown_deadline_ns;
	bool flushed;

	core_stats(mediator->core, &stats);
	flushed = guest_server_flush(mediator->guests) && admin_server_flush(mediator->admin);
	if (!late && (stats.jobs || stats.workers || !flushed))
		return;
	if (stats.jobs)
		log_warning("%u jobs did not end in %d s", stats.jobs, SHUTDOWN_GRACE_S);
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

/* The program beside ours. */
static int worker_program(char *to, size_t size)
{
	char self[PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	if (length < 0)
		return -errno;
	self[length] = '\0';
	slash = strrchr(self, '/');
	snprintf(to, size, "%.*s/vgpu-worker", (int)(slash - self), self);
	return access(to, X_OK) < 0 ? -errno : 0;
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

static int start_workers(struct mediator *mediator, const char *program)
{
	static const char *const levels[] = {"error", "warning", "info", "debug"};
	const struct worker_host_config config = {
		.program = program,
		.backend = mediator->gpus.cuda ? "cuda" : "cpu",
		.uid_base = geteuid() == 0 ? (uint32_t)mediator->config.worker_uid_base : 0,
		.pin_cpu = mediator->gpus.cuda ? -1 : last_cpu(),
		.allow_test_ops = mediator->config.allow_test_ops,
		.log_level = levels[mediator->config.log_level],
	};

	return worker_host_new(&mediator->workers, mediator->base, &config, &worker_ops, mediator);
}

static int start_core(struct mediator *mediator)
{
	struct core_config *config = &mediator->core_config;

	core_config_default(config);
	config_to_core(&mediator->config, mediator->gpus.cuda, config);
	config->gpu_count = mediator->gpus.count;
	for (uint32_t i = 0; i < POOL_COUNT; i++)
		config->pools[i].gpu_mask = mediator->gpus.pool_mask[i];
	return core_new(&mediator->core, config, clock_monotonic_ns());
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
	                            on_timer, mediator);
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
	return 0;
}

static int start_sockets(struct mediator *mediator)
{
	const struct guest_limits limits = {(uint32_t)mediator->config.max_connections_per_vm};
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
	r = guest_server_new(&mediator->guests, mediator->base, &guest_ops, mediator);
	if (r < 0)
		return r;
	guest_server_set_limits(mediator->guests, &limits);
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
	struct pending_reload *reload;
	struct registry_error why;
	int r = store_new(&mediator->store, mediator->base, mediator->config.db, &store_ops,
	                  mediator, &why);

	if (r != 0) {
		log_error("registry: %s", why.text);
		return r < 0 ? r : -EIO;
	}
	reload = reload_new(mediator, NULL);
	r = reload ? store_load(mediator->store, reload->tag) : -ENOMEM;
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
	static char program[PATH_MAX];
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

	r = worker_program(program, sizeof(program));
	if (r < 0) {
		log_error("%s: %s", program, strerror(-r));
		return r;
	}
	r = gpus_find(&mediator->gpus, config, program);
	if (r == 0)
		r = start_events(mediator);
	if (r == 0)
		r = start_core(mediator);
	if (r == 0)
		r = start_workers(mediator, program);
	if (r == 0)
		r = start_sockets(mediator);
	if (r == 0)
		r = start_registry(mediator);
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
	worker_host_free(mediator->workers);
	if (mediator->core) {
		core_abandon(mediator->core);
		while (core_next_action(mediator->core, &action)) {
			free(action.payload);
			free(action.result);
		}
	}
	vm_table_free(mediator);
	guest_server_free(mediator->guests);
	store_free(mediator->store);
	core_free(mediator->core);
	for (size_t i = 0; i < ARRAY_LEN(mediator->signals); i++) {
		if (mediator->signals[i])
			event_free(mediator->signals[i]);
	}
	if (mediator->shutdown_check)
		event_free(mediator->shutdown_check);
	if (mediator->timer)
		event_free(mediator->timer);
	closep(&mediator->timer_fd);
	free(mediator);
}
