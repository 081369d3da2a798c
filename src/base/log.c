/* SPDX-License-Identifier: MIT */
/*
 * See log.h. Whether stderr is the journal is decided once, at log_init(): the
 * service manager sets JOURNAL_STREAM for exactly that purpose.
 */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { LOG_LINE_BYTES = 1024 };

static const struct {
	const char *name;
	int syslog_priority;
} log_levels[] = {
	[LOG_LEVEL_ERROR] = {"error", 3},
	[LOG_LEVEL_WARNING] = {"warning", 4},
	[LOG_LEVEL_INFO] = {"info", 6},
	[LOG_LEVEL_DEBUG] = {"debug", 7},
};

static struct {
	const char *program;
	enum log_level level;
	bool journal;
} log_state = {"vgpu", LOG_LEVEL_INFO, false};

void log_init(const char *program, enum log_level level)
{
	log_state.program = program;
	log_state.level = level;
	log_state.journal = getenv("JOURNAL_STREAM") != NULL;
}

int log_level_parse(enum log_level *out, const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(log_levels); i++) {
		if (strcmp(name, log_levels[i].name) == 0) {
			*out = (enum log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

void log_write(enum log_level level, const char *format, ...)
{
	char line[LOG_LINE_BYTES];
	int saved_errno = errno;
	ssize_t written UNUSED;
	size_t used;
	va_list args;

	if (level > log_state.level)
		return;
	if (log_state.journal)
		used = (size_t)snprintf(line, sizeof(line), "<%d>",
		                        log_levels[level].syslog_priority);
	else
		used = (size_t)snprintf(line, sizeof(line), "%s: %s: ", log_state.program,
		                        log_levels[level].name);
	va_start(args, format);
	vsnprintf(line + used, sizeof(line) - used - 1, format, args);
	va_end(args);

	/* One line an event: whatever text a peer or a file brought in stays in it. */
	used = strlen(line);
	for (size_t i = 0; i < used; i++) {
		if ((unsigned char)line[i] < ' ')
			line[i] = '?';
	}
	line[used++] = '\n';
	/* Nobody is left to tell if stderr itself is gone. */
	written = write(STDERR_FILENO, line, used);
	errno = saved_errno;
}

bool log_limit_pass(struct log_limit *limit, uint64_t now_ns, unsigned int burst,
                    uint64_t interval_ns)
{
	if (limit->window_start_ns == 0 || now_ns - limit->window_start_ns >= interval_ns) {
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
