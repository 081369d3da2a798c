/* SPDX-License-Identifier: MIT */
/*
 * See metrics.h. A metric is a row: name, type, help, and the function that writes its
 * samples; rows of VMs are called once per VM. Series of a VM carry its uuid alone, so
 * that a new name or pool splits none; vgpu_vm_info joins the rest.
 */
#include "mediator/metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "mediator/internal.h"
#include "mediator/metrics_format.h"
#include "mediator/metrics_gpu.h"

struct vm_metric {
	const char *name;
	const char *type;
	const char *help;
	void (*write)(FILE *out, const char *name, const struct vm_figures *vm);
};

struct global_metric {
	const char *name;
	const char *type;
	const char *help;
	void (*write)(FILE *out, const char *name, struct mediator *mediator);
};

static void write_vm_value(FILE *out, const char *name, const struct vm_figures *vm, double value)
{
	fprintf(out, "%s{vm_uuid=\"%s\"} %.9g\n", name, vm->entry->uuid, value);
}

/* ---- Of a VM --------------------------------------------------------------------- */

static void write_info(FILE *out, const char *name, const struct vm_figures *vm)
{
	fprintf(out, "%s{vm_uuid=\"%s\",", name, vm->entry->uuid);
	metrics_write_label(out, "vm", vm->entry->name);
	fprintf(out, ",pool=\"%c\",priority=\"%s\"} 1\n", pool_letter(vm->entry->settings.pool),
	        priority_name(vm->entry->settings.priority));
}

static void write_submitted(FILE *out, const char *name, const struct vm_figures *vm)
{
	write_vm_value(out, name, vm, (double)vm->stats.submitted);
}

static void write_outcomes(FILE *out, const char *name, const struct vm_figures *vm)
{
	for (enum core_outcome i = 0; i < CORE_OUTCOME_COUNT; i++)
		fprintf(out, "%s{vm_uuid=\"%s\",result=\"%s\"} %" PRIu64 "\n", name,
		        vm->entry->uuid, core_outcome_name(i), vm->stats.outcomes[i]);
}

static void write_refusals(FILE *out, const char *name, const struct vm_figures *vm)
{
	for (enum core_refusal i = 0; i < CORE_REFUSAL_COUNT; i++)
		fprintf(out, "%s{vm_uuid=\"%s\",reason=\"%s\"} %" PRIu64 "\n", name,
		        vm->entry->uuid, core_refusal_name(i), vm->stats.refusals[i]);
}

static void write_faults(FILE *out, const char *name, const struct vm_figures *vm)
{
	for (enum core_fault i = 0; i < CORE_FAULT_COUNT; i++)
		fprintf(out, "%s{vm_uuid=\"%s\",kind=\"%s\"} %" PRIu64 "\n", name, vm->entry->uuid,
		        core_fault_name(i), vm->stats.faults[i]);
}

static void write_charged(FILE *out, const char *name, const struct vm_figures *vm)
{
	write_vm_value(out, name, vm, clock_seconds(vm->stats.charged_ns));
}

static void write_job_seconds(FILE *out, const char *name, const struct vm_figures *vm)
{
	write_vm_value(out, name, vm, clock_seconds((int64_t)vm->stats.job_gpu_ns));
}

static void write_start_failures(FILE *out, const char *name, const struct vm_figures *vm)
{
	write_vm_value(out, name, vm, (double)vm->stats.start_failures);
}

static void write_latency(FILE *out, const char *name, const struct vm_figures *vm)
{
	char label[REGISTRY_UUID_BYTES + 16];

	snprintf(label, sizeof(label), "vm_uuid=\"%s\"", vm->entry->uuid);
	metrics_write_histogram(out, name, label, METRICS_BUCKETS_JOB, vm->stats.latency);
}

static void write_depth(FILE *out, const char *name, const struct vm_figures *vm)
{
	write_vm_value(out, name, vm, vm->stats.depth);
}

static void write_rate(FILE *out, const char *name, const struct vm_figures *vm)
{
	write_vm_value(out, name, vm, vm->submission_rate);
}

static void write_average(FILE *out, const char *name, const struct vm_figures *vm)
{
	write_vm_value(out, name, vm, vm->job_average_ns / NS_PER_SEC);
}

static void write_share(FILE *out, const char *name, const struct vm_figures *vm)
{
	write_vm_value(out, name, vm, vm->share);
}

static void write_share_target(FILE *out, const char *name, const struct vm_figures *vm)
{
	write_vm_value(out, name, vm, vm->share_target);
}

static void write_weight(FILE *out, const char *name, const struct vm_figures *vm)
{
	write_vm_value(out, name, vm, (double)vm->entry->settings.weight_hundredths / 100);
}

