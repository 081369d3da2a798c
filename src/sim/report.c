/* SPDX-License-Identifier: MIT */
/* See report.h. */
#include "sim/report.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"

static int by_value(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return x < y ? -1 : x > y;
}

/* Sorts in place; 0 where there is nothing. */
static int64_t quantile_ns(int64_t *values, uint32_t count, double q)
{
	uint32_t at = (uint32_t)ceil(q * count);

	if (count == 0)
		return 0;
	qsort(values, count, sizeof(*values), by_value);
	return values[at ? at - 1 : 0];
}

static double phi(const struct scenario_vm *vm)
{
	return (double)(vm->settings.weight_hundredths << vm->settings.priority);
}

static double percent(int64_t part, int64_t whole)
{
	return whole ? 100.0 * (double)part / (double)whole : 0;
}

/* Sums over the VMs that share: all but the light ones. */
struct totals {
	int64_t charged_ns;
	int64_t occupied_ns;
	double phi;
};

static struct totals sum_up(const struct scenario *scenario, const struct world_result *result)
{
	struct totals totals = {0, 0, 0};

	for (uint32_t i = 0; i < scenario->vm_count; i++) {
		if (scenario->vms[i].light)
			continue;
		totals.charged_ns += result->vms[i].charged_ns;
		totals.occupied_ns += result->vms[i].occupied_ns;
		totals.phi += phi(&scenario->vms[i]);
	}
	return totals;
}

/* How far a share is from its target, in percent of the target. */
static double error_percent(int64_t part, int64_t whole, double target)
{
	return target > 0 && whole ? 100 * fabs((double)part / (double)whole / target - 1) : 0;
}

static void summarize_waits(struct report_summary *out, const struct scenario *scenario,
                            const struct world_result *result)
{
	bool any_light = false;
	uint64_t count = 0;
	int64_t *all;

	for (uint32_t i = 0; i < scenario->vm_count; i++) {
		any_light |= scenario->vms[i].light;
		count += result->vms[i].wait_count;
	}
	all = calloc(count + 1, sizeof(*all));
	if (!all)
		return;
	count = 0;
	for (uint32_t i = 0; i < scenario->vm_count; i++) {
		const struct world_vm_result *vm = &result->vms[i];

		if ((any_light && !scenario->vms[i].light) || vm->wait_count == 0)
			continue;
		memcpy(all + count, vm->waits_ns, vm->wait_count * sizeof(*all));
		count += vm->wait_count;
	}
	out->wait_p50_ns = quantile_ns(all, (uint32_t)count, 0.5);
	out->wait_p99_ns = quantile_ns(all, (uint32_t)count, 0.99);
	out->wait_max_ns = quantile_ns(all, (uint32_t)count, 1);
	free(all);
}

void report_summarize(struct report_summary *out, const struct scenario *scenario,
                      struct world_result *result)
{
	struct totals totals = sum_up(scenario, result);
	int64_t useful_ns = 0;

	*out = (struct report_summary){.least_share_percent = 100};
	for (uint32_t i = 0; i < scenario->vm_count; i++) {
		const struct world_vm_result *vm = &result->vms[i];
		double target = phi(&scenario->vms[i]) / totals.phi;

		useful_ns += vm->useful_ns;
		if (scenario->vms[i].light)
			continue;
		out->kept_percent += percent(vm->useful_ns, result->elapsed_ns * scenario->gpus);
		out->charge_error_percent =
			fmax(out->charge_error_percent,
		             error_percent(vm->charged_ns, totals.charged_ns, target));
		out->gpu_error_percent =
			fmax(out->gpu_error_percent,
		             error_percent(vm->occupied_ns, totals.occupied_ns, target));
		out->least_share_percent =
			fmin(out->least_share_percent, percent(vm->useful_ns, result->elapsed_ns));
	}
	out->busy_percent = percent(useful_ns, result->elapsed_ns * scenario->gpus);
	out->switches_per_s = (double)result->gpu_switches * NS_PER_SEC /
	                      (double)(result->elapsed_ns + scenario->warmup_ns);
	summarize_waits(out, scenario, result);
}

void report_heading(FILE *to)
{
	fprintf(to, "%-27s %-10s %6s %6s %9s %9s %7s %9s %10s %10s %10s\n", "scenario", "policy",
	        "busy%", "kept%", "charge-e%", "gpu-e%", "least%", "switch/s", "wait-p50",
	        "wait-p99", "wait-max");
}

static double ms(int64_t ns)
{
	return (double)ns / NS_PER_MS;
}

