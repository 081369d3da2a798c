/* SPDX-License-Identifier: MIT */
/*
 * What counters gained in the last minute: sampled once a second, a minute kept.
 */
#ifndef MEDIATOR_RATES_H
#define MEDIATOR_RATES_H

#include <stdint.h>

enum { RATE_WINDOW_S = 60 };

/* One counter, which begins at 0. Zero-initialise; then call rate_sample() once a second. */
struct rate {
	int64_t samples[RATE_WINDOW_S + 1]; /* ring */
	uint32_t count;                     /* of samples taken, at most all */
	uint32_t next;
};

void rate_sample(struct rate *rate, int64_t value);

/* What the counter gained over the samples kept. */
int64_t rate_gain(const struct rate *rate);

/* How many seconds these samples span: 0..RATE_WINDOW_S. */
uint32_t rate_span_s(const struct rate *rate);

#endif
