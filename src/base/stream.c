/* SPDX-License-Identifier: MIT */
/*
 * See stream.h. Callbacks may free the stream they are called for, so that every
 * way into them goes through enter() and leave().
 *
 * Whoever does not read sees no end. Paused streams are therefore in an epoll set of the
 * group, which asks for hang-ups only; libevent, whose set it is in, knows no such event.
 */
#include "base/stream.h"

#include <errno.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

#include <event2/buffer.h>
#include <event2/event.h>

enum {
	STREAM_READ_BYTES = 16 * 1024,
	/* At once, since the kernel tells only of whole pieces that the peer has taken them. */
	STREAM_WRITE_BYTES = 4 * 1024,
	STREAM_HANGUPS_PER_EVENT = 16, /* then others get their turn */
};

struct stream_group {
	struct event_base *base;
	int hangups; /* epoll: the paused streams */
	struct event *hung_up;
	struct timeval stall;
};

struct stream {
	struct stream_group *group;
	const struct stream_ops *ops;
	void *owner;
	int fd;
	struct event *readable;
	struct event *writable;
	struct event *later; /* made active by hand: what is to be done after this event */
	struct evbuffer *input;
	struct evbuffer *output;
	bool paused;        /* by the owner */
	bool watched;       /* in group.hangups */
	bool later_pending; /* `later` is active */
	bool ended;         /* end() was called */
	int error;          /* end() is due; 0 = it is not */
	int untaken;        /* what the peer had not taken when `writable` was added */
	bool dead;          /* freed from within a callback */
	unsigned int depth; /* of callbacks */
};

/* Whether its peer's hang-up is waited for. */
static void watch(struct stream *stream, bool watched)
{
	struct epoll_event wanted = {.events = EPOLLRDHUP, .data = {.ptr = stream}};

	if (watched == stream->watched)
		return;
	/* Without memory for it the end is seen when reading goes on. */
	stream->watched = epoll_ctl(stream->group->hangups, watched ? EPOLL_CTL_ADD : EPOLL_CTL_DEL,
	                            stream->fd, &wanted) == 0 &&
	                  watched;
}

static void destroy(struct stream *stream)
{
	watch(stream, false);
	if (stream->readable)
		event_free(stream->readable);
	if (stream->writable)
		event_free(stream->writable);
	if (stream->later)
		event_free(stream->later);
	if (stream->input)
		evbuffer_free(stream->input);
	if (stream->output)
		evbuffer_free(stream->output);
	closep(&stream->fd);
	free(stream);
}

static void enter(struct stream *stream)
{
	stream->depth++;
}

/* True while the stream is still there. */
static bool leave(struct stream *stream)
{
	if (--stream->depth == 0 && stream->dead) {
		destroy(stream);
		return false;
	}
	return !stream->dead;
}

static void end(struct stream *stream, int reason)
{
	if (stream->ended || stream->dead)
		return;
	stream->ended = true;
	watch(stream, false);
	event_del(stream->readable);
	event_del(stream->writable);
	enter(stream);
	stream->ops->end(stream->owner, reason);
	leave(stream);
}

static bool may_read(const struct stream *stream)
{
	return !stream->paused && !stream_congested(stream);
}

static void start_reading(struct stream *stream)
{
	event_add(stream->readable, NULL);
	watch(stream, false);
}

/* Only when something is there to be read: most pauses are over before. */
static void stop_reading(struct stream *stream)
{
	event_del(stream->readable);
	watch(stream, stream->paused);
}

/* One at a time: what an end leads to may be the end of others. */
static void on_hung_up(evutil_socket_t fd, short what UNUSED, void *arg UNUSED)
{
	struct epoll_event hangup;

	for (int i = 0; i < STREAM_HANGUPS_PER_EVENT; i++) {
		if (epoll_wait(fd, &hangup, 1, 0) != 1)
			return;
		end(hangup.data.ptr, 0);
	}
}

static void deliver(struct stream *stream)
{
	enter(stream);
	if (!stream->paused && !stream->error && !stream_congested(stream) &&
	    evbuffer_get_length(stream->input))
		stream->ops->data(stream->owner, stream->input);
	if (leave(stream) && !stream->ended && may_read(stream))
		start_reading(stream);
}

static void on_readable(evutil_socket_t fd, short what UNUSED, void *arg)
{
	struct stream *stream = arg;
	int n;

	if (!may_read(stream)) {
		stop_reading(stream);
		return;
	}
	n = evbuffer_read(stream->input, fd, STREAM_READ_BYTES);
	if (n > 0)
		deliver(stream);
	else if (n == 0)
		end(stream, 0);
	else if (errno != EAGAIN && errno != EINTR)
		end(stream, -errno);
}

/* Bytes that the kernel holds for the peer, in units of its own. */
static int untaken(const struct stream *stream)
{
	int bytes;

	return ioctl(stream->fd, SIOCOUTQ, &bytes) < 0 ? 0 : bytes;
}

