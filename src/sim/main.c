/* SPDX-License-Identifier: MIT */
/*
 * vgpu-sim: the daemon's core in virtual time, over a model of the GPU.
 *
 * It plays scenarios and compares policies, searches for violations of the
 * scheduler's bounds in random scenarios, and measures what a decision costs.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/bounds.h"
#include "sim/pick_cost.h"
#include "sim/proof.h"
#include "sim/report.h"
#include "sim/world.h"

enum { EXIT_USAGE = 2 };

struct options {
	const struct sim_policy *policy;
	int compare; /* every policy */
	int json;
	int vms;
	int expect;
	int check;
	int pick_cost;
	const char *svg;
	int64_t random; /* scenarios; 0 = none */
	int64_t seed;
	int64_t decisions;
};

static void usage(FILE *to)
{
	fprintf(to,
	        "usage: vgpu-sim [--policy NAME | --compare | --expect] [--vms] [--json]"
	        " [--svg FILE] SCENARIO...\n"
	        "       vgpu-sim --random N [--seed S] [--decisions D]\n"
	        "       vgpu-sim --pick-cost\n"
	        "\nPlays scenario files with the mediator's core over a model of the GPU.\n"
	        "  --compare       each scenario under every policy\n"
	        "  --expect        fails where the rule does not reach what a scenario expects\n"
	        "  --vms           one line a VM as well\n"
	        "  --json          one object a run\n"
	        "  --svg FILE      draws GPU time by VM over time of the last run\n"
	        "  --random N      plays random scenarios, checks every bound after every\n"
	        "                  event, and shrinks the first that breaks one\n"
	        "  --decisions D   goes on until D jobs were sent\n"
	        "  --pick-cost     measures one decision at 10 to 10,000 VMs\n"
	        "policies:\n");
	for (const struct sim_policy *policy = sim_policies; policy->name; policy++)
		fprintf(to, "  %-14s %s\n", policy->name, policy->what);
}

static const struct sim_policy *find_policy(const char *name)
{
	for (const struct sim_policy *policy = sim_policies; policy->name; policy++)
		if (strcmp(policy->name, name) == 0)
			return policy;
	return NULL;
}

static bool parse_whole(int64_t *out, const char *option, const char *text)
{
	char *end;

	errno = 0;
	*out = strtoll(text, &end, 10);
	if (errno == 0 && end != text && *end == '\0' && *out >= 0)
		return true;
	fprintf(stderr, "vgpu-sim: --%s %s: give a whole number\n", option, text);
	return false;
}

static int parse_options(struct options *options, int argc, char **argv)
{
	enum { POLICY = 1, SVG, RANDOM, SEED, DECISIONS, HELP };
	const struct option known[] = {
		{"json", no_argument, &options->json, 1},
		{"vms", no_argument, &options->vms, 1},
		{"compare", no_argument, &options->compare, 1},
		{"expect", no_argument, &options->expect, 1},
		{"check", no_argument, &options->check, 1},
		{"pick-cost", no_argument, &options->pick_cost, 1},
		{"policy", required_argument, NULL, POLICY},
		{"svg", required_argument, NULL, SVG},
		{"random", required_argument, NULL, RANDOM},
		{"seed", required_argument, NULL, SEED},
		{"decisions", required_argument, NULL, DECISIONS},
		{"help", no_argument, NULL, HELP},
		{NULL, 0, NULL, 0},
	};
	int64_t *const numbers[] = {
		[RANDOM] = &options->random,
		[SEED] = &options->seed,
		[DECISIONS] = &options->decisions,
	};
	int option, index = 0;

	while ((option = getopt_long(argc, argv, "", known, &index)) != -1) {
		if (option == '?')
			return -EINVAL;
		if (option == HELP) {
			usage(stdout);
			exit(EXIT_SUCCESS);
		}
		if (option >= RANDOM && !parse_whole(numbers[option], known[index].name, optarg))
			return -EINVAL;
		if (option == SVG)
			options->svg = optarg;
		if (option == POLICY) {
			options->policy = find_policy(optarg);
			if (!options->policy) {
				fprintf(stderr, "vgpu-sim: no policy %s; see --help\n", optarg);
				return -EINVAL;
			}
		}
	}
	return 0;
}

static int draw(const struct options *options, const struct scenario *scenario, const char *policy,
                const struct world_result *result)
{
	FILE *to = fopen(options->svg, "w");

	if (!to) {
		fprintf(stderr, "vgpu-sim: %s: %s\n", options->svg, strerror(errno));
		return -errno;
	}
	report_svg(to, scenario, policy, result);
	return fclose(to) == 0 ? 0 : -errno;
}

static int play(const struct options *options, const struct scenario *scenario,
                const struct sim_policy *policy)
{
	CLEANUP(freep) struct bounds *bounds = malloc(sizeof(*bounds));
	struct world_options how = {.policy = policy, .record = true};
	struct report_summary summary;
	struct world_result result;
	int r = -ENOMEM;

	if (bounds && options->check && policy == &sim_policies[0]) {
		bounds_init(bounds);
		how.observer = bounds_observe;
		how.observer_context = bounds;
	}
	if (bounds)
		r = world_run(&result, scenario, &how);
	if (r < 0) {
		fprintf(stderr, "vgpu-sim: %s: %s\n", scenario->name, strerror(-r));
		return r;
	}
	if (result.violation) {
		fprintf(stderr, "%s: at %" PRId64 " ns: %s\n", scenario->name, result.violation_ns,
		        result.violation);
		world_result_fini(&result);
		return -EPROTO;
	}
	if (options->json) {
		json_t *object = report_json(scenario, policy->name, &result);

		json_dumpf(object, stdout, JSON_COMPACT);
		putchar('\n');
		json_decref(object);
	} else {
		report_summarize(&summary, scenario, &result);
		report_line(stdout, scenario, policy->name, &summary);
		if (options->vms)
			report_vms(stdout, scenario, &result);
		if (options->expect && policy == &sim_policies[0])
			r = report_expect(stderr, scenario, &summary);
	}
	fflush(stdout);
	if (r == 0 && options->svg)
		r = draw(options, scenario, policy->name, &result);
	world_result_fini(&result);
	return r;
}

static int play_file(const struct options *options, const char *path)
{
	struct scenario *scenario = calloc(1, sizeof(*scenario));
	int r = -ENOMEM;

	if (scenario)
		r = scenario_read(scenario, path);
	for (const struct sim_policy *policy = sim_policies; r == 0 && policy->name; policy++)
		if (options->compare || options->policy == policy)
			r = play(options, scenario, policy);
	free(scenario);
	return r;
}

int main(int argc, char **argv)
{
	struct options options = {.policy = &sim_policies[0], .seed = 1};
	int status = EXIT_SUCCESS;

	if (parse_options(&options, argc, argv) < 0) {
		usage(stderr);
		return EXIT_USAGE;
	}
	if (options.pick_cost)
		return pick_cost_report(stdout) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
	if (options.random || options.decisions)
		return proof_run(stdout, (uint64_t)options.seed, options.random,
		                 options.decisions) == 0
		               ? EXIT_SUCCESS
		               : EXIT_FAILURE;
	if (optind == argc) {
		usage(stderr);
		return EXIT_USAGE;
	}
	if (!options.json)
		report_heading(stdout);
	for (int i = optind; i < argc; i++)
		if (play_file(&options, argv[i]) < 0)
			status = EXIT_FAILURE;
	return status;
}
