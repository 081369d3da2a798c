/* SPDX-License-Identifier: MIT */
/* See listener.h. */
#include "base/listener.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include <event2/event.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/socket.h"

enum {
	LISTENER_LOG_BURST = 5,
	LISTENER_LOG_INTERVAL_S = 60,
};

struct listener {
	listener_accepted *accepted;
	void *owner;
	char *path;
	char *label;
	int fd;
	struct event *readable;
	struct event *again; /* after a pause */
	struct log_limit log_limit;
};

static void pause_accepting(struct listener *listener, int error)
{
	static const struct timeval pause = {.tv_sec = LISTENER_PAUSE_S};

	if (log_limit_pass(&listener->log_limit, listener->label, (uint64_t)clock_monotonic_ns(),
	                   LISTENER_LOG_BURST, LISTENER_LOG_INTERVAL_S * NS_PER_SEC))
		log_error("%s: cannot accept connections: %s", listener->label, strerror(error));
	event_del(listener->readable);
	event_add(listener->again, &pause);
}

static void on_readable(evutil_socket_t fd, short what UNUSED, void *arg)
{
	struct listener *listener = arg;
	int peer = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (peer >= 0)
		listener->accepted(listener->owner, peer);
	else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
		pause_accepting(listener, errno);
}

static void on_again(evutil_socket_t fd UNUSED, short what UNUSED, void *arg)
{
	struct listener *listener = arg;

	event_add(listener->readable, NULL);
}

int listener_new(struct listener **out, struct event_base *base, const char *path, mode_t mode,
                 const char *label, listener_accepted *accepted, void *owner)
{
	CLEANUP(listener_freep) struct listener *listener = calloc(1, sizeof(*listener));
	int r;

	if (!listener)
		return -ENOMEM;
	listener->accepted = accepted;
	listener->owner = owner;
	listener->fd = -1;
	listener->path = strdup(path);
	listener->label = strdup(label);
	if (!listener->path || !listener->label)
		return -ENOMEM;
	r = socket_listen_unix(&listener->fd, path, mode);
	if (r < 0)
		return r;
	listener->readable =
		event_new(base, listener->fd, EV_READ | EV_PERSIST, on_readable, listener);
	listener->again = event_new(base, -1, 0, on_again, listener);
	if (!listener->readable || !listener->again || event_add(listener->readable, NULL) < 0)
		return -ENOMEM;
	*out = TAKE_PTR(listener);
	return 0;
}

void listener_free(struct listener *listener)
{
	if (!listener)
		return;
	if (listener->readable)
		event_free(listener->readable);
	if (listener->again)
		event_free(listener->again);
	if (listener->fd >= 0) {
		unlink(listener->path);
		close(listener->fd);
	}
	free(listener->path);
	free(listener->label);
	free(listener);
}
