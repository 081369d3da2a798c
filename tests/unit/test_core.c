/* SPDX-License-Identifier: MIT */
/*
 * The core by script: each way a job and a worker can go, event by event, with every
 * action that comes out of it. The files beside it have time limits, refusals and
 * quarantine, VMs and places; test_core_random.c has all of it at once.
 */
#include "core_world.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/util.h"

/* ---- Jobs ------------------------------------------------------------------- */

static void test_one_job(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL);
	uint64_t cookie = world_submit(world, vm, 7), generation;
	struct core_result result = {.code = VGPU_CODE_OK, .gpu_time_ns = 5 * MS, .result = world};
	struct core_action start = world_expect(world, CORE_ACTION_START_WORKER), sent, answer;

	world_expect_nothing(world);
	assert_int_equal(start.gpu, 0);
	generation = start.generation;
	world->now_ns += 300 * MS;
	world_ready(world, vm, generation);
	sent = world_expect_send(world, cookie);
	assert_int_equal(sent.opcode, VGPU_OP_CUDA_KERNEL);
	assert_int_equal(sent.generation, generation);
	world_expect_nothing(world);
	world->now_ns += 6 * MS;
	assert_int_equal(
		core_job_done(world->core, world->now_ns, vm, generation, sent.job, &result), 0);
	world_look(world);
	answer = world_expect_answer(world, cookie, VGPU_CODE_OK);
	assert_int_equal(answer.client, 7);
	assert_ptr_equal(answer.result, world);
	assert_int_equal(answer.answer.gpu_time_us, 5000);
	world_expect_nothing(world);
	assert_int_equal(world_stats(world, vm).outcomes[CORE_OUTCOME_DONE], 1);
	assert_int_equal(world_stats(world, vm).latency->max_ns, 306 * MS);
	assert_int_equal(world_stats(world, vm).depth, 0);
}

/* What a worker says of time is believed as far as it can be true, and changes no bill. */
static void test_a_worker_that_lies_about_time(void **state)
{
	static const uint64_t claims_ns[] = {0, 6 * MS, 7 * MS, INT64_MAX, UINT64_MAX};
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL);
	struct core_pool_stats pool;

	world_warm(world, vm);
	core_pool_stats(world->core, 0, &pool);
	for (size_t i = 0; i < ARRAY_LEN(claims_ns); i++) {
		const struct core_result result = {.gpu_time_ns = claims_ns[i]};
		uint64_t cookie = world_submit(world, vm, 1), told_ns = claims_ns[i] ? 6 * MS : 0;
		struct core_action sent = world_expect_send(world, cookie), answer;
		struct core_vm_stats before = world_stats(world, vm);
		uint64_t recorded_ns = pool.execution->sum_ns;

		world->now_ns += 6 * MS;
		assert_int_equal(core_job_done(world->core, world->now_ns, vm, sent.generation,
		                               sent.job, &result),
		                 0);
		world_look(world);
		answer = world_expect_answer(world, cookie, VGPU_CODE_OK);
		assert_int_equal(answer.answer.gpu_time_us, told_ns / NS_PER_US);
		assert_int_equal(world_stats(world, vm).job_gpu_ns - before.job_gpu_ns, told_ns);
		assert_int_equal(pool.execution->sum_ns - recorded_ns, told_ns);
		assert_int_equal(world_stats(world, vm).charged_ns - before.charged_ns, 6 * MS);
	}
}

static void test_fifo(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL);
	uint64_t cookies[6];

	world_warm(world, vm);
	for (size_t i = 0; i < ARRAY_LEN(cookies); i++)
		cookies[i] = world_submit(world, vm, 1 + i % 3);
	for (size_t i = 0; i < ARRAY_LEN(cookies); i++) {
		struct core_action sent = world_expect_send(world, cookies[i]);

		assert_int_equal(world_stats(world, vm).depth, ARRAY_LEN(cookies) - i);
		world->now_ns += MS;
		world_done(world, &sent, VGPU_CODE_OK, 0);
		world_expect_answer(world, cookies[i], VGPU_CODE_OK);
	}
	world_expect_nothing(world);
}

/* An error of the job is its answer; the worker lives on, and nobody is to blame. */
static void test_a_job_that_fails(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL);
	struct core_action sent, answer;
	uint64_t cookie;

	world_warm(world, vm);
	cookie = world_submit(world, vm, 1);
	sent = world_expect_send(world, cookie);
	world_done(world, &sent, VGPU_CODE_CUDA, 2); /* out of memory */
	answer = world_expect_answer(world, cookie, VGPU_CODE_CUDA);
	assert_int_equal(answer.answer.detail, 2);
	world_expect_nothing(world);
	assert_int_equal(world_stats(world, vm).outcomes[CORE_OUTCOME_FAILED], 1);
	assert_int_equal(world_stats(world, vm).worker, CORE_WORKER_READY);
}

