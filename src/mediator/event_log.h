/* SPDX-License-Identifier: MIT */
/*
 * Writes down every event that the core is told of, for `vgpu-sim --replay`: text, as
 * docs/protocol.md describes it ("Event logs").
 *
 * The event loop only fills a buffer; a thread writes it to the file, so that a slow disk
 * stops nobody. What cannot be kept whole ends: when the file is as large as it may be, the
 * disk is full or does not keep up, one warning is logged, and the mediator goes on.
 */
#ifndef MEDIATOR_EVENT_LOG_H
#define MEDIATOR_EVENT_LOG_H

#include "core/core.h"

enum {
	EVENT_LOG_BUFFER_BYTES = 1024 * 1024, /* and as much again while it is written */
	EVENT_LOG_CHECK_EVENTS = 16,          /* so often there is a line with the hash */
	EVENT_LOG_STOP_MS = 3000,             /* at the end, for what is not yet written */
};

struct event_log;

/*
 * Begins to record @core, to which nothing may have happened yet. A file at @path is kept as
 * <path>.old. Returns 0 or a negative errno; the caller owns *@out.
 */
int event_log_new(struct event_log **out, struct core *core, const char *path, int64_t max_bytes);

/*
 * Ends the file properly, but waits no longer than EVENT_LOG_STOP_MS for a disk that hangs:
 * then how much is lost is logged, and the thread left behind. All actions have been taken
 * from the core, which is still there.
 */
void event_log_free(struct event_log *log);
DEFINE_CLEANUP(event_log)

/*
 * To be told of every action taken from the core, and then that there are no more for now.
 * @log may be NULL.
 */
void event_log_action(struct event_log *log, const struct core_action *action);
void event_log_settled(struct event_log *log);

#endif
