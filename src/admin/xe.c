/* SPDX-License-Identifier: MIT */
/*
 * See xe.h. The child is a process group of its own, so that what it starts ends
 * with it when the time is up, and what it prints is bounded.
 */
#include "admin/xe.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "admin/text.h"
#include "base/clock.h"
#include "base/util.h"

enum { XE_STDERR_BYTES = 256, XE_NOT_FOUND_STATUS = 127 };

struct xe_stream {
	int fd;
	char *text;
	size_t used, size;
	bool cut; /* what does not fit is read and dropped */
};

struct xe_run {
	pid_t pid;
	struct xe_stream out, err;
	int64_t deadline_ns;
};

static int fail(struct xe_error *why, int code, const char *format, ...) PRINTF(3, 4);

static int fail(struct xe_error *why, int code, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why->text, sizeof(why->text), format, args);
	va_end(args);
	return code;
}

void xe_list_clear(struct xe_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->items[i]);
	free(list->items);
	memset(list, 0, sizeof(*list));
}

/* One element from *@text, which is moved behind it and its comma; NULL without memory. */
static char *list_element(const char **text)
{
	char *item = malloc(strlen(*text) + 1), *to = item;
	const char *from = *text;

	if (!item)
		return NULL;
	for (; *from && *from != ','; from++) {
		if (*from == '\\' && from[1])
			from++;
		*to++ = *from;
	}
	*to = '\0';
	*text = *from ? from + 1 : from;
	return item;
}

int xe_list_split(struct xe_list *out, const char *text)
{
	struct xe_list list = {.items = NULL};

	while (*text) { /* NOLINT(clang-analyzer-core.NullDereference) */
		char **items = reallocarray(list.items, list.count + 1, sizeof(*items));
		char *item = items ? list_element(&text) : NULL;

		if (items)
			list.items = items;
		if (!item) {
			xe_list_clear(&list);
			return -ENOMEM;
		}
		list.items[list.count++] = item;
	}
	*out = list;
	return 0;
}

/* ---- Running it ------------------------------------------------------------------ */

static int spawn_with(struct xe_run *run, const char *const *argv, const int *out, const int *err)
{
	CLEANUP(freep) char *path = NULL;
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	char *environment[2];
	int r;

	if (asprintf(&path, "PATH=%s",
	             getenv("PATH") ? getenv("PATH") : "/usr/sbin:/usr/bin:/sbin:/bin") < 0) {
		path = NULL;
		return ENOMEM;
	}
	environment[0] = path;
	environment[1] = NULL;
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
	r = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	if (r == 0)
		r = posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
	if (r == 0)
		r = posix_spawn_file_actions_adddup2(&actions, err[1], STDERR_FILENO);
	if (r == 0)
		r = posix_spawnp(&run->pid, argv[0], &actions, &attributes,
		                 (char *const *)(uintptr_t)argv, environment);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	return r;
}

static int spawn(struct xe_run *run, const char *const *argv)
{
	int out[2], err[2], r;

	/* Inherited as ignored, it would let the kernel forget how the child ended. */
	signal(SIGCHLD, SIG_DFL);
	if (pipe2(out, O_CLOEXEC) < 0)
		return errno;
	if (pipe2(err, O_CLOEXEC) < 0) {
		r = errno;
		close(out[0]);
		close(out[1]);
		return r;
	}
	r = spawn_with(run, argv, out, err);
	close(out[1]);
	close(err[1]);
	if (r != 0) {
		close(out[0]);
		close(err[0]);
		return r;
	}
	run->out.fd = out[0];
	run->err.fd = err[0];
	return 0;
}

