/* SPDX-License-Identifier: MIT */
/*
 * More VMs than places for workers: who makes room, who waits in line, and what happens
 * when there are more or fewer places than before.
 */
#include "core_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/util.h"

static void limit_workers(struct world *world, uint32_t max)
{
	world->config.max_workers = max;
	core_config_set(world->core, world->now_ns, &world->config);
	world_look(world);
}

/* As long as it takes for an idle worker to count as one. */
static void rest(struct world *world)
{
	world_pass(world, 20 * MS);
	world_expect_nothing(world);
}

static void assert_stops(struct world *world, uint32_t vm)
{
	assert_int_equal(world_expect(world, CORE_ACTION_STOP_WORKER).vm, vm);
}

/* A job on a worker that is there, or starts now. */
static void run_job(struct world *world, uint32_t vm, uint64_t cookie)
{
	struct core_action sent = world_expect_send(world, cookie);

	assert_int_equal(sent.vm, vm);
	world_done(world, &sent, VGPU_CODE_OK, 0);
	world_expect_answer(world, cookie, VGPU_CODE_OK);
}

/*
 * The workers that have been idle longest make room, as many as wait and at once; whoever
 * came first gets the first place.
 */
static void test_idle_workers_make_room(void **state)
{
	struct world *world = *state;
	uint64_t generations[4];
	uint32_t vms[7];

	limit_workers(world, 4);
	for (size_t i = 0; i < ARRAY_LEN(vms); i++)
		vms[i] = world_add_vm(world, NULL);
	for (int i = 0; i < 4; i++) {
		generations[i] = world_warm(world, vms[i]);
		world_pass(world, MS);
	}
	rest(world);
	world_submit(world, vms[4], 1);
	assert_stops(world, vms[0]);
	world_submit(world, vms[5], 1);
	assert_stops(world, vms[1]);
	world_expect_nothing(world);
	world_submit(world, vms[6], 1);
	assert_stops(world, vms[2]);
	/* The one that makes room has a job again: it queues up behind those who wait. */
	world_submit(world, vms[0], 1);
	world_expect_nothing(world);
	world_dead(world, vms[0], generations[0]);
	assert_int_equal(world_expect(world, CORE_ACTION_START_WORKER).vm, vms[4]);
	assert_stops(world, vms[3]);
	for (int i = 1; i < 4; i++) {
		static const int next[] = {4, 5, 6, 0};

		world_expect_nothing(world);
		world_dead(world, vms[i], generations[i]);
		assert_int_equal(world_expect(world, CORE_ACTION_START_WORKER).vm, vms[next[i]]);
	}
	world_expect_nothing(world);
}

/* The worker that has just been started is not thrown away while others have rested for long. */
static void test_a_fresh_worker_stays(void **state)
{
	struct world *world = *state;
	uint32_t old[2], fresh, late;
	uint64_t generations[2], cookie;

	limit_workers(world, 2);
	for (int i = 0; i < 2; i++) {
		old[i] = world_add_vm(world, NULL);
		generations[i] = world_warm(world, old[i]);
	}
	fresh = world_add_vm(world, NULL);
	late = world_add_vm(world, NULL);
	rest(world);
	cookie = world_submit(world, fresh, 1);
	world_submit(world, late, 1);
	assert_stops(world, old[0]);
	assert_stops(world, old[1]);
	world_dead(world, old[0], generations[0]);
	world_start_worker(world, fresh);
	run_job(world, fresh, cookie);
	rest(world);
	world_dead(world, old[1], generations[1]);
	assert_int_equal(world_expect(world, CORE_ACTION_START_WORKER).vm, late);
}

/* A program that waits for each answer has pauses, and keeps its worker for a while. */
static void test_pauses_are_no_rest(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL), waiting = world_add_vm(world, NULL);
	uint64_t generation = world_warm(world, vm), cookie;
	int jobs = 0;

	limit_workers(world, 1);
	world_submit(world, waiting, 1);
	for (; !world->count; jobs++) {
		cookie = world_submit(world, vm, 1);
		run_job(world, vm, cookie);
		world_pass(world, 10 * MS);
	}
	assert_in_range(jobs, 95, 101);
	assert_stops(world, vm);
	world_dead(world, vm, generation);
	assert_int_equal(world_expect(world, CORE_ACTION_START_WORKER).vm, waiting);
}

/*
 * A long job that is asked to make room does not stop others from being asked: the first
 * promise counts for a while only.
 */