void report_line(FILE *to, const struct scenario *scenario, const char *policy,
                 const struct report_summary *summary)
{
	fprintf(to, "%-27s %-10s %6.1f %6.1f %9.2f %9.2f %7.2f %9.0f %8.2fms %8.2fms %8.2fms\n",
	        scenario->name, policy, summary->busy_percent, summary->kept_percent,
	        summary->charge_error_percent, summary->gpu_error_percent,
	        summary->least_share_percent, summary->switches_per_s, ms(summary->wait_p50_ns),
	        ms(summary->wait_p99_ns), ms(summary->wait_max_ns));
}

int report_expect(FILE *to, const struct scenario *scenario, const struct report_summary *summary)
{
	const struct scenario_expect *expect = &scenario->expect;
	const struct {
		const char *what;
		double is, least, most;
	} rows[] = {
		{"% busy", summary->busy_percent, (double)expect->busy_permille / 10, INFINITY},
		{"% kept", summary->kept_percent, (double)expect->kept_permille / 10, INFINITY},
		{"% share error", summary->charge_error_percent, 0,
	         expect->error_permille ? (double)expect->error_permille / 10 : INFINITY},
		{"% error of GPU time", summary->gpu_error_percent, 0,
	         expect->gpu_error_permille ? (double)expect->gpu_error_permille / 10 : INFINITY},
		{"ms waited at p99", ms(summary->wait_p99_ns), 0,
	         expect->wait_p99_ns ? ms(expect->wait_p99_ns) : INFINITY},
	};
	int r = 0;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		if (rows[i].is >= rows[i].least && rows[i].is <= rows[i].most)
			continue;
		fprintf(to, "%s: %.2f %s, expected %.2f to %.2f\n", scenario->name, rows[i].is,
		        rows[i].what, rows[i].least, rows[i].most);
		r = -EPROTO;
	}
	return r;
}

void report_vms(FILE *to, const struct scenario *scenario, struct world_result *result)
{
	struct totals totals = sum_up(scenario, result);

	fprintf(to, "  %-16s %7s %8s %8s %8s %8s %9s %7s %7s %10s %10s\n", "vm", "phi", "target%",
	        "charged%", "gpu%", "useful%", "jobs", "refused", "failed", "wait-p50", "wait-p99");
	for (uint32_t i = 0; i < scenario->vm_count; i++) {
		const struct scenario_vm *what = &scenario->vms[i];
		struct world_vm_result *vm = &result->vms[i];
		double target = what->light ? 0 : 100 * phi(what) / totals.phi;

		fprintf(to,
		        "  %-16s %7.2f %8.2f %8.2f %8.2f %8.2f %9" PRIu64 " %7" PRIu64 " %7" PRIu64
		        " %8.2fms %8.2fms\n",
		        what->name, phi(what) / 100, target,
		        percent(vm->charged_ns, result->elapsed_ns),
		        percent(vm->occupied_ns, result->elapsed_ns),
		        percent(vm->useful_ns, result->elapsed_ns), vm->done, vm->refused,
		        vm->failed, ms(quantile_ns(vm->waits_ns, vm->wait_count, 0.5)),
		        ms(quantile_ns(vm->waits_ns, vm->wait_count, 0.99)));
	}
}

json_t *report_json(const struct scenario *scenario, const char *policy,
                    struct world_result *result)
{
	struct totals totals = sum_up(scenario, result);
	struct report_summary summary;
	json_t *vms = json_array();

	report_summarize(&summary, scenario, result);
	for (uint32_t i = 0; i < scenario->vm_count; i++) {
		const struct scenario_vm *what = &scenario->vms[i];
		struct world_vm_result *vm = &result->vms[i];

		json_array_append_new(
			vms,
			json_pack("{s:s, s:f, s:f, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "vm",
		                  what->name, "phi", phi(what) / 100, "target",
		                  what->light ? 0.0 : phi(what) / totals.phi, "charged_ns",
		                  (json_int_t)vm->charged_ns, "gpu_ns", (json_int_t)vm->occupied_ns,
		                  "useful_ns", (json_int_t)vm->useful_ns, "jobs",
		                  (json_int_t)vm->done, "refused", (json_int_t)vm->refused,
		                  "failed", (json_int_t)vm->failed, "wait_p50_ns",
		                  (json_int_t)quantile_ns(vm->waits_ns, vm->wait_count, 0.5),
		                  "wait_p99_ns",
		                  (json_int_t)quantile_ns(vm->waits_ns, vm->wait_count, 0.99)));
	}
	return json_pack("{s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:I, s:I, s:o}", "scenario",
	                 scenario->name, "policy", policy, "busy_percent", summary.busy_percent,
	                 "kept_percent", summary.kept_percent, "charge_error_percent",
	                 summary.charge_error_percent, "gpu_error_percent",
	                 summary.gpu_error_percent, "switches_per_s", summary.switches_per_s,
	                 "wait_p50_ns", (json_int_t)summary.wait_p50_ns, "wait_p99_ns",
	                 (json_int_t)summary.wait_p99_ns, "turns", (json_int_t)result->turns,
	                 "jobs_sent", (json_int_t)result->sent, "vms", vms);
}

