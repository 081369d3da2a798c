/* SPDX-License-Identifier: MIT */
/*
 * What an empty job costs without us: launches the built-in empty kernel through the
 * driver API in this process and waits for it, over and over.
 *
 * Measured once with a context whose waiting spins, the driver's fastest, and once with
 * one that yields, as the worker's does. Prints one JSON object. Exit status 77 when no
 * GPU answers.
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/util.h"
#include "guest/histogram.h"
#include "worker/cuda_api.h"
#include "worker/cuda_kernels.h"

enum {
	EXIT_NO_GPU = 77,
	WARM_UP_LAUNCHES = 1000,
	LAUNCHES = 50000,
	CUDA_CONTEXT_SPIN = 1,
};

static int launch(const struct cuda_api *api, void *function)
{
	int r = api->launch(function, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL);

	return r ? r : api->context_synchronize();
}

/* Returns 0, or a CUresult or negative errno. */
static int measure(const struct cuda_api *api, unsigned int flags, struct histogram *out)
{
	void *functions[CUDA_KERNEL_COUNT];
	struct backend_failure failure;
	void *context;
	int64_t start_ns;
	int device, r;

	r = api->device_get(&device, 0);
	if (r == 0)
		r = api->context_create(&context, flags, device);
	if (r == 0)
		r = cuda_kernels_load(functions, api, &failure);
	for (int i = 0; i < WARM_UP_LAUNCHES && r == 0; i++)
		r = launch(api, functions[CUDA_KERNEL_NOP]);
	for (int i = 0; i < LAUNCHES && r == 0; i++) {
		start_ns = clock_monotonic_ns();
		r = launch(api, functions[CUDA_KERNEL_NOP]);
		histogram_add(out, (uint64_t)(clock_monotonic_ns() - start_ns));
	}
	return r ? r : api->context_destroy(context);
}

int main(void)
{
	static const struct {
		const char *name;
		unsigned int flags;
	} ways[] = {{"spin", CUDA_CONTEXT_SPIN}, {"yield", CUDA_CONTEXT_YIELD}};
	CLEANUP(freep) struct histogram *histograms = calloc(ARRAY_LEN(ways), sizeof(*histograms));
	struct backend_failure failure;
	struct cuda_api api;
	int count = 0;

	if (!histograms)
		return 1;
	if (cuda_api_load(&api, &failure) < 0 || api.init(0) || api.device_count(&count) || !count)
		return EXIT_NO_GPU;
	for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
		int r = measure(&api, ways[i].flags, &histograms[i]);

		if (r) {
			fprintf(stderr, "bench-native: the GPU answers with error %d\n", r);
			return 1;
		}
	}
	for (size_t i = 0; i < ARRAY_LEN(ways); i++)
		printf("%s\"%s\": {\"p50_us\": %.1f, \"p99_us\": %.1f}", i ? ", " : "{",
		       ways[i].name, (double)histogram_quantile(&histograms[i], 500) / 1e3,
		       (double)histogram_quantile(&histograms[i], 990) / 1e3);
	puts("}");
	return 0;
}
