/* SPDX-License-Identifier: MIT */
/*
 * What the admin socket offers: one row in admin_methods a method. `help` lists them.
 *
 * Lists are built from what core and ports say at this moment; nothing is cached.
 */
#include <string.h>

#include "base/clock.h"
#include "mediator/internal.h"
#include "mediator/metrics.h"

static void put(json_t *object, const char *key, json_t *value)
{
	json_object_set_new(object, key, value);
}

/* ---- Methods -------------------------------------------------------------------------- */

static void on_ping(void *owner, struct admin_call *call, const json_t *params UNUSED)
{
	const struct mediator *mediator = owner;

	admin_call_result(call, json_pack("{s:s, s:i, s:o}", "version", VGPU_VERSION, "pid",
	                                  (int)getpid(), "worker_program",
	                                  admin_text(mediator->worker_program)));
}

static void on_help(void *owner UNUSED, struct admin_call *call, const json_t *params UNUSED)
{
	json_t *list = json_object();

	for (const struct admin_method *method = admin_methods; method->name; method++)
		put(list, method->name, json_string(method->help));
	admin_call_result(call, list);
}

static void on_status(void *owner, struct admin_call *call, const json_t *params UNUSED)
{
	CLEANUP(freep) struct vm_figures *figures = NULL;
	struct mediator *mediator = owner;
	json_t *vms, *gpus;
	struct core_stats stats;
	size_t count;

	if (figures_gather(mediator, &figures, &count) < 0) {
		admin_call_result(call, NULL);
		return;
	}
	vms = json_array();
	gpus = json_array();
	for (size_t i = 0; i < count; i++)
		json_array_append_new(vms, vm_describe_status(&figures[i]));
	for (uint32_t i = 0; i < mediator->gpus.count; i++)
		json_array_append_new(gpus, gpu_watch_describe(mediator->watch, i));
	core_stats(mediator->core, &stats);
	admin_call_result(
		call,
		json_pack("{s:s, s:i, s:f, s:s, s:o, s:o, s:i, s:i, s:I, s:I, s:{s:o, s:b}}",
	                  "version", VGPU_VERSION, "pid", (int)getpid(), "uptime_s",
	                  clock_seconds(clock_monotonic_ns() - mediator->started_ns), "backend",
	                  mediator->gpus.cuda ? "cuda" : "cpu", "gpus", gpus, "vms", vms,
	                  "queue_depth", (int)stats.jobs, "workers", (int)stats.workers,
	                  "stale_events", (json_int_t)stats.stale_events, "longest_stall_us",
	                  (json_int_t)(lag_histogram(mediator->lag)->max_ns / NS_PER_US),
	                  "database", "path", admin_text(mediator->config.db), "ok",
	                  (int)store_ok(mediator->store)));
}

static void on_reload(void *owner, struct admin_call *call, const json_t *params UNUSED)
{
	mediator_reload(owner, call);
}

static void add_config_key(void *context, const char *key, const char *value)
{
	put(context, key, admin_text(value));
}

static void on_show_config(void *owner, struct admin_call *call, const json_t *params UNUSED)
{
	struct mediator *mediator = owner;
	json_t *object = json_object();

	config_walk(&mediator->config, add_config_key, object);
	admin_call_result(call, object);
}

/* What a walk over connections, workers or jobs adds its objects to. */
struct listing {
	struct mediator *mediator;
	const struct vm_entry *entry; /* of connections */
	json_t *list;
};

static void add_connection(void *context, const struct guest_connection *connection)
{
	struct listing *listing = context;
	json_t *object = vm_describe_identity(listing->entry);

	if (!object)
		return;
	put(object, "peer_pid", json_integer(connection->pid));
	put(object, "peer_uid", json_integer(connection->uid));
	put(object, "since_s",
	    json_real(clock_seconds(clock_monotonic_ns() - connection->since_ns)));
	put(object, "requests", json_integer((json_int_t)connection->requests));
	put(object, "extended", json_boolean(connection->extended));
	put(object, "paused", json_boolean(listing->entry->full));
	json_array_append_new(listing->list, object);
}

static void on_show_connections(void *owner, struct admin_call *call, const json_t *params UNUSED)
{
	struct listing listing = {.mediator = owner, .list = json_array()};

	TAILQ_FOREACH (listing.entry, &listing.mediator->vms, link) {
		if (listing.entry->port)
			guest_port_walk(listing.entry->port, add_connection, &listing);
	}
	admin_call_result(call, json_pack("{s:o}", "connections", listing.list));
}

static void add_worker(void *context, const struct worker_info *info)
{
	struct listing *listing = context;
	const struct vm_entry *entry = vm_table_find(listing->mediator, info->vm);
	json_t *object = entry ? vm_describe_worker(listing->mediator, entry) : NULL;

	if (!object)
		return;
	if (info->pid > 0)
		put(object, "pid", json_integer(info->pid));
	put(object, "generation", json_integer((json_int_t)info->generation));
	put(object, "ready", json_boolean(info->ready));
	put(object, "device", admin_text(info->device.name));
	put(object, "age_s", json_real(clock_seconds(clock_monotonic_ns() - info->since_ns)));
	json_array_append_new(listing->list, object);
}

/* Those that there would be if they could start. */
static void add_failing_workers(struct listing *listing)
{
	TAILQ_FOREACH (listing->entry, &listing->mediator->vms, link) {
		struct core_vm_stats stats;

		core_vm_stats(listing->mediator->core, clock_monotonic_ns(),
		              listing->entry->core_vm, &stats);
		if (stats.worker == CORE_WORKER_NONE && stats.failed_starts)
			json_array_append_new(listing->list, vm_describe_worker(listing->mediator,
			                                                        listing->entry));
	}
}

