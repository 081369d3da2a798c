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

/* Seconds since the epoch. */
static inline int64_t clock_realtime_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec;
}

#endif
