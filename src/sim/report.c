/* SPDX-License-Identifier: MIT */
/* See report.h. */
#include "sim/report.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"
#include "sim/scenario_keys.h"

static int by_value(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return x < y ? -1 : x > y;
}

/* Of sorted values; 0 where there is nothing. */
static int64_t quantile_ns(const int64_t *values, uint32_t count, double q)
{
	uint32_t at = (uint32_t)ceil(q * count);

	return count ? values[at ? at - 1 : 0] : 0;
}

static double percent(double part, double whole)
{
	return whole > 0 ? 100 * part / whole : 0;
}

static double ms(int64_t ns)
{
	return (double)ns / NS_PER_MS;
}

/* How far what it had is from what was due to it, in percent of that. */
static double error_percent(int64_t had_ns, double due_ns)
{
	return due_ns > 0 ? 100 * fabs((double)had_ns / due_ns - 1) : 0;
}

/* Whether anybody's wait counts more than everybody's. */
static bool some_wait_counts(const struct scenario *scenario)
{
	for (uint32_t i = 0; i < scenario->vm_count; i++)
		if (scenario->vms[i].counts == COUNTS_WAIT)
			return true;
	return false;
}

/* Whether it matters how the VM's own jobs fare. */
static bool jobs_count(const struct scenario_vm *what)
{
	return what->counts == COUNTS_SHARE || what->counts == COUNTS_WAIT;
}

static void summarize_waits(struct report_summary *out, const struct scenario *scenario,
                            const struct world_result *result)
{
	bool some = some_wait_counts(scenario);

	out->least_waits = UINT32_MAX;
	for (uint32_t i = 0; i < scenario->vm_count; i++) {
		const struct world_vm_result *vm = &result->vms[i];

		if (some ? scenario->vms[i].counts != COUNTS_WAIT : !jobs_count(&scenario->vms[i]))
			continue;
		out->least_waits = (uint32_t)min_u64(out->least_waits, vm->wait_count);
		out->wait_p50_ms =
			fmax(out->wait_p50_ms, ms(quantile_ns(vm->waits_ns, vm->wait_count, 0.5)));
		out->wait_p99_ms =
			fmax(out->wait_p99_ms, ms(quantile_ns(vm->waits_ns, vm->wait_count, 0.99)));
		out->wait_max_ms =
			fmax(out->wait_max_ms, ms(quantile_ns(vm->waits_ns, vm->wait_count, 1)));
	}
}

static void summarize_share(struct report_summary *out, const struct world_vm_result *vm,
                            double elapsed_ns)
{
	out->share_error_percent =
		fmax(out->share_error_percent, error_percent(vm->charged_ns, vm->due_charged_ns));
	out->gpu_error_percent =
		fmax(out->gpu_error_percent, error_percent(vm->occupied_ns, vm->due_occupied_ns));
	out->least_percent = fmin(out->least_percent, percent((double)vm->useful_ns, elapsed_ns));
}

/* A policy that knows no turns is measured by the quantum. */
static void summarize_excess(struct report_summary *out, const struct scenario *scenario,
                             const struct world_vm_result *vm)
{
	int64_t turn_ns = max_i64(vm->turn_ns, scenario->rules.core.sched.quantum_ns);
	double excess_ns = (double)vm->charged_ns - vm->due_charged_ns;

	out->excess_turns = fmax(out->excess_turns, excess_ns / (double)turn_ns);
}

void report_summarize(struct report_summary *out, const struct scenario *scenario,
                      struct world_result *result)
{
	double elapsed_ns = (double)result->elapsed_ns, all_ns = elapsed_ns * scenario->gpus;

