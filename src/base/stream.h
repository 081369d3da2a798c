/* SPDX-License-Identifier: MIT */
/*
 * A connected stream socket on an event loop, bounded both ways.
 *
 * What is written is collected and sent once the event that is being handled is
 * over, so that a batch of answers is one system call. A peer that does not read is
 * not read from either once STREAM_UNSENT_MAX bytes wait for it, and is given up when
 * it has taken nothing for STREAM_STALL_MS, at the latest after twice that time.
 *
 * A peer that hangs up is noticed also while it is not read from by its owner's wish
 * (stream_pause()): what it had sent and nobody has taken is dropped then.
 *
 * No control data is read: file descriptors that a peer sends are dropped by the
 * kernel.
 */
#ifndef BASE_STREAM_H
#define BASE_STREAM_H

#include <stdbool.h>
#include <stddef.h>

#include "base/util.h"

struct event_base;
struct evbuffer;
struct stream;
struct stream_group;

enum {
	STREAM_UNSENT_MAX = 64 * 1024,
	STREAM_STALL_MS = 10000,
};

struct stream_ops {
	/*
	 * Bytes have come. Takes whole messages off @input and leaves the rest; what is left
	 * is seen again with the next bytes or after stream_pause(false).
	 */
	void (*data)(void *owner, struct evbuffer *input);
	/* No more bytes come: 0 = the peer closed, else a negative errno (-ETIMEDOUT: stalled). */
	void (*end)(void *owner, int reason);
};

/*
 * What the streams of one event loop share; @stall_ms is STREAM_STALL_MS but in tests.
 * Returns 0 or a negative errno.
 */
int stream_group_new(struct stream_group **out, struct event_base *base, int stall_ms);
/* Its streams must be gone. */
void stream_group_free(struct stream_group *group);
DEFINE_CLEANUP(stream_group)

/* Takes the non-blocking @fd over, also when it fails. Returns 0 or a negative errno. */
int stream_new(struct stream **out, struct stream_group *group, int fd,
               const struct stream_ops *ops, void *owner);

/* Closes at once; what is unsent is lost. May be called from within the callbacks. */
void stream_free(struct stream *stream);
DEFINE_CLEANUP(stream)

/* Never blocks and never fails: what the memory cannot hold ends the stream, later. */
void stream_write(struct stream *stream, const void *bytes, size_t length);

/* Stops reading, or goes on and looks at what is there already. */
void stream_pause(struct stream *stream, bool paused);

/* What has been read and not taken, for an owner that goes on by itself. */
struct evbuffer *stream_input(struct stream *stream);

/* Sends what it can now. True when nothing is left. */
bool stream_flush(struct stream *stream);

/* True while so much waits to be sent that the owner should take no further request. */
bool stream_congested(const struct stream *stream);

#endif
