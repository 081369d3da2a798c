/* SPDX-License-Identifier: MIT */
/*
 * A GPU that reads as it is told to, once a second of a clock that the test turns.
 */
#ifndef TEST_HEALTH_WORLD_H
#define TEST_HEALTH_WORLD_H

#include "core/watch/health.h"

struct health_world {
	struct health *health;
	struct health_reading reading; /* the next one */
	int64_t now_ns;
};

/* For cmocka: a GPU that is well, and nothing read of it yet. */
int health_world_new(void **state);
int health_world_free(void **state);

#define TEST(name) cmocka_unit_test_setup_teardown(name, health_world_new, health_world_free)

/* A reading every second, @seconds long. */
void poll_readings(struct health_world *world, int seconds);

/* One reading with @value as @is, and all that follow too. */
void see(struct health_world *world, enum health_value value, int64_t is);

/* And as long as it takes to be believed, whichever way it went. */
void see_lasting(struct health_world *world, enum health_value value, int64_t is);

void xid(struct health_world *world, uint64_t number);

/* NULL when it does not hold. */
const struct health_reason *reason(const struct health_world *world, const char *code);

/* What is told since the last time: "+code" or "-code" each, in one line. */
const char *news(struct health_world *world);

/* As counted. */
uint64_t resets(const struct health_world *world);

#define assert_state(world, wanted) \
	assert_string_equal(health_state_name(health_state((world)->health)), wanted)

#endif
