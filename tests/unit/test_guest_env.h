/* SPDX-License-Identifier: MIT */
/*
 * A clock, a bed and dice for the tests of the guest library: time passes only in
 * sleeps and by a fixed step per look at the clock, and the dice show what the test says.
 */
#ifndef TEST_GUEST_ENV_H
#define TEST_GUEST_ENV_H

#include "base/util.h"
#include "guest/env.h"

struct fake_env {
	int64_t now_ns;
	int64_t step_ns; /* per look at the clock */
	uint32_t random;
	unsigned int sleeps;
	int64_t slept_ns[16]; /* the first of them */
};

static inline int64_t fake_now_ns(void *context)
{
	struct fake_env *fake = context;

	fake->now_ns += fake->step_ns;
	return fake->now_ns;
}

static inline void fake_sleep_ns(void *context, int64_t duration_ns)
{
	struct fake_env *fake = context;

	if (fake->sleeps < ARRAY_LEN(fake->slept_ns))
		fake->slept_ns[fake->sleeps] = duration_ns;
	fake->sleeps++;
	fake->now_ns += duration_ns;
}

static inline uint32_t fake_random(void *context)
{
	return ((const struct fake_env *)context)->random;
}

static inline struct guest_env fake_env(struct fake_env *fake)
{
	return (struct guest_env){fake_now_ns, fake_sleep_ns, fake_random, fake};
}

#endif
