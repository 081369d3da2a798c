/* SPDX-License-Identifier: MIT */
/*
 * See log.h. Whether stderr is the journal is decided once, at log_init(): the
 * service manager sets JOURNAL_STREAM for exactly that purpose.
 */
#include "base/log.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { LOG_LINE_BYTES = 1024 };

/* Where poll() says that a pipe takes something, it takes this much. */
_Static_assert(2 * LOG_LINE_BYTES <= PIPE_BUF, "a line and the one about lost ones");

const char *const log_level_names[] = {
	[LOG_LEVEL_ERROR] = "error",
	[LOG_LEVEL_WARNING] = "warning",
	[LOG_LEVEL_INFO] = "info",
	[LOG_LEVEL_DEBUG] = "debug",
	NULL,
};

static const int syslog_priorities[] = {
	[LOG_LEVEL_ERROR] = 3,
	[LOG_LEVEL_WARNING] = 4,
	[LOG_LEVEL_INFO] = 6,
	[LOG_LEVEL_DEBUG] = 7,
};

static struct {
	const char *program;
	enum log_level level;
	bool journal;
	atomic_uint lost; /* lines that stderr did not take */
} log_state = {"vgpu", LOG_LEVEL_INFO, false, 0};

void log_init(const char *program, enum log_level level)
{
	log_state.program = program;
	log_state.level = level;
	log_state.journal = getenv("JOURNAL_STREAM") != NULL;
}

int log_level_parse(enum log_level *out, const char *name)
{
	for (size_t i = 0; log_level_names[i]; i++) {
		if (strcmp(name, log_level_names[i]) == 0) {
			*out = (enum log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

/* Writes a whole line to @to, which has LOG_LINE_BYTES; returns its length. */
static size_t PRINTF(3, 0)
	format_line(char *to, enum log_level level, const char *format, va_list args)
{
	size_t used;

	if (log_state.journal)
		used = (size_t)snprintf(to, LOG_LINE_BYTES, "<%d>", syslog_priorities[level]);
	else
		used = (size_t)snprintf(to, LOG_LINE_BYTES, "%s: %s: ", log_state.program,
		                        log_level_names[level]);
	vsnprintf(to + used, LOG_LINE_BYTES - used - 1, format, args);

	/* One line an event: whatever text a peer or a file brought in stays in it. */
	used = strlen(to);
	for (size_t i = 0; i < used; i++) {
		if ((unsigned char)to[i] < ' ' || to[i] == 0x7f)
			to[i] = '?';
	}
	to[used++] = '\n';
	return used;
}

static size_t PRINTF(3, 4) format_own(char *to, enum log_level level, const char *format, ...)
{
	va_list args;
	size_t used;

	va_start(args, format);
	used = format_line(to, level, format, args);
	va_end(args);
	return used;
}

/* Where stderr is broken it is ready, too: writing then tells. */
static bool stderr_is_ready(int wait_ms)
{
	struct pollfd entry = {.fd = STDERR_FILENO, .events = POLLOUT};
	int r;

	do {
		r = poll(&entry, 1, wait_ms);
	} while (r < 0 && errno == EINTR);
	return r != 0;
}

void log_write(enum log_level level, const char *format, ...)
{
	char text[2 * LOG_LINE_BYTES];
	int saved_errno = errno;
	ssize_t written UNUSED;
	size_t used = 0;
	unsigned int lost;
	va_list args;

	if (level > log_state.level)
		return;
	if (!stderr_is_ready(atomic_load(&log_state.lost) ? 0 : LOG_WAIT_MS)) {
		atomic_fetch_add(&log_state.lost, 1);
		errno = saved_errno;
		return;
	}
	lost = atomic_exchange(&log_state.lost, 0);
	if (lost)
		used = format_own(text, LOG_LEVEL_WARNING, "%u log line%s lost: not read in time",
		                  lost, plural_s(lost));
	va_start(args, format);
	used += format_line(text + used, level, format, args);
	va_end(args);
	/* Nobody is left to tell if stderr itself is gone. */
	written = write(STDERR_FILENO, text, used);
	errno = saved_errno;
}

bool log_limit_pass(struct log_limit *limit, const char *what, uint64_t now_ns, unsigned int burst,
                    uint64_t interval_ns)
{
	if (limit->window_start_ns == 0 || now_ns - limit->window_start_ns >= interval_ns) {
		if (limit->suppressed)
			log_warning("%s: %u more such line%s left out", what, limit->suppressed,
			            plural_s(limit->suppressed));
		limit->window_start_ns = now_ns;
		limit->in_window = 0;
		limit->suppressed = 0;
	}
	if (limit->in_window >= burst) {
		limit->suppressed++;
		return false;
	}
	limit->in_window++;
	return true;
}
