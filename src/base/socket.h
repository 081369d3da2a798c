/* SPDX-License-Identifier: MIT */
/*
 * Unix-domain sockets by path: the checks that every listener and every client
 * needs, in one place.
 */
#ifndef BASE_SOCKET_H
#define BASE_SOCKET_H

#include <stdbool.h>
#include <sys/types.h>

/*
 * A non-blocking, close-on-exec SOCK_STREAM listener at @path with file mode
 * @mode. A socket file that nobody listens on is replaced; one with a live
 * listener gives -EADDRINUSE, anything else in the way -EEXIST, a path that does
 * not fit a socket address (107 bytes) -ENAMETOOLONG, and so does one whose file's
 * name is shorter than 8 bytes and would not fit with 8. The caller owns *@out and
 * unlinks @path when it is done.
 */
int socket_listen_unix(int *out, const char *path, mode_t mode);

/*
 * Connects to @path; blocking when @blocking. A local connect succeeds or fails
 * at once. Returns 0 or a negative errno; the caller owns *@out.
 */
int socket_connect_unix(int *out, const char *path, bool blocking);

#endif
