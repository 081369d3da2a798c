/* SPDX-License-Identifier: MIT */
/*
 * NVML in a thread of its own, since any call of it can block, for seconds or for good.
 *
 * The thread polls every GPU and waits for Xid errors in between; the event loop gets
 * copies, through one mailbox and an eventfd, and never waits for the thread. A call
 * that does not return is noticed by a timer of the event loop. Whatever goes wrong,
 * the thread starts over every retry_ms: with the library when it was missing, with
 * fresh handles when a GPU was lost, for only then is it seen to come back.
 *
 * What changes is logged once, and told through state().
 */
#ifndef MEDIATOR_NVML_READER_H
#define MEDIATOR_NVML_READER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/util.h"
#include "core/core.h"
#include "mediator/nvml_sample.h"

struct event_base;
struct nvml_reader;

enum {
	NVML_GPUS_MAX = CORE_MAX_GPUS,
	NVML_UUID_BYTES = 96,
	NVML_XIDS_MAX = 256, /* not yet told; more are dropped, and that is logged */
};

enum nvml_state {
	NVML_STATE_DOWN,     /* no library, or it does not start: the text says which */
	NVML_STATE_UP,       /* readings come */
	NVML_STATE_SILENT,   /* a call has not returned for silent_ms */
	NVML_STATE_RELEASED, /* closed at the owner's wish */
};

struct nvml_reader_options {
	const char *library;      /* NULL = libnvidia-ml.so.1 */
	const char *const *uuids; /* "GPU-…", in the order of the mediator's GPU numbers */
	uint32_t gpu_count;       /* 1..NVML_GPUS_MAX */
	uint32_t poll_ms;         /* 0 = 1000 */
	uint32_t silent_ms;       /* 0 = five polls, at least 5000; never below 200 */
	uint32_t retry_ms;        /* 0 = 30000 */
	uint32_t stop_ms;         /* how long nvml_reader_free() waits at most; 0 = 500 */
};

/* Called from the event loop. @reading is valid during the call. */
struct nvml_reader_ops {
	void (*reading)(void *owner, uint32_t gpu, const struct nvml_reading *reading);
	/* @at_ns: CLOCK_MONOTONIC, when NVML told it. */
	void (*xid)(void *owner, uint32_t gpu, uint64_t xid, int64_t at_ns);
	/* In all states but UP there are no readings. @text is English for operators. */
	void (*state)(void *owner, enum nvml_state state, const char *text);
};

/* @options are copied. Returns 0 or a negative errno; the caller owns *@out. */
int nvml_reader_new(struct nvml_reader **out, struct event_base *base,
                    const struct nvml_reader_options *options, const struct nvml_reader_ops *ops,
                    void *owner);

/*
 * Nothing is told any more. A thread that hangs in NVML is left to itself after stop_ms:
 * it frees what it holds should it ever return. Not from within the callbacks.
 */
void nvml_reader_free(struct nvml_reader *reader);
DEFINE_CLEANUP(nvml_reader)

/*
 * Closes NVML, since a GPU that somebody has open cannot be reset; state(RELEASED) says
 * when. Does not come while a call hangs. nvml_reader_resume() opens it again, after
 * which it counts as down until it is.
 */
void nvml_reader_release(struct nvml_reader *reader);
void nvml_reader_resume(struct nvml_reader *reader);

/* For the metric vgpu_nvml_up. */
enum nvml_state nvml_reader_state(const struct nvml_reader *reader);

/* "down", "up", "silent", "released". */
const char *nvml_state_name(enum nvml_state state);

#endif
