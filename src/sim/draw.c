/* SPDX-License-Identifier: MIT */
/* See draw.h. */
#include "sim/draw.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/units.h"
#include "sim/random.h"

enum {
	VMS_MAX = 12,
	EVENTS_MAX = 40,
};

/* What one scenario may contain; each seed draws its own subset. */
struct features {
	bool two_gpus;
	bool shared_gpus;
	bool moves;
	bool faults;
	bool hangs;
	bool deaths;
	bool drains;
	bool quarantines;
	bool cancels;
	bool restarts;
	bool changes; /* of settings and priority */
	bool comings; /* and goings */
	bool odd_config;
	bool slow_workers; /* that start slowly, fail to, or do not end */
	bool few_workers;
	bool bad_hardware;
	bool bad_registry; /* slow, or it cannot write */
	bool strict;       /* few points quarantine */
	bool reconfigures;
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
		.shared_gpus = one_in(random, 2),
		.moves = one_in(random, 2),
		.faults = one_in(random, 3),
		.hangs = one_in(random, 2),
		.deaths = one_in(random, 3),
		.drains = one_in(random, 3),
		.quarantines = one_in(random, 3),
		.cancels = one_in(random, 3),
		.restarts = one_in(random, 3),
		.changes = one_in(random, 2),
		.comings = one_in(random, 2),
		.odd_config = one_in(random, 2),
		.slow_workers = one_in(random, 2),
		.few_workers = one_in(random, 3),
		.bad_hardware = one_in(random, 4),
		.bad_registry = one_in(random, 3),
		.strict = one_in(random, 2),
		.reconfigures = one_in(random, 3),
		.long_jobs = one_in(random, 3),
		.limits = one_in(random, 4),
	};
}

/* ---- Rules ------------------------------------------------------------------------- */

static void draw_sched(struct sched_config *sched, struct sim_random *random)
{
	static const int32_t overlaps[] = {1, 2, 3, 8, 32};

	sched->overlap_max = overlaps[sim_random_below(random, ARRAY_LEN(overlaps))];
	sched->quantum_ns = between(random, 1, 8) * NS_PER_MS;
	sched->slice_ns = between(random, 1900, 2600) * NS_PER_US;
	sched->handover_ns = between(random, 100, 200) * NS_PER_US;
	sched->overlap_after_ns = between(random, 0, 100) * NS_PER_MS;
	sched->wake_lead_ns = between(random, 0, 400) * NS_PER_MS;
	sched->anticipation_ns = between(random, 0, 2) * 150 * NS_PER_US;
	sched->boost_percent = (int32_t)between(random, 0, 100);
}

static void draw_workers(struct scenario_rules *rules, struct sim_random *random)
{
	struct core_config *core = &rules->core;

	rules->worker_start_ns = between(random, 0, 200) * NS_PER_MS;
	rules->start_fail_percent = one_in(random, 2) ? 0 : (uint32_t)between(random, 1, 60);
	rules->slow_reap_percent = one_in(random, 2) ? 0 : (uint32_t)between(random, 1, 60);
	rules->slow_reap_ns = between(random, 50, 1500) * NS_PER_MS;
	rules->twice_percent = one_in(random, 2) ? 0 : (uint32_t)between(random, 1, 20);
	core->worker_start_timeout_ns = between(random, 100, 400) * NS_PER_MS;
	core->worker_stop_timeout_ns = between(random, 10, 200) * NS_PER_MS;
	core->worker_kill_timeout_ns = between(random, 20, 500) * NS_PER_MS;
	core->worker_backoff_min_ns = between(random, 1, 50) * NS_PER_MS;
	core->worker_backoff_max_ns = between(random, 50, 500) * NS_PER_MS;
}

static void draw_faults(struct scenario_rules *rules, struct sim_random *random)
{
	struct core_config *core = &rules->core;

	core->quarantine_threshold = between(random, 1, 9);
	core->fault_points = between(random, 0, 2);
	core->timeout_points = between(random, 0, 4);
	core->fault_window_ns = log_between(random, 10, 10000) * NS_PER_MS;
}