static void write_rate_limit(FILE *out, const char *name, const struct vm_figures *vm)
{
	write_vm_value(out, name, vm, (double)vm->entry->settings.rate_thousandths / 1000);
}

static void write_depth_limit(FILE *out, const char *name, const struct vm_figures *vm)
{
	write_vm_value(out, name, vm, (double)vm->entry->settings.queue_depth);
}

static void write_quarantined(FILE *out, const char *name, const struct vm_figures *vm)
{
	write_vm_value(out, name, vm, vm->stats.quarantined);
}

static void write_points(FILE *out, const char *name, const struct vm_figures *vm)
{
	write_vm_value(out, name, vm, (double)vm->stats.fault_score);
}

/* Only while NVML tells. */
static void write_memory(FILE *out, const char *name, const struct vm_figures *vm)
{
	if (vm->memory_bytes != MEMORY_UNKNOWN)
		write_vm_value(out, name, vm, (double)vm->memory_bytes);
}

static void write_memory_expected(FILE *out, const char *name, const struct vm_figures *vm)
{
	if (vm->memory_expected_bytes != MEMORY_UNKNOWN)
		write_vm_value(out, name, vm, (double)vm->memory_expected_bytes);
}

static const struct vm_metric vm_metrics[] = {
	{"vgpu_vm_info", "gauge", "A VM's name, pool and priority; always 1.", write_info},
	{"vgpu_jobs_submitted_total", "counter", "Jobs received, refused ones included.",
         write_submitted},
	{"vgpu_jobs_total", "counter", "Accepted jobs answered, by result.", write_outcomes},
	{"vgpu_rejections_total", "counter", "Jobs refused, by reason.", write_refusals},
	{"vgpu_faults_total", "counter", "Faults of the VM's jobs, by kind.", write_faults},
	{"vgpu_worker_start_failures_total", "counter", "Starts of the VM's worker that failed.",
         write_start_failures},
	{"vgpu_gpu_charged_seconds_total", "counter",
         "GPU time charged, hand-over included: what is shared.", write_charged},
	{"vgpu_gpu_job_seconds_total", "counter", "GPU time of jobs as the worker measured it.",
         write_job_seconds},
	{"vgpu_job_latency_seconds", "histogram", "From accepted to answered.", write_latency},
	{"vgpu_queue_depth", "gauge", "Jobs accepted and not answered.", write_depth},
	{"vgpu_submission_rate", "gauge", "Jobs received per second in the last minute.",
         write_rate},
	{"vgpu_job_average_seconds", "gauge", "Mean execution time of a job.", write_average},
	{"vgpu_share_ratio", "gauge", "Share of the GPU time charged in the last minute.",
         write_share},
	{"vgpu_share_target_ratio", "gauge", "Share that the VM has when all of its GPU are busy.",
         write_share_target},
	{"vgpu_vm_weight", "gauge", "Weight.", write_weight},
	{"vgpu_vm_rate_limit", "gauge", "Jobs per second allowed; 0 = no limit.", write_rate_limit},
	{"vgpu_vm_depth_limit", "gauge", "Queue depth allowed; 0 = no limit of its own.",
         write_depth_limit},
	{"vgpu_quarantined", "gauge", "1 while the VM is quarantined.", write_quarantined},
	{"vgpu_fault_points", "gauge", "Points of remembered faults.", write_points},
	{"vgpu_worker_memory_bytes", "gauge", "GPU memory that the VM's worker holds.",
         write_memory},
	{"vgpu_worker_memory_expected_bytes", "gauge",
         "What its context and its jobs make, without an allowance.", write_memory_expected},
};

/* ---- Of pools, GPUs and the process -------------------------------------------------- */

static void write_pool_histogram(FILE *out, const char *name, struct mediator *mediator, bool wait)
{
	for (uint32_t pool = 0; pool < POOL_COUNT; pool++) {
		char label[16];
		struct core_pool_stats stats;

		core_pool_stats(mediator->core, pool, &stats);
		snprintf(label, sizeof(label), "pool=\"%c\"", pool_letter(pool));
		metrics_write_histogram(out, name, label, METRICS_BUCKETS_JOB,
		                        wait ? stats.wait : stats.execution);
	}
}

static void write_wait(FILE *out, const char *name, struct mediator *mediator)
{
	write_pool_histogram(out, name, mediator, true);
}

static void write_execution(FILE *out, const char *name, struct mediator *mediator)
{
	write_pool_histogram(out, name, mediator, false);
}

static void write_decisions(FILE *out, const char *name, struct mediator *mediator)
{
	metrics_write_histogram(out, name, "", METRICS_BUCKETS_LOOP, &mediator->decisions);
}

static void write_lag(FILE *out, const char *name, struct mediator *mediator)
{
	metrics_write_histogram(out, name, "", METRICS_BUCKETS_LOOP, lag_histogram(mediator->lag));
}

