/* SPDX-License-Identifier: MIT */
/*
 * Does GPU memory of a process that was killed show up in another one?
 *
 * `fill` takes as much GPU memory as it can get, writes a pattern into all of it, reads
 * it back to prove that the pattern can be seen, says so in one line and waits to be
 * killed. `look` takes as much fresh memory as it can get, never writes to it, and
 * counts the words of the pattern, and those that are not zero.
 *
 * Uses the driver API directly: the question is about the driver, not about us. Exit
 * status 77 when no GPU answers.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "worker/cuda_api.h"

enum {
	EXIT_NO_GPU = 77,
	PATTERN_BYTE = 0xA7,
	BLOCKS_MAX = 4096,
	BLOCK_MIB = 1024, /* the largest piece that is asked for, then halves of it */
	PIECE_MIB = 64,   /* read back at once, and the smallest block */
};

#define PATTERN UINT64_C(0xA7A7A7A7A7A7A7A7)

struct block {
	uint64_t address;
	size_t bytes;
};

struct residue {
	struct cuda_api api;
	int (*read)(void *to, uint64_t from, size_t bytes);
	uint64_t *piece; /* pinned; PIECE_MIB */
	struct block blocks[BLOCKS_MAX];
	size_t block_count;
	size_t bytes;
};

static int fail(const char *call, int result)
{
	fprintf(stderr, "bench-gpu-residue: %s gives error %d\n", call, result);
	return 1;
}

static int find_read(struct residue *residue)
{
	void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
	void *symbol = library ? dlsym(library, "cuMemcpyDtoH_v2") : NULL;

	*(void **)(void *)&residue->read = symbol;
	return symbol ? 0 : fail("dlsym(cuMemcpyDtoH_v2)", 0);
}

static int open_device(struct residue *residue)
{
	struct cuda_api *api = &residue->api;
	struct backend_failure failure;
	void *context, *piece;
	int device = 0, r;

	if (cuda_api_load(api, &failure) < 0 || api->init(0) || api->device_get(&device, 0))
		return EXIT_NO_GPU;
	r = api->context_create(&context, CUDA_CONTEXT_MAP_HOST, device);
	if (r == 0)
		r = api->host_alloc(&piece, (size_t)PIECE_MIB << 20, 0);
	if (r)
		return fail("opening the device", r);
	residue->piece = piece;
	return find_read(residue);
}

/* As much as there is, in blocks that get smaller. */
static void take_memory(struct residue *residue, size_t limit_bytes)
{
	size_t bytes = (size_t)BLOCK_MIB << 20;

	while (bytes >= (size_t)PIECE_MIB << 20 && residue->block_count < BLOCKS_MAX) {
		struct block *block = &residue->blocks[residue->block_count];

		if (residue->bytes + bytes > limit_bytes ||
		    residue->api.memory_alloc(&block->address, bytes) != 0) {
			bytes /= 2;
			continue;
		}
		block->bytes = bytes;
		residue->block_count++;
		residue->bytes += bytes;
	}
}

static int count_words(struct residue *residue, uint64_t *of_pattern, uint64_t *not_zero)
{
	const size_t piece = (size_t)PIECE_MIB << 20;
	int r;

	*of_pattern = *not_zero = 0;
	for (size_t i = 0; i < residue->block_count; i++) {
		for (size_t at = 0; at < residue->blocks[i].bytes; at += piece) {
			r = residue->read(residue->piece, residue->blocks[i].address + at, piece);
			if (r)
				return fail("cuMemcpyDtoH", r);
			for (size_t k = 0; k < piece / sizeof(uint64_t); k++) {
				*of_pattern += residue->piece[k] == PATTERN;
				*not_zero += residue->piece[k] != 0;
			}
		}
	}
	return 0;
}

static int fill(struct residue *residue)
{
	for (size_t i = 0; i < residue->block_count; i++) {
		int r = residue->api.memory_fill(residue->blocks[i].address, PATTERN_BYTE,
		                                 residue->blocks[i].bytes);

		if (r)
			return fail("cuMemsetD8", r);
	}
	return residue->api.context_synchronize();
}

int main(int argc, char **argv)
{
	bool filling = argc > 1 && strcmp(argv[1], "fill") == 0;
	CLEANUP(freep) struct residue *residue = calloc(1, sizeof(*residue));
	size_t limit_mib = argc > 2 ? strtoul(argv[2], NULL, 10) : SIZE_MAX >> 20;
	uint64_t of_pattern, not_zero;
	int r;

	if (!residue || argc < 2 || (!filling && strcmp(argv[1], "look") != 0)) {
		fputs("usage: bench-gpu-residue fill|look [MIB at most]\n", stderr);
		return 2;
	}
	r = open_device(residue);
	if (r)
		return r;
	take_memory(residue, limit_mib << 20);
	if (filling)
		r = fill(residue);
	if (r == 0)
		r = count_words(residue, &of_pattern, &not_zero);
	if (r)
		return r;
	printf("{\"mib\": %zu, \"words\": %zu, \"of_pattern\": %llu, \"not_zero\": %llu}\n",
	       residue->bytes >> 20, residue->bytes / sizeof(uint64_t),
	       (unsigned long long)of_pattern, (unsigned long long)not_zero);
	fflush(stdout);
	while (filling)
		pause();
	return 0;
}
