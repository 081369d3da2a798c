/* SPDX-License-Identifier: MIT */
/*
 * A listening Unix socket on an event loop.
 *
 * Out of descriptors or memory it pauses for LISTENER_PAUSE_S, instead of trying again
 * at once and for ever; whoever connects meanwhile waits.
 */
#ifndef BASE_LISTENER_H
#define BASE_LISTENER_H

#include <sys/types.h>

#include "base/util.h"

struct event_base;
struct listener;

enum { LISTENER_PAUSE_S = 1 };

/* Somebody has connected: @fd, which does not block, is the callee's. */
typedef void listener_accepted(void *owner, int fd);

/*
 * Listens at @path with file mode @mode; the log calls it @label. Returns 0 or a negative
 * errno (see socket_listen_unix()). The caller owns *@out.
 */
int listener_new(struct listener **out, struct event_base *base, const char *path, mode_t mode,
                 const char *label, listener_accepted *accepted, void *owner);

/* Removes the socket's file, too. May be called from within the callback. */
void listener_free(struct listener *listener);
DEFINE_CLEANUP(listener)

#endif