/* ---- Picture -------------------------------------------------------------------- */

enum { SVG_WIDTH = 960, SVG_HEIGHT = 320, SVG_LEFT = 50, SVG_TOP = 30, SVG_LEGEND = 16 };

/* The share of the GPU that VMs 0..@vm have had in a bucket, in pixels from below. */
static double stacked(const struct scenario *scenario, const struct world_result *result,
                      uint32_t vm, uint32_t bucket)
{
	int64_t bucket_ns = scenario->duration_ns / WORLD_BUCKETS * scenario->gpus, sum_ns = 0;

	for (uint32_t i = 0; i <= vm; i++)
		sum_ns += result->vms[i].occupied_at_ns[bucket + 1] -
		          result->vms[i].occupied_at_ns[bucket];
	return SVG_HEIGHT * fmin(1, (double)sum_ns / (double)bucket_ns);
}

static void svg_area(FILE *to, const struct scenario *scenario, const struct world_result *result,
                     uint32_t vm)
{
	uint32_t hue = vm * 360 / scenario->vm_count;

	fprintf(to, "<path fill=\"hsl(%u,65%%,60%%)\" d=\"M", hue);
	for (uint32_t b = 0; b < WORLD_BUCKETS; b++)
		fprintf(to, "%u,%.1f ", SVG_LEFT + b * SVG_WIDTH / WORLD_BUCKETS,
		        SVG_TOP + SVG_HEIGHT - stacked(scenario, result, vm, b));
	for (uint32_t b = WORLD_BUCKETS; b-- > 0;)
		fprintf(to, "%u,%.1f ", SVG_LEFT + b * SVG_WIDTH / WORLD_BUCKETS,
		        SVG_TOP + SVG_HEIGHT - (vm ? stacked(scenario, result, vm - 1, b) : 0.0));
	fprintf(to, "Z\"><title>%s</title></path>\n", scenario->vms[vm].name);
}

void report_svg(FILE *to, const struct scenario *scenario, const char *policy,
                const struct world_result *result)
{
	uint32_t height = SVG_TOP + SVG_HEIGHT + 40 + SVG_LEGEND * scenario->vm_count;

	fprintf(to,
	        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%u\" height=\"%u\" "
	        "font-family=\"sans-serif\" font-size=\"12\">\n"
	        "<text x=\"%u\" y=\"18\">%s, %s: GPU time by VM</text>\n",
	        SVG_LEFT + SVG_WIDTH + 20, height, SVG_LEFT, scenario->name, policy);
	for (uint32_t i = scenario->vm_count; i-- > 0;)
		svg_area(to, scenario, result, i);
	fprintf(to,
	        "<rect x=\"%u\" y=\"%u\" width=\"%u\" height=\"%u\" fill=\"none\" "
	        "stroke=\"black\"/>\n<text x=\"5\" y=\"%u\">100 %%</text>\n"
	        "<text x=\"5\" y=\"%u\">0</text>\n<text x=\"%u\" y=\"%u\">%.1f s</text>\n",
	        SVG_LEFT, SVG_TOP, SVG_WIDTH, SVG_HEIGHT, SVG_TOP + 10, SVG_TOP + SVG_HEIGHT,
	        SVG_LEFT + SVG_WIDTH - 30, SVG_TOP + SVG_HEIGHT + 16,
	        (double)scenario->duration_ns / NS_PER_SEC);
	for (uint32_t i = 0; i < scenario->vm_count; i++) {
		uint32_t y = SVG_TOP + SVG_HEIGHT + 36 + SVG_LEGEND * i;

		fprintf(to,
		        "<rect x=\"%u\" y=\"%u\" width=\"10\" height=\"10\" "
		        "fill=\"hsl(%u,65%%,60%%)\"/><text x=\"%u\" y=\"%u\">%s (%.2f)</text>\n",
		        SVG_LEFT, y - 9, i * 360 / scenario->vm_count, SVG_LEFT + 16, y,
		        scenario->vms[i].name, phi(&scenario->vms[i]) / 100);
	}
	fprintf(to, "</svg>\n");
}
