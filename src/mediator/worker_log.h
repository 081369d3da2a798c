/* SPDX-License-Identifier: MIT */
/*
 * What a worker prints on its stderr becomes lines of our log.
 *
 * A worker may have been taken over, so that its stderr is a pipe of its own: what it
 * writes there is read without waiting, is told from our own lines by the VM's label in
 * front, holds no control characters, and is held back when there is too much of it.
 */
#ifndef MEDIATOR_WORKER_LOG_H
#define MEDIATOR_WORKER_LOG_H

#include "base/log.h"
#include "base/util.h"

struct event_base;
struct worker_log;

enum {
	WORKER_LOG_BURST =
		20, /* lines of one VM in an interval; those of level debug not counted */
	WORKER_LOG_INTERVAL_S = 60,
	WORKER_LOG_LINE_BYTES = 512,  /* longer lines are cut in pieces */
	WORKER_LOG_READ_BYTES = 4096, /* then others get their turn */
};

/*
 * Reads from @fd, a non-blocking pipe that it takes over, also when it fails. @label and
 * @limit must outlive it; @limit is the VM's, so that a new worker does not bring a new
 * allowance. Returns 0 or a negative errno.
 */
int worker_log_new(struct worker_log **out, struct event_base *base, int fd, const char *label,
                   struct log_limit *limit);

/* Logs what lies in the pipe still, then closes it. */
void worker_log_free(struct worker_log *log);
DEFINE_CLEANUP(worker_log)

#endif