static void on_list_workers(void *owner, struct admin_call *call, const json_t *params UNUSED)
{
	struct listing listing = {.mediator = owner, .list = json_array()};

	worker_host_walk(listing.mediator->workers, add_worker, &listing);
	add_failing_workers(&listing);
	admin_call_result(call, json_pack("{s:o}", "workers", listing.list));
}

static void add_job(void *context, const struct core_job_info *info)
{
	struct listing *listing = context;
	const struct vm_entry *entry = info->owner;

	json_array_append_new(listing->list,
	                      json_pack("{s:I, s:s, s:o, s:o, s:s, s:I}", "job",
	                                (json_int_t)info->id, "vm_uuid", entry->uuid, "vm_name",
	                                admin_text(entry->name), "opcode",
	                                json_sprintf("0x%04x", info->opcode), "state",
	                                info->running ? "running" : "queued", "age_us",
	                                (json_int_t)(info->age_ns / NS_PER_US)));
}

static void on_list_jobs(void *owner, struct admin_call *call, const json_t *params UNUSED)
{
	struct listing listing = {.mediator = owner, .list = json_array()};

	core_tick(listing.mediator->core, clock_monotonic_ns());
	core_jobs_walk(listing.mediator->core, add_job, &listing);
	admin_call_result(call, json_pack("{s:o}", "jobs", listing.list));
	mediator_pump(listing.mediator);
}

static void on_cancel_job(void *owner, struct admin_call *call, const json_t *params)
{
	const json_t *job = json_object_get(params, "job");
	struct mediator *mediator = owner;

	if (!json_is_integer(job) || json_integer_value(job) < 0) {
		admin_call_error(call, ADMIN_E_PARAMS, "job must be a number that list-jobs shows");
		return;
	}
	if (core_job_cancel(mediator->core, clock_monotonic_ns(),
	                    (uint64_t)json_integer_value(job)) < 0)
		admin_call_error(call, ADMIN_E_FAILED,
		                 "no job %lld waits or runs; list-jobs shows those that do",
		                 (long long)json_integer_value(job));
	else
		admin_call_result(call, json_pack("{s:I}", "cancelled", json_integer_value(job)));
	mediator_pump(mediator);
}

static void on_health(void *owner, struct admin_call *call, const json_t *params UNUSED)
{
	struct mediator *mediator = owner;
	json_t *gpus = json_array();

	for (uint32_t i = 0; i < mediator->gpus.count; i++)
		json_array_append_new(gpus, gpu_watch_describe(mediator->watch, i));
	admin_call_result(call, json_pack("{s:o}", "gpus", gpus));
}

static void set_drained(struct mediator *mediator, struct admin_call *call, const json_t *params,
                        bool drained)
{
	const json_t *gpu = json_object_get(params, "gpu");
	const char *by = json_string_value(json_object_get(params, "by"));
	json_int_t index = gpu ? json_integer_value(gpu) : 0;

	if ((gpu && !json_is_integer(gpu)) || (!gpu && mediator->gpus.count > 1) || index < 0 ||
	    index >= mediator->gpus.count) {
		admin_call_error(call, ADMIN_E_PARAMS, "gpu must be a number from 0 to %u",
		                 mediator->gpus.count - 1);
		return;
	}
	gpu_watch_set_drained(mediator->watch, (uint32_t)index, drained, by ? by : "an operator",
	                      call);
}

static void on_drain(void *owner, struct admin_call *call, const json_t *params)
{
	set_drained(owner, call, params, true);
}

static void on_resume(void *owner, struct admin_call *call, const json_t *params)
{
	set_drained(owner, call, params, false);
}

static void on_weights(void *owner, struct admin_call *call, const json_t *params UNUSED)
{
	CLEANUP(freep) struct vm_figures *figures = NULL;
	struct mediator *mediator = owner;
	json_t *list;
	size_t count;

	if (figures_gather(mediator, &figures, &count) < 0) {
		admin_call_result(call, NULL);
		return;
	}
	list = json_array();
	for (size_t i = 0; i < count; i++)
		json_array_append_new(list, vm_describe_weights(mediator, &figures[i]));
	admin_call_result(call, json_pack("{s:o}", "weights", list));
}

static void on_show_metrics(void *owner, struct admin_call *call, const json_t *params UNUSED)
{
	CLEANUP(freep) char *text = metrics_text(owner);

	admin_call_result(call, text ? json_pack("{s:s}", "text", text) : NULL);
}

const struct admin_method admin_methods[] = {
	{"help", "the methods and what they do", on_help},
	{"ping", "version, process id, and the program of the workers", on_ping},
	{"status", "GPUs, VMs, workers and the database", on_status},
	{"reload", "read configuration and registry again", on_reload},
	{"show-config", "every configuration key and its value", on_show_config},
	{"show-connections", "the VMs' connections", on_show_connections},
	{"list-workers", "the worker processes", on_list_workers},
	{"health", "the GPUs: state, reasons, readings", on_health},
	{"drain", "take a GPU out of service: {\"gpu\": number, \"by\": who}", on_drain},
	{"resume", "give a GPU back: {\"gpu\": number, \"by\": who}", on_resume},
	{"list-jobs", "the jobs that wait or run", on_list_jobs},
	{"cancel-job", "end a job: {\"job\": number}", on_cancel_job},
	{"vm-set", "change a VM: {\"vm_uuid\": which, \"weight\": number, ...}", vm_set},
	{"weights", "what each VM may claim and gets, and its place in the order", on_weights},
	{"show-metrics", "all metrics as Prometheus text", on_show_metrics},
	{NULL, NULL, NULL},
};
