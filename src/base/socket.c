/* SPDX-License-Identifier: MIT */
/*
 * See socket.h. A listener is bound under a temporary name and renamed into
 * place, so that nobody can connect to it before its mode is set and it listens.
 */
#include "base/socket.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/util.h"

enum { SOCKET_BACKLOG = 64 };

static int address_set(struct sockaddr_un *address, const char *path)
{
	memset(address, 0, sizeof(*address));
	address->sun_family = AF_UNIX;
	if (path[0] == '\0')
		return -EINVAL;
	if (strlen(path) >= sizeof(address->sun_path))
		return -ENAMETOOLONG;
	strcpy(address->sun_path, path);
	return 0;
}

int socket_connect_unix(int *out, const char *path, bool blocking)
{
	CLEANUP(closep) int fd = -1;
	struct sockaddr_un address;
	int r;

	r = address_set(&address, path);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | (blocking ? 0 : SOCK_NONBLOCK), 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	*out = TAKE_FD(fd);
	return 0;
}

/* Decides whether @path is free for a new listener. */
static int path_check(const char *path)
{
	CLEANUP(closep) int fd = -1;
	struct stat status;
	int r;

	if (lstat(path, &status) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(status.st_mode))
		return -EEXIST;
	r = socket_connect_unix(&fd, path, false);
	switch (r) {
	case -ECONNREFUSED:
	case -ENOENT:
		return 0;
	case 0:
	case -EAGAIN:     /* it does not keep up */
	case -EPROTOTYPE: /* it talks in another way */
		return -EADDRINUSE;
	default:
		return r;
	}
}

/*
 * A name beside @path for as long as the socket is not ready. It is short, so that it fits
 * where @path does, and no other process has it.
 */
static int temporary_path(char *to, size_t size, const char *path)
{
	const char *slash = strrchr(path, '/');
	int directory = slash ? (int)(slash + 1 - path) : 0;
	int length = snprintf(to, size, "%.*s.%x", directory, path, (unsigned int)getpid());

	return (size_t)length < size ? 0 : -ENAMETOOLONG;
}

int socket_listen_unix(int *out, const char *path, mode_t mode)
{
	char temporary[sizeof(((struct sockaddr_un *)0)->sun_path)];
	CLEANUP(closep) int fd = -1;
	struct sockaddr_un address;
	int r;

	r = address_set(&address, path);
	if (r < 0)
		return r;
	r = path_check(path);
	if (r < 0)
		return r;
	r = temporary_path(temporary, sizeof(temporary), path);
	if (r == 0)
		r = address_set(&address, temporary);
	if (r < 0)
		return r;
	if (unlink(temporary) < 0 && errno != ENOENT)
		return -errno;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	if (chmod(temporary, mode) < 0 || listen(fd, SOCKET_BACKLOG) < 0 ||
	    rename(temporary, path) < 0) {
		r = -errno;
		unlink(temporary);
		return r;
	}
	*out = TAKE_FD(fd);
	return 0;
}
