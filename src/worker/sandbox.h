/* SPDX-License-Identifier: MIT */
/*
 * The worker's own prison. It runs code of strangers through a large library, so
 * that whatever that code achieves in this process must be worth nothing: no other
 * user's files or processes, no network, no new programs, no new files.
 *
 * Two steps, since the device has to be opened in between: sandbox_enter() gives up
 * everything that opening a device does not need, sandbox_seal() the rest.
 */
#ifndef WORKER_SANDBOX_H
#define WORKER_SANDBOX_H

#include <stdbool.h>
#include <sys/types.h>

struct sandbox_options {
	bool change_uid; /* to uid and the gid of the same number */
	uid_t uid;
	int cpu;      /* the one to run on; -1 is any */
	int socket;   /* to the mediator, stays open beside 0, 1 and 2; -1 is none */
	pid_t parent; /* whose death ends this process; 0 is nobody */
};

/*
 * No new privileges, clean signals and file descriptors, resource limits, the first to
 * be killed when memory runs out, no network, the VM's own uid, parent-death signal, CPU.
 * Without root the uid and the network stay as they are and a warning says so; without a
 * uid of its own the number of threads is not limited. Single-threaded only. 0 or a
 * negative errno, with *@what then naming the step.
 */
int sandbox_enter(const struct sandbox_options *options, const char **what);

/* Has the kernel end this process when @parent dies; 0 is nobody. 0 or a negative errno. */
int sandbox_follow_parent(pid_t parent);

/*
 * Closes the door: no core or ptrace by others, and no system calls but those of
 * sandbox_syscalls.c for any thread of the process. 0 or a negative errno with *@what.
 */
int sandbox_seal(const struct sandbox_options *options, const char **what);

#endif
