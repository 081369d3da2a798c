/* SPDX-License-Identifier: MIT */
/*
 * The run list: who has the GPU when, by the rules the hardware was measured to
 * follow.
 */
#include "core/schedule/run_list.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"

enum { NODES = 5, SLICE = 2000, HANDOVER = 150 };

struct world {
	struct run_list list;
	struct run_node nodes[NODES];
	int64_t now_ns;
	int64_t had_ns[NODES]; /* the GPU */
};

static int setup(void **state)
{
	static struct world world;

	memset(&world, 0, sizeof(world));
	run_list_init(&world.list);
	run_list_configure(&world.list, SLICE, HANDOVER);
	*state = &world;
	return 0;
}

/* Lets time pass as the scheduler does: one head after another. */
static void pass(struct world *world, int64_t until_ns)
{
	while (world->now_ns < until_ns) {
		struct run_node *head = run_list_head(&world->list);
		int64_t from_ns = world->now_ns;

		world->now_ns = run_list_head_until_ns(&world->list, from_ns, until_ns);
		if (head)
			world->had_ns[head - world->nodes] += world->now_ns - from_ns;
		run_list_rotate(&world->list, world->now_ns);
	}
}

static void enter(struct world *world, int node)
{
	run_list_enter(&world->list, &world->nodes[node], world->now_ns);
}

static int64_t leave(struct world *world, int node)
{
	return run_list_leave(&world->list, &world->nodes[node], world->now_ns);
}

static int head(const struct world *world)
{
	const struct run_node *node = run_list_head(&world->list);

	return node ? (int)(node - world->nodes) : -1;
}

static void test_alone_no_slice_ends(void **state)
{
	struct world *world = *state;

	assert_int_equal(head(world), -1);
	pass(world, 5000);
	enter(world, 0);
	pass(world, 50000);
	assert_int_equal(world->had_ns[0], 45000);
	assert_int_equal(leave(world, 0), 0);
	assert_int_equal(head(world), -1);
}

static void test_two_take_turns(void **state)
{
	struct world *world = *state;

	enter(world, 0);
	enter(world, 1);
	pass(world, SLICE - 1);
	assert_int_equal(head(world), 0);
	pass(world, SLICE);
	assert_int_equal(head(world), 1);
	pass(world, 10 * SLICE);
	assert_int_equal(world->had_ns[0], 5 * SLICE);
	assert_int_equal(world->had_ns[1], 5 * SLICE);
}

static void test_woken_beside_one_other_waits_for_the_slices_end(void **state)
{
	struct world *world = *state;

	enter(world, 0);
	pass(world, SLICE - 1);
	enter(world, 1);
	assert_int_equal(head(world), 0);
	leave(world, 1);
	/* Alone again from here on, and its slices follow each other without a hand-over. */
	pass(world, SLICE - 1 + 2 * (SLICE - HANDOVER) + 100);
	enter(world, 2);
	assert_int_equal(head(world), 0);
	pass(world, world->now_ns + SLICE - 101);
	assert_int_equal(head(world), 0);
	pass(world, world->now_ns + 1);
	assert_int_equal(head(world), 2);
}

static void test_woken_beside_several_waits_for_the_round(void **state)
{
	struct world *world = *state;

	enter(world, 0);
	enter(world, 1);
	pass(world, 100);
	enter(world, 2);
	assert_int_equal(world->nodes[2].place, RUN_IS_PENDING);
	pass(world, SLICE);
	assert_int_equal(head(world), 1);
	assert_int_equal(world->nodes[2].place, RUN_IN_RING);
	pass(world, 2 * SLICE);
	assert_int_equal(head(world), 0);
	pass(world, 3 * SLICE);
	assert_int_equal(head(world), 2);
}

static void test_pending_enter_when_the_head_leaves(void **state)
{
	struct world *world = *state;

	enter(world, 0);
	enter(world, 1);
	enter(world, 2);
	pass(world, 100);
	assert_int_equal(leave(world, 0), 0);
	assert_int_equal(world->nodes[2].place, RUN_IN_RING);
	assert_int_equal(head(world), 1);
	pass(world, 100 + SLICE - 1);
	assert_int_equal(head(world), 1); /* its slice is a fresh one */
	pass(world, 100 + SLICE);
	assert_int_equal(head(world), 2);
}

static void test_a_pending_rival_ends_a_slice(void **state)
{
	struct world *world = *state;

	enter(world, 0);
	enter(world, 1);
	enter(world, 2);
	pass(world, 300);
	leave(world, 1); /* the head's slice restarts, and 2 enters behind it */
	pass(world, 300 + 3 * SLICE);
	assert_int_equal(world->had_ns[2], SLICE);
}

static void test_who_leaves_out_of_turn_had_the_gpu_unseen(void **state)
{
	struct world *world = *state;

	enter(world, 0);
	pass(world, 1000);
	enter(world, 1);
	pass(world, 1060);
	assert_int_equal(leave(world, 1), 60); /* no more than it was there */
	pass(world, 1100);
	enter(world, 1);
	pass(world, 1600);
	assert_int_equal(leave(world, 1), HANDOVER);
	enter(world, 1);
	enter(world, 2);
	pass(world, 1600 + SLICE + 40);
	assert_int_equal(head(world), 1);
	assert_int_equal(leave(world, 2), 40); /* no more than the head's slice so far */
}

static void test_who_was_next_and_is_answered_tells_where_the_gpu_is(void **state)
{
	struct world *world = *state;

	enter(world, 0);
	enter(world, 1);
	pass(world, SLICE);
	enter(world, 2); /* the ring is 1, 0, and 2 after the next turn */
	pass(world, 2 * SLICE);
	pass(world, 2 * SLICE + SLICE / 2);
	assert_int_equal(head(world), 0);
	leave(world, 1);
	assert_int_equal(head(world), 2); /* the one behind it, from now on */
	pass(world, world->now_ns + SLICE - 1);
	assert_int_equal(head(world), 2);
	pass(world, world->now_ns + 1);
	assert_int_equal(head(world), 0);
}

/* A VM whose requests never touch the GPU does not make its neighbour pay for all. */
static void test_who_is_answered_out_of_turn_tells_nothing(void **state)
{
	struct world *world = *state;

	enter(world, 0);
	enter(world, 1);
	for (int i = 0; i < 40; i++) {
		enter(world, 2);
		pass(world, world->now_ns + 30);
		leave(world, 2);
		pass(world, world->now_ns + SLICE / 10 - 30);
		assert_int_equal(head(world), (i + 1) / 10 % 2);
	}
	assert_int_equal(world->had_ns[0], 2 * SLICE);
	assert_int_equal(world->had_ns[1], 2 * SLICE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_alone_no_slice_ends, setup),
		cmocka_unit_test_setup(test_two_take_turns, setup),
		cmocka_unit_test_setup(test_woken_beside_one_other_waits_for_the_slices_end, setup),
		cmocka_unit_test_setup(test_woken_beside_several_waits_for_the_round, setup),
		cmocka_unit_test_setup(test_pending_enter_when_the_head_leaves, setup),
		cmocka_unit_test_setup(test_a_pending_rival_ends_a_slice, setup),
		cmocka_unit_test_setup(test_who_leaves_out_of_turn_had_the_gpu_unseen, setup),
		cmocka_unit_test_setup(test_who_was_next_and_is_answered_tells_where_the_gpu_is,
	                               setup),
		cmocka_unit_test_setup(test_who_is_answered_out_of_turn_tells_nothing, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