static void draw_rules(struct scenario_rules *rules, struct sim_random *random,
                       const struct features *features)
{
	struct core_config *core = &rules->core;

	rules->worker_reap_ns = between(random, 1, 100) * NS_PER_MS;
	/* A short limit is less than the usual one only where that is over a second. */
	core->job_timeout_ns = one_in(random, 3) ? between(random, 1000, 3000) * NS_PER_MS
	                                         : between(random, 50, 1000) * NS_PER_MS;
	core->max_queue_per_vm = one_in(random, 4) ? (uint32_t)between(random, 1, 8) : 1024;
	if (features->odd_config)
		draw_sched(&core->sched, random);
	if (features->slow_workers)
		draw_workers(rules, random);
	if (features->few_workers) {
		core->max_workers = (uint32_t)between(random, 1, 4);
		core->worker_patience_ns = between(random, 5, 300) * NS_PER_MS;
		core->worker_idle_ns = between(random, 5, 500) * NS_PER_MS;
	}
	if (features->bad_registry) {
		rules->store_ns = between(random, 0, 300) * NS_PER_MS;
		rules->store_fail_percent = (uint32_t)between(random, 0, 70);
	}
	if (features->bad_hardware)
		rules->hardware_percent = (uint32_t)between(random, 0, 50);
	if (features->strict)
		draw_faults(rules, random);
}

/* ---- VMs ----------------------------------------------------------------------------- */

static void draw_limits(struct scenario_vm *vm, struct sim_random *random)
{
	if (one_in(random, 2))
		vm->settings.gpu_thousandths = between(random, 20, 500);
	if (one_in(random, 2))
		vm->settings.rate_thousandths = log_between(random, 500, 2e6);
	if (one_in(random, 2))
		vm->settings.burst_jobs = between(random, 1, 20);
	if (one_in(random, 2))
		vm->settings.queue_depth = between(random, 1, 20);
}

static void draw_load(struct scenario_vm *vm, struct sim_random *random, double longest)
{
	vm->load = (enum load)sim_random_below(random, LOAD_COUNT);
	vm->length_ns = log_between(random, 20e3, longest) / NS_PER_US * NS_PER_US;
	vm->spread_percent = one_in(random, 2) ? 0 : 60;
	vm->outstanding = (uint32_t)between(random, 1, one_in(random, 2) ? 2 : 16);
	vm->think_ns = log_between(random, 1e3, 5e6) / NS_PER_US * NS_PER_US;
	vm->period_ns = vm->length_ns * between(random, 2, 40);
	if (one_in(random, 10)) {
		vm->first_ns = min_i64(vm->length_ns / 100, 100 * NS_PER_US);
		vm->first_jobs = (uint32_t)between(random, 1, 100);
	}
	if (one_in(random, 10)) {
		vm->alternate_ns = min_i64(vm->length_ns * 100, 300 * NS_PER_MS);
		vm->alternate_every = (uint32_t)between(random, 2, 100);
	} else if (one_in(random, 8)) {
		vm->alternate_ns = 0; /* needs no GPU */
		vm->alternate_every = (uint32_t)between(random, 1, 10);
	}
}

static void draw_vm(struct scenario *scenario, struct sim_random *random,
                    const struct features *features, uint32_t number)
{
	struct scenario_vm *vm = &scenario->vms[number];

	scenario_vm_init(vm);
	snprintf(vm->name, sizeof(vm->name), "vm-%u", number);
	vm->stream = number + 1;
	draw_load(vm, random, features->long_jobs && one_in(random, 3) ? 500e6 : 5e6);
	vm->settings.weight_hundredths = one_in(random, 3) ? 100 : log_between(random, 100, 10000);
	vm->settings.priority = (uint32_t)sim_random_below(random, 3);
	vm->settings.pool = (uint32_t)sim_random_below(random, 2);
	if (one_in(random, 4))
		vm->settings.job_timeout_ms = between(random, 10, 300);
	if (features->faults && one_in(random, 4))
		vm->fault_every = (uint32_t)log_between(random, 2, 200);
	if (features->hangs && one_in(random, 4))
		vm->hang_every = (uint32_t)log_between(random, 1, 200);
	if (one_in(random, 20))
		vm->malformed_every = (uint32_t)between(random, 2, 20);
	if (features->limits)
		draw_limits(vm, random);
	if (!features->comings || one_in(random, 2))
		return;
	vm->join_ns = between(random, 0, scenario->duration_ns / NS_PER_US) * NS_PER_US / 2;
	if (one_in(random, 2))
		vm->leave_ns = vm->join_ns + between(random, 1, scenario->duration_ns / NS_PER_US) *
		                                     NS_PER_US / 2;
}

