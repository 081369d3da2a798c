/* SPDX-License-Identifier: MIT */
/*
 * Ends a process at a point that a test names: preloaded, it looks at what is written to
 * the registry, and at one of these calls the process is gone, as by a kill -9 at that
 * moment, or the disk is full.
 *
 *   VGPU_SUDDEN_END_REGISTRY=PATH  the file; its journal and its directory belong to it
 *   VGPU_SUDDEN_END_PLAN=PATH      does not exist: nothing happens. Else "KILL FULL": the
 *                                  KILL-th call from the moment that this was written is
 *                                  not made any more, 0 = none; the first FULL writes find
 *                                  no space
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset);
int ftruncate64(int fd, off64_t length);
int fsync(int fd);
int fdatasync(int fd);
int unlink(const char *path);

static char plan_text[64]; /* as last read */
static unsigned long calls, writes;

/* Whether there is a plan; another one than before begins to count anew. */
static bool read_plan(unsigned long *kill_at, unsigned long *full)
{
	const char *path = getenv("VGPU_SUDDEN_END_PLAN");
	char text[sizeof(plan_text)] = "";
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	bool whole = fd >= 0 && read(fd, text, sizeof(text) - 1) > 0 && strchr(text, '\n');

	if (fd >= 0)
		close(fd);
	if (!whole || sscanf(text, "%lu %lu", kill_at, full) != 2)
		return false;
	if (strcmp(text, plan_text) != 0)
		calls = writes = 0;
	memcpy(plan_text, text, sizeof(text));
	return true;
}

static bool is_registry(const char *path)
{
	const char *registry = getenv("VGPU_SUDDEN_END_REGISTRY");
	size_t length = strlen(path);

	return registry && (strncmp(path, registry, strlen(registry)) == 0 ||
	                    (strncmp(path, registry, length) == 0 && registry[length] == '/'));
}

/* Before each call. Returns whether a write is to find no space. */
static bool reach(const char *path, bool is_write)
{
	unsigned long kill_at, full;

	if (!is_registry(path) || !read_plan(&kill_at, &full))
		return false;
	if (++calls == kill_at)
		kill(getpid(), SIGKILL);
	return is_write && ++writes <= full;
}

static bool reach_fd(int fd, bool is_write)
{
	char name[32], path[PATH_MAX];
	int before = errno;
	ssize_t length;
	bool full;

	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	length = readlink(name, path, sizeof(path) - 1);
	path[length < 0 ? 0 : length] = '\0';
	full = length > 0 && reach(path, is_write);
	errno = before;
	return full;
}

static void *next(const char *name)
{
	void *function = dlsym(RTLD_NEXT, name);

	if (!function)
		abort();
	return function;
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset)
{
	ssize_t (*function)(int, const void *, size_t, off64_t) = next("pwrite64");

	if (reach_fd(fd, true)) {
		errno = ENOSPC;
		return -1;
	}
	return function(fd, bytes, count, offset);
}

int ftruncate64(int fd, off64_t length)
{
	int (*function)(int, off64_t) = next("ftruncate64");

	reach_fd(fd, false);
	return function(fd, length);
}

int fsync(int fd)
{
	int (*function)(int) = next("fsync");

	reach_fd(fd, false);
	return function(fd);
}

int fdatasync(int fd)
{
	int (*function)(int) = next("fdatasync");

	reach_fd(fd, false);
	return function(fd);
}

int unlink(const char *path)
{
	int (*function)(const char *) = next("unlink");

	reach(path, false);
	return function(path);
}
