/* SPDX-License-Identifier: MIT */
/*
 * A disk that hangs, for one file: preloaded, it lets no write() to it return once the
 * test says so, as a file system whose server is gone.
 *
 *   VGPU_STUCK_WRITE=PATH  the file; its disk hangs as long as PATH.stuck exists
 */
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static bool is_stuck(int fd)
{
	const char *file = getenv("VGPU_STUCK_WRITE");
	char name[32], path[PATH_MAX], stuck[PATH_MAX + 8];
	ssize_t length;

	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	length = readlink(name, path, sizeof(path) - 1);
	path[length < 0 ? 0 : length] = '\0';
	if (!file || strcmp(path, file) != 0)
		return false;
	snprintf(stuck, sizeof(stuck), "%s.stuck", file);
	return access(stuck, F_OK) == 0;
}

ssize_t write(int fd, const void *bytes, size_t count)
{
	ssize_t (*function)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
	int before = errno;

	while (is_stuck(fd))
		usleep(10000);
	errno = before;
	return function(fd, bytes, count);
}
