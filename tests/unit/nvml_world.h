/* SPDX-License-Identifier: MIT */
/*
 * The NVML thread beside an event loop, on the stand-in library: every test writes a
 * script, lets the loop run until what it waits for has come, and writes on.
 *
 * No test sleeps. One that waits in vain ends in run_until() after TEST_TIMEOUT_S.
 */
#ifndef TEST_NVML_WORLD_H
#define TEST_NVML_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <event2/event.h>

#include "base/log.h"
#include "mediator/nvml_reader.h"

enum {
	GPUS = 2,
	POLL_MS = 20,
	SILENT_MS = 300,
	RETRY_MS = 60,
	BEAT_MS = 5,
	TEST_TIMEOUT_S = 60,
	XIDS_KEPT = 1024,
};

struct nvml_world {
	struct event_base *base;
	struct event *beat;
	struct nvml_reader *reader;
	char script[64];
	FILE *script_file;

	enum nvml_state state;
	char text[512];
	unsigned int states, readings[GPUS], xid_count;
	struct nvml_reading last[GPUS];
	struct {
		uint32_t gpu;
		uint64_t xid;
	} xids[XIDS_KEPT];
	unsigned int (*xids_left)(void); /* set: the first Xid waits until none is left */

	/* How long the event loop was ever held up. */
	int64_t beat_ns, longest_ns;
	unsigned int beats;
};

/* For cmocka: two GPUs, no reader yet. */
int nvml_world_new(void **state);
int nvml_world_free(void **state);

#define TEST(name) cmocka_unit_test_setup_teardown(name, nvml_world_new, nvml_world_free)

/* What the owner of a reader is told, which is kept in the world. */
extern const struct nvml_reader_ops nvml_world_ops;

/* A reader with @library, quick about everything. */
void start(struct nvml_world *world, const char *library);

/* One more line of the script. */
void say(struct nvml_world *world, const char *line);

#define run_until(world, condition)                                                  \
	do {                                                                         \
		int64_t end_ns = clock_monotonic_ns() + TEST_TIMEOUT_S * NS_PER_SEC; \
		while (!(condition)) {                                               \
			assert_true(clock_monotonic_ns() < end_ns);                  \
			event_base_loop((world)->base, EVLOOP_ONCE);                 \
		}                                                                    \
	} while (0)

/* Until both GPUs were read again from the beginning on: what was said before is seen. */
void run_polls(struct nvml_world *world);

/* The value of GPU 0, or -999 when it is not known. */
int64_t value(const struct nvml_world *world, enum health_value which);

#endif
