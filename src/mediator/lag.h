/* SPDX-License-Identifier: MIT */
/*
 * How long the event loop is held up, as a timer sees it that is due every LAG_BEAT_MS.
 *
 * How late it is served is how long something else has kept the loop: a hold-up shorter
 * than a beat may fall in between and go unseen, a longer one is seen to within a beat.
 * The timer beats only while somebody may wait for the loop.
 */
#ifndef MEDIATOR_LAG_H
#define MEDIATOR_LAG_H

#include <stdbool.h>

#include "base/util.h"
#include "core/count/histogram.h"

struct event_base;
struct lag;

enum { LAG_BEAT_MS = 2 };

/* @is_busy is asked at each beat whether to go on. Returns 0 or a negative errno. */
int lag_new(struct lag **out, struct event_base *base, bool (*is_busy)(void *owner), void *owner);
void lag_free(struct lag *lag);
DEFINE_CLEANUP(lag)

/* There is something to do: beats, if it does not yet. */
void lag_wake(struct lag *lag);

/* Of every beat since the start; the lag's. */
const struct histogram *lag_histogram(const struct lag *lag);

#endif
