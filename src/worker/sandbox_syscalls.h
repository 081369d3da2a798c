/* SPDX-License-Identifier: MIT */
/*
 * The system calls that are left to a worker while it runs jobs: an allow-list for
 * both backends. All else fails with EPERM.
 */
#ifndef WORKER_SANDBOX_SYSCALLS_H
#define WORKER_SANDBOX_SYSCALLS_H

/*
 * Puts all threads of the process behind the list. Of sockets it may use only @socket.
 * 0 or a negative errno.
 */
int sandbox_syscalls_load(int socket);

#endif