/* ---- Events ---------------------------------------------------------------------------- */

/* A setting as it might have been drawn for another VM. */
static void draw_setting(struct scenario_event *event, struct sim_random *random)
{
	static const char *const names[] = {
		"weight", "weight",      "weight",      "weight",
		"rate",   "queue-depth", "gpu-seconds", "timeout",
	};
	struct scenario_vm other;

	scenario_vm_init(&other);
	draw_limits(&other, random);
	other.settings.weight_hundredths = log_between(random, 100, 10000);
	other.settings.job_timeout_ms = between(random, 10, 300);
	event->field = setting_find(names[sim_random_below(random, ARRAY_LEN(names))]);
	event->value = setting_get(&other.settings, event->field);
}

/* A rule as it might have been drawn for another scenario. */
static void draw_rule(struct scenario_event *event, struct sim_random *random,
                      const struct scenario *scenario, const struct features *features)
{
	struct scenario_rules other = scenario->rules;
	uint64_t count = 0;

	draw_rules(&other, random, features);
	other.core.pools[0].enabled = !one_in(random, 4);
	other.core.pools[1].enabled = !one_in(random, 4);
	while (scenario_rule_numbers[count].key)
		count++;
	event->number = &scenario_rule_numbers[sim_random_below(random, count)];
	event->value = scenario_get(&other, event->number);
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
		[HAPPENS_SETTING] = features->changes,
		[HAPPENS_PRIORITY] = features->changes,
		[HAPPENS_POOL] = features->moves,
		[HAPPENS_HANG] = features->hangs,
		[HAPPENS_FAULT] = features->faults,
		[HAPPENS_DEATH] = features->deaths,
		[HAPPENS_DRAIN] = features->drains,
		[HAPPENS_QUARANTINE] = features->quarantines,
		[HAPPENS_HARDWARE] = features->bad_hardware,
		[HAPPENS_FAULTY] = features->bad_hardware,
		[HAPPENS_CANCEL] = features->cancels,
		[HAPPENS_HANGUP] = features->cancels,
		[HAPPENS_RULE] = features->reconfigures,
		[HAPPENS_RESTART] = features->restarts,
	};

	if (!wanted[event.what])
		return;
	if (event.what == HAPPENS_SETTING)
		draw_setting(&event, random);
	else if (event.what == HAPPENS_RULE)
		draw_rule(&event, random, scenario, features);
	else if (event.what == HAPPENS_PRIORITY)
		event.value = between(random, 0, 2);
	else if (event.what == HAPPENS_POOL || event.what == HAPPENS_DRAIN ||
	         event.what == HAPPENS_QUARANTINE || event.what == HAPPENS_FAULTY)
		event.value = between(random, 0, 1);
	scenario->events[scenario->event_count++] = event;
}

void draw_scenario(struct scenario *scenario, uint64_t seed)
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
	scenario->shared = features.two_gpus && features.shared_gpus;
	draw_rules(&scenario->rules, &random, &features);
	scenario->vm_count = (uint32_t)between(&random, 2, VMS_MAX);
	for (uint32_t i = 0; i < scenario->vm_count; i++)
		draw_vm(scenario, &random, &features, i);
	for (int i = 0; i < EVENTS_MAX; i++)
		draw_event(scenario, &random, &features);
}