/* From now on the peer has the time of a stall to take something. */
static void await_room(struct stream *stream)
{
	stream->untaken = untaken(stream);
	event_add(stream->writable, &stream->group->stall);
}

/* Sends what the socket takes. Returns 0 or a negative errno. */
static int send_some(struct stream *stream)
{
	bool progress = false;

	while (evbuffer_get_length(stream->output)) {
		if (evbuffer_write_atmost(stream->output, stream->fd, STREAM_WRITE_BYTES) >= 0) {
			progress = true;
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return -errno;
		if (progress || !event_pending(stream->writable, EV_WRITE, NULL))
			await_room(stream);
		return 0;
	}
	event_del(stream->writable);
	return 0;
}

static void on_writable(evutil_socket_t fd UNUSED, short what, void *arg)
{
	struct stream *stream = arg;
	int r;

	/* The socket counts as writable only once most of it is free. */
	if (what & EV_TIMEOUT && untaken(stream) < stream->untaken) {
		await_room(stream);
		return;
	}
	r = what & EV_TIMEOUT ? -ETIMEDOUT : send_some(stream);
	if (r < 0)
		end(stream, r);
	else
		deliver(stream);
}

static void on_later(evutil_socket_t fd UNUSED, short what UNUSED, void *arg)
{
	struct stream *stream = arg;
	int r;

	stream->later_pending = false;
	if (stream->ended)
		return;
	r = stream->error ? stream->error : send_some(stream);
	if (r < 0)
		end(stream, r);
	else
		deliver(stream);
}

static void do_later(struct stream *stream)
{
	if (stream->later_pending || stream->ended || stream->dead)
		return;
	stream->later_pending = true;
	event_active(stream->later, EV_WRITE, 0);
}

int stream_group_new(struct stream_group **out, struct event_base *base, int stall_ms)
{
	CLEANUP(stream_group_freep) struct stream_group *group = calloc(1, sizeof(*group));

	if (!group)
		return -ENOMEM;
	group->base = base;
	group->stall = (struct timeval){stall_ms / 1000, stall_ms % 1000 * 1000};
	group->hangups = epoll_create1(EPOLL_CLOEXEC);
	if (group->hangups < 0)
		return -errno;
	group->hung_up = event_new(base, group->hangups, EV_READ | EV_PERSIST, on_hung_up, NULL);
	if (!group->hung_up || event_add(group->hung_up, NULL) < 0)
		return -ENOMEM;
	*out = TAKE_PTR(group);
	return 0;
}

void stream_group_free(struct stream_group *group)
{
	if (!group)
		return;
	if (group->hung_up)
		event_free(group->hung_up);
	closep(&group->hangups);
	free(group);
}

int stream_new(struct stream **out, struct stream_group *group, int fd,
               const struct stream_ops *ops, void *owner)
{
	struct stream *stream = calloc(1, sizeof(*stream));
	struct event_base *base = group->base;

	if (!stream) {
		close(fd);
		return -ENOMEM;
	}
	stream->group = group;
	stream->ops = ops;
	stream->owner = owner;
	stream->fd = fd;
	stream->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, stream);
	stream->writable = event_new(base, fd, EV_WRITE, on_writable, stream);
	stream->later = event_new(base, -1, 0, on_later, stream);
	stream->input = evbuffer_new();
	stream->output = evbuffer_new();
	if (!stream->readable || !stream->writable || !stream->later || !stream->input ||
	    !stream->output || event_add(stream->readable, NULL) < 0) {
		destroy(stream);
		return -ENOMEM;
	}
	*out = stream;
	return 0;
}

void stream_free(struct stream *stream)
{
	if (!stream || stream->dead)
		return;
	stream->dead = true;
	if (stream->depth == 0) {
		destroy(stream);
		return;
	}
	watch(stream, false);
	event_del(stream->readable);
	event_del(stream->writable);
	event_del(stream->later);
}

void stream_write(struct stream *stream, const void *bytes, size_t length)
{
	if (stream->ended || stream->error || stream->dead)
		return;
	/*
	 * Half a message is worse than none: nothing after it could be understood. The caller
	 * is in the midst of something, and does not expect the end here.
	 */
	if (evbuffer_add(stream->output, bytes, length) < 0)
		stream->error = -ENOMEM;
	do_later(stream);
}

void stream_pause(struct stream *stream, bool paused)
{
	if (stream->paused == paused)
		return;
	stream->paused = paused;
	if (!paused)
		do_later(stream);
	else if (!stream->ended && !stream->dead && !event_pending(stream->readable, EV_READ, NULL))
		watch(stream, true); /* congestion ended the reading: no stop_reading() follows */
}

struct evbuffer *stream_input(struct stream *stream)
{
	return stream->input;
}

bool stream_flush(struct stream *stream)
{
	if (stream->ended || stream->error || stream->dead)
		return true;
	return send_some(stream) < 0 || evbuffer_get_length(stream->output) == 0;
}

bool stream_congested(const struct stream *stream)
{
	return evbuffer_get_length(stream->output) >= STREAM_UNSENT_MAX;
}
