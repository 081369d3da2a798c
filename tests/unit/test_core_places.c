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

static int setup(void **state)
{
	struct world *world = world_new();

	world_open(world);
	*state = world;
	return 0;
}

static int teardown(void **state)
{
	world_free(*state);
	return 0;
}

static void limit_workers(struct world *world, uint32_t max)
{
	world->config.max_workers = max;
	core_config_set(world->core, world->now_ns, &world->config);
	world_look(world);
}

/* The worker that has been idle longest makes room, and whoever came first gets the place. */
static void test_idle_workers_make_room(void **state)
{
	struct world *world = *state;
	uint64_t generations[3];
	struct core_action stop, start;
	uint32_t vms[6];

	limit_workers(world, 3);
	for (size_t i = 0; i < ARRAY_LEN(vms); i++)
		vms[i] = world_add_vm(world, NULL);
	for (int i = 0; i < 3; i++) {
		generations[i] = world_warm(world, vms[i]);
		world_pass(world, MS);
	}
	world_submit(world, vms[3], 1);
	stop = world_expect(world, CORE_ACTION_STOP_WORKER);
	assert_int_equal(stop.vm, vms[0]);
	world_submit(world, vms[4], 1);
	/* The one that makes room has a job again: it queues up behind those who wait. */
	world_submit(world, vms[0], 1);
	world_dead(world, vms[0], generations[0]);
	start = world_expect(world, CORE_ACTION_START_WORKER);
	assert_int_equal(start.vm, vms[3]);
	/* The next two get the places of the two that are still idle. */
	for (int i = 1; i < 3; i++) {
		if (world->count == 0)
			world_pass(world, world->config.worker_patience_ns);
		stop = world_expect(world, CORE_ACTION_STOP_WORKER);
		assert_int_equal(stop.vm, vms[i]);
		world_dead(world, vms[i], generations[i]);
		start = world_expect(world, CORE_ACTION_START_WORKER);
		assert_int_equal(start.vm, i == 1 ? vms[4] : vms[0]);
	}
	world_expect_nothing(world);
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
		if (world->count == 0)
			world_pass(world, world->config.worker_patience_ns);
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
	world_expect_nothing(world);
	world_submit(world, third, 1);
	for (int i = 0; i < 2; i++) {
		struct core_action stop;

		if (world->count == 0)
			world_pass(world, world->config.worker_patience_ns);
		stop = world_expect(world, CORE_ACTION_STOP_WORKER);
		world_expect_nothing(world);
		world_dead(world, stop.vm, generations[stop.vm == second]);
	}
	assert_int_equal(world_expect(world, CORE_ACTION_START_WORKER).vm, third);
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_idle_workers_make_room),
		TEST(test_busy_workers_make_room),
		TEST(test_a_stuck_worker_and_the_line),
		TEST(test_leaving_the_line),
		TEST(test_more_places),
		TEST(test_fewer_places),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
