/* SPDX-License-Identifier: MIT */
/* See rates.h. */
#include "mediator/rates.h"

enum { RING = RATE_WINDOW_S + 1 };

void rate_sample(struct rate *rate, int64_t value)
{
	/* What came before the first sample is gained, too. */
	if (rate->count == 0)
		rate->count = rate->next = 1;
	rate->samples[rate->next] = value;
	rate->next = (rate->next + 1) % RING;
	if (rate->count < RING)
		rate->count++;
}

int64_t rate_gain(const struct rate *rate)
{
	uint32_t newest = (rate->next + RING - 1) % RING;
	uint32_t oldest = (rate->next + RING - rate->count) % RING;

	return rate->count ? rate->samples[newest] - rate->samples[oldest] : 0;
}

uint32_t rate_span_s(const struct rate *rate)
{
	return rate->count ? rate->count - 1 : 0;
}
