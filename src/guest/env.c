/* SPDX-License-Identifier: MIT */
/*
 * See env.h. Random numbers only spread retries of many guests apart in time, so a
 * guest whose kernel has no entropy yet (an initramfs) is not made to wait for it.
 */
#include "guest/env.h"

#include <errno.h>
#include <sys/random.h>
#include <time.h>

#include "base/clock.h"
#include "base/util.h"

static int64_t system_now_ns(void *context UNUSED)
{
	return clock_monotonic_ns();
}

static void system_sleep_ns(void *context UNUSED, int64_t duration_ns)
{
	struct timespec left = {
		.tv_sec = (time_t)(duration_ns / NS_PER_SEC),
		.tv_nsec = (long)(duration_ns % NS_PER_SEC),
	};

	while (clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) == EINTR)
		;
}

static uint32_t system_random(void *context UNUSED)
{
	uint64_t mixed;
	uint32_t value;

	if (getrandom(&value, sizeof(value), GRND_NONBLOCK) == (ssize_t)sizeof(value))
		return value;
	mixed = ((uint64_t)clock_monotonic_ns() ^ (uint64_t)getpid() << 32) *
	        UINT64_C(0x9e3779b97f4a7c15);
	return (uint32_t)(mixed >> 32);
}

struct guest_env guest_env_system(void)
{
	return (struct guest_env){
		.now_ns = system_now_ns,
		.sleep_ns = system_sleep_ns,
		.random = system_random,
	};
}

int64_t guest_env_deadline_ns(const struct guest_env *env, int64_t timeout_us)
{
	int64_t now_ns = guest_env_now_ns(env);

	if (timeout_us < 0 || timeout_us > (GUEST_NEVER - now_ns) / NS_PER_US)
		return GUEST_NEVER;
	return now_ns + timeout_us * NS_PER_US;
}
