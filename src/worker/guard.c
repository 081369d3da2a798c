/* SPDX-License-Identifier: MIT */
/* See guard.h. Signals are waited for, not handled: nothing here is interrupted. */
#include "worker/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "base/log.h"
#include "base/units.h"
#include "base/util.h"

enum {
	EXIT_NOT_RUN = 127, /* as a shell says it */
	GONE_POLL_NS = 20 * NS_PER_MS,
};

/* What wakes us; the rest, ^C in the mediator's terminal, is the mediator's business. */
static void wanted_signals(sigset_t *out)
{
	sigemptyset(out);
	sigaddset(out, SIGCHLD);
	sigaddset(out, SIGTERM);
}

static int take_care(pid_t parent, int lock_fd, sigset_t *before)
{
	sigset_t held;

	wanted_signals(&held);
	sigaddset(&held, SIGINT);
	if (sigprocmask(SIG_BLOCK, &held, before) < 0 || fcntl(lock_fd, F_SETFD, FD_CLOEXEC) < 0 ||
	    /* What a script has started becomes ours when the script dies, and can be reaped. */
	    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0 ||
	    prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0) < 0)
		return -errno;
	/* It may have died before the line above. */
	return getppid() == parent ? 0 : -ESRCH;
}

static pid_t start(char *const *command, const sigset_t *mask)
{
	pid_t pid = fork();

	if (pid != 0)
		return pid;
	setpgid(0, 0);
	/* Whoever kills this guard with SIGKILL ends at least the command itself. */
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	sigprocmask(SIG_SETMASK, mask, NULL);
	execv(command[0], command);
	log_error("cannot run %s: %s", command[0], strerror(errno));
	_exit(EXIT_NOT_RUN);
}

/* Waits until @pid has ended (true, with *@status) or we are asked to end it. */
static bool wait_for_end(pid_t pid, int *status)
{
	sigset_t wanted;
	int number;

	wanted_signals(&wanted);
	for (;;) {
		if (sigwait(&wanted, &number) != 0 || number == SIGTERM)
			return false;
		if (waitpid(pid, status, WNOHANG) == pid)
			return true;
	}
}

int guard_run(char *const *command, pid_t parent, int lock_fd)
{
	static const struct timespec nap = {.tv_nsec = GONE_POLL_NS};
	int status = 0, other, r;
	sigset_t before;
	bool ended;
	pid_t pid, reaped;

	r = take_care(parent, lock_fd, &before);
	if (r < 0)
		return r;
	pid = start(command, &before);
	if (pid < 0)
		return -errno;
	/* Both do it, so that it is done for both. */
	setpgid(pid, pid);
	ended = wait_for_end(pid, &status);
	while (kill(-pid, SIGKILL) == 0) {
		while ((reaped = waitpid(-1, &other, WNOHANG)) > 0) {
			if (reaped == pid && !ended)
				status = other;
		}
		nanosleep(&nap, NULL);
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
	return status;
}
