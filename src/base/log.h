/* SPDX-License-Identifier: MIT */
/*
 * Log lines on stderr, one line an event.
 *
 * A message is formatted into one buffer and written with one write(), so that
 * lines of several processes never mix. Where stderr is the journal the syslog
 * priority is put in front ("<4>"), elsewhere the level's name.
 *
 * Whoever reads stderr may stop to read: a journal that hangs, a terminal on ^S, a
 * pipe whose reader is slow. An event loop must not stop with it, so a line waits at
 * most LOG_WAIT_MS until stderr takes it and is lost after that; while lines are being
 * lost no further one waits. The next line that gets through brings along how many
 * were lost. The descriptor itself stays as it is: it is shared with other processes.
 *
 * The level, the program's name and the number of lost lines are the only process-wide
 * state in the project; the first two are set once in main() before any thread starts.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>

#include "base/util.h"

enum { LOG_WAIT_MS = 20 };

enum log_level {
	LOG_LEVEL_ERROR,   /* something asked for was not done */
	LOG_LEVEL_WARNING, /* it goes on, but somebody should look */
	LOG_LEVEL_INFO,    /* life cycle: started, registered, ended */
	LOG_LEVEL_DEBUG,   /* every message */
};

/* In the order of enum log_level, and a NULL behind the last. */
extern const char *const log_level_names[];

/* @program must outlive the process' last log line. */
void log_init(const char *program, enum log_level level);

/* Reads one of log_level_names. Returns 0, or -EINVAL for anything else. */
int log_level_parse(enum log_level *out, const char *name);

void log_write(enum log_level level, const char *format, ...) PRINTF(2, 3);

#define log_error(...)   log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)    log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)   log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

/*
 * At most @burst lines in @interval_ns for one cause; for causes that a peer can
 * repeat at will. Zero-initialise, one per cause and peer.
 */
struct log_limit {
	uint64_t window_start_ns;
	unsigned int in_window;
	unsigned int suppressed; /* in the current window */
};

/*
 * True when a line about @what may be written now; @now_ns on any monotonic clock. How
 * many lines an interval has held back is logged with the first one after it.
 */
bool log_limit_pass(struct log_limit *limit, const char *what, uint64_t now_ns, unsigned int burst,
                    uint64_t interval_ns);

#endif
