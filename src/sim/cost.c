/* SPDX-License-Identifier: MIT */
/* See cost.h. */
#include "sim/cost.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

#include "base/units.h"
#include "base/util.h"
#include "core/core.h"
#include "sim/random.h"
#include "sim/world.h"

enum { DECISIONS = 200000, LOOKS = 2000, JOB_MAX_NS = 20 * 1000 * 1000 };

struct vm {
	struct sched_vm *vm;
	int64_t since_ns;
};

static int64_t since_ns(const void *owner)
{
	return ((const struct vm *)owner)->since_ns;
}

/* Of this thread: what others do on the machine is no part of a decision. */
static int64_t processor_time_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (int64_t)now.tv_sec * NS_PER_SEC + now.tv_nsec;
}

/*
 * All VMs backlogged: each decision ends a turn, puts its VM back among the ready
 * ones, looks for one to admit beside it, and grants the next turn. Returns ns a
 * decision, or a negative errno.
 */
static int64_t measure(uint32_t count)
{
	const struct sched_policy *policy = &sched_fair;
	CLEANUP(freep) struct vm *vms = calloc(count, sizeof(*vms));
	struct core_config config;
	struct sim_random random;
	struct sched *sched;
	struct vm *running[32];
	uint32_t open = 0;
	int64_t now_ns = 0, started_ns;
	int r = 0;

	core_config_default(&config);
	sim_random_seed(&random, count, 0);
	if (!vms || policy->create(&sched, &config.sched, since_ns, 0) < 0)
		return -ENOMEM;
	for (uint32_t i = 0; i < count && r == 0; i++) {
		int32_t phi = (int32_t)(100 + sim_random_below(&random, 9900));

		r = policy->vm_add(sched, 0, &vms[i].vm, i, phi, 1, 0, &vms[i]);
		if (r < 0)
			break;
		policy->job_queued(sched, 0, vms[i].vm);
		policy->job_queued(sched, 0, vms[i].vm);
		policy->vm_enable(sched, 0, vms[i].vm, true);
	}
	started_ns = processor_time_ns();
	for (int i = 0; i < DECISIONS && r == 0; i++) {
		struct vm *vm;

		while (open < ARRAY_LEN(running) && (vm = policy->next(sched, now_ns)))
			running[open++] = vm;
		vm = running[0];
		now_ns += 1000 + (int64_t)sim_random_below(&random, JOB_MAX_NS);
		policy->job_queued(sched, now_ns, vm->vm);
		policy->job_done(sched, now_ns, vm->vm);
		vm->since_ns = now_ns;
		open--;
		for (uint32_t k = 0; k < open; k++)
			running[k] = running[k + 1];
	}
	started_ns = processor_time_ns() - started_ns;
	policy->destroy(sched);
	return r < 0 ? r : started_ns / DECISIONS;
}

/*
 * The worst case: a look for somebody to admit beside an open turn that finds nobody and
 * cannot skip anybody, since one half of the VMs is kept out by long jobs alone and the
 * other by its tags alone. Returns ns a look, or a negative errno.
 */
static int64_t measure_worst(uint32_t count)
{
	const struct sched_policy *policy = &sched_fair;
	CLEANUP(freep) struct vm *vms = calloc(count, sizeof(*vms));
	struct core_config config;
	int64_t now_ns = 0, started_ns;
	struct sched *sched;
	int r = 0;

	core_config_default(&config);
	if (!vms || policy->create(&sched, &config.sched, since_ns, 0) < 0)
		return -ENOMEM;
	for (uint32_t i = 0; i < count && r == 0; i++) {
		bool ahead = i % 2;

		r = policy->vm_add(sched, now_ns, &vms[i].vm, i, 100, 1,
		                   ahead ? INT64_C(1) << 50 : 0, &vms[i]);
		if (r < 0)
			break;
		policy->vm_enable(sched, now_ns, vms[i].vm, true);
		policy->job_queued(sched, now_ns, vms[i].vm);
		if (ahead)
			continue;
		while (policy->next(sched, now_ns))
			;
		policy->job_queued(sched, now_ns, vms[i].vm);
		now_ns += NS_PER_SEC;
		policy->job_done(sched, now_ns, vms[i].vm);
	}
	while (r == 0 && policy->next(sched, now_ns))
		;
	now_ns += 100 * NS_PER_MS;
	started_ns = processor_time_ns();
	for (int i = 0; i < LOOKS && r == 0; i++)
		r = policy->next(sched, now_ns + i) ? -EPROTO : 0;
	started_ns = processor_time_ns() - started_ns;
	policy->destroy(sched);
	return r < 0 ? r : started_ns / LOOKS;
}

/* Eight VMs with jobs of 100 us. Returns jobs played in a second, or a negative errno. */
static int64_t measure_simulator(void)
{
	CLEANUP(freep) struct scenario *scenario = malloc(sizeof(*scenario));
	const struct world_options options = {.policy = &sim_policies[0]};
	struct world_result result;
	int64_t started_ns;
	int64_t jobs;
	int r;

	if (!scenario)
		return -ENOMEM;
	scenario_init(scenario);
	scenario->duration_ns = 120 * NS_PER_SEC;
	scenario->vm_count = 8;
	for (uint32_t i = 0; i < scenario->vm_count; i++) {
		scenario_vm_init(&scenario->vms[i]);
		scenario->vms[i].length_ns = 100 * NS_PER_US;
	}
	started_ns = processor_time_ns();
	r = world_run(&result, scenario, &options);
	if (r < 0)
		return r;
	jobs = (int64_t)result.sent * NS_PER_SEC / (processor_time_ns() - started_ns);
	world_result_fini(&result);
	return jobs;
}

int cost_report(FILE *to, bool json)
{
	static const uint32_t counts[] = {10, 100, 1000, 10000};
	int64_t jobs;

	fputs(json ? "{\"decisions\": [" : "", to);
	for (size_t i = 0; i < ARRAY_LEN(counts); i++) {
		int64_t ns = measure(counts[i]), worst_ns = measure_worst(counts[i]);

		if (ns < 0 || worst_ns < 0)
			return (int)min_i64(ns, worst_ns);
		fprintf(to,
		        json ? "%s{\"vms\": %u, \"ns\": %" PRId64 ", \"worst_ns\": %" PRId64 "}"
		             : "%s%6u VMs: %5" PRId64 " ns a decision, %6" PRId64 " ns at worst\n",
		        json && i ? ", " : "", counts[i], ns, worst_ns);
	}
	jobs = measure_simulator();
	if (jobs < 0)
		return (int)jobs;
	fprintf(to,
	        json ? "], \"simulated_jobs_per_s\": %" PRId64 "}\n"
	             : "simulator: %" PRId64 " jobs a second\n",
	        jobs);
	return 0;
}
