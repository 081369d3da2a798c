/* SPDX-License-Identifier: MIT */
/*
 * The guests of a played world: how long their jobs are, when they come, and what
 * happens after an answer.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "base/units.h"
#include "sim/world_internal.h"

/* A guest that was refused waits at least this long. */
#define RETRY_NS NS_PER_MS

/* What a job longer than this multiple of the mean is cut to. */
#define LENGTH_MAX_OF_MEAN 6

static void submit_later(struct world *world, uint32_t vm, int64_t in_ns)
{
	world_later(
		world,
		&(struct dated){.at_ns = world->now_ns + in_ns, .thing = THING_SUBMIT, .vm = vm});
}

static bool is_nth(uint64_t number, uint32_t every)
{
	return every && number % every == 0;
}

static int64_t draw_length_ns(struct sim_vm *vm, const struct scenario_vm *what)
{
	double mean = (double)what->length_ns, sigma = what->spread_percent / 100.0;
	double length;

	if (vm->hang_next || is_nth(vm->submitted, what->hang_every)) {
		vm->hang_next = false;
		return INT64_MAX;
	}
	if (vm->submitted <= what->first_jobs)
		return what->first_ns;
	if (is_nth(vm->submitted, what->alternate_every))
		return what->alternate_ns;
	if (what->spread_percent == 0)
		return what->length_ns;
	length = mean * exp(sigma * sim_random_normal(&vm->random) - sigma * sigma / 2);
	return (int64_t)fmin(length, LENGTH_MAX_OF_MEAN * mean);
}

static int64_t draw_pause_ns(struct sim_vm *vm, const struct scenario_vm *what)
{
	double u = sim_random_unit(&vm->random);

	if (what->load == LOAD_POISSON)
		return (int64_t)(-log(1 - u) * (double)what->period_ns);
	return (int64_t)((0.8 + 0.4 * u) * (double)what->period_ns);
}

static bool is_open_loop(const struct scenario_vm *what)
{
	return what->load == LOAD_PERIODIC || what->load == LOAD_POISSON;
}

static struct sim_job *take_job(struct world *world)
{
	struct sim_job *job = TAILQ_FIRST(&world->free_jobs);

	if (job) {
		TAILQ_REMOVE(&world->free_jobs, job, link);
		return job;
	}
	job = malloc(sizeof(*job));
	if (!job)
		world->error = -ENOMEM;
	return job;
}

static void put_job(struct world *world, struct sim_vm *vm, struct sim_job *job)
{
	TAILQ_REMOVE(&vm->jobs, job, link);
	TAILQ_INSERT_HEAD(&world->free_jobs, job, link);
}

void guest_submit(struct world *world, uint32_t number)
{
	const struct scenario_vm *what = &world->scenario->vms[number];
	struct core_submission submission = {.bytes = 64};
	struct sim_vm *vm = &world->vms[number];
	struct sim_job *job;

	if (!vm->present || vm->leaving || world->settling)
		return;
	if (is_open_loop(what))
		submit_later(world, number, draw_pause_ns(vm, what));
	if (!core_vm_has_room(world->core, vm->core_vm)) {
		world->result->vms[number].refused += world->warm;
		if (!is_open_loop(what))
			submit_later(world, number, RETRY_NS);
		return;
	}
	job = take_job(world);
	if (!job)
		return;
	vm->submitted++;
	job->arrived_ns = world->now_ns;
	job->length_ns = draw_length_ns(vm, what);
	job->faulty = vm->fault_next || is_nth(vm->submitted, what->fault_every);
	vm->fault_next = false;
	job->client = 1 + vm->submitted % SIM_CLIENTS;
	job->watch = (struct sim_job_watch){.number = vm->submitted};
	submission.client = job->client;
	submission.without_gpu = job->length_ns == 0;
	submission.payload = job;
	if (is_nth(vm->submitted, what->malformed_every))
		submission.malformed = VGPU_CODE_INVALID_REQUEST;
	TAILQ_INSERT_TAIL(&vm->jobs, job, link);
	world->unanswered++;
	audit_submit(world, number, job, submission.malformed);
	world->error = core_job_submitted(world->core, world->now_ns, vm->core_vm, &submission);
}

static void record_wait(struct world *world, uint32_t number, int64_t wait_ns)
{
	struct world_vm_result *result = &world->result->vms[number];

	if (!world->options->record)
		return;
	if (result->wait_count == result->wait_capacity) {
		uint32_t capacity = result->wait_capacity ? 2 * result->wait_capacity : 1024;
		int64_t *waits = reallocarray(result->waits_ns, capacity, sizeof(*waits));

		if (!waits) {
			world->error = -ENOMEM;
			return;
		}
		result->waits_ns = waits;
		result->wait_capacity = capacity;
	}
	result->waits_ns[result->wait_count++] = wait_ns;
}

void guest_count_unanswered(struct world *world, uint32_t number)
{
	const struct sim_job *job;

	/* One that was made never to end would tell nothing. */
	TAILQ_FOREACH (job, &world->vms[number].jobs, link)
		if (job->length_ns != INT64_MAX)
			record_wait(world, number,
			            max_i64(0, world->now_ns - job->arrived_ns - job->length_ns));
}

static void count_answer(struct world *world, uint32_t number, const struct sim_job *job,
                         enum vgpu_code code)
{
	struct world_vm_result *result = &world->result->vms[number];

	if (!world->warm || world->settling)
		return;
	if (code == VGPU_CODE_OK) {
		result->done++;
		record_wait(world, number,
		            world->now_ns - WORLD_RETURN_NS - job->arrived_ns - job->length_ns);
	} else if (code == VGPU_CODE_RATE_LIMITED) {
		result->refused++;
	} else {
		result->failed++;
	}
}

void guest_answered(struct world *world, uint32_t number, struct sim_job *job,
                    const struct core_answer *answer)
{
	const struct scenario_vm *what = &world->scenario->vms[number];
	int64_t pause_ns = what->load == LOAD_CLOSED ? what->think_ns : 0;

	count_answer(world, number, job, answer->code);
	put_job(world, &world->vms[number], job);
	if (is_open_loop(what))
		return;
	if (answer->code != VGPU_CODE_OK) {
		pause_ns = max_i64(pause_ns, RETRY_NS);
		pause_ns = max_i64(pause_ns, answer->retry_after_us * NS_PER_US);
	}
	submit_later(world, number, pause_ns);
}

void guest_lost(struct world *world, uint32_t number, struct sim_job *job)
{
	put_job(world, &world->vms[number], job);
	if (!is_open_loop(&world->scenario->vms[number]))
		submit_later(world, number, RETRY_NS);
}

void guest_start(struct world *world, uint32_t number)
{
	const struct scenario_vm *what = &world->scenario->vms[number];

	if (is_open_loop(what)) {
		submit_later(world, number, draw_pause_ns(&world->vms[number], what));
		return;
	}
	for (uint32_t i = 0; i < what->outstanding; i++)
		submit_later(world, number, what->load == LOAD_CLOSED ? i * NS_PER_US : 0);
}
