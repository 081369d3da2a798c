/* SPDX-License-Identifier: MIT */
/*
 * The two clocks of the project: CLOCK_MONOTONIC for everything that is
 * measured or awaited, CLOCK_REALTIME for what people and databases read.
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#include "base/units.h"

/* Nanoseconds of CLOCK_MONOTONIC. */
static inline int64_t clock_monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * NS_PER_SEC + now.tv_nsec;
}

/* For people and programs that count in seconds. */
static inline double clock_seconds(int64_t ns)
{
	return (double)ns / (double)NS_PER_SEC;
}

/* Nanoseconds since the epoch. */
static inline int64_t clock_realtime_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * NS_PER_SEC + now.tv_nsec;
}

/* Seconds since the epoch. */
static inline int64_t clock_realtime_s(void)
{
	return clock_realtime_ns() / NS_PER_SEC;
}

/* What the other clock showed at a moment of CLOCK_MONOTONIC. */
static inline int64_t clock_realtime_at_s(int64_t monotonic_ns)
{
	return (clock_realtime_ns() - (clock_monotonic_ns() - monotonic_ns)) / NS_PER_SEC;
}

/* And the other way round: the last moment of that second, but not one to come. */
static inline int64_t clock_monotonic_at_ns(int64_t realtime_s)
{
	int64_t ago_ns = clock_realtime_ns() - (realtime_s + 1) * NS_PER_SEC;

	return clock_monotonic_ns() - (ago_ns > 0 ? ago_ns : 0);
}

#endif
