/* SPDX-License-Identifier: MIT */
/*
 * Time and chance, as the guest library sees them.
 *
 * Waiting, retrying and measuring go through this table, so that unit tests can let
 * minutes pass in no time and know what the dice say.
 */
#ifndef GUEST_ENV_H
#define GUEST_ENV_H

#include <stdint.h>

struct guest_env {
	int64_t (*now_ns)(void *context); /* never goes back */
	void (*sleep_ns)(void *context, int64_t duration_ns);
	uint32_t (*random)(void *context); /* all 32 bits uniform */
	void *context;
};

#define GUEST_NEVER INT64_MAX /* a deadline that does not come */

/* CLOCK_MONOTONIC, nanosleep and the kernel's random numbers. */
struct guest_env guest_env_system(void);

/* The moment @timeout_us from now, GUEST_NEVER for a negative one. */
int64_t guest_env_deadline_ns(const struct guest_env *env, int64_t timeout_us);

static inline int64_t guest_env_now_ns(const struct guest_env *env)
{
	return env->now_ns(env->context);
}

static inline void guest_env_sleep_ns(const struct guest_env *env, int64_t duration_ns)
{
	env->sleep_ns(env->context, duration_ns);
}

#endif
