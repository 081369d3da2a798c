/* SPDX-License-Identifier: MIT */
/*
 * See sandbox.h. The steps are a table because their order matters: what needs
 * privileges comes before the change of uid, and the parent-death signal after it,
 * since the kernel clears that when credentials change.
 */
#include "worker/sandbox.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "base/log.h"
#include "base/util.h"
#include "worker/sandbox_syscalls.h"

enum {
	SANDBOX_FILES = 1024,
	/* Of all processes of the worker's uid. The driver makes about ten. */
	SANDBOX_THREADS = 256,
	/* The NVIDIA driver dies of SIGXFSZ with 0. */
	SANDBOX_FILE_BYTES = 64 * 1024 * 1024,
	/* Sleeps of 50 us should not take 100. */
	SANDBOX_TIMER_SLACK_NS = 1000,
};

static int refuse_privileges(const struct sandbox_options *options UNUSED)
{
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;
}

/* ^C in the mediator's terminal is the mediator's business. */
static int reset_signals(const struct sandbox_options *options UNUSED)
{
	sigset_t none;

	sigemptyset(&none);
	signal(SIGINT, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	return sigprocmask(SIG_SETMASK, &none, NULL) < 0 ? -errno : 0;
}

static int close_files(const struct sandbox_options *options)
{
	DIR *directory = opendir("/proc/self/fd");
	struct dirent *entry;

	if (!directory)
		return -errno;
	while ((entry = readdir(directory))) {
		int fd = atoi(entry->d_name);

		if (fd > STDERR_FILENO && fd != options->socket && fd != dirfd(directory))
			close(fd);
	}
	closedir(directory);
	return 0;
}

/* A uid that others have as well would let them use the threads up. */
static bool has_own_uid(const struct sandbox_options *options)
{
	return options->change_uid && geteuid() == 0;
}

static int limit_resources(const struct sandbox_options *options)
{
	static const struct {
		int resource;
		rlim_t limit;
	} limits[] = {
		{RLIMIT_CORE, 0},
		{RLIMIT_NOFILE, SANDBOX_FILES},
		{RLIMIT_FSIZE, SANDBOX_FILE_BYTES},
		{RLIMIT_NPROC, SANDBOX_THREADS},
	};

	for (size_t i = 0; i < ARRAY_LEN(limits); i++) {
		struct rlimit limit;

		if (limits[i].resource == RLIMIT_NPROC && !has_own_uid(options))
			continue;
		if (getrlimit((__rlimit_resource_t)limits[i].resource, &limit) < 0)
			return -errno;
		/* The hard limit may stay: nothing can call setrlimit() later. */
		limit.rlim_cur = min_u64(limit.rlim_max, limits[i].limit);
		if (setrlimit((__rlimit_resource_t)limits[i].resource, &limit) < 0)
			return -errno;
	}
	return 0;
}

/* Where memory runs out a worker goes first: whatever it holds comes from one guest. */
static int die_first(const struct sandbox_options *options UNUSED)
{
	static const char score[] = "1000";
	CLEANUP(closep) int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	return write(fd, score, strlen(score)) < 0 ? -errno : 0;
}

static int leave_network(const struct sandbox_options *options UNUSED)
{
	if (geteuid() != 0) {
		log_warning("not root: the worker stays in the host's network namespace, only "
		            "the system call filter keeps it from the network");
		return 0;
	}
	return unshare(CLONE_NEWNET) < 0 ? -errno : 0;
}

static int change_uid(const struct sandbox_options *options)
{
	const gid_t gid = (gid_t)options->uid;

	if (!options->change_uid) {
		if (geteuid() == 0)
			log_warning("the worker runs as root: give --uid");
		return 0;
	}
	if (geteuid() != 0) {
		if (geteuid() != options->uid)
			log_warning("not root: the worker runs as uid %u instead of %u", geteuid(),
			            options->uid);
		return 0;
	}
	if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 ||
	    setresuid(options->uid, options->uid, options->uid) < 0)
		return -errno;
	return 0;
}

int sandbox_follow_parent(pid_t parent)
{
	if (parent == 0)
		return 0;
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
		return -errno;
	/* It may have died before the line above. */
	return getppid() != parent ? -ESRCH : 0;
}

static int follow_parent(const struct sandbox_options *options)
{
	return sandbox_follow_parent(options->parent);
}

static int pin_to_cpu(const struct sandbox_options *options)
{
	cpu_set_t set;

	prctl(PR_SET_TIMERSLACK, SANDBOX_TIMER_SLACK_NS, 0, 0, 0);
	if (options->cpu < 0)
		return 0;
	CPU_ZERO(&set);
	CPU_SET(options->cpu, &set);
	return sched_setaffinity(0, sizeof(set), &set) < 0 ? -errno : 0;
}

int sandbox_enter(const struct sandbox_options *options, const char **what)
{
	static const struct {
		int (*run)(const struct sandbox_options *options);
		const char *what;
	} steps[] = {
		{refuse_privileges, "giving up new privileges"},
		{reset_signals, "resetting signals"},
		{close_files, "closing inherited files (is /proc mounted?)"},
		{limit_resources, "setting resource limits"},
		{die_first, "being the first to go when memory runs out"},
		{pin_to_cpu, "pinning to the CPU of --cpu"},
		{leave_network, "entering a network namespace of its own"},
		{change_uid, "changing to the uid of --uid"},
		{follow_parent, "following the parent of --parent"},
	};
	int r;

	for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
		r = steps[i].run(options);
		if (r < 0) {
			*what = steps[i].what;
			return r;
		}
	}
	return 0;
}

int sandbox_seal(const struct sandbox_options *options, const char **what)
{
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0) {
		*what = "becoming undumpable";
		return -errno;
	}
	*what = "loading the system call filter (does the kernel have CONFIG_SECCOMP_FILTER?)";
	return sandbox_syscalls_load(options->socket);
}
