/* SPDX-License-Identifier: MIT */
/* See children.h. */
#include "mediator/children.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/wait.h>
#include <time.h>

#include <event2/event.h>

#include "base/clock.h"
#include "base/log.h"

enum { REAP_POLL_NS = 2 * NS_PER_MS };

struct child {
	TAILQ_ENTRY(child) link;
	pid_t pid;
	children_done *done;
	void *owner;
};

struct children {
	TAILQ_HEAD(, child) list;
	struct event *signal;
};

static struct child *find(struct children *children, pid_t pid)
{
	struct child *child;

	TAILQ_FOREACH (child, &children->list, link) {
		if (child->pid == pid)
			return child;
	}
	return NULL;
}

static void on_signal(evutil_socket_t number UNUSED, short what UNUSED, void *arg)
{
	struct children *children = arg;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		struct child *child = find(children, pid);
		struct child gone;

		if (!child)
			continue;
		gone = *child;
		TAILQ_REMOVE(&children->list, child, link);
		free(child);
		gone.done(gone.owner, pid, status);
	}
}

int children_new(struct children **out, struct event_base *base)
{
	CLEANUP(children_freep) struct children *children = calloc(1, sizeof(*children));

	if (!children)
		return -ENOMEM;
	TAILQ_INIT(&children->list);
	children->signal = evsignal_new(base, SIGCHLD, on_signal, children);
	if (!children->signal || event_add(children->signal, NULL) < 0)
		return -ENOMEM;
	*out = TAKE_PTR(children);
	return 0;
}

int children_reap(pid_t pid, int64_t deadline_ns, int *status)
{
	static const struct timespec pause = {.tv_nsec = REAP_POLL_NS};

	while (waitpid(pid, status, WNOHANG) == 0) {
		if (clock_monotonic_ns() >= deadline_ns)
			return -ETIMEDOUT;
		nanosleep(&pause, NULL);
	}
	return 0;
}

static int64_t kill_deadline_ns(void)
{
	return clock_monotonic_ns() + CHILDREN_KILL_MS * NS_PER_MS;
}

int children_kill(pid_t pid, int *status)
{
	kill(pid, SIGKILL);
	return children_reap(pid, kill_deadline_ns(), status);
}

void children_free(struct children *children)
{
	int64_t deadline_ns = kill_deadline_ns();
	struct child *child;

	if (!children)
		return;
	TAILQ_FOREACH (child, &children->list, link)
		kill(child->pid, SIGKILL);
	while ((child = TAILQ_FIRST(&children->list))) {
		if (children_reap(child->pid, deadline_ns, NULL) < 0)
			log_error("process %d survives SIGKILL: it is left behind",
			          (int)child->pid);
		TAILQ_REMOVE(&children->list, child, link);
		free(child);
	}
	if (children->signal)
		event_free(children->signal);
	free(children);
}

void children_forget(struct children *children, pid_t pid)
{
	struct child *child = find(children, pid);

	if (!child)
		return;
	TAILQ_REMOVE(&children->list, child, link);
	free(child);
}

int children_watch(struct children *children, pid_t pid, children_done *done, void *owner)
{
	struct child *child = calloc(1, sizeof(*child));

	if (!child)
		return -ENOMEM;
	child->pid = pid;
	child->done = done;
	child->owner = owner;
	TAILQ_INSERT_TAIL(&children->list, child, link);
	return 0;
}

int children_pipe(int *ours, int *theirs)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	*ours = ends[0];
	*theirs = ends[1];
	return fcntl(*ours, F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
}

int children_spawn(pid_t *out, const char *const *argv, const struct child_fd *fds, size_t count)
{
	static const char *const environment[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin",
	                                          "LC_ALL=C.UTF-8", NULL};
	const char *inherited[32];
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none, all;
	size_t n = 0;
	int r;

	for (; environment[n]; n++)
		inherited[n] = environment[n];
	/* Where the driver's and the stand-ins' libraries are is the administrator's to say. */
	for (char **e = environ; *e && n < ARRAY_LEN(inherited) - 1; e++) {
		if (strncmp(*e, "LD_LIBRARY_PATH=", 16) == 0 ||
		    strncmp(*e, "VGPU_STANDIN_", 13) == 0 ||
		    strncmp(*e, "ASAN_OPTIONS=", 13) == 0 || strncmp(*e, "UBSAN_OPTIONS=", 14) == 0)
			inherited[n++] = *e;
	}
	inherited[n] = NULL;

	sigemptyset(&none);
	sigfillset(&all);
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attributes);
	for (size_t i = 0; i < count; i++)
		posix_spawn_file_actions_adddup2(&actions, fds[i].ours, fds[i].theirs);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setsigdefault(&attributes, &all);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	r = posix_spawn(out, argv[0], &actions, &attributes, (char *const *)(uintptr_t)argv,
	                (char *const *)(uintptr_t)inherited);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	return -r;
}
