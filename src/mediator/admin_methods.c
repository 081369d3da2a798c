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

static double to_seconds(int64_t ns)
{
	return (double)ns / (double)NS_PER_SEC;
}

static json_int_t percentile_us(const struct histogram *histogram, uint32_t permille)
{
	return (json_int_t)(histogram_percentile_ns(histogram, permille) / NS_PER_US);
}

static double weight_of(const struct vm_settings *settings)
{
	return (double)settings->weight_hundredths / 100.0;
}

/* Text that may hold anything, as JSON must have it: UTF-8 or null. */
static json_t *text_or_null(const char *text)
{
	json_t *string = text ? json_string(text) : NULL;

	return string ? string : json_null();
}

static void put(json_t *object, const char *key, json_t *value)
{
	json_object_set_new(object, key, value);
}

static json_t *vm_identity(const struct vm_entry *entry)
{
	const char pool[] = {pool_letter(entry->settings.pool), '\0'};

	return json_pack("{s:s, s:o, s:I, s:s, s:s, s:f}", "vm_uuid", entry->uuid, "vm_name",
	                 text_or_null(entry->name), "vm_id", (json_int_t)entry->vm_id, "pool", pool,
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
	put(object, "worker", json_string(core_worker_state_name(stats.worker)));
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
	put(object, "charged_s", json_real(to_seconds(stats.sched.charged_ns)));
	return object;
}

static json_t *gpu_status(struct mediator *mediator, uint32_t index)
{
	const struct gpu_info *gpu = &mediator->gpus.gpus[index];
	struct sched_stats stats;

	core_gpu_stats(mediator->core, index, &stats);
	return json_pack("{s:i, s:s, s:s, s:s, s:f, s:I, s:i, s:i}", "index", (int)index, "uuid",
	                 gpu->uuid, "name", gpu->name, "health", "unknown", "busy_s",
	                 to_seconds(stats.busy_ns), "context_switches",
	                 (json_int_t)stats.context_switches, "ready", (int)stats.ready, "open",
	                 (int)stats.open);
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
		json_array_append_new(gpus, gpu_status(mediator, i));
	core_stats(mediator->core, &stats);
	admin_call_result(
		call, json_pack("{s:s, s:i, s:f, s:s, s:o, s:o, s:i, s:i, s:I, s:{s:s, s:b}}",
	                        "version", VGPU_VERSION, "pid", (int)getpid(), "uptime_s",
	                        to_seconds(clock_monotonic_ns() - mediator->started_ns), "backend",
	                        mediator->gpus.cuda ? "cuda" : "cpu", "gpus", gpus, "vms", vms,
	                        "queue_depth", (int)stats.jobs, "workers", (int)stats.workers,
	                        "stale_events", (json_int_t)stats.stale_events, "database", "path",
	                        mediator->config.db, "ok", (int)store_ok(mediator->store)));
}

static void on_reload(void *owner, struct admin_call *call, const json_t *params UNUSED)
{
	mediator_reload(owner, call);
}

static void add_config_key(void *context, const char *key, const char *value)
{
	put(context, key, json_string(value));
}

static void on_show_config(void *owner, struct admin_call *call, const json_t *params UNUSED)
{
	struct mediator *mediator = owner;
	json_t *object = json_object();

	config_walk(&mediator->config, add_config_key, object);
	admin_call_result(call, object);
}

static void on_show_connections(void *owner, struct admin_call *call, const json_t *params UNUSED)
{
	struct mediator *mediator = owner;
	json_t *list = json_array();
	const struct vm_entry *entry;

	TAILQ_FOREACH (entry, &mediator->vms, link) {
		json_t *object = entry->port ? vm_identity(entry) : NULL;

		if (!object)
			continue;
		put(object, "connected", json_integer(guest_port_connections(entry->port)));
		put(object, "paused", json_boolean(entry->full));
		json_array_append_new(list, object);
	}
	admin_call_result(call, json_pack("{s:o}", "connections", list));
}

static void add_worker(void *context, const struct worker_info *info)
{
	json_array_append_new(context, json_pack("{s:i, s:I, s:i, s:b, s:s}", "vm", (int)info->vm,
	                                         "generation", (json_int_t)info->generation, "pid",
	                                         (int)info->pid, "ready", (int)info->ready,
	                                         "device", info->device.name));
}

/* Puts the VM's names in place of the core's number for it. */
static void name_workers(struct mediator *mediator, json_t *workers)
{
	const struct vm_entry *entry;
	json_t *worker;
	size_t i;

	json_array_foreach (workers, i, worker) {
		json_int_t number = json_integer_value(json_object_get(worker, "vm"));

		json_object_del(worker, "vm");
		TAILQ_FOREACH (entry, &mediator->vms, link) {
			if (entry->core_vm != number)
				continue;
			put(worker, "vm_uuid", json_string(entry->uuid));
			put(worker, "vm_name", text_or_null(entry->name));
		}
	}
}

static void on_list_workers(void *owner, struct admin_call *call, const json_t *params UNUSED)
{
	struct mediator *mediator = owner;
	json_t *list = json_array();

	worker_host_walk(mediator->workers, add_worker, list);
	name_workers(mediator, list);
	admin_call_result(call, json_pack("{s:o}", "workers", list));
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
	{"weights", "weights, priorities and shares", on_weights},
	{"show-metrics", "all metrics as Prometheus text", on_show_metrics},
	{NULL, NULL, NULL},
};
