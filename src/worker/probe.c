/* SPDX-License-Identifier: MIT */
/*
 * See probe.h. Attempts are made by plain system calls, so that no library stands
 * between them and the filter. Only EPERM and ENOSYS count as refused: any other error
 * means that the kernel considered the call.
 */
#include "worker/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"

/* Attempts return what the system call does: -1 with errno, or something else. */

static long try_open_read(void)
{
	return syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY);
}

static long try_open_write(void)
{
	return syscall(SYS_openat, AT_FDCWD, "/tmp", O_TMPFILE | O_RDWR, 0600);
}

static long try_stat(void)
{
	struct stat *nowhere = NULL;

	return syscall(SYS_newfstatat, AT_FDCWD, "/etc/passwd", nowhere, 0);
}

static long try_socket_unix(void)
{
	return syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0);
}

static long try_socket_inet(void)
{
	return syscall(SYS_socket, AF_INET, SOCK_STREAM, 0);
}

/* A child that does come into being leaves at once. */
static long leave_child(long pid)
{
	if (pid == 0)
		_exit(0);
	return pid;
}

static long try_fork(void)
{
	return leave_child(syscall(SYS_fork));
}

static long try_clone_process(void)
{
	return leave_child(syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL));
}

/* If it works, /bin/false gives this process the right exit status. */
static long try_exec(void)
{
	char name[] = "false";
	char *const arguments[] = {name, NULL};
	char *const environment[] = {NULL};

	return syscall(SYS_execve, "/bin/false", arguments, environment);
}

static long try_kill(void)
{
	return syscall(SYS_kill, getppid(), 0);
}

static long try_tgkill(void)
{
	return syscall(SYS_tgkill, getppid(), getppid(), 0);
}

static long try_ptrace(void)
{
	return syscall(SYS_ptrace, PTRACE_SEIZE, getppid(), NULL, NULL);
}

static long try_terminal_input(void)
{
	return syscall(SYS_ioctl, STDERR_FILENO, TIOCSTI, "\n");
}

/* What would hold for everybody who shares the open file. */
static long try_set_nonblocking(void)
{
	return syscall(SYS_fcntl, STDERR_FILENO, F_SETFL, O_WRONLY | O_NONBLOCK);
}

static long try_take_signals(void)
{
	return syscall(SYS_fcntl, STDERR_FILENO, F_SETOWN, getppid());
}

static long try_shutdown(void)
{
	return syscall(SYS_shutdown, STDERR_FILENO, SHUT_RDWR);
}

static long try_send(void)
{
	return syscall(SYS_sendto, STDERR_FILENO, "", 0, MSG_NOSIGNAL, NULL, 0);
}

static long try_dumpable(void)
{
	return syscall(SYS_prctl, 4 /* PR_SET_DUMPABLE */, 1, 0, 0, 0);
}

static long try_unshare(void)
{
	return syscall(SYS_unshare, CLONE_NEWUSER);
}

static const struct {
	const char *name;
	long (*attempt)(void);
} attempts[] = {
	{"open for reading", try_open_read},
	{"open for writing", try_open_write},
	{"stat", try_stat},
	{"socket unix", try_socket_unix},
	{"socket inet", try_socket_inet},
	{"fork", try_fork},
	{"clone of a process", try_clone_process},
	{"kill", try_kill},
	{"tgkill", try_tgkill},
	{"ptrace", try_ptrace},
	{"terminal input", try_terminal_input},
	{"fcntl O_NONBLOCK", try_set_nonblocking},
	{"fcntl F_SETOWN", try_take_signals},
	{"shutdown of another socket", try_shutdown},
	{"send to another socket", try_send},
	{"prctl dumpable", try_dumpable},
	{"unshare user namespace", try_unshare},
	{"exec", try_exec},
};

unsigned int probe_try_escapes(void)
{
	unsigned int allowed = 0;

	for (size_t i = 0; i < ARRAY_LEN(attempts); i++) {
		long r = attempts[i].attempt();

		if (r < 0 && errno == EPERM) {
			printf("%s: refused (EPERM)\n", attempts[i].name);
		} else if (r < 0 && errno == ENOSYS) {
			printf("%s: refused (ENOSYS)\n", attempts[i].name);
		} else {
			printf("%s: NOT REFUSED (%s)\n", attempts[i].name,
			       r < 0 ? strerror(errno) : "it worked");
			allowed++;
		}
		/* A later attempt may end this process. */
		fflush(stdout);
	}
	return allowed;
}

/* Device names are ASCII in practice; anything else must not break the line. */
static void print_string(const char *name, const char *value, const char *after)
{
	printf("\"%s\":\"", name);
	for (; *value; value++)
		putchar(*value < ' ' || *value == '"' || *value == '\\' ? '?' : *value);
	printf("\"%s", after);
}

void probe_print_device(const struct backend *backend)
{
	const struct worker_device *device = &backend->info.device;

	putchar('{');
	print_string("backend", backend->ops->name, ",");
	print_string("name", device->name, ",");
	print_string("uuid", backend->info.uuid, ",");
	printf("\"capability\":\"%u.%u\",\"multiprocessors\":%u,\"total_mib\":%u,",
	       device->capability >> 16, device->capability & 0xffff, device->multiprocessors,
	       device->total_mib);
	print_string("driver", backend->info.driver, "}\n");
	fflush(stdout);
}