static void stream_read(struct xe_stream *stream)
{
	char rest[4096];
	size_t space = stream->size - 1 - stream->used;
	ssize_t got;

	got = space ? read(stream->fd, stream->text + stream->used, space)
	            : read(stream->fd, rest, sizeof(rest));
	if (got < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (got <= 0) {
		close(stream->fd);
		stream->fd = -1;
		return;
	}
	if (space)
		stream->used += (size_t)got;
	else
		stream->cut = true;
	stream->text[stream->used] = '\0';
}

/* Reads until both streams end. Returns 0, -ETIMEDOUT, or -EMSGSIZE for too much of it. */
static int run_collect(struct xe_run *run)
{
	while (run->out.fd >= 0 || run->err.fd >= 0) {
		struct pollfd fds[] = {{.fd = run->out.fd, .events = POLLIN},
		                       {.fd = run->err.fd, .events = POLLIN}};
		int64_t left_ns = run->deadline_ns - clock_monotonic_ns();

		if (left_ns <= 0)
			return -ETIMEDOUT;
		if (poll(fds, ARRAY_LEN(fds), (int)(left_ns / NS_PER_MS) + 1) < 0 && errno != EINTR)
			return -errno;
		if (fds[0].revents)
			stream_read(&run->out);
		if (fds[1].revents)
			stream_read(&run->err);
		if (run->out.cut)
			return -EMSGSIZE;
	}
	return 0;
}

/* Not yet reaped, so that its group is ours, even if only what xe has started is left of it. */
static void run_kill(struct xe_run *run, int *status)
{
	kill(-run->pid, SIGKILL);
	waitpid(run->pid, status, 0);
}

/* Also ends what closed its streams and stayed: the deadline holds for all of it. */
static int run_reap(struct xe_run *run, int *status)
{
	pid_t reaped;

	while ((reaped = waitpid(run->pid, status, WNOHANG)) == 0) {
		if (clock_monotonic_ns() >= run->deadline_ns) {
			run_kill(run, status);
			return -ETIMEDOUT;
		}
		poll(NULL, 0, 5);
	}
	return reaped < 0 ? -errno : 0;
}

static int run_finish(struct xe_run *run, int64_t timeout_ms, struct xe_error *why)
{
	int r, status = 0;

	r = run_collect(run);
	if (r == 0)
		r = run_reap(run, &status);
	else
		run_kill(run, &status);
	if (run->out.fd >= 0)
		close(run->out.fd);
	if (run->err.fd >= 0)
		close(run->err.fd);
	if (r == -EMSGSIZE)
		return fail(why, XE_E_UNAVAILABLE, "xe printed more than %d bytes",
		            XE_OUTPUT_BYTES_MAX);
	if (r == -ETIMEDOUT)
		return fail(why, XE_E_UNAVAILABLE, "xe gave no answer within %g s",
		            (double)timeout_ms / 1000);
	if (r < 0)
		return fail(why, XE_E_UNAVAILABLE, "what became of xe is unknown: %s",
		            strerror(-r));
	if (WIFEXITED(status) && WEXITSTATUS(status) == XE_NOT_FOUND_STATUS)
		return fail(why, XE_E_UNAVAILABLE, "xe cannot be run");
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		run->err.text[strcspn(run->err.text, "\n")] = '\0';
		return fail(why, XE_E_UNAVAILABLE, "xe failed: %s",
		            run->err.used ? run->err.text : "it said nothing");
	}
	/* One newline ends the output; a name may hold others. */
	if (run->out.used && run->out.text[run->out.used - 1] == '\n')
		run->out.text[run->out.used - 1] = '\0';
	return 0;
}

/* Runs xe; *@line is what it printed, the caller's to free. */
static int run_xe(char **line, const char *const *argv, int64_t timeout_ms, struct xe_error *why)
{
	CLEANUP(freep) char *text = calloc(1, XE_OUTPUT_BYTES_MAX);
	char errors[XE_STDERR_BYTES] = "";
	struct xe_run run = {
		.out = {.fd = -1, .text = text, .size = XE_OUTPUT_BYTES_MAX},
		.err = {.fd = -1, .text = errors, .size = sizeof(errors)},
		.deadline_ns = clock_monotonic_ns() + timeout_ms * NS_PER_MS,
	};
	int r;

	if (!text)
		return -ENOMEM;
	r = spawn(&run, argv);
	if (r == ENOENT || r == EACCES)
		return fail(why, XE_E_UNAVAILABLE, "xe is not installed");
	if (r != 0)
		return fail(why, XE_E_UNAVAILABLE, "xe cannot be run: %s", strerror(r));
	r = run_finish(&run, timeout_ms, why);
	if (r == 0)
		*line = TAKE_PTR(text);
	return r;
}

int xe_find_vms(struct xe_list *out, const char *name, int64_t timeout_ms, struct xe_error *why)
{
	CLEANUP(freep) char *argument = NULL;
	CLEANUP(freep) char *line = NULL;
	const char *argv[] = {"xe", "vm-list", NULL, NULL, NULL, NULL, NULL};
	size_t count = 2;
	int r;

	if (name) {
		if (text_has_control(name))
			return fail(why, XE_E_CONTROL, "the name has control characters");
		if (asprintf(&argument, "name-label=%s", name) < 0) {
			argument = NULL;
			return -ENOMEM;
		}
		argv[count++] = argument;
	}
	argv[count++] = "is-control-domain=false";
	argv[count++] = "params=uuid";
	argv[count++] = "--minimal";
	r = run_xe(&line, argv, timeout_ms, why);
	return r == 0 ? xe_list_split(out, line) : r;
}

int xe_vm_name(char **out, const char *uuid, int64_t timeout_ms, struct xe_error *why)
{
	CLEANUP(freep) char *argument = NULL;
	CLEANUP(freep) char *line = NULL;
	const char *argv[] = {"xe", "vm-list", NULL, "params=name-label", "--minimal", NULL};
	const char *rest;
	int r;

	if (asprintf(&argument, "uuid=%s", uuid) < 0) {
		argument = NULL;
		return -ENOMEM;
	}
	argv[2] = argument;
	r = run_xe(&line, argv, timeout_ms, why);
	if (r != 0)
		return r;
	rest = line;
	*out = NULL;
	if (*rest) { /* NOLINT(clang-analyzer-core.NullDereference): set by run_xe() */
		*out = list_element(&rest);
		if (!*out)
			return -ENOMEM;
	}
	return 0;
}
