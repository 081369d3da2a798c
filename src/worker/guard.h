/* SPDX-License-Identifier: MIT */
/*
 * A command that must not outlive whoever wants it run: not when that process dies, and
 * not behind the back of a script whose own children go on.
 */
#ifndef WORKER_GUARD_H
#define WORKER_GUARD_H

#include <sys/types.h>

/*
 * Runs @command (ended by NULL, no shell) in a process group of its own, with nothing to
 * read and its output thrown away. When it ends, when @parent dies or on SIGTERM, all
 * of the group is killed, and waited for: for ever, if it hangs in the kernel. The lock
 * @lock_fd stays this process's and is not the command's, so that it is held as long as
 * anything of the command runs.
 *
 * Returns the status of waitpid(), or a negative errno when it could not be started.
 */
int guard_run(char *const *command, pid_t parent, int lock_fd);

#endif
