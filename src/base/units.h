/* SPDX-License-Identifier: MIT */
/*
 * Nanoseconds in larger units, for whoever computes with times and need not know the
 * time (clock.h).
 */
#ifndef BASE_UNITS_H
#define BASE_UNITS_H

#include <stdint.h>

#define NS_PER_US  INT64_C(1000)
#define NS_PER_MS  INT64_C(1000000)
#define NS_PER_SEC INT64_C(1000000000)

#endif