	*out = (struct report_summary){.least_percent = 100, .seeds = 1};
	for (uint32_t i = 0; i < scenario->vm_count; i++) {
		struct world_vm_result *vm = &result->vms[i];

		if (vm->wait_count)
			qsort(vm->waits_ns, vm->wait_count, sizeof(*vm->waits_ns), by_value);
		out->busy_percent += percent((double)vm->useful_ns, all_ns);
		if (jobs_count(&scenario->vms[i]))
			out->failed_jobs += (double)vm->failed;
		if (scenario->vms[i].counts == COUNTS_EXCESS)
			summarize_excess(out, scenario, vm);
		if (scenario->vms[i].counts != COUNTS_SHARE)
			continue;
		out->kept_percent += percent((double)vm->useful_ns, all_ns);
		summarize_share(out, vm, elapsed_ns);
	}
	out->switches_per_s = (double)result->gpu_switches * NS_PER_SEC /
	                      (elapsed_ns + (double)scenario->warmup_ns);
	summarize_waits(out, scenario, result);
}

const struct report_summary report_best = {
	.busy_percent = 100,
	.kept_percent = 100,
	.least_percent = 100,
	.least_waits = UINT32_MAX,
};

void report_worst(struct report_summary *worst, const struct report_summary *other)
{
	worst->busy_percent = fmin(worst->busy_percent, other->busy_percent);
	worst->kept_percent = fmin(worst->kept_percent, other->kept_percent);
	worst->least_percent = fmin(worst->least_percent, other->least_percent);
	worst->share_error_percent = fmax(worst->share_error_percent, other->share_error_percent);
	worst->gpu_error_percent = fmax(worst->gpu_error_percent, other->gpu_error_percent);
	worst->excess_turns = fmax(worst->excess_turns, other->excess_turns);
	worst->failed_jobs = fmax(worst->failed_jobs, other->failed_jobs);
	worst->wait_p50_ms = fmax(worst->wait_p50_ms, other->wait_p50_ms);
	worst->wait_p99_ms = fmax(worst->wait_p99_ms, other->wait_p99_ms);
	worst->wait_max_ms = fmax(worst->wait_max_ms, other->wait_max_ms);
	worst->switches_per_s = fmax(worst->switches_per_s, other->switches_per_s);
	worst->seeds += other->seeds;
	worst->least_waits = (uint32_t)min_u64(worst->least_waits, other->least_waits);
}

/* ---- What was expected ------------------------------------------------------------ */

/* The figure that a row of expect_rows[] is about. */
static double figure_of(const struct report_summary *summary, const struct expect_row *row)
{
	return *(const double *)(const void *)((const char *)summary + row->figure);
}

int report_expect(FILE *to, const struct scenario *scenario, const struct sim_policy *policy,
                  const struct report_summary *summary)
{
	struct scenario_expect expect = scenario->expect[policy - sim_policies];
	char least[32], most[32];
	int r = 0;

	for (const struct expect_row *row = expect_rows; row->key; row++) {
		const struct scenario_range *range = scenario_range_of(&expect, row);
		double is = figure_of(summary, row);

		if (!range->set)
			continue;
		if (row->of_waits && summary->least_waits == 0) {
			fprintf(to,
			        "%s, %s, seed %" PRIu64 ": %s: a VM that counts has had no job\n",
			        scenario->name, policy->name, scenario->seed, row->key);
			r = -EPROTO;
			continue;
		}
		if (1000 * is >= (double)range->least && 1000 * is <= (double)range->most)
			continue;
		scenario_format(least, sizeof(least), &scenario_range_decimal, range->least);
		scenario_format(most, sizeof(most), &scenario_range_decimal, range->most);
		fprintf(to, "%s, %s, seed %" PRIu64 ": %s is %.3f, expected %s..%s\n",
		        scenario->name, policy->name, scenario->seed, row->key, is, least,
		        range->most == INT64_MAX ? "" : most);
		r = -EPROTO;
	}
	return r;
}

/* ---- Tables ------------------------------------------------------------------------- */

void report_heading(FILE *to)
{
	fprintf(to, "%-28s %-10s %6s %6s %9s %9s %7s %9s %10s %10s %10s\n", "scenario", "policy",
	        "busy%", "kept%", "share-e%", "gpu-e%", "least%", "switch/s", "wait-p50",
	        "wait-p99", "wait-max");
}

