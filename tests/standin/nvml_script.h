/* SPDX-License-Identifier: MIT */
/*
 * What the stand-in NVML reports, and the script that says so.
 *
 * VGPU_STANDIN_NVML_SCRIPT=FILE names the script; another FILE starts everything anew.
 * At each call the lines that were added to the file are read; each is
 *   [at SECONDS] [gpu N] COMMAND
 * and takes effect at once, or SECONDS after the first call. Without `gpu` it is for GPU
 * 0. Commands:
 *   NAME VALUE         a value from now on, NAME as in the table of nvml_script.c;
 *                      "none": not supported
 *   ecc_corrected N, ecc_uncorrected N     N more errors
 *   processes PID:BYTES...
 *   xid N              lost unless somebody has registered for it
 *   lost               off the bus; "back": there again, for who starts NVML anew
 *   reset_required     until the next "reset"
 *   reset              the GPU is there and as new; lifetime counters stay
 *   fail CALL N        this function returns N; 0 = works again
 *   hang [CALL] [S]    the next call (of this function) blocks for S seconds or till "go"
 *   go
 * FILE.users says how often NVML is open in the process.
 *
 * CALL is the function's name; those with one meaning in several versions (nvmlInit,
 * nvmlEventSetWait) go by the plain one.
 */
#ifndef STANDIN_NVML_SCRIPT_H
#define STANDIN_NVML_SCRIPT_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mediator/nvml_api.h"

enum {
	DEVICES_MAX = 16,
	LINE_MAX_BYTES = 512,
	LATER_MAX = 256,
	XIDS_MAX = 1024,
	PROCESSES_MAX = 512,
	FAILURES_MAX = 16,
	CALL_BYTES = 64,
};

#define NONE     INT64_MIN /* not supported */
#define GO_COMES INT64_MAX /* a hang without a given length */

struct device {
	int64_t temperature, slowdown, margin, gpu_busy, memory_busy, memory_used, memory_total;
	int64_t power, clock_reasons, rows_corrected, rows_uncorrected, rows_pending, rows_failed;
	int64_t pages_corrected, pages_uncorrected, pages_pending;
	int64_t recovery_action, reset_status, drain_and_reset;
	uint64_t ecc[2][2]; /* kind, counter */
	bool gone, reset_required;
	bool stale; /* was gone at some time since NVML was started */
	bool registered;
	struct nvml_process processes[PROCESSES_MAX];
	uint32_t process_count;
};

struct failure {
	char call[CALL_BYTES];
	int result;
};

struct standin {
	pthread_mutex_t mutex;
	char path[LINE_MAX_BYTES];
	long offset; /* of the script, read so far */
	int64_t start_ns;
	unsigned int users; /* nvmlInit less nvmlShutdown */
	struct device devices[DEVICES_MAX];
	struct {
		int64_t at_ns;
		char line[LINE_MAX_BYTES];
	} later[LATER_MAX];
	size_t later_count;
	struct {
		struct device *device;
		uint64_t xid;
	} xids[XIDS_MAX];
	size_t xid_count;
	struct failure failures[FAILURES_MAX];
	char hang_call[CALL_BYTES]; /* "": any */
	int64_t hang_ns;            /* 0 = none is asked for */
	unsigned int gos;           /* how often "go" came */
};

/* The library's one state, as that of the real one. */
extern struct standin nvml __attribute__((visibility("hidden")));

/* Reads what is new in the script; under the mutex. */
void standin_follow_script(void) __attribute__((visibility("hidden")));

#endif
