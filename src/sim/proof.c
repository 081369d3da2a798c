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
#include "sim/random.h"

enum {
	VMS_MAX = 12,
	EVENTS_MAX = 12,
	ENOUGH = 40, /* scenarios, to have met every rare path */
};

/* What one scenario may contain; each seed draws its own subset. */
struct features {
	bool two_gpus;
	bool moves;
	bool faults;
	bool hangs;
	bool deaths;
	bool drains;
	bool quarantines;
	bool changes; /* of weight and priority */
	bool comings; /* and goings */
	bool slow_workers;
	bool odd_config;
	bool long_jobs;
	bool limits;
};

static int64_t between(struct sim_random *random, int64_t low, int64_t high)
{
	return low + (int64_t)sim_random_below(random, (uint64_t)(high - low + 1));
}

static bool one_in(struct sim_random *random, uint64_t times)
{
	return sim_random_below(random, times) == 0;
}

static int64_t log_between(struct sim_random *random, double low, double high)
{
	return (int64_t)(low * exp(log(high / low) * sim_random_unit(random)));
}

static struct features draw_features(struct sim_random *random)
{
	return (struct features){
		.two_gpus = one_in(random, 2),
		.moves = one_in(random, 2),
		.faults = one_in(random, 3),
		.hangs = one_in(random, 3),
		.deaths = one_in(random, 3),
		.drains = one_in(random, 3),
		.quarantines = one_in(random, 3),
		.changes = one_in(random, 2),
		.comings = one_in(random, 2),
		.slow_workers = one_in(random, 2),
		.odd_config = one_in(random, 2),
		.long_jobs = one_in(random, 3),
		.limits = one_in(random, 4),
	};
}

static void draw_config(struct scenario *scenario, struct sim_random *random)
{
	static const int32_t overlaps[] = {1, 2, 3, 8, 32};
	struct sched_config *sched = &scenario->sched;

	sched->overlap_max = overlaps[sim_random_below(random, ARRAY_LEN(overlaps))];
	sched->quantum_ns = between(random, 1, 8) * NS_PER_MS;
	sched->slice_ns = between(random, 1900, 2600) * NS_PER_US;
	sched->overlap_after_ns = between(random, 0, 100) * NS_PER_MS;
	sched->wake_lead_ns = between(random, 0, 400) * NS_PER_MS;
	sched->anticipation_ns = between(random, 0, 2) * 150 * NS_PER_US;
	sched->boost_percent = (int32_t)between(random, 0, 100);
}

static void draw_vm(struct scenario *scenario, struct sim_random *random,
                    const struct features *features, uint32_t number)
{
	struct scenario_vm *vm = &scenario->vms[number];
	double longest = features->long_jobs && one_in(random, 3) ? 500e6 : 5e6;

	scenario_vm_init(vm);
	snprintf(vm->name, sizeof(vm->name), "vm-%u", number);
	vm->stream = number + 1;
	vm->load = (enum load)sim_random_below(random, LOAD_COUNT);
	vm->settings.weight_hundredths = one_in(random, 3) ? 100 : log_between(random, 100, 10000);
	vm->settings.priority = (uint32_t)sim_random_below(random, 3);
	vm->settings.pool = (uint32_t)sim_random_below(random, 2);
	vm->length_ns = log_between(random, 20e3, longest) / NS_PER_US * NS_PER_US;
	vm->spread_percent = one_in(random, 2) ? 0 : 60;
	vm->outstanding = (uint32_t)between(random, 1, one_in(random, 2) ? 2 : 16);
	vm->think_ns = log_between(random, 1e3, 5e6) / NS_PER_US * NS_PER_US;
	vm->period_ns = vm->length_ns * between(random, 2, 40);
	if (one_in(random, 10)) {
		vm->alternate_ns = min_i64(vm->length_ns * 100, 300 * NS_PER_MS);
		vm->alternate_every = (uint32_t)between(random, 2, 100);
	}
	if (features->limits && one_in(random, 2))
		vm->settings.gpu_thousandths = between(random, 20, 500);
	if (features->limits && one_in(random, 2))
		vm->settings.rate_thousandths = between(random, 10, 2000) * 1000;
	if (features->limits && one_in(random, 2))
		vm->settings.queue_depth = between(random, 1, 20);
	if (!features->comings || one_in(random, 2))
		return;
	vm->join_ns = between(random, 0, scenario->duration_ns / NS_PER_US) * NS_PER_US / 2;
	if (one_in(random, 2))
		vm->leave_ns = vm->join_ns + between(random, 1, scenario->duration_ns / NS_PER_US) *
		                                     NS_PER_US / 2;
}

static void draw_event(struct scenario *scenario, struct sim_random *random,
                       const struct features *features)
{
	struct scenario_event event = {
		.at_ns = between(random, 0, scenario->duration_ns / NS_PER_US) * NS_PER_US,
		.vm = (uint32_t)sim_random_below(random, scenario->vm_count),
		.what = (enum happening)sim_random_below(random, HAPPENS_COUNT),
	};
	const bool wanted[HAPPENS_COUNT] = {
		[HAPPENS_WEIGHT] = features->changes, [HAPPENS_PRIORITY] = features->changes,
		[HAPPENS_POOL] = features->moves,     [HAPPENS_HANG] = features->hangs,
		[HAPPENS_FAULT] = features->faults,   [HAPPENS_DEATH] = features->deaths,
		[HAPPENS_DRAIN] = features->drains,   [HAPPENS_QUARANTINE] = features->quarantines,
	};

	if (!wanted[event.what])
		return;
	if (event.what == HAPPENS_WEIGHT)
		event.value = log_between(random, 100, 10000);
	else if (event.what == HAPPENS_PRIORITY)
		event.value = between(random, 0, 2);
	else if (event.what == HAPPENS_POOL || event.what == HAPPENS_DRAIN ||
	         event.what == HAPPENS_QUARANTINE)
		event.value = between(random, 0, 1);
	scenario->events[scenario->event_count++] = event;
}

static void draw_scenario(struct scenario *scenario, uint64_t seed)
{
	struct features features;
	struct sim_random random;

	sim_random_seed(&random, seed, 0);
	features = draw_features(&random);
	scenario_init(scenario);
	snprintf(scenario->name, sizeof(scenario->name), "random-%" PRIu64, seed);
	scenario->seed = seed;
	scenario->duration_ns = between(&random, 500, 3000) * NS_PER_MS;
	scenario->gpus = features.two_gpus ? 2 : 1;
	scenario->worker_reap_ns = between(&random, 1, 100) * NS_PER_MS;
	scenario->job_timeout_ns = between(&random, 50, 1000) * NS_PER_MS;
	if (features.slow_workers)
		scenario->worker_start_ns = between(&random, 0, 200) * NS_PER_MS;
	if (features.odd_config)
		draw_config(scenario, &random);
	scenario->vm_count = (uint32_t)between(&random, 2, VMS_MAX);
	for (uint32_t i = 0; i < scenario->vm_count; i++)
		draw_vm(scenario, &random, &features, i);
	for (int i = 0; i < EVENTS_MAX; i++)
		draw_event(scenario, &random, &features);
}

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
