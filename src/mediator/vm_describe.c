/* SPDX-License-Identifier: MIT */
/* VMs as the admin socket tells of them. */
#include "base/clock.h"
#include "mediator/internal.h"

static void put(json_t *object, const char *key, json_t *value)
{
	json_object_set_new(object, key, value);
}

json_t *vm_describe_identity(const struct vm_entry *entry)
{
	const char pool[] = {pool_letter(entry->settings.pool), '\0'};

	return json_pack("{s:s, s:o, s:I, s:s, s:s, s:f}", "vm_uuid", entry->uuid, "vm_name",
	                 admin_text(entry->name), "vm_id", (json_int_t)entry->vm_id, "pool", pool,
	                 "priority", priority_name(entry->settings.priority), "weight",
	                 (double)entry->settings.weight_hundredths / 100.0);
}

static uint64_t sum(const uint64_t *counts, size_t count)
{
	uint64_t total = 0;

	for (size_t i = 0; i < count; i++)
		total += counts[i];
	return total;
}

static json_t *microseconds(int64_t ns)
{
	return json_integer((json_int_t)(ns / NS_PER_US));
}

static json_t *percentile_us(const struct core_vm_stats *stats, uint32_t permille)
{
	return microseconds((int64_t)histogram_percentile_ns(stats->latency, permille));
}

/* Between two attempts to start a worker that has failed there is none, and it will not do. */
static json_t *worker_text(const struct core_vm_stats *stats)
{
	if (stats->stuck)
		return json_string("stuck");
	if (stats->worker == CORE_WORKER_NONE && stats->failed_starts)
		return json_string("failing");
	return json_string(core_worker_state_name(stats->worker));
}

static void put_shares(json_t *object, const struct vm_figures *vm)
{
	put(object, "gpu", json_integer(vm->stats.gpu));
	put(object, "share", json_real(vm->share));
	put(object, "share_target", json_real(vm->share_target));
}

json_t *vm_describe_status(const struct vm_figures *vm)
{
	json_t *object = vm_describe_identity(vm->entry);
	const struct core_vm_stats *stats = &vm->stats;

	if (!object)
		return NULL;
	put(object, "connected",
	    json_integer(vm->entry->port ? guest_port_connections(vm->entry->port) : 0));
	put(object, "queue_depth", json_integer(stats->depth));
	put(object, "in_flight", json_integer(stats->in_flight));
	put(object, "worker", worker_text(stats));
	put(object, "failed_starts", json_integer(stats->failed_starts));
	put(object, "submitted", json_integer((json_int_t)stats->submitted));
	put(object, "submission_rate", json_real(vm->submission_rate));
	put(object, "jobs_done", json_integer((json_int_t)stats->outcomes[CORE_OUTCOME_DONE]));
	put(object, "jobs_failed",
	    json_integer((json_int_t)(stats->outcomes[CORE_OUTCOME_FAILED] +
	                              stats->outcomes[CORE_OUTCOME_TIMEOUT])));
	put(object, "refused", json_integer((json_int_t)sum(stats->refusals, CORE_REFUSAL_COUNT)));
	put(object, "faults", json_integer((json_int_t)sum(stats->faults, CORE_FAULT_COUNT)));
	put(object, "fault_points", json_integer(stats->fault_score));
	put(object, "quarantined", json_boolean(stats->quarantined));
	put(object, "job_average_us", microseconds((int64_t)vm->job_average_ns));
	put(object, "p50_us", percentile_us(stats, 500));
	put(object, "p95_us", percentile_us(stats, 950));
	put(object, "p99_us", percentile_us(stats, 990));
	put_shares(object, vm);
	put(object, "charged_s", json_real(clock_seconds(stats->charged_ns)));
	return object;
}

json_t *vm_describe_worker(struct mediator *mediator, const struct vm_entry *entry)
{
	json_t *object = vm_describe_identity(entry);
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

/* ---- The scheduler's order --------------------------------------------------------- */

static json_t *tag_ms(int64_t tag)
{
	return json_real((double)sched_tag_ns(tag) / NS_PER_MS);
}

/*
 * What decides when it is the VM's turn. A place in the order is a point in the GPU's
 * virtual time, told from now on in ms: it passes as fast as a VM whose phi is 1 is
 * charged.
 */
static void put_order(json_t *object, const struct sched_vm_stats *vm, int64_t virtual_time)
{
	bool takes_part = vm->ready || vm->open;
	int64_t ahead = vm->start_tag - virtual_time;

	/* Without a job it would begin where it ended, or here. */
	if (!takes_part)
		ahead = max_i64(0, vm->finish_tag - virtual_time);
	put(object, "phi", json_real((double)vm->phi / 100));
	put(object, "turn", json_string(vm->open ? "open" : vm->ready ? "waiting" : "none"));
	put(object, "queued", json_integer(vm->queued));
	put(object, "in_flight", json_integer(vm->in_flight));
	put(object, "start_ms", tag_ms(ahead));
	put(object, "turn_average_us", microseconds(vm->estimate_turn_ns));
	put(object, "boost", vm->ready ? json_real((double)vm->boost_ppm / 1e6) : json_null());
	put(object, "key_ms", vm->ready ? tag_ms(vm->key - virtual_time) : json_null());
}

json_t *vm_describe_weights(const struct mediator *mediator, const struct vm_figures *vm)
{
	json_t *object = vm_describe_identity(vm->entry);
	struct sched_stats gpu;

	if (!object)
		return NULL;
	core_gpu_stats(mediator->core, vm->stats.gpu, &gpu);
	put_shares(object, vm);
	put(object, "priority_factor", json_integer(1 << vm->entry->settings.priority));
	put_order(object, &vm->stats.sched, gpu.virtual_time);
	put(object, "head_wait_us",
	    vm->stats.sched.queued ? microseconds(vm->stats.head_wait_ns) : json_null());
	return object;
}
