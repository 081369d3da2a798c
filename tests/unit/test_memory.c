/* SPDX-License-Identifier: MIT */
/*
 * Who holds GPU memory: what a context takes is learned, what is too much or none of ours is
 * noted once it has lasted, and its end is told.
 */
#include "core/watch/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/units.h"
#include "base/util.h"

#define MIB (UINT64_C(1) << 20)

enum { CONTEXT_MIB = 520 };

struct world {
	struct memory_watch watch;
	int64_t now_ns;
	struct memory_use uses[3];
	size_t count;
	char told[256]; /* "+e7" for an excess of process 7 that began, "-f9" for … */
};

static int setup(void **state)
{
	static struct world world;

	memset(&world, 0, sizeof(world));
	memory_watch_init(&world.watch);
	world.now_ns = 1000 * NS_PER_SEC;
	*state = &world;
	return 0;
}

static void on_tell(void *context, const struct memory_use *use, enum memory_note note, bool began)
{
	struct world *world = context;
	size_t used = strlen(world->told);

	snprintf(world->told + used, sizeof(world->told) - used, "%s%s%d", began ? "+" : "-",
	         note == MEMORY_EXCESS ? "e" : "f", (int)use->pid);
}

/* A reading every second. */
static void look(struct world *world, int seconds)
{
	for (int i = 0; i < seconds; i++) {
		world->now_ns += NS_PER_SEC;
		memory_watch_look(&world->watch, world->now_ns, world->uses, world->count, on_tell,
		                  world);
	}
}

static struct memory_use *add_worker(struct world *world, int32_t pid, uint64_t mib)
{
	struct memory_use *use = &world->uses[world->count++];

	*use = (struct memory_use){
		.pid = pid, .bytes = mib * MIB, .ours = true, .told_ns = world->now_ns};
	return use;
}

#define assert_told(world, text)                          \
	do {                                              \
		assert_string_equal((world)->told, text); \
		(world)->told[0] = '\0';                  \
	} while (0)

static void test_a_context_is_learned(void **state)
{
	struct world *world = *state;
	struct memory_use *use = add_worker(world, 7, CONTEXT_MIB);

	look(world, MEMORY_SETTLED_S - 1);
	assert_true(use->expected_bytes == MEMORY_UNKNOWN);
	look(world, 1);
	assert_true(use->expected_bytes == CONTEXT_MIB * MIB);
	/* Another one takes less; and what jobs have is none of the context. */
	use = add_worker(world, 8, 500 + 192);
	use->told_bytes = 192 * MIB;
	look(world, MEMORY_SETTLED_S);
	assert_true(world->uses[0].expected_bytes == 500 * MIB);
	assert_true(use->expected_bytes == 692 * MIB);
	look(world, 60);
	assert_told(world, "");
}

/* The driver's figure may be from before the worker's word, or from within its start. */
static void test_nothing_is_learned_from_what_is_in_motion(void **state)
{
	struct world *world = *state;
	struct memory_use *use = add_worker(world, 7, CONTEXT_MIB);

	look(world, MEMORY_SETTLED_S);
	use->told_bytes = 192 * MIB;
	use->told_ns = world->now_ns;
	look(world, MEMORY_SETTLED_S - 1);
	assert_true(world->watch.context_bytes == CONTEXT_MIB * MIB);
	use->bytes = (CONTEXT_MIB + 192) * MIB;
	use = add_worker(world, 8, 3);
	use->told_ns = INT64_MAX;
	look(world, 60);
	assert_true(world->watch.context_bytes == CONTEXT_MIB * MIB);
	assert_told(world, "");
}

static void test_an_excess_that_lasts_is_noted(void **state)
{
	struct world *world = *state;
	struct memory_use *use = add_worker(world, 7, CONTEXT_MIB);

	look(world, MEMORY_SETTLED_S);
	/* A quarter more is allowed. */
	use->bytes = CONTEXT_MIB * 5 / 4 * MIB;
	look(world, 60);
	assert_int_equal(use->note, MEMORY_FINE);
	use->bytes += MIB;
	look(world, MEMORY_LASTS_S);
	assert_told(world, "");
	look(world, 1);
	assert_told(world, "+e7");
	assert_int_equal(use->note, MEMORY_EXCESS);
	look(world, 60);
	assert_told(world, "");
	/* What it says that its jobs have is no excess. */
	use->told_bytes = MIB;
	look(world, 1);
	assert_told(world, "-e7");
	assert_int_equal(use->note, MEMORY_FINE);
}

static void test_a_peak_is_not_noted(void **state)
{
	struct world *world = *state;
	struct memory_use *use = add_worker(world, 7, CONTEXT_MIB);

	look(world, MEMORY_SETTLED_S);
	for (int i = 0; i < 10; i++) {
		use->bytes = 4 * CONTEXT_MIB * MIB;
		look(world, MEMORY_LASTS_S);
		use->bytes = CONTEXT_MIB * MIB;
		look(world, 1);
	}
	assert_told(world, "");
}

static void test_a_small_context_has_an_allowance(void **state)
{
	struct world *world = *state;
	struct memory_use *use = add_worker(world, 7, 100);

	look(world, MEMORY_SETTLED_S);
	use->bytes = (100 + MEMORY_ALLOWANCE_MIB) * MIB;
	look(world, 60);
	assert_told(world, "");
}

static void test_who_is_none_of_ours(void **state)
{
	struct world *world = *state;

	world->uses[world->count++] = (struct memory_use){.pid = 9, .bytes = MEMORY_UNKNOWN};
	look(world, MEMORY_LASTS_S);
	assert_told(world, "");
	assert_int_equal(world->uses[0].note, MEMORY_FINE);
	look(world, 2);
	assert_told(world, "+f9");
	assert_int_equal(world->uses[0].note, MEMORY_FOREIGN);
	assert_true(world->uses[0].expected_bytes == MEMORY_UNKNOWN);
	world->count = 0;
	look(world, 2);
	assert_told(world, "-f9");
}

static void test_nothing_is_expected_of_what_is_not_told(void **state)
{
	struct world *world = *state;
	struct memory_use *use = add_worker(world, 7, CONTEXT_MIB);

	use->bytes = MEMORY_UNKNOWN;
	look(world, 60);
	assert_true(use->expected_bytes == MEMORY_UNKNOWN);
	assert_told(world, "");
}

#define TEST(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_a_context_is_learned),
		TEST(test_nothing_is_learned_from_what_is_in_motion),
		TEST(test_an_excess_that_lasts_is_noted),
		TEST(test_a_peak_is_not_noted),
		TEST(test_a_small_context_has_an_allowance),
		TEST(test_who_is_none_of_ours),
		TEST(test_nothing_is_expected_of_what_is_not_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
