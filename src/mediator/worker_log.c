/* SPDX-License-Identifier: MIT */
/* See worker_log.h. A worker's own lines carry their level; a library's are warnings. */
#include "mediator/worker_log.h"

#include <errno.h>
#include <string.h>

#include <event2/event.h>

#include "base/clock.h"

enum { REST_READS = 16 }; /* a full pipe */

struct worker_log {
	const char *label;
	struct log_limit *limit;
	int fd;
	struct event *readable;
	char line[WORKER_LOG_LINE_BYTES + 1];
	size_t used; /* of line */
};

/* Takes "vgpu-worker: LEVEL: " off the front of *@text. */
static enum log_level take_level(const char **text)
{
	static const char own[] = "vgpu-worker: ";
	enum log_level level = LOG_LEVEL_WARNING;
	const char *name = *text + strlen(own), *end;
	char word[16];

	if (strncmp(*text, own, strlen(own)) != 0)
		return level;
	end = strstr(name, ": ");
	if (!end || (size_t)(end - name) >= sizeof(word))
		return level;
	memcpy(word, name, (size_t)(end - name));
	word[end - name] = '\0';
	if (log_level_parse(&level, word) == 0)
		*text = end + 2;
	return level;
}

static void end_line(struct worker_log *log)
{
	const char *text = log->line;
	enum log_level level;

	log->line[log->used] = '\0';
	log->used = 0;
	if (!*text)
		return;
	level = take_level(&text);
	/* Those of level debug are there because somebody asked for all of them. */
	if (level == LOG_LEVEL_DEBUG ||
	    log_limit_pass(log->limit, log->label, (uint64_t)clock_monotonic_ns(), WORKER_LOG_BURST,
	                   WORKER_LOG_INTERVAL_S * NS_PER_SEC))
		log_write(level, "%s: %s", log->label, text);
}

static void add(struct worker_log *log, char byte)
{
	if (byte == '\n' || byte == '\0' || log->used == WORKER_LOG_LINE_BYTES) {
		end_line(log);
		if (byte == '\n' || byte == '\0')
			return;
	}
	/* A terminal may obey bytes beyond ASCII as well. */
	log->line[log->used++] = byte < ' ' || byte > '~' ? '?' : byte;
}

/* Returns what read() does. */
static ssize_t read_some(struct worker_log *log)
{
	char bytes[WORKER_LOG_READ_BYTES];
	ssize_t n = read(log->fd, bytes, sizeof(bytes));

	for (ssize_t i = 0; i < n; i++)
		add(log, bytes[i]);
	return n;
}

static void on_readable(evutil_socket_t fd UNUSED, short what UNUSED, void *arg)
{
	struct worker_log *log = arg;
	ssize_t n = read_some(log);

	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		event_del(log->readable);
}

int worker_log_new(struct worker_log **out, struct event_base *base, int fd, const char *label,
                   struct log_limit *limit)
{
	struct worker_log *log = calloc(1, sizeof(*log));

	if (!log) {
		close(fd);
		return -ENOMEM;
	}
	log->label = label;
	log->limit = limit;
	log->fd = fd;
	log->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, log);
	if (!log->readable || event_add(log->readable, NULL) < 0) {
		worker_log_free(log);
		return -ENOMEM;
	}
	*out = log;
	return 0;
}

void worker_log_free(struct worker_log *log)
{
	if (!log)
		return;
	for (int i = 0; i < REST_READS && read_some(log) > 0; i++)
		;
	end_line(log);
	if (log->readable)
		event_free(log->readable);
	closep(&log->fd);
	free(log);
}