void report_line(FILE *to, const struct scenario *scenario, const char *policy,
                 const struct report_summary *summary)
{
	fprintf(to, "%-28s %-10s %6.1f %6.1f %9.2f %9.2f %7.2f %9.0f %8.2fms %8.2fms %8.2fms\n",
	        scenario->name, policy, summary->busy_percent, summary->kept_percent,
	        summary->share_error_percent, summary->gpu_error_percent, summary->least_percent,
	        summary->switches_per_s, summary->wait_p50_ms, summary->wait_p99_ms,
	        summary->wait_max_ms);
}

static double phi(const struct scenario_vm *vm)
{
	return (double)core_claim(&vm->settings) / 100;
}

void report_vms(FILE *to, const struct scenario *scenario, const struct world_result *result)
{
	double elapsed_ns = (double)result->elapsed_ns;

	fprintf(to, "  %-16s %7s %8s %8s %8s %8s %9s %7s %7s %10s %10s\n", "vm", "phi", "due%",
	        "charged%", "gpu%", "useful%", "jobs", "refused", "failed", "wait-p50", "wait-p99");
	for (uint32_t i = 0; i < scenario->vm_count; i++) {
		const struct scenario_vm *what = &scenario->vms[i];
		const struct world_vm_result *vm = &result->vms[i];

		fprintf(to,
		        "  %-16s %7.2f %8.2f %8.2f %8.2f %8.2f %9" PRIu64 " %7" PRIu64 " %7" PRIu64
		        " %8.2fms %8.2fms\n",
		        what->name, phi(what), percent(vm->due_charged_ns, elapsed_ns),
		        percent((double)vm->charged_ns, elapsed_ns),
		        percent((double)vm->occupied_ns, elapsed_ns),
		        percent((double)vm->useful_ns, elapsed_ns), vm->done, vm->refused,
		        vm->failed, ms(quantile_ns(vm->waits_ns, vm->wait_count, 0.5)),
		        ms(quantile_ns(vm->waits_ns, vm->wait_count, 0.99)));
	}
}

/* ---- JSON ------------------------------------------------------------------------------ */

static json_t *json_vm(const struct scenario_vm *what, const struct world_vm_result *vm)
{
	return json_pack("{s:s, s:f, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "vm",
	                 what->name, "phi", phi(what), "counts", counts_names[what->counts],
	                 "due_ns", (json_int_t)vm->due_charged_ns, "charged_ns",
	                 (json_int_t)vm->charged_ns, "gpu_ns", (json_int_t)vm->occupied_ns,
	                 "useful_ns", (json_int_t)vm->useful_ns, "jobs", (json_int_t)vm->done,
	                 "refused", (json_int_t)vm->refused, "failed", (json_int_t)vm->failed,
	                 "wait_p50_ns", (json_int_t)quantile_ns(vm->waits_ns, vm->wait_count, 0.5),
	                 "wait_p99_ns",
	                 (json_int_t)quantile_ns(vm->waits_ns, vm->wait_count, 0.99));
}

json_t *report_json(const struct scenario *scenario, const char *policy,
                    const struct report_summary *summary, const struct world_result *result)
{
	json_t *object =
		json_pack("{s:s, s:s, s:f, s:I, s:I}", "scenario", scenario->name, "policy", policy,
	                  "switches_per_s", summary->switches_per_s, "turns",
	                  (json_int_t)result->turns, "jobs_sent", (json_int_t)result->sent);
	json_t *figures = json_object(), *vms = json_array();

	for (const struct expect_row *row = expect_rows; row->key; row++)
		json_object_set_new(figures, row->key, json_real(figure_of(summary, row)));
	for (uint32_t i = 0; i < scenario->vm_count; i++)
		json_array_append_new(vms, json_vm(&scenario->vms[i], &result->vms[i]));
	json_object_set_new(object, "figures", figures);
	json_object_set_new(object, "vms", vms);
	return object;
}
