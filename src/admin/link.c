/* SPDX-License-Identifier: MIT */
/*
 * See link.h. The mediator may be older, newer, hung or not ours: whatever comes back
 * is bounded in time and size and checked before it is used.
 */
#include "admin/link.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/socket.h"
#include "base/util.h"

struct buffer {
	char *text;
	size_t used, size;
};

static void buffer_freep(struct buffer *buffer)
{
	free(buffer->text);
}

static void json_freep(json_t **json)
{
	json_decref(*json);
}

static int fail(struct link_error *why, int code, const char *format, ...) PRINTF(3, 4);

static int fail(struct link_error *why, int code, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why->text, sizeof(why->text), format, args);
	va_end(args);
	return code;
}

/* Waits for @events until the deadline. Returns 0 or -ETIMEDOUT. */
static int wait_for(int fd, short events, int64_t deadline_ns)
{
	struct pollfd poller = {.fd = fd, .events = events};

	for (;;) {
		int64_t left_ns = deadline_ns - clock_monotonic_ns();
		int ready;

		if (left_ns <= 0)
			return -ETIMEDOUT;
		ready = poll(&poller, 1, (int)(left_ns / NS_PER_MS) + 1);
		if (ready > 0)
			return 0;
		if (ready < 0 && errno != EINTR)
			return -errno;
	}
}

static int send_line(int fd, const char *text, size_t length, int64_t deadline_ns)
{
	while (length > 0) {
		ssize_t sent = send(fd, text, length, MSG_NOSIGNAL);
		int r;

		if (sent > 0) {
			text += sent;
			length -= (size_t)sent;
			continue;
		}
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		r = wait_for(fd, POLLOUT, deadline_ns);
		if (r < 0)
			return r;
	}
	return 0;
}

static int buffer_grow(struct buffer *buffer)
{
	size_t size = buffer->size ? buffer->size * 2 : 65536;
	char *text;

	if (size > LINK_ANSWER_BYTES_MAX)
		return -EMSGSIZE;
	text = realloc(buffer->text, size);
	if (!text)
		return -ENOMEM;
	buffer->text = text;
	buffer->size = size;
	return 0;
}

/* Reads until a newline, which becomes the end of the text. */
static int receive_line(int fd, struct buffer *buffer, int64_t deadline_ns)
{
	for (;;) {
		ssize_t got;
		char *end;
		int r = 0;

		if (buffer->size - buffer->used < 2)
			r = buffer_grow(buffer);
		if (r == 0)
			r = wait_for(fd, POLLIN, deadline_ns);
		if (r < 0)
			return r;
		got = recv(fd, buffer->text + buffer->used, buffer->size - buffer->used - 1, 0);
		if (got < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (got <= 0)
			return got < 0 ? -errno : -ECONNRESET;
		end = memchr(buffer->text + buffer->used, '\n', (size_t)got);
		buffer->used += (size_t)got;
		if (end) {
			*end = '\0';
			return 0;
		}
	}
}

static int exchange(const char *path, const char *line, struct buffer *answer,
                    struct link_error *why)
{
	int64_t deadline_ns = clock_monotonic_ns() + LINK_TIMEOUT_MS * NS_PER_MS;
	CLEANUP(closep) int fd = -1;
	int r;

	r = socket_connect_unix(&fd, path, false);
	if (r == -ENOENT || r == -ECONNREFUSED)
		return fail(why, LINK_E_NOT_RUNNING,
		            "vgpu-mediator is not running: nobody listens at %s; start it with "
		            "systemctl start vgpu-mediator, or name its socket with --admin-socket",
		            path);
	if (r < 0)
		return fail(why, LINK_E_BROKEN, "cannot connect to %s: %s", path, strerror(-r));
	r = send_line(fd, line, strlen(line), deadline_ns);
	if (r == 0)
		r = receive_line(fd, answer, deadline_ns);
	if (r == -ETIMEDOUT)
		return fail(why, LINK_E_BROKEN,
		            "vgpu-mediator at %s gave no answer within %d s; its log may say why",
		            path, LINK_TIMEOUT_MS / 1000);
	if (r < 0)
		return fail(why, LINK_E_BROKEN, "the connection to vgpu-mediator at %s broke: %s",
		            path, strerror(-r));
	return 0;
}

static int answer_read(json_t **result, const char *method, const struct buffer *answer,
                       struct link_error *why)
{
	CLEANUP(json_freep) json_t *root = json_loads(answer->text, 0, NULL);
	json_t *value = json_object_get(root, "result");
	json_t *error = json_object_get(root, "error");
	const char *message = json_string_value(json_object_get(error, "message"));

	if (json_is_object(error))
		return fail(why, LINK_E_REFUSED, "vgpu-mediator refused %s: %s", method,
		            message ? message : "it gave no reason");
	if (!value)
		return fail(why, LINK_E_BROKEN,
		            "vgpu-mediator answered %s with something else than a result", method);
	*result = json_incref(value);
	return 0;
}

int link_call(json_t **result, const char *path, const char *method, json_t *params,
              struct link_error *why)
{
	CLEANUP(buffer_freep) struct buffer answer = {.text = NULL};
	CLEANUP(json_freep) json_t *request = NULL;
	CLEANUP(freep) char *text = NULL;
	CLEANUP(freep) char *line = NULL;
	int code;

	request = params ? json_pack("{s:i, s:s, s:o}", "id", 1, "method", method, "params", params)
	                 : json_pack("{s:i, s:s}", "id", 1, "method", method);
	text = request ? json_dumps(request, JSON_COMPACT) : NULL;
	if (!text || asprintf(&line, "%s\n", text) < 0) {
		line = NULL;
		return -ENOMEM;
	}
	code = exchange(path, line, &answer, why);
	return code == 0 ? answer_read(result, method, &answer, why) : code;
}
