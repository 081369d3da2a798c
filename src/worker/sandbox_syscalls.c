/* SPDX-License-Identifier: MIT */
/*
 * See sandbox_syscalls.h. One row per system call with the reason why it is needed:
 * by this program ("worker"), by the C library, or by NVIDIA's driver library as traced
 * on a real GPU ("driver"; "ptx" when it compiles).
 *
 * mmap and mprotect may map code, because the driver's compiler and the libraries do;
 * there is nothing to open and no way to gain privileges by it. Names that the installed
 * libseccomp does not know are skipped: a kernel of that age lacks them, and refusing
 * is the default.
 */
#include "worker/sandbox_syscalls.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <unistd.h>

#include "base/util.h"

enum rule {
	ALLOW,
	ALLOW_OWN_PROCESS,  /* the first argument is this process */
	ALLOW_THREAD,       /* clone() of a thread, never of a process */
	ALLOW_OWN_SOCKET,   /* the first argument is the socket to the mediator */
	ALLOW_STAT_OF_FD,   /* newfstatat() as the C library's fstat() uses it */
	ALLOW_QUIET_FCNTL,  /* commands that change nothing for whoever shares the file */
	ALLOW_DEVICE_IOCTL, /* none of terminals, sockets or files */
	NOT_IMPLEMENTED,    /* ENOSYS: the C library then falls back to another one */
};

static const struct {
	const char *name;
	enum rule rule;
	const char *why;
} syscalls[] = {
	{"read", ALLOW, "driver"},
	{"write", ALLOW, "log lines; driver"},
	{"close", ALLOW, "worker; driver"},
	{"fstat", ALLOW, "ptx"},
	{"newfstatat", ALLOW_STAT_OF_FD, "ptx: fstat() of glibc 2.33 to 2.38"},
	{"lseek", ALLOW, "ptx"},
	{"fcntl", ALLOW_QUIET_FCNTL, "driver"},
	{"ioctl", ALLOW_DEVICE_IOCTL, "driver: every launch that is not a doorbell"},

	{"recvfrom", ALLOW_OWN_SOCKET, "worker: jobs"},
	{"sendto", ALLOW_OWN_SOCKET, "worker: answers"},
	{"shutdown", ALLOW_OWN_SOCKET, "worker: end"},
	{"poll", ALLOW, "driver"},
	{"ppoll", ALLOW, "worker: waiting"},

	{"brk", ALLOW, "malloc"},
	{"mmap", ALLOW, "malloc; driver"},
	{"munmap", ALLOW, "malloc; driver"},
	{"mremap", ALLOW, "realloc"},
	{"mprotect", ALLOW, "malloc; ptx"},
	{"madvise", ALLOW, "free; ends of threads"},

	{"clock_gettime", ALLOW, "CPU time; clocks without a vDSO"},
	{"clock_nanosleep", ALLOW, "driver"},
	{"nanosleep", ALLOW, "driver"},
	{"restart_syscall", ALLOW, "sleeps after a stop and continue"},
	{"sched_yield", ALLOW, "worker: spinning; driver"},
	{"sched_getaffinity", ALLOW, "malloc: number of arenas"},
	{"futex", ALLOW, "locks"},
	{"getpid", ALLOW, "abort; driver"},
	{"gettid", ALLOW, "abort; driver"},
	{"getrandom", ALLOW, "malloc"},

	{"clone", ALLOW_THREAD, "driver: threads that it makes late"},
	{"clone3", NOT_IMPLEMENTED, "its flags are behind a pointer: use clone"},
	{"set_robust_list", ALLOW, "start of a thread"},
	{"rseq", ALLOW, "start of a thread"},

	{"rt_sigaction", ALLOW, "abort"},
	{"rt_sigprocmask", ALLOW, "abort; threads"},
	{"rt_sigreturn", ALLOW, "signal handlers"},
	{"sigaltstack", ALLOW, "signal handlers"},
	{"tgkill", ALLOW_OWN_PROCESS, "abort"},
	{"exit", ALLOW, "end of a thread"},
	{"exit_group", ALLOW, "end"},
};

/*
 * ioctl requests by their "type" byte: the NVIDIA driver numbers its own with 'F', and
 * those of unified memory plainly from 1. Terminals ('T', where TIOCSTI types for whoever
 * sits there) and all else stay out.
 */
enum {
	IOCTL_TYPE_MASK = 0xff00,
	IOCTL_TYPE_NVIDIA = 'F' << 8,
	IOCTL_TYPE_UVM = 0,
};

/*
 * Reading flags, and all about close-on-exec. Not F_SETFL, whose O_NONBLOCK holds for every
 * process with the same open file, nor locks, leases and signals.
 */
static const int fcntl_commands[] = {F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC};

/* Allows @number where argument @argument, masked with @mask, is @value. */
static int allow_if(scmp_filter_ctx filter, int number, unsigned int argument, scmp_datum_t mask,
                    scmp_datum_t value)
{
	const struct scmp_arg_cmp condition = {
		.arg = argument,
		.op = SCMP_CMP_MASKED_EQ,
		.datum_a = mask,
		.datum_b = value,
	};

	return seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, number, 1, &condition);
}

static int allow_fcntl(scmp_filter_ctx filter, int number)
{
	int r = 0;

	for (size_t i = 0; i < ARRAY_LEN(fcntl_commands) && r == 0; i++)
		r = allow_if(filter, number, 1, UINT32_MAX, (scmp_datum_t)fcntl_commands[i]);
	return r;
}

static int add_rule(scmp_filter_ctx filter, int number, enum rule rule, int socket)
{
	int r;

	switch (rule) {
	case ALLOW:
		return seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 0);
	case ALLOW_OWN_PROCESS:
		return allow_if(filter, number, 0, UINT32_MAX, (scmp_datum_t)getpid());
	case ALLOW_THREAD:
		return allow_if(filter, number, 0, CLONE_THREAD, CLONE_THREAD);
	case ALLOW_OWN_SOCKET:
		return allow_if(filter, number, 0, UINT32_MAX, (uint32_t)socket);
	case ALLOW_QUIET_FCNTL:
		return allow_fcntl(filter, number);
	case ALLOW_STAT_OF_FD:
		return allow_if(filter, number, 3, UINT32_MAX, AT_EMPTY_PATH);
	case ALLOW_DEVICE_IOCTL:
		r = allow_if(filter, number, 1, IOCTL_TYPE_MASK, IOCTL_TYPE_NVIDIA);
		return r < 0 ? r : allow_if(filter, number, 1, IOCTL_TYPE_MASK, IOCTL_TYPE_UVM);
	case NOT_IMPLEMENTED:
		return seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), number, 0);
	}
	return -EINVAL;
}

static void filter_releasep(scmp_filter_ctx *filter)
{
	if (*filter)
		seccomp_release(*filter);
}

int sandbox_syscalls_load(int socket)
{
	CLEANUP(filter_releasep) scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int r, number;

	if (!filter)
		return -ENOMEM;
	/* The driver's threads exist already: they need the filter more than this one. */
	r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
	if (r < 0)
		return r;
	for (size_t i = 0; i < ARRAY_LEN(syscalls); i++) {
		number = seccomp_syscall_resolve_name(syscalls[i].name);
		if (number == __NR_SCMP_ERROR)
			continue;
		r = add_rule(filter, number, syscalls[i].rule, socket);
		if (r < 0)
			return r;
	}
	return seccomp_load(filter);
}
