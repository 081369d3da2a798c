/* SPDX-License-Identifier: MIT */
/*
 * The mediator's socket as a transport: what a device would send there, sent by a
 * program, for tests and for measuring without a VM.
 */
#ifndef GUEST_SOCKET_TRANSPORT_H
#define GUEST_SOCKET_TRANSPORT_H

#include "guest/env.h"
#include "guest/transport.h"

/*
 * Connects to the Unix socket at @path. Returns 0; -EAGAIN when nobody accepted the
 * connection within two seconds; -ENAMETOOLONG; or connect()'s negative errno.
 */
int socket_transport_connect(struct transport **out, const char *path, const struct guest_env *env);

/* The same over the connected socket @fd, which it owns from here on, also when the result
 * is not 0. @name is what vgpu_info.name shows. Returns 0 or a negative errno. */
int socket_transport_new(struct transport **out, int fd, const char *name,
                         const struct guest_env *env);

#endif
