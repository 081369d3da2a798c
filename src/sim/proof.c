/* SPDX-License-Identifier: MIT */
/* See proof.h. */
#include "sim/proof.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "base/units.h"
#include "sim/draw.h"
#include "sim/shrink.h"
#include "sim/watch.h"

enum { ENOUGH = 500 }; /* scenarios, to have met every rare path */

struct proof {
	FILE *to;
	struct scenario scenario;
	struct watch watch;
	double worst[BOUNDS];
	uint64_t rare[RARE_COUNT];
	int64_t scenarios;
	int64_t decisions;
	int64_t turns;
	int64_t sent;
	int64_t events;
};

/* Returns 0, -ENOMEM, or -EPROTO with the violation in @result. */
static int play(struct world_result *result, const struct scenario *scenario, struct watch *watch)
{
	struct world_options options = {.policy = &sim_policies[0], .settle = true};
	int r;

	if (watch)
		watch_run(watch, &options);
	r = world_run(result, scenario, &options);
	if (r < 0)
		return r;
	return result->violation ? -EPROTO : 0;
}

static bool fails(void *context, const struct scenario *scenario, int64_t *at_ns)
{
	struct world_result result;
	int r = play(&result, scenario, context);

	*at_ns = result.violation_ns;
	world_result_fini(&result);
	return r == -EPROTO;
}

static void report_violation(struct proof *proof, const struct world_result *result)
{
	struct scenario *scenario = &proof->scenario;
	struct world_result small;

	fprintf(proof->to, "seed %" PRIu64 " at %" PRId64 " ns: %s\n", scenario->seed,
	        result->violation_ns, result->violation);
	if (shrink(scenario, fails, &proof->watch) < 0 ||
	    play(&small, scenario, &proof->watch) != -EPROTO)
		return;
	fprintf(proof->to, "# The smallest scenario found that fails, at %" PRId64 " ns: %s\n",
	        small.violation_ns, small.violation);
	scenario_write(scenario, proof->to);
	world_result_fini(&small);
}

static void add_up(struct proof *proof, const struct world_result *result)
{
	for (int i = 1; i < BOUNDS; i++)
		proof->worst[i] = fmax(proof->worst[i], proof->watch.bounds.worst[i]);
	for (int i = 0; i < RARE_COUNT; i++)
		proof->rare[i] += watch_rare(&proof->watch, (enum rare_path)i);
	proof->scenarios++;
	proof->decisions += (int64_t)result->decisions;
	proof->turns += (int64_t)result->turns;
	proof->sent += (int64_t)result->sent;
	proof->events += (int64_t)result->events;
}

/* Plays one seed twice: once watched, once to see that it does the same again. */
static int prove(struct proof *proof, uint64_t seed)
{
	struct world_result first, second;
	int r;

	draw_scenario(&proof->scenario, seed);
	r = play(&first, &proof->scenario, &proof->watch);
	if (r == -EPROTO) {
		report_violation(proof, &first);
		world_result_fini(&first);
	}
	if (r < 0)
		return r;
	add_up(proof, &first);
	r = play(&second, &proof->scenario, NULL);
	if (r == 0 && second.hash != first.hash) {
		fprintf(proof->to, "seed %" PRIu64 ": the second time the actions differ\n", seed);
		r = -EPROTO;
	}
	world_result_fini(&first);
	world_result_fini(&second);
	return r;
}

static int report(const struct proof *proof)
{
	int r = 0;

	fprintf(proof->to,
	        "%" PRId64 " scenarios, each twice: %" PRId64 " decisions, %" PRId64
	        " turns, %" PRId64 " jobs sent, %" PRId64
	        " events; every check held\nlargest part used of bound",
	        proof->scenarios, proof->decisions, proof->turns, proof->sent, proof->events);
	for (int i = 1; i < BOUNDS; i++)
		fprintf(proof->to, " %d: %.3f", i, proof->worst[i]);
	fprintf(proof->to, "\nreached");
	for (int i = 0; i < RARE_COUNT; i++) {
		fprintf(proof->to, "%s %s: %" PRIu64, i ? "," : "", rare_path_names[i],
		        proof->rare[i]);
		if (proof->rare[i] == 0 && proof->scenarios >= ENOUGH)
			r = -EPROTO;
	}
	fprintf(proof->to, "\n%s", r ? "some of them never came: the search is too weak\n" : "");
	return r;
}

int proof_run(FILE *to, uint64_t seed, int64_t scenarios, int64_t decisions)
{
	struct proof *proof = calloc(1, sizeof(*proof));
	int r;

	if (!proof)
		return -ENOMEM;
	proof->to = to;
	r = watch_init(&proof->watch);
	while (r == 0 && (proof->scenarios < scenarios || proof->decisions < decisions))
		r = prove(proof, seed++);
	if (r == 0)
		r = report(proof);
	watch_fini(&proof->watch);
	free(proof);
	return r;
}

int proof_show(FILE *to, uint64_t seed)
{
	CLEANUP(freep) struct scenario *scenario = malloc(sizeof(*scenario));

	if (!scenario)
		return -ENOMEM;
	draw_scenario(scenario, seed);
	scenario_write(scenario, to);
	return 0;
}