static void test_a_long_job_does_not_hold_up_the_line(void **state)
{
	struct world *world = *state;
	uint32_t vms[2], waiting;
	uint64_t generations[2], jobs[2], queued, cookie;
	struct core_action sent[2], start;

	world->config.gpu_count = 2;
	world->config.pools[1].gpu_mask = 2;
	world_open(world);
	limit_workers(world, 2);
	for (int i = 0; i < 2; i++) {
		struct vm_settings settings = vm_settings_default;

		settings.pool = (uint32_t)i;
		vms[i] = world_add_vm(world, &settings);
		generations[i] = world_warm(world, vms[i]);
		world_pass(world, MS);
	}
	waiting = world_add_vm(world, NULL);
	for (int i = 0; i < 2; i++) {
		jobs[i] = world_submit(world, vms[i], 1);
		sent[i] = world_expect_send(world, jobs[i]);
	}
	queued = world_submit(world, vms[1], 1);
	cookie = world_submit(world, waiting, 1);
	world_pass(world, 2 * world->config.worker_patience_ns - 1);
	world_expect_nothing(world);
	/* The first goes on with its job, however long; the other one has short ones. */
	world_pass(world, 1);
	world_done(world, &sent[1], VGPU_CODE_OK, 0);
	world_expect_answer(world, jobs[1], VGPU_CODE_OK);
	assert_stops(world, vms[1]);
	world_expect_nothing(world);
	world_dead(world, vms[1], generations[1]);
	world_start_worker(world, waiting);
	world_done(world, &sent[0], VGPU_CODE_OK, 0);
	world_expect_answer(world, jobs[0], VGPU_CODE_OK);
	assert_stops(world, vms[0]);
	run_job(world, waiting, cookie);
	world_dead(world, vms[0], generations[0]);
	start = world_expect(world, CORE_ACTION_START_WORKER);
	assert_int_equal(start.vm, vms[1]);
	world_ready(world, vms[1], start.generation);
	world_expect_send(world, queued);
}

/* Busy workers make room too, though later, and between two of their jobs. */
static void test_busy_workers_make_room(void **state)
{
	struct world *world = *state;
	uint32_t busy = world_add_vm(world, NULL), waiting = world_add_vm(world, NULL);
	uint64_t generation = world_warm(world, busy), cookie, last = 0;
	struct core_action sent, start;
	int64_t began_ns;

	limit_workers(world, 1);
	for (int i = 0; i < 100; i++)
		last = world_submit(world, busy, 1);
	sent = world_expect(world, CORE_ACTION_SEND_JOB);
	cookie = world_submit(world, waiting, 1);
	began_ns = world->now_ns;
	world_expect_nothing(world);
	for (;;) {
		world_pass(world, 100 * MS);
		world_expect_nothing(world);
		world_done(world, &sent, VGPU_CODE_OK, 0);
		world_expect(world, CORE_ACTION_ANSWER);
		if (world->actions[world->first].type != CORE_ACTION_SEND_JOB)
			break;
		sent = world_expect(world, CORE_ACTION_SEND_JOB);
		assert_true(world->now_ns - began_ns < 10 * S);
	}
	world_expect(world, CORE_ACTION_STOP_WORKER);
	assert_in_range(world->now_ns - began_ns, world->config.worker_patience_ns,
	                world->config.worker_patience_ns + 200 * MS);
	world_expect_nothing(world);
	world_dead(world, busy, generation);
	start = world_expect(world, CORE_ACTION_START_WORKER);
	assert_int_equal(start.vm, waiting);
	world_ready(world, waiting, start.generation);
	sent = world_expect_send(world, cookie);
	world_done(world, &sent, VGPU_CODE_OK, 0);
	world_expect_answer(world, cookie, VGPU_CODE_OK);
	/* And back again: the busy one's queue is as it was. */
	world_pass(world, 20 * MS);
	world_expect(world, CORE_ACTION_STOP_WORKER);
	world_dead(world, waiting, start.generation);
	start = world_expect(world, CORE_ACTION_START_WORKER);
	assert_int_equal(start.vm, busy);
	world_ready(world, busy, start.generation);
	sent = world_expect(world, CORE_ACTION_SEND_JOB);
	assert_true(sent.payload != &world->payloads[last]);
	assert_int_equal(world_stats(world, busy).faults[CORE_FAULT_DEATH], 0);
}