static void write_busy(FILE *out, const char *name, struct mediator *mediator)
{
	for (uint32_t i = 0; i < mediator->gpus.count; i++) {
		struct sched_stats stats;

		core_gpu_stats(mediator->core, i, &stats);
		fprintf(out, "%s{gpu_uuid=\"%s\"} %.9g\n", name, mediator->gpus.gpus[i].uuid,
		        clock_seconds(stats.busy_ns));
	}
}

static void write_switches(FILE *out, const char *name, struct mediator *mediator)
{
	for (uint32_t i = 0; i < mediator->gpus.count; i++) {
		struct sched_stats stats;

		core_gpu_stats(mediator->core, i, &stats);
		fprintf(out, "%s{gpu_uuid=\"%s\"} %" PRIu64 "\n", name, mediator->gpus.gpus[i].uuid,
		        stats.context_switches);
	}
}

static void write_workers(FILE *out, const char *name, struct mediator *mediator)
{
	struct core_stats stats;

	core_stats(mediator->core, &stats);
	fprintf(out, "%s %" PRIu32 "\n", name, stats.workers);
}

static void write_build(FILE *out, const char *name, struct mediator *mediator UNUSED)
{
	fprintf(out, "%s{version=\"%s\"} 1\n", name, VGPU_VERSION);
}

static void write_backend(FILE *out, const char *name, struct mediator *mediator)
{
	fprintf(out, "%s{backend=\"%s\"} 1\n", name, mediator->gpus.cuda ? "cuda" : "cpu");
}

static void write_cpu_seconds(FILE *out, const char *name, struct mediator *mediator UNUSED)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	fprintf(out, "%s %.6f\n", name,
	        (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
	                (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
}

static void write_resident(FILE *out, const char *name, struct mediator *mediator UNUSED)
{
	FILE *statm = fopen("/proc/self/statm", "re");
	unsigned long pages = 0;

	if (statm && fscanf(statm, "%*u %lu", &pages) != 1)
		pages = 0;
	if (statm)
		fclose(statm);
	fprintf(out, "%s %lu\n", name, pages * (unsigned long)sysconf(_SC_PAGESIZE));
}

static const struct global_metric global_metrics[] = {
	{"vgpu_queue_wait_seconds", "histogram", "From accepted to sent to a worker, per pool.",
         write_wait},
	{"vgpu_execution_seconds", "histogram", "Execution as the worker measured it, per pool.",
         write_execution},
	{"vgpu_scheduler_decision_seconds", "histogram",
         "What one event takes in the core, which decides what runs.", write_decisions},
	{"vgpu_event_loop_lag_seconds", "histogram",
         "How late the event loop serves a timer while there are jobs.", write_lag},
	{"vgpu_gpu_busy_seconds_total", "counter", "GPU time charged to anybody.", write_busy},
	{"vgpu_context_switches_total", "counter", "Turns of another VM than the one before.",
         write_switches},
	{"vgpu_workers", "gauge", "Worker processes.", write_workers},
	{"vgpu_build_info", "gauge", "The version; always 1.", write_build},
	{"vgpu_backend_info", "gauge", "The backend; always 1.", write_backend},
	{"process_cpu_seconds_total", "counter", "User and system CPU time of the mediator.",
         write_cpu_seconds},
	{"process_resident_memory_bytes", "gauge", "Resident memory of the mediator.",
         write_resident},
};

/* ---- All of it -------------------------------------------------------------------------- */

static void write_all(FILE *out, struct mediator *mediator, const struct vm_figures *vms,
                      size_t count)
{
	for (size_t i = 0; i < ARRAY_LEN(vm_metrics); i++) {
		const struct vm_metric *metric = &vm_metrics[i];

		metrics_write_head(out, metric->name, metric->type, metric->help);
		for (size_t j = 0; j < count; j++)
			metric->write(out, metric->name, &vms[j]);
	}
	for (size_t i = 0; i < ARRAY_LEN(global_metrics); i++) {
		const struct global_metric *metric = &global_metrics[i];

		metrics_write_head(out, metric->name, metric->type, metric->help);
		metric->write(out, metric->name, mediator);
	}
	metrics_write_gpus(out, mediator);
}

char *metrics_text(struct mediator *mediator)
{
	CLEANUP(freep) struct vm_figures *vms = NULL;
	char *text = NULL;
	size_t size = 0, count;
	FILE *out;

	if (figures_gather(mediator, &vms, &count) < 0)
		return NULL;
	out = open_memstream(&text, &size);
	if (!out)
		return NULL;
	write_all(out, mediator, vms, count);
	if (fclose(out) != 0) {
		free(text);
		return NULL;
	}
	return text;
}
