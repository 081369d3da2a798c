/* SPDX-License-Identifier: MIT */
/* See residue.h. */
#include "worker/residue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/util.h"

#define MIB ((size_t)1 << 20)

enum {
	BLOCK_LARGEST_MIB = 1024, /* the first piece of GPU memory that is asked for, then halves */
	BLOCK_LEAST_MIB = 16,
	BLOCKS_MAX = 4096,
	PIECE_MIB = 16, /* read back at once */
};

static const uint64_t pattern = RESIDUE_PATTERN_BYTE * UINT64_C(0x0101010101010101);

static void count(struct residue *residue, const void *piece, size_t bytes)
{
	const uint64_t *words = piece;

	for (size_t i = 0; i < bytes / sizeof(*words); i++) {
		residue->of_pattern += words[i] == pattern;
		residue->not_zero += words[i] != 0;
	}
}

void residue_to_results(const struct residue *residue, uint32_t results[RESIDUE_RESULTS])
{
	results[0] = (uint32_t)(residue->bytes / MIB);
	results[1] = (uint32_t)residue->of_pattern;
	results[2] = (uint32_t)(residue->of_pattern >> 32);
	results[3] = (uint32_t)residue->not_zero;
	results[4] = (uint32_t)(residue->not_zero >> 32);
}

/* Reads a block back, and counts it. @piece holds PIECE_MIB. */
static int count_block(struct residue *residue, const struct cuda_api *api, uint64_t address,
                       size_t bytes, void *piece)
{
	for (size_t at = 0; at < bytes; at += PIECE_MIB * MIB) {
		size_t part = (size_t)min_u64(bytes - at, PIECE_MIB * MIB);
		int r = api->memory_read(piece, address + at, part);

		if (r != CUDA_SUCCESS)
			return r;
		count(residue, piece, part);
	}
	return CUDA_SUCCESS;
}

int residue_of_gpu(struct residue *out, const struct cuda_api *api, bool fill, size_t limit_bytes)
{
	CLEANUP(freep) void *piece = malloc(PIECE_MIB * MIB);
	size_t bytes = BLOCK_LARGEST_MIB * MIB;
	int r = piece ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;

	*out = (struct residue){0};
	for (int blocks = 0; r == CUDA_SUCCESS && blocks < BLOCKS_MAX;) {
		uint64_t address;

		if (out->bytes + bytes > limit_bytes || api->memory_alloc(&address, bytes) != 0) {
			bytes /= 2;
			if (bytes < BLOCK_LEAST_MIB * MIB)
				break;
			continue;
		}
		blocks++;
		out->bytes += bytes;
		if (fill)
			r = api->memory_fill(address, RESIDUE_PATTERN_BYTE, bytes);
		if (r == CUDA_SUCCESS)
			r = count_block(out, api, address, bytes, piece);
	}
	return r;
}

int residue_of_process(struct residue *out, bool fill, size_t limit_bytes)
{
	size_t bytes = limit_bytes / MIB * MIB;
	void *memory =
		mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return -errno;
	*out = (struct residue){.bytes = bytes};
	if (fill)
		memset(memory, RESIDUE_PATTERN_BYTE, bytes);
	count(out, memory, bytes);
	return 0;
}