/* A GPU exception takes the context: the worker goes, and the queue goes on in a new one. */
static void test_a_gpu_exception(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL);
	uint64_t generation, first, second;
	struct core_action sent;
	struct core_store store;

	generation = world_warm(world, vm);
	first = world_submit(world, vm, 1);
	second = world_submit(world, vm, 1);
	sent = world_expect_send(world, first);
	world_lost(world, &sent, 700);
	world_expect(world, CORE_ACTION_KILL_WORKER);
	store = world_store_fault(world, CORE_FAULT_GPU);
	assert_int_equal(store.detail, 700);
	assert_int_equal(store.points, 1);
	assert_false(store.quarantine);
	world_expect_answer(world, first, VGPU_CODE_CUDA);
	world_expect_nothing(world);
	world_dead(world, vm, generation);
	assert_true(world_start_worker(world, vm) > generation);
	world_expect_send(world, second);
	assert_int_equal(world_stats(world, vm).faults[CORE_FAULT_GPU], 1);
	assert_int_equal(world_stats(world, vm).faults[CORE_FAULT_DEATH], 0);
}

static void test_client_gone(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL);
	uint64_t running, queued[2], other;
	struct core_action sent;

	world_warm(world, vm);
	running = world_submit(world, vm, 5);
	queued[0] = world_submit(world, vm, 5);
	other = world_submit(world, vm, 6);
	queued[1] = world_submit(world, vm, 5);
	sent = world_expect_send(world, running);
	core_client_gone(world->core, world->now_ns, vm, 5);
	world_look(world);
	world_expect_answer(world, queued[0], VGPU_CODE_CANCELLED);
	world_expect_answer(world, queued[1], VGPU_CODE_CANCELLED);
	world_expect_nothing(world);
	/* What runs is answered, though nobody hears it. */
	world_done(world, &sent, VGPU_CODE_OK, 0);
	assert_int_equal(world_expect_answer(world, running, VGPU_CODE_OK).client, 5);
	world_expect_send(world, other);
}

/* ---- Deaths ------------------------------------------------------------------ */

/* With several jobs sent, the oldest one is to blame and the others never happened. */
static void test_death_with_jobs_in_flight(void **state)
{
	struct world *world = *state;
	uint64_t cookies[8], generation;
	struct core_action sent;
	uint32_t vm;

	world->config.policy = &sched_fair;
	world->config.sched.overlap_max = 1;
	world_open(world);
	vm = world_add_vm(world, NULL);
	generation = world_warm(world, vm);
	/* Short jobs: four of them are sent ahead. */
	for (int i = 0; i < 40; i++) {
		uint64_t cookie = world_submit(world, vm, 1);

		sent = world_expect_send(world, cookie);
		world->now_ns += 20 * NS_PER_US;
		world_done(world, &sent, VGPU_CODE_OK, 0);
		world_expect_answer(world, cookie, VGPU_CODE_OK);
	}
	for (size_t i = 0; i < ARRAY_LEN(cookies); i++)
		cookies[i] = world_submit(world, vm, 1);
	assert_int_equal(world_stats(world, vm).in_flight, 4);
	for (int i = 0; i < 4; i++)
		world_expect_send(world, cookies[i]);
	world_expect_nothing(world);
	world_dead(world, vm, generation);
	assert_int_equal(world_store_fault(world, CORE_FAULT_DEATH).detail, WORLD_DEATH_STATUS);
	for (int i = 1; i < 4; i++)
		world_expect_answer(world, cookies[i], VGPU_CODE_CONTEXT_LOST);
	world_expect_answer(world, cookies[0], VGPU_CODE_CUDA);
	world_start_worker(world, vm);
	world_expect_send(world, cookies[4]);
}

static void test_death_while_idle(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL);

	world_dead(world, vm, world_warm(world, vm));
	world_store_fault(world, CORE_FAULT_DEATH);
	world_expect_nothing(world);
	assert_int_equal(world_stats(world, vm).worker, CORE_WORKER_NONE);
	world_submit(world, vm, 1);
	world_start_worker(world, vm);
}

