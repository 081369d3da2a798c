/* SPDX-License-Identifier: MIT */
/*
 * Child processes: started without a shell, reaped in one place.
 *
 * SIGCHLD belongs to the whole process, so everything that starts children registers
 * them here and is called back when they are gone.
 */
#ifndef MEDIATOR_CHILDREN_H
#define MEDIATOR_CHILDREN_H

#include <sys/types.h>

#include "base/util.h"

struct event_base;
struct children;

enum {
	CHILDREN_KILL_MS = 1000, /* what SIGKILL may take; a driver's context needs 100 ms */
};

/* @status is that of waitpid(). The child is no longer known when this is called. */
typedef void children_done(void *owner, pid_t pid, int status);

int children_new(struct children **out, struct event_base *base);
/*
 * Kills and reaps those that still run, without calling back. One that hangs in the
 * kernel is left behind after CHILDREN_KILL_MS, with a line in the log.
 */
void children_free(struct children *children);
DEFINE_CLEANUP(children)

/* A pipe for what a child prints: our end, which is read, does not block. */
int children_pipe(int *ours, int *theirs);

/* The child has our descriptor @ours as @theirs. */
struct child_fd {
	int ours;
	int theirs;
};

/*
 * Runs @argv with the @count descriptors @fds, given in this order, and nothing else of
 * ours but the standard ones, a small environment and default signals. Returns 0 or a
 * negative errno.
 */
int children_spawn(pid_t *out, const char *const *argv, const struct child_fd *fds, size_t count);

/*
 * Reaps @pid, a child that nobody watches; for use where no event loop runs. Returns 0
 * with *@status, or -ETIMEDOUT when it is still there at @deadline_ns of CLOCK_MONOTONIC.
 */
int children_reap(pid_t pid, int64_t deadline_ns, int *status);

/* The same after SIGKILL, with CHILDREN_KILL_MS for its end. */
int children_kill(pid_t pid, int *status);

/* Neither kills nor tells of @pid any more; it is still reaped when it ends. */
void children_forget(struct children *children, pid_t pid);

/* Calls @done once @pid, which must be a child, has ended. Returns 0 or -ENOMEM. */
int children_watch(struct children *children, pid_t pid, children_done *done, void *owner);

#endif
