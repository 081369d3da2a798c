/* SPDX-License-Identifier: MIT */
/* See proof.h. */
#include "sim/proof.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"
#include "sim/bounds.h"
#include "sim/draw.h"

enum { ENOUGH = 40 }; /* scenarios, to have met every rare path */

/* Returns 0, -ENOMEM, or -EPROTO with the violation in @result. */
static int play(struct world_result *result, const struct scenario *scenario, struct bounds *bounds)
{
	struct world_options options = {.policy = &sim_policies[0]};
	int r;

	if (bounds) {
		bounds_init(bounds);
		options.observer = bounds_observe;
		options.observer_context = bounds;
	}
	r = world_run(result, scenario, &options);
	if (r < 0)
		return r;
	return result->violation ? -EPROTO : 0;
}

/* ---- Shrinking ------------------------------------------------------------------ */

static void remove_event(struct scenario *scenario, uint32_t at)
{
	memmove(scenario->events + at, scenario->events + at + 1,
	        sizeof(scenario->events[0]) * (scenario->event_count - at - 1));
	scenario->event_count--;
}

static void remove_vm(struct scenario *scenario, uint32_t at)
{
	for (uint32_t i = scenario->event_count; i-- > 0;) {
		if (scenario->events[i].vm == at)
			remove_event(scenario, i);
		else if (scenario->events[i].vm > at)
			scenario->events[i].vm--;
	}
	memmove(scenario->vms + at, scenario->vms + at + 1,
	        sizeof(scenario->vms[0]) * (scenario->vm_count - at - 1));
	scenario->vm_count--;
}

static bool fails(const struct scenario *scenario, struct bounds *bounds, int64_t *at_ns)
{
	struct world_result result;
	bool failed = play(&result, scenario, bounds) == -EPROTO;

	*at_ns = result.violation_ns;
	world_result_fini(&result);
	return failed;
}

/* Takes away whatever is not needed for it to fail. */
static void shrink(struct scenario *scenario, struct bounds *bounds)
{
	struct scenario *trial = malloc(sizeof(*trial));
	bool smaller = trial != NULL;
	int64_t at_ns;

	while (smaller) {
		smaller = false;
		for (uint32_t i = 0; i < scenario->vm_count + scenario->event_count; i++) {
			*trial = *scenario;
			if (i < scenario->vm_count)
				remove_vm(trial, i);
			else
				remove_event(trial, i - scenario->vm_count);
			if (trial->vm_count && fails(trial, bounds, &at_ns)) {
				*scenario = *trial;
				scenario->duration_ns = at_ns + NS_PER_MS;
				smaller = true;
				break;
			}
		}
	}
	free(trial);
}

static void report_violation(FILE *to, struct scenario *scenario, struct bounds *bounds,
                             const struct world_result *result)
{
	int64_t at_ns = 0;

	fprintf(to, "seed %" PRIu64 " at %" PRId64 " ns: %s\n", scenario->seed,
	        result->violation_ns, result->violation);
	shrink(scenario, bounds);
	fails(scenario, bounds, &at_ns);
	fprintf(to, "# The smallest scenario found that fails, at %" PRId64 " ns (%s):\n", at_ns,
	        bounds->violation[0] ? bounds->violation : "an invariant");
	scenario_write(scenario, to);
}

/* ---- The search ------------------------------------------------------------------- */

struct proof {
	FILE *to;
	struct scenario scenario;
	struct bounds bounds;
	double worst[BOUNDS];
	uint64_t rare[RARE_COUNT]; /* events at which it was seen */
	int64_t scenarios;
	int64_t sent;
	int64_t turns;
	int64_t events;
};

/* Plays one seed twice: once watched, once to see that it does the same again. */
static int prove(struct proof *proof, uint64_t seed)
{
	struct world_result first, second;
	int r;

	draw_scenario(&proof->scenario, seed);
	r = play(&first, &proof->scenario, &proof->bounds);
	if (r == -EPROTO)
		report_violation(proof->to, &proof->scenario, &proof->bounds, &first);
	if (r < 0)
		return r;
	r = play(&second, &proof->scenario, NULL);
	if (r == 0 && second.hash != first.hash) {
		fprintf(proof->to, "seed %" PRIu64 ": the second time the actions differ\n", seed);
		r = -EPROTO;
	}
	for (int i = 1; i < BOUNDS; i++)
		proof->worst[i] = fmax(proof->worst[i], proof->bounds.worst[i]);
	for (int i = 0; i < RARE_COUNT; i++)
		proof->rare[i] += proof->bounds.rare[i];
	proof->scenarios++;
	proof->sent += (int64_t)first.sent;
	proof->turns += (int64_t)first.turns;
	proof->events += (int64_t)first.events;
	world_result_fini(&first);
	world_result_fini(&second);
	return r;
}

static int report(const struct proof *proof)
{
	int r = 0;

	fprintf(proof->to,
	        "%" PRId64 " scenarios, each twice: %" PRId64 " jobs sent in %" PRId64
	        " turns, %" PRId64 " events; every check held\nlargest part used of bound",
	        proof->scenarios, proof->sent, proof->turns, proof->events);
	for (int i = 1; i < BOUNDS; i++)
		fprintf(proof->to, " %d: %.3f", i, proof->worst[i]);
	fprintf(proof->to, "\nevents that saw");
	for (int i = 0; i < RARE_COUNT; i++) {
		fprintf(proof->to, " %s: %" PRIu64, rare_path_names[i], proof->rare[i]);
		if (proof->rare[i] == 0 && proof->scenarios >= ENOUGH)
			r = -EPROTO;
	}
	fprintf(proof->to, "\n%s", r ? "some of them never came: the search is too weak\n" : "");
	return r;
}

int proof_run(FILE *to, uint64_t seed, int64_t scenarios, int64_t decisions)
{
	struct proof *proof = calloc(1, sizeof(*proof));
	int r = 0;

	if (!proof)
		return -ENOMEM;
	proof->to = to;
	while (r == 0 && (proof->scenarios < scenarios || proof->sent < decisions))
		r = prove(proof, seed++);
	if (r == 0)
		r = report(proof);
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
