/* SPDX-License-Identifier: MIT */
/*
 * Does GPU memory of a process that was killed show up in another one? The driver alone is
 * asked here, beside which workers are (src/worker/residue.h).
 *
 * `fill` fills what GPU memory it can get with a pattern, reads it back to prove that the
 * pattern can be seen, says so in one line and waits to be killed. `look` takes fresh
 * memory and counts what is in it. Exit status 77 when no GPU answers.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "worker/cuda_api.h"
#include "worker/residue.h"

enum { EXIT_NO_GPU = 77 };

static int open_device(struct cuda_api *api)
{
	struct backend_failure failure;
	void *context;
	int device = 0;

	if (cuda_api_load(api, &failure) < 0 || api->init(0) || api->device_get(&device, 0))
		return EXIT_NO_GPU;
	return api->context_create(&context, CUDA_CONTEXT_MAP_HOST, device) ? 1 : 0;
}

int main(int argc, char **argv)
{
	bool filling = argc > 1 && strcmp(argv[1], "fill") == 0;
	size_t limit_mib = argc > 2 ? strtoul(argv[2], NULL, 10) : SIZE_MAX >> 20;
	struct residue residue;
	struct cuda_api api;
	int r;

	if (argc < 2 || (!filling && strcmp(argv[1], "look") != 0)) {
		fputs("usage: bench-gpu-residue fill|look [MIB at most]\n", stderr);
		return 2;
	}
	r = open_device(&api);
	if (r)
		return r;
	r = residue_of_gpu(&residue, &api, filling, limit_mib << 20);
	if (r) {
		fprintf(stderr, "bench-gpu-residue: CUDA error %d\n", r);
		return 1;
	}
	printf("{\"mib\": %llu, \"words\": %llu, \"of_pattern\": %llu, \"not_zero\": %llu}\n",
	       (unsigned long long)(residue.bytes >> 20), (unsigned long long)(residue.bytes / 8),
	       (unsigned long long)residue.of_pattern, (unsigned long long)residue.not_zero);
	fflush(stdout);
	while (filling)
		pause();
	return 0;
}