/* A failed start: what waited is told, nothing is a fault, the next attempt comes later. */
static void test_death_before_ready(void **state)
{
	struct world *world = *state;
	const struct core_config *config = &world->config;
	uint32_t vm = world_add_vm(world, NULL);
	int64_t backoff_ns = config->worker_backoff_min_ns, began_ns;
	uint64_t waiting[2];

	for (int attempt = 0; attempt < 12; attempt++) {
		bool failing = attempt >= CORE_FAILING_STARTS;
		struct core_action start;

		assert_int_equal(world_stats(world, vm).failed_starts, attempt);
		began_ns = world->now_ns;
		/* Until the back-off is over jobs wait; once starts fail on and on they do not. */
		if (failing) {
			uint64_t refused = world_submit(world, vm, 1);

			world_expect_answer(world, refused, VGPU_CODE_UNAVAILABLE);
			world_pass(world, backoff_ns);
		}
		waiting[0] = world_submit(world, vm, 1);
		waiting[1] = world_submit(world, vm, 2);
		if (attempt && !failing) {
			world_pass(world, backoff_ns - 1);
			world_expect_nothing(world);
			world_pass(world, 1);
		}
		start = world_expect(world, CORE_ACTION_START_WORKER);
		assert_int_equal(world->now_ns - began_ns, attempt ? backoff_ns : 0);
		world_dead(world, vm, start.generation);
		if (attempt == CORE_FAILING_STARTS - 1)
			world_expect(world, CORE_ACTION_WORKER_FAILING);
		world_expect_answer(world, waiting[0], VGPU_CODE_UNAVAILABLE);
		world_expect_answer(world, waiting[1], VGPU_CODE_UNAVAILABLE);
		world_expect_nothing(world);
		if (attempt)
			backoff_ns = min_i64(2 * backoff_ns, config->worker_backoff_max_ns);
	}
	assert_int_equal(world_stats(world, vm).start_failures, 12);
	assert_int_equal(world_stats(world, vm).refusals[CORE_REFUSAL_UNAVAILABLE],
	                 12 - CORE_FAILING_STARTS);
	assert_int_equal(backoff_ns, config->worker_backoff_max_ns);
	/* One success, and the next trouble begins with the shortest pause again. */
	world_pass(world, backoff_ns);
	world_dead(world, vm, world_warm(world, vm));
	assert_int_equal(world_stats(world, vm).failed_starts, 0);
	world_store_fault(world, CORE_FAULT_DEATH);
	waiting[0] = world_submit(world, vm, 1);
	world_dead(world, vm, world_expect(world, CORE_ACTION_START_WORKER).generation);
	world_expect_answer(world, waiting[0], VGPU_CODE_UNAVAILABLE);
	world_submit(world, vm, 1);
	world_expect_nothing(world);
	world_pass(world, config->worker_backoff_min_ns);
	world_expect(world, CORE_ACTION_START_WORKER);
}

/* Who waited has left: the failure counts, and nobody tries again until somebody wants it. */
static void test_a_start_that_fails_for_nobody(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL);

	for (uint32_t attempt = 0; attempt < CORE_FAILING_STARTS; attempt++) {
		uint64_t left = world_submit(world, vm, 1), generation;

		generation = world_expect(world, CORE_ACTION_START_WORKER).generation;
		core_client_gone(world->core, world->now_ns, vm, 1);
		world_look(world);
		world_expect_answer(world, left, VGPU_CODE_CANCELLED);
		world_expect_nothing(world);
		world_dead(world, vm, generation);
		assert_int_equal(world_stats(world, vm).failed_starts, attempt + 1);
		if (attempt + 1 == CORE_FAILING_STARTS)
			world_expect(world, CORE_ACTION_WORKER_FAILING);
		world_pass(world, 3600 * S);
		world_expect_nothing(world);
	}
	world_warm(world, vm);
	assert_int_equal(world_stats(world, vm).failed_starts, 0);
}

/* A worker that never gets ready is killed; what waited for it is told when it is gone. */
static void test_a_start_that_takes_too_long(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL);
	uint64_t cookie = world_submit(world, vm, 1);
	uint64_t generation = world_expect(world, CORE_ACTION_START_WORKER).generation;

	world_pass(world, world->config.worker_start_timeout_ns - 1);
	world_expect_nothing(world);
	world_pass(world, 1);
	assert_int_equal(world_expect(world, CORE_ACTION_KILL_WORKER).generation, generation);
	world_expect_nothing(world);
	/* Too late, and dropped. */
	world_ready(world, vm, generation);
	world_expect_nothing(world);
	world_dead(world, vm, generation);
	world_expect_answer(world, cookie, VGPU_CODE_UNAVAILABLE);
	world_expect_nothing(world);
	assert_int_equal(world_stats(world, vm).faults[CORE_FAULT_DEATH], 0);
}

