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

/* ---- Pieces of answers ------------------------------------------------------------- */

static json_int_t percentile_us(const struct histogram *histogram, uint32_t permille)
{
	return (json_int_t)(histogram_percentile_ns(histogram, permille) / NS_PER_US);
}

static double weight_of(const struct vm_settings *settings)
{
	return (double)settings->weight_hundredths / 100.0;
}

static void put(json_t *object, const char *key, json_t *value)
{
	json_object_set_new(object, key, value);
}

static json_t *vm_identity(const struct vm_entry *entry)
{
	const char pool[] = {pool_letter(entry->settings.pool), '\0'};

	return json_pack("{s:s, s:o, s:I, s:s, s:s, s:f}", "vm_uuid", entry->uuid, "vm_name",
	                 admin_text(entry->name), "vm_id", (json_int_t)entry->vm_id, "pool", pool,
	                 "priority", priority_name(entry->settings.priority), "weight",
	                 weight_of(&entry->settings));
}

static uint64_t sum(const uint64_t *counts, size_t count)
{
	uint64_t total = 0;

	for (size_t i = 0; i < count; i++)
		total += counts[i];
	return total;
}

static void put_shares(json_t *object, const struct mediator *mediator,
                       const struct vm_entry *entry, const struct gpu_shares *gpus)
{
	const struct gpu_shares *gpu = &gpus[core_vm_gpu(mediator->core, entry->core_vm)];

	put(object, "share", json_real(shares_now(gpu, entry)));
	put(object, "share_target", json_real(shares_target(gpu, entry)));
}

/* Between two attempts to start a worker that has failed there is none, and it will not do. */
static json_t *worker_text(const struct core_vm_stats *stats)
{
	if (stats->worker == CORE_WORKER_NONE && stats->failed_starts)
		return json_string("failing");
	return json_string(core_worker_state_name(stats->worker));
}

static json_t *vm_status(struct mediator *mediator, const struct vm_entry *entry,
                         const struct gpu_shares *gpus)
{
	json_t *object = vm_identity(entry);
	struct core_vm_stats stats;

	if (!object)
		return NULL;
	core_vm_stats(mediator->core, clock_monotonic_ns(), entry->core_vm, &stats);
	put(object, "connected",
	    json_integer(entry->port ? guest_port_connections(entry->port) : 0));
	put(object, "queue_depth", json_integer(stats.depth));
	put(object, "in_flight", json_integer(stats.in_flight));
	put(object, "worker", worker_text(&stats));
	put(object, "failed_starts", json_integer(stats.failed_starts));
	put(object, "gpu", json_integer(stats.gpu));
	put(object, "jobs_done", json_integer((json_int_t)stats.outcomes[CORE_OUTCOME_DONE]));
	put(object, "jobs_failed",
	    json_integer((json_int_t)(stats.outcomes[CORE_OUTCOME_FAILED] +
	                              stats.outcomes[CORE_OUTCOME_TIMEOUT])));
	put(object, "refused", json_integer((json_int_t)sum(stats.refusals, CORE_REFUSAL_COUNT)));
	put(object, "faults", json_integer((json_int_t)sum(stats.faults, CORE_FAULT_COUNT)));
	put(object, "fault_points", json_integer(stats.fault_score));
	put(object, "quarantined", json_boolean(stats.quarantined));
	put(object, "p50_us", json_integer(percentile_us(stats.latency, 500)));
	put(object, "p95_us", json_integer(percentile_us(stats.latency, 950)));
	put(object, "p99_us", json_integer(percentile_us(stats.latency, 990)));
	put_shares(object, mediator, entry, gpus);
	put(object, "charged_s", json_real(clock_seconds(stats.charged_ns)));
	return object;
}

/* ---- Methods -------------------------------------------------------------------------- */

static void on_ping(void *owner UNUSED, struct admin_call *call, const json_t *params UNUSED)
{
	admin_call_result(call,
	                  json_pack("{s:s, s:i}", "version", VGPU_VERSION, "pid", (int)getpid()));
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
	struct mediator *mediator = owner;
	json_t *vms = json_array(), *gpus = json_array();
	const struct vm_entry *entry;
	struct gpu_shares shares[CORE_MAX_GPUS];
	struct core_stats stats;

	shares_sum(mediator, shares);
	TAILQ_FOREACH (entry, &mediator->vms, link) {
		if (!entry->removing)
			json_array_append_new(vms, vm_status(mediator, entry, shares));
	}
	for (uint32_t i = 0; i < mediator->gpus.count; i++)
		json_array_append_new(gpus, gpu_watch_describe(mediator->watch, i));
	core_stats(mediator->core, &stats);
	admin_call_result(
		call,
		json_pack("{s:s, s:i, s:f, s:s, s:o, s:o, s:i, s:i, s:I, s:{s:o, s:b}}", "version",
	                  VGPU_VERSION, "pid", (int)getpid(), "uptime_s",
	                  clock_seconds(clock_monotonic_ns() - mediator->started_ns), "backend",
	                  mediator->gpus.cuda ? "cuda" : "cpu", "gpus", gpus, "vms", vms,
	                  "queue_depth", (int)stats.jobs, "workers", (int)stats.workers,
	                  "stale_events", (json_int_t)stats.stale_events, "database", "path",
	                  admin_text(mediator->config.db), "ok", (int)store_ok(mediator->store)));
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
	json_t *object = vm_identity(listing->entry);

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

static json_t *worker_status(struct mediator *mediator, const struct vm_entry *entry)
{
	json_t *object = vm_identity(entry);
	struct core_vm_stats stats;

	if (!object)
		return NULL;
	core_vm_stats(mediator->core, clock_monotonic_ns(), entry->core_vm, &stats);
	put(object, "pid", json_null());
	put(object, "ready", json_false());
	put(object, "state", worker_text(&stats));
	put(object, "failed_starts", json_integer(stats.failed_starts));
	put(object, "backend", json_string(mediator->gpus.cuda ? "cuda" : "cpu"));
	put(object, "gpu", json_integer(stats.gpu));
	put(object, "in_flight", json_integer(stats.in_flight));
	return object;
}

static void add_worker(void *context, const struct worker_info *info)
{
	struct listing *listing = context;
	const struct vm_entry *entry = vm_table_find(listing->mediator, info->vm);
	json_t *object = entry ? worker_status(listing->mediator, entry) : NULL;

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
			json_array_append_new(listing->list,
			                      worker_status(listing->mediator, listing->entry));
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
	struct gpu_shares shares[CORE_MAX_GPUS];
	struct mediator *mediator = owner;
	json_t *list = json_array();
	const struct vm_entry *entry;

	shares_sum(mediator, shares);
	TAILQ_FOREACH (entry, &mediator->vms, link) {
		json_t *object = entry->removing ? NULL : vm_identity(entry);

		if (!object)
			continue;
		put_shares(object, mediator, entry, shares);
		json_array_append_new(list, object);
	}
	admin_call_result(call, json_pack("{s:o}", "weights", list));
}

static void on_show_metrics(void *owner, struct admin_call *call, const json_t *params UNUSED)
{
	CLEANUP(freep) char *text = metrics_text(owner);

	admin_call_result(call, text ? json_pack("{s:s}", "text", text) : NULL);
}

const struct admin_method admin_methods[] = {
	{"help", "the methods and what they do", on_help},
	{"ping", "version and process id", on_ping},
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
	{"weights", "weights, priorities and shares", on_weights},
	{"show-metrics", "all metrics as Prometheus text", on_show_metrics},
	{NULL, NULL, NULL},
};
