/* SPDX-License-Identifier: MIT */
/* See lag.h. A timerfd and no timer of libevent's, which are coarser than what is measured. */
#include "mediator/lag.h"

#include <errno.h>
#include <sys/timerfd.h>

#include <event2/event.h>

#include "base/clock.h"

struct lag {
	bool (*is_busy)(void *owner);
	void *owner;
	int fd;
	struct event *beat;
	bool beating;
	int64_t due_ns; /* the next beat */
	struct histogram histogram;
};

static void set_timer(struct lag *lag, int64_t first_ns, int64_t period_ns)
{
	const struct itimerspec when = {
		.it_value = {.tv_sec = first_ns / NS_PER_SEC, .tv_nsec = first_ns % NS_PER_SEC},
		.it_interval = {.tv_nsec = period_ns},
	};

	lag->due_ns = first_ns;
	lag->beating = timerfd_settime(lag->fd, TFD_TIMER_ABSTIME, &when, NULL) == 0 && period_ns;
}

static void on_beat(evutil_socket_t fd, short what UNUSED, void *arg)
{
	struct lag *lag = arg;
	uint64_t beats;

	if (read(fd, &beats, sizeof(beats)) < 0)
		return;
	histogram_record(&lag->histogram, clock_monotonic_ns() - lag->due_ns);
	lag->due_ns += (int64_t)beats * LAG_BEAT_MS * NS_PER_MS;
	if (!lag->is_busy(lag->owner))
		set_timer(lag, 0, 0);
}

void lag_wake(struct lag *lag)
{
	if (!lag->beating)
		set_timer(lag, clock_monotonic_ns() + LAG_BEAT_MS * NS_PER_MS,
		          LAG_BEAT_MS * NS_PER_MS);
}

const struct histogram *lag_histogram(const struct lag *lag)
{
	return &lag->histogram;
}

int lag_new(struct lag **out, struct event_base *base, bool (*is_busy)(void *owner), void *owner)
{
	CLEANUP(lag_freep) struct lag *lag = calloc(1, sizeof(*lag));

	if (!lag)
		return -ENOMEM;
	lag->is_busy = is_busy;
	lag->owner = owner;
	lag->fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (lag->fd < 0)
		return -errno;
	lag->beat = event_new(base, lag->fd, EV_READ | EV_PERSIST, on_beat, lag);
	if (!lag->beat || event_add(lag->beat, NULL) < 0)
		return -ENOMEM;
	*out = TAKE_PTR(lag);
	return 0;
}

void lag_free(struct lag *lag)
{
	if (!lag)
		return;
	if (lag->beat)
		event_free(lag->beat);
	closep(&lag->fd);
	free(lag);
}