/* A worker that is ended while it starts, because nobody wants it any more, has not failed. */
static void test_a_start_that_is_called_off(void **state)
{
	struct world *world = *state;
	struct vm_settings settings = vm_settings_default;
	uint64_t cookie, generation;
	uint32_t vm;

	world->config.gpu_count = 2;
	world->config.pools[1].gpu_mask = 2;
	world_open(world);
	vm = world_add_vm(world, &settings);
	/* Another pool: the queue goes along, and nobody waits for a back-off. */
	cookie = world_submit(world, vm, 1);
	generation = world_expect(world, CORE_ACTION_START_WORKER).generation;
	settings.pool = 1;
	core_vm_set(world->core, world->now_ns, vm, &settings, false);
	world_look(world);
	world_expect(world, CORE_ACTION_KILL_WORKER);
	world_dead(world, vm, generation);
	generation = world_expect(world, CORE_ACTION_START_WORKER).generation;
	world_expect_nothing(world);
	/* A drain: the queue is told that, and after it the next job starts a worker at once. */
	core_gpu_set_draining(world->core, world->now_ns, 1, true);
	world_look(world);
	world_expect_answer(world, cookie, VGPU_CODE_RATE_LIMITED);
	world_expect(world, CORE_ACTION_KILL_WORKER);
	world_dead(world, vm, generation);
	world_expect(world, CORE_ACTION_GPU_DRAINED);
	core_gpu_set_draining(world->core, world->now_ns, 1, false);
	world_look(world);
	world_warm(world, vm);
}

/* ---- Idle, asked to stop, stuck ------------------------------------------------- */

static void test_an_idle_worker_is_stopped(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL);
	uint64_t generation = world_warm(world, vm), cookie;

	world_pass(world, world->config.worker_idle_ns - 1);
	world_expect_nothing(world);
	world_pass(world, 1);
	assert_int_equal(world_expect(world, CORE_ACTION_STOP_WORKER).generation, generation);
	/* A job that comes now waits for the next worker. */
	cookie = world_submit(world, vm, 1);
	world_expect_nothing(world);
	world_dead(world, vm, generation);
	world_start_worker(world, vm);
	world_expect_send(world, cookie);
	assert_int_equal(world_stats(world, vm).faults[CORE_FAULT_DEATH], 0);
}

static void test_a_worker_that_does_not_stop(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL);
	uint64_t generation = world_warm(world, vm);

	world_pass(world, world->config.worker_idle_ns);
	world_expect(world, CORE_ACTION_STOP_WORKER);
	world_pass(world, world->config.worker_stop_timeout_ns - 1);
	world_expect_nothing(world);
	world_pass(world, 1);
	world_expect(world, CORE_ACTION_KILL_WORKER);
	world_expect_nothing(world);
	world_dead(world, vm, generation);
	world_expect_nothing(world);
	assert_int_equal(world_stats(world, vm).faults[CORE_FAULT_DEATH], 0);
}

/* Not even SIGKILL ends it: said once, nobody waits, and all is well when it is reaped. */
static void test_a_worker_that_survives_a_kill(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL);
	uint64_t generation = world_warm(world, vm), hanging, queued, late;

	hanging = world_submit(world, vm, 1);
	queued = world_submit(world, vm, 1);
	world_expect_send(world, hanging);
	world_pass(world, world->config.job_timeout_ns);
	world_expect(world, CORE_ACTION_KILL_WORKER);
	world_store_fault(world, CORE_FAULT_TIMEOUT);
	world_expect_answer(world, hanging, VGPU_CODE_TIMEOUT);
	world_expect_nothing(world);
	world_pass(world, world->config.worker_kill_timeout_ns);
	world_expect(world, CORE_ACTION_WORKER_STUCK);
	world_expect_answer(world, queued, VGPU_CODE_UNAVAILABLE);
	late = world_submit(world, vm, 1);
	world_expect_answer(world, late, VGPU_CODE_UNAVAILABLE);
	world_pass(world, 3600 * S);
	world_expect_nothing(world);
	world_dead(world, vm, generation);
	assert_int_equal(world_expect(world, CORE_ACTION_WORKER_FREED).gpu, 0);
	world_expect_nothing(world);
	late = world_submit(world, vm, 1);
	world_start_worker(world, vm);
	world_expect_send(world, late);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_OPEN(test_one_job),
		TEST_OPEN(test_a_worker_that_lies_about_time),
		TEST_OPEN(test_fifo),
		TEST_OPEN(test_a_job_that_fails),
		TEST_OPEN(test_a_gpu_exception),
		TEST_OPEN(test_client_gone),
		TEST_CLOSED(test_death_with_jobs_in_flight),
		TEST_OPEN(test_death_while_idle),
		TEST_OPEN(test_death_before_ready),
		TEST_OPEN(test_a_start_that_fails_for_nobody),
		TEST_OPEN(test_a_start_that_takes_too_long),
		TEST_CLOSED(test_a_start_that_is_called_off),
		TEST_OPEN(test_an_idle_worker_is_stopped),
		TEST_OPEN(test_a_worker_that_does_not_stop),
		TEST_OPEN(test_a_worker_that_survives_a_kill),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