/* A worker that not even a kill ends keeps its place, and no one else's. */
static void test_a_stuck_worker_and_the_line(void **state)
{
	struct world *world = *state;
	uint32_t stuck = world_add_vm(world, NULL), other = world_add_vm(world, NULL);
	uint32_t third = world_add_vm(world, NULL);
	uint64_t generation, cookie;

	limit_workers(world, 2);
	world_warm(world, stuck);
	world_pass(world, MS);
	generation = world_warm(world, other);
	rest(world);
	/* It is chosen to make room, does not go, and is killed in vain. */
	cookie = world_submit(world, third, 1);
	assert_int_equal(world_expect(world, CORE_ACTION_STOP_WORKER).vm, stuck);
	world_pass(world, world->config.worker_stop_timeout_ns);
	world_expect(world, CORE_ACTION_KILL_WORKER);
	for (int i = 0; world->count == 0 && i < 100; i++)
		world_pass(world, S);
	world_expect(world, CORE_ACTION_WORKER_STUCK);
	for (int i = 0; world->count == 0 && i < 100; i++)
		world_pass(world, S);
	assert_int_equal(world_expect(world, CORE_ACTION_STOP_WORKER).vm, other);
	world_dead(world, other, generation);
	world_start_worker(world, third);
	world_expect_send(world, cookie);
}

/* Whoever gives up leaves the line. */
static void test_leaving_the_line(void **state)
{
	struct world *world = *state;
	uint32_t busy = world_add_vm(world, NULL), first = world_add_vm(world, NULL);
	uint32_t second = world_add_vm(world, NULL);
	uint64_t generation = world_warm(world, busy), running, gone, waits;
	struct core_action sent;

	limit_workers(world, 1);
	running = world_submit(world, busy, 1);
	sent = world_expect_send(world, running);
	gone = world_submit(world, first, 9);
	waits = world_submit(world, second, 1);
	core_client_gone(world->core, world->now_ns, first, 9);
	world_look(world);
	world_expect_answer(world, gone, VGPU_CODE_CANCELLED);
	world_done(world, &sent, VGPU_CODE_OK, 0);
	world_expect_answer(world, running, VGPU_CODE_OK);
	world_pass(world, 20 * MS);
	world_expect(world, CORE_ACTION_STOP_WORKER);
	world_dead(world, busy, generation);
	world_start_worker(world, second);
	world_expect_send(world, waits);
}

/* More places: all who wait get one, in the order in which they came. */
static void test_more_places(void **state)
{
	struct world *world = *state;
	struct core_action start;
	uint32_t vms[5];

	limit_workers(world, 1);
	for (size_t i = 0; i < ARRAY_LEN(vms); i++)
		vms[i] = world_add_vm(world, NULL);
	for (size_t i = ARRAY_LEN(vms); i-- > 0;)
		world_submit(world, vms[i], 1);
	world_expect(world, CORE_ACTION_START_WORKER);
	world_expect_nothing(world);
	limit_workers(world, 10);
	for (size_t i = ARRAY_LEN(vms) - 1; i-- > 0;) {
		start = world_expect(world, CORE_ACTION_START_WORKER);
		assert_int_equal(start.vm, vms[i]);
	}
}

/* Fewer places than workers: none is taken away, and none is given until there is room. */
static void test_fewer_places(void **state)
{
	struct world *world = *state;
	uint32_t first = world_add_vm(world, NULL), second = world_add_vm(world, NULL);
	uint32_t third = world_add_vm(world, NULL);
	uint64_t generations[2];

	generations[0] = world_warm(world, first);
	generations[1] = world_warm(world, second);
	limit_workers(world, 1);
	rest(world);
	/* Both have to go before there is a place. */
	world_submit(world, third, 1);
	assert_stops(world, first);
	assert_stops(world, second);
	world_dead(world, first, generations[0]);
	world_expect_nothing(world);
	world_dead(world, second, generations[1]);
	assert_int_equal(world_expect(world, CORE_ACTION_START_WORKER).vm, third);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_OPEN(test_idle_workers_make_room),
		TEST_OPEN(test_a_fresh_worker_stays),
		TEST_OPEN(test_pauses_are_no_rest),
		TEST_CLOSED(test_a_long_job_does_not_hold_up_the_line),
		TEST_OPEN(test_busy_workers_make_room),
		TEST_OPEN(test_a_stuck_worker_and_the_line),
		TEST_OPEN(test_leaving_the_line),
		TEST_OPEN(test_more_places),
		TEST_OPEN(test_fewer_places),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
