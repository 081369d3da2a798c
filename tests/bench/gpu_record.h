/* SPDX-License-Identifier: MIT */
/*
 * What one VM saw during a measurement, in memory of a fixed size, so that a process may
 * keep it in memory that it shares with its parent.
 *
 * Only what ends inside the measured window counts. Times are nanoseconds of
 * CLOCK_MONOTONIC.
 */
#ifndef BENCH_GPU_RECORD_H
#define BENCH_GPU_RECORD_H

#include <stdio.h>

#include "gpu_pattern.h"
#include "guest/histogram.h"

enum {
	RECORD_BUCKET_MS = 100,
	RECORD_BUCKETS = 6000,
	RECORD_CODES = 16, /* enum vgpu_code */
	RECORD_FAILURES = 256,
	RECORD_SAMPLES = 1 << 16,
};

/* All zero is an empty record, but for the window. */
struct record {
	int64_t window_ns, end_ns;
	uint64_t codes[RECORD_CODES]; /* jobs by how they ended; 0: done */
	uint64_t work_us;             /* lengths of the SPINs that were done */
	uint64_t gpu_us;              /* execution times as the answers told */
	uint64_t refusals;            /* answers that asked for a later retry */
	uint64_t early_retries;       /* sent before the hint was over */
	int64_t first_ns, last_ns;    /* first and last end of a job, inside or out */
	struct histogram latency_ns;  /* of the jobs that were done */
	struct histogram refusal_ns;  /* from sending to a refusal */
	struct {
		uint32_t done;
		uint32_t work_us;
	} buckets[RECORD_BUCKETS];
	uint32_t failure_count;
	struct {
		int64_t at_ns, latency_ns;
		uint32_t code;
	} failures[RECORD_FAILURES]; /* the first ones */
	uint32_t sample_count;
	struct {
		uint32_t at_us, latency_us;
	} samples[RECORD_SAMPLES];
};

/* A job ended with @code @latency_ns after it was planned. */
void record_job(struct record *record, const struct pattern *pattern, const struct actor_job *job,
                uint32_t code, uint32_t gpu_us, int64_t now_ns);

void record_refusal(struct record *record, int64_t sent_ns, int64_t now_ns);

/* One JSON object without a line end. */
void record_print(const struct record *record, const struct actor *actor, FILE *to);

#endif
