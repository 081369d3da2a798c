/* SPDX-License-Identifier: MIT */
/*
 * Does memory of a worker that was killed show up in another one? One fills all the
 * memory that it can get with a pattern; another takes fresh memory, never writes to
 * it, and counts what it finds. An operation for tests asks this of workers, and
 * tests/bench/gpu_residue.c of the driver without us.
 */
#ifndef WORKER_RESIDUE_H
#define WORKER_RESIDUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/cuda_api.h"

enum {
	RESIDUE_PATTERN_BYTE = 0xA7,
	RESIDUE_RESULTS = 5, /* of VGPU_OP_RESIDUE */
};

struct residue {
	uint64_t bytes;      /* of memory that was taken */
	uint64_t of_pattern; /* 64-bit words that are the pattern */
	uint64_t not_zero;   /* 64-bit words */
};

/* As the results of VGPU_OP_RESIDUE. */
void residue_to_results(const struct residue *residue, uint32_t results[RESIDUE_RESULTS]);

/*
 * Takes GPU memory until there is no more, at most @limit_bytes, and keeps it until the
 * process ends. With @fill it is filled with the pattern. Then all of it is read back and
 * counted. Returns a CUresult; needs a current context.
 */
int residue_of_gpu(struct residue *out, const struct cuda_api *api, bool fill, size_t limit_bytes);

/* The same of the process's own memory. Returns 0 or a negative errno. */
int residue_of_process(struct residue *out, bool fill, size_t limit_bytes);

#endif
