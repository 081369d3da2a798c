/* SPDX-License-Identifier: MIT */
/* See gpu_probe.h. */
#include "mediator/gpu_probe.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/log.h"
#include "mediator/children.h"

/* Reads until the end or a full buffer. Returns the bytes or a negative errno. */
static ssize_t read_all(int fd, char *to, size_t size, int64_t deadline_ns)
{
	size_t used = 0;

	while (used < size) {
		struct pollfd ready = {.fd = fd, .events = POLLIN};
		int64_t left_ms = (deadline_ns - clock_monotonic_ns()) / NS_PER_MS;
		ssize_t n;

		if (left_ms <= 0)
			return -ETIMEDOUT;
		poll(&ready, 1, (int)left_ms);
		n = read(fd, to + used, size - used);
		if (n == 0)
			break;
		if (n > 0)
			used += (size_t)n;
		else if (errno != EAGAIN && errno != EINTR)
			return -errno;
	}
	return (ssize_t)used;
}

/* Fills @line with what it says, and waits for its end. Returns 0 or a negative errno. */
static int listen_to(pid_t pid, int fd, int64_t deadline_ns, char *line, size_t size)
{
	ssize_t length = read_all(fd, line, size - 1, deadline_ns);
	int status = 0;
	int r;

	line[length < 0 ? 0 : length] = '\0';
	line[strcspn(line, "\n")] = '\0';
	r = length < 0 ? (int)length : children_reap(pid, deadline_ns, &status);
	if (r == 0)
		return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -ENODEV;
	if (children_kill(pid, &status) < 0)
		log_error("process %d survives SIGKILL: it hangs in the driver and is left behind",
		          (int)pid);
	return r;
}

int gpu_probe(const char *program, const char *backend, const char *gpu, int timeout_s, char *line,
              size_t size)
{
	int64_t deadline_ns = clock_monotonic_ns() + timeout_s * NS_PER_SEC;
	char parent[16];
	const char *const argv[] = {program,    "--probe", "--backend",           backend,
	                            "--parent", parent,    *gpu ? "--gpu" : NULL, gpu,
	                            NULL};
	CLEANUP(closep) int ours = -1;
	CLEANUP(closep) int theirs = -1;
	pid_t pid;
	int r;

	snprintf(parent, sizeof(parent), "%d", (int)getpid());
	r = children_pipe(&ours, &theirs);
	if (r == 0)
		r = children_spawn(&pid, argv, &(struct child_fd){theirs, STDOUT_FILENO}, 1);
	if (r < 0) {
		snprintf(line, size, "cannot run %s: %s", program, strerror(-r));
		return r;
	}
	close(TAKE_FD(theirs));
	return listen_to(pid, ours, deadline_ns, line, size);
}
