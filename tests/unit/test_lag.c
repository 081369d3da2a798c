/* SPDX-License-Identifier: MIT */
/*
 * How long an event loop is held up, measured from inside: a hold-up is seen at its length, and
 * nothing beats while nobody waits.
 */
#include "mediator/lag.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>

#include <cmocka.h>
#include <event2/event.h>

#include "base/clock.h"

enum { HELD_UP_MS = 50 };

struct world {
	struct event_base *base;
	struct lag *lag;
	bool busy;
};

static bool is_busy(void *owner)
{
	const struct world *world = owner;

	return world->busy;
}

static int setup(void **state)
{
	static struct world world;

	world = (struct world){.base = event_base_new()};
	*state = &world;
	return lag_new(&world.lag, world.base, is_busy, &world);
}

static int teardown(void **state)
{
	struct world *world = *state;

	lag_free(world->lag);
	event_base_free(world->base);
	return 0;
}

/* Turns the loop until @count beats were seen. */
static void run_beats(struct world *world, uint64_t count)
{
	const struct histogram *histogram = lag_histogram(world->lag);
	uint64_t enough = histogram->count + count;

	while (histogram->count < enough)
		event_base_loop(world->base, EVLOOP_ONCE);
}

static void test_a_hold_up_is_seen(void **state)
{
	static const struct timespec held_up = {.tv_nsec = HELD_UP_MS * NS_PER_MS};
	struct world *world = *state;

	world->busy = true;
	lag_wake(world->lag);
	run_beats(world, 3);
	nanosleep(&held_up, NULL);
	run_beats(world, 1);
	assert_true(lag_histogram(world->lag)->max_ns >= (HELD_UP_MS - LAG_BEAT_MS) * NS_PER_MS);
	/* What was missed meanwhile is not served one by one, as further hold-ups. */
	run_beats(world, 3);
	assert_true(lag_histogram(world->lag)->count == 7);
}

static void test_beats_only_while_busy(void **state)
{
	struct world *world = *state;
	struct timeval soon = {.tv_usec = 20 * LAG_BEAT_MS * 1000};

	event_base_loopexit(world->base, &soon);
	event_base_loop(world->base, 0);
	assert_int_equal(lag_histogram(world->lag)->count, 0);
	for (uint64_t i = 1; i <= 3; i++) {
		lag_wake(world->lag);
		lag_wake(world->lag);
		event_base_loopexit(world->base, &soon);
		event_base_loop(world->base, 0);
		assert_int_equal(lag_histogram(world->lag)->count, i);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_a_hold_up_is_seen, setup, teardown),
		cmocka_unit_test_setup_teardown(test_beats_only_while_busy, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
