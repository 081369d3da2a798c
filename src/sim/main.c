/* SPDX-License-Identifier: MIT */
/*
 * vgpu-sim: the daemon's core in virtual time, over a model of the GPU.
 *
 * It plays scenarios and compares policies, searches for violations in random scenarios,
 * plays event logs of the daemon again, and measures what a decision costs.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/cost.h"
#include "sim/options.h"
#include "sim/proof.h"
#include "sim/replay.h"
#include "sim/report.h"
#include "sim/watch.h"
#include "sim/world.h"

enum { EXIT_USAGE = 2 };

static int draw(const struct options *options, const struct scenario *scenario, const char *policy,
                const struct world_result *result)
{
	FILE *to = fopen(options->svg, "w");
	int r = to ? 0 : -errno;

	if (to) {
		report_svg(to, scenario, policy, result);
		if (fclose(to) != 0)
			r = -errno;
	}
	if (r < 0)
		fprintf(stderr, "vgpu-sim: %s: %s\n", options->svg, strerror(-r));
	return r;
}

/* What was asked for of one run. */
static int show(const struct options *options, const struct scenario *scenario,
                const struct sim_policy *policy, struct world_result *result,
                struct report_summary *worst)
{
	struct report_summary summary;
	int r = 0;

	report_summarize(&summary, scenario, result);
	report_worst(worst, &summary);
	if (options->json) {
		json_t *object = report_json(scenario, policy->name, &summary, result);

		json_dumpf(object, stdout, JSON_COMPACT);
		putchar('\n');
		json_decref(object);
	} else if (options->vms) {
		report_vms(stdout, scenario, result);
	}
	if (options->expect)
		r = report_expect(stderr, scenario, policy, &summary);
	if (options->svg && draw(options, scenario, policy->name, result) < 0)
		r = -EIO;
	return r;
}

static int play_seed(const struct options *options, const struct scenario *scenario,
                     const struct sim_policy *policy, struct report_summary *worst)
{
	struct world_options how = {.policy = policy, .record = true};
	struct world_result result;
	int r;

	/* The bounds are promises of the rule. */
	if (options->watch && policy == &sim_policies[0])
		watch_run(options->watch, &how);
	how.settle = options->check;
	r = world_run(&result, scenario, &how);
	if (r < 0) {
		fprintf(stderr, "vgpu-sim: %s: %s\n", scenario->name, strerror(-r));
		return r;
	}
	if (result.violation) {
		fprintf(stderr, "%s: at %" PRId64 " ns: %s\n", scenario->name, result.violation_ns,
		        result.violation);
		r = -EPROTO;
	} else {
		r = show(options, scenario, policy, &result, worst);
	}
	world_result_fini(&result);
	return r;
}

/* All seeds are played, whatever one of them does not reach. */
static int play(const struct options *options, struct scenario *scenario,
                const struct sim_policy *policy)
{
	struct report_summary worst = report_best;
	uint64_t first = scenario->seed;
	int r = 0;

	for (int64_t i = 0; i < options->seeds; i++) {
		scenario->seed = first + (uint64_t)i;
		if (play_seed(options, scenario, policy, &worst) < 0)
			r = -EPROTO;
	}
	scenario->seed = first;
	if (!options->json && worst.seeds)
		report_line(stdout, scenario, policy->name, &worst);
	fflush(stdout);
	return r;
}

static bool wanted(const struct options *options, const struct scenario *scenario,
                   const struct sim_policy *policy)
{
	if (options->policy)
		return policy == options->policy;
	if (options->compare)
		return true;
	return options->expect ? scenario_expects(scenario, policy) : policy == &sim_policies[0];
}

static int play_file(const struct options *options, const char *path)
{
	CLEANUP(freep) struct scenario *scenario = calloc(1, sizeof(*scenario));
	bool any = false;
	int r = -ENOMEM;

	if (scenario)
		r = scenario_read(scenario, path);
	if (r < 0)
		return r;
	for (const struct sim_policy *policy = sim_policies; policy->name; policy++) {
		if (!wanted(options, scenario, policy))
			continue;
		any = true;
		if (play(options, scenario, policy) < 0)
			r = -EPROTO;
	}
	if (!any) {
		fprintf(stderr, "%s: nothing is expected of any policy\n", path);
		r = -EPROTO;
	}
	return r;
}

static int play_files(struct options *options)
{
	CLEANUP(freep) struct watch *watch = malloc(sizeof(*watch));
	int r = watch ? watch_init(watch) : -ENOMEM;

	if (r < 0)
		return r;
	if (options->check)
		options->watch = watch;
	if (!options->json)
		report_heading(stdout);
	for (char **file = options->files; *file; file++) {
		if (play_file(options, *file) < 0)
			r = -EPROTO;
	}
	watch_fini(watch);
	return r;
}

static int do_as_asked(struct options *options)
{
	if (options->pick_cost)
		return cost_report(stdout, options->json);
	if (options->replay)
		return replay_run(stdout, options->replay, options->json);
	if (options->show)
		return proof_show(stdout, (uint64_t)options->seed);
	if (options->random || options->decisions)
		return proof_run(stdout, (uint64_t)options->seed, options->random,
		                 options->decisions);
	return play_files(options);
}

int main(int argc, char **argv)
{
	struct options options;

	if (options_parse(&options, argc, argv) < 0)
		return EXIT_USAGE;
	if (options.help || options.version) {
		if (options.help)
			options_help(stdout);
		else
			puts("vgpu-sim " VGPU_VERSION);
		return EXIT_SUCCESS;
	}
	return do_as_asked(&options) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
