/* SPDX-License-Identifier: MIT */
/*
 * See calibrate.h.
 *
 * Contexts of different processes share the GPU in slices of time. So children are forked,
 * each with a context of its own, and go through the same phases together:
 *   alone      the first child launches empty kernels and waits for each one;
 *   in turns   all children do, one after the other: what is more is the hand-over;
 *   at once    all keep the GPU full with a kernel that reads the GPU's clock and notes
 *              when it did not run: between two such pauses lies a slice, and between
 *              one child's slice and the next child's the cost of the switch.
 * The GPU's clock is the same for all contexts, which makes their notes comparable.
 */
#include "worker/calibrate.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/util.h"
#include "worker/cuda_api.h"
#include "worker/cuda_kernels.h"

extern const char cuda_ptx_calibrate[];

enum {
	CONTEXTS_MAX = 4,
	LAUNCHES = 1000, /* empty kernels of a child in a phase */
	WATCHES = 4,     /* kernels of a child at once */
	WATCH_MS = 400,
	GAPS_MAX = 1024, /* notes of one kernel */
	GAP_US = 100,    /* shorter pauses are no slice of another context */
	BLOCK = 256,     /* threads; blocks enough to fill the GPU */
	CHILD_S = 60,
	SLICE_STEP_US = 10,
	HANDOVER_ASSUMED_US = 150, /* what the scheduler counts on */
};

/* A span of time during which a context did or did not run, ns of the GPU's clock. */
struct span {
	uint64_t from, to;
};

struct watch {
	uint64_t count;
	struct span gaps[GAPS_MAX];
};

/* What the children tell, in memory shared by all. */
struct measurement {
	int contexts;
	atomic_int arrived; /* at the end of phases, all together */
	atomic_int turn;    /* launches so far, in turns */
	char device[96];
	double alone_us[LAUNCHES];
	double turns_us[LAUNCHES];
	struct watch watches[CONTEXTS_MAX][WATCHES];
};

struct child {
	struct measurement *out;
	int index;
	struct cuda_api api;
	void *nop;
	void *watch;
	unsigned int grid;
	struct watch *notes; /* WATCHES in host memory */
	uint64_t notes_gpu;
};

/* ---- A child ---------------------------------------------------------------- */

static int fail(const struct child *child, int result, const char *what)
{
	struct backend_failure failure;

	cuda_api_fail(&child->api, &failure, result, what);
	fprintf(stderr, "vgpu-worker: %s\n", failure.text);
	return -EIO;
}

static int find_grid(struct child *child, int device)
{
	int multiprocessors = 0, threads = 0;
	int r = child->api.device_attribute(&multiprocessors, CUDA_ATTRIBUTE_MULTIPROCESSORS,
	                                    device);

	if (r == CUDA_SUCCESS)
		r = child->api.device_attribute(&threads, CUDA_ATTRIBUTE_THREADS_PER_MULTIPROCESSOR,
		                                device);
	child->grid = (unsigned int)(multiprocessors * max_i64(threads / BLOCK, 1));
	return r;
}

static int open_context(struct child *child)
{
	struct cuda_api *api = &child->api;
	void *functions[CUDA_KERNEL_COUNT], *context, *module, *notes;
	struct backend_failure failure;
	int device = 0, r;

	if (cuda_api_load(api, &failure) < 0) {
		fprintf(stderr, "vgpu-worker: %s\n", failure.text);
		return -ENODEV;
	}
	r = api->init(0);
	if (r == CUDA_SUCCESS)
		r = api->device_get(&device, 0);
	if (r == CUDA_SUCCESS)
		r = api->device_name(child->out->device, sizeof(child->out->device), device);
	if (r == CUDA_SUCCESS)
		r = find_grid(child, device);
	if (r == CUDA_SUCCESS)
		r = api->context_create(&context, CUDA_CONTEXT_MAP_HOST, device);
	if (r == CUDA_SUCCESS)
		r = api->host_alloc(&notes, WATCHES * sizeof(struct watch), CUDA_HOST_ALLOC_MAPPED);
	if (r == CUDA_SUCCESS)
		r = api->host_address(&child->notes_gpu, notes, 0);
	if (r == CUDA_SUCCESS)
		r = api->module_load(&module, cuda_ptx_calibrate);
	if (r == CUDA_SUCCESS)
		r = api->module_function(&child->watch, module, "vgpu_watch");
	if (r != CUDA_SUCCESS)
		return fail(child, r, "opening the GPU");
	if (cuda_kernels_load(functions, api, &failure) < 0) {
		fprintf(stderr, "vgpu-worker: %s\n", failure.text);
		return -EIO;
	}
	child->nop = functions[CUDA_KERNEL_NOP];
	child->notes = notes;
	return 0;
}

/* Waits until every child is here for the @phase-th time. */
static void meet(struct child *child, int phase)
{
	atomic_fetch_add(&child->out->arrived, 1);
	while (atomic_load(&child->out->arrived) < phase * child->out->contexts)
		sched_yield();
}

static int launch_empty(struct child *child, double *us)
{
	int64_t start_ns = clock_monotonic_ns();
	int r = child->api.launch(child->nop, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL);

	if (r == CUDA_SUCCESS)
		r = child->api.context_synchronize();
	*us = (double)(clock_monotonic_ns() - start_ns) / (double)NS_PER_US;
	return r;
}

static int run_alone(struct child *child)
{
	int r = CUDA_SUCCESS;

	for (int i = 0; i < LAUNCHES && r == CUDA_SUCCESS && child->index == 0; i++)
		r = launch_empty(child, &child->out->alone_us[i]);
	return r;
}

static int run_in_turns(struct child *child)
{
	struct measurement *out = child->out;
	int r = CUDA_SUCCESS;

	for (int i = child->index; i < LAUNCHES && r == CUDA_SUCCESS; i += out->contexts) {
		while (atomic_load(&out->turn) < i)
			sched_yield();
		r = launch_empty(child, &out->turns_us[i]);
		atomic_fetch_add(&out->turn, 1);
	}
	return r;
}

static int run_at_once(struct child *child)
{
	uint64_t at, gaps_max = GAPS_MAX, gap_ns = GAP_US * NS_PER_US;
	uint64_t run_ns = WATCH_MS * NS_PER_MS;
	void *params[] = {&at, &gaps_max, &gap_ns, &run_ns};
	int r = CUDA_SUCCESS;

	for (int i = 0; i < WATCHES && r == CUDA_SUCCESS; i++) {
		at = child->notes_gpu + (uint64_t)i * sizeof(struct watch);
		r = child->api.launch(child->watch, child->grid, 1, 1, BLOCK, 1, 1, 0, NULL, params,
		                      NULL);
	}
	if (r == CUDA_SUCCESS)
		r = child->api.context_synchronize();
	if (r == CUDA_SUCCESS)
		memcpy(child->out->watches[child->index], child->notes,
		       WATCHES * sizeof(struct watch));
	return r;
}

static int child_run(struct measurement *out, int index)
{
	static int (*const phases[])(struct child * child) = {run_alone, run_in_turns, run_at_once};
	struct child child = {.out = out, .index = index};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (open_context(&child) < 0)
		return 1;
	for (size_t i = 0; i < ARRAY_LEN(phases); i++) {
		int r;

		meet(&child, (int)i + 1);
		r = phases[i](&child);
		if (r != CUDA_SUCCESS) {
			fail(&child, r, "measuring");
			return 1;
		}
	}
	return 0;
}

/* ---- The parent --------------------------------------------------------------- */

/* Waits for all children; kills them when @r is an error, one fails or takes too long. */
static int wait_children(const pid_t *pids, int count, int r)
{
	int64_t give_up_ns = clock_monotonic_ns() + CHILD_S * NS_PER_SEC;
	const struct timespec look = {0, NS_PER_MS};
	int left = count, status;

	while (left > 0) {
		pid_t pid = waitpid(-1, &status, WNOHANG);

		if (pid > 0) {
			left--;
			if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
				r = -EIO;
		}
		if (r == 0 && clock_monotonic_ns() > give_up_ns) {
			fputs("vgpu-worker: the GPU does not answer: is it busy?\n", stderr);
			r = -ETIMEDOUT;
		}
		for (int i = 0; i < count && r < 0; i++)
			kill(pids[i], SIGKILL);
		if (pid == 0)
			nanosleep(&look, NULL);
	}
	return r;
}

static int measure(struct measurement *out, int contexts)
{
	pid_t pids[CONTEXTS_MAX];
	int started = 0, r = 0;

	memset(out, 0, sizeof(*out));
	out->contexts = contexts;
	fflush(stdout);
	while (started < contexts && r == 0) {
		pids[started] = fork();
		if (pids[started] == 0)
			_exit(child_run(out, started));
		if (pids[started] < 0)
			r = -errno;
		else
			started++;
	}
	return wait_children(pids, started, r);
}

static int compare_double(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double quantile(const double *sorted, size_t count, unsigned int per_mille)
{
	return count ? sorted[(count - 1) * per_mille / 1000] : 0;
}

/* Sorts @values and prints one row; returns the 99th percentile. */
static double print_row(const char *what, double *values, size_t count)
{
	qsort(values, count, sizeof(*values), compare_double);
	printf("%-44s %6zu %8.1f %8.1f %8.1f %8.1f\n", what, count, quantile(values, count, 10),
	       quantile(values, count, 500), quantile(values, count, 990),
	       quantile(values, count, 1000));
	return quantile(values, count, 990);
}

static int compare_span(const void *a, const void *b)
{
	const struct span *x = a, *y = b;

	return (x->from > y->from) - (x->from < y->from);
}

/* All slices that began and ended inside a kernel, by time; returns how many. */
static size_t collect_slices(const struct measurement *from, struct span *slices)
{
	size_t count = 0;

	for (int i = 0; i < from->contexts; i++) {
		for (int k = 0; k < WATCHES; k++) {
			const struct watch *watch = &from->watches[i][k];

			for (uint64_t g = 1; g < min_u64(watch->count, GAPS_MAX); g++)
				slices[count++] =
					(struct span){watch->gaps[g - 1].to, watch->gaps[g].from};
		}
	}
	qsort(slices, count, sizeof(*slices), compare_span);
	return count;
}

struct memory {
	struct span slices[CONTEXTS_MAX * WATCHES * GAPS_MAX];
	double values[CONTEXTS_MAX * WATCHES * GAPS_MAX];
};

/*
 * Prints slices and switches; returns how long a turn takes in the round, in us: a slice's
 * 99th percentile and the median switch after it.
 */
static double print_slices(const struct measurement *from, struct memory *memory)
{
	size_t count = collect_slices(from, memory->slices), switches = 0;
	char what[64];
	double p99_us;

	for (size_t i = 0; i < count; i++)
		memory->values[i] = (double)(memory->slices[i].to - memory->slices[i].from) / 1e3;
	snprintf(what, sizeof(what), "slice, %d busy contexts", from->contexts);
	p99_us = print_row(what, memory->values, count);
	for (size_t i = 1; i < count; i++) {
		int64_t between_ns = (int64_t)(memory->slices[i].from - memory->slices[i - 1].to);

		/* More than a round's slice is no switch: a slice between was not whole. */
		if (between_ns >= 0 && between_ns < NS_PER_MS)
			memory->values[switches++] = (double)between_ns / 1e3;
	}
	snprintf(what, sizeof(what), "from one's slice to the next one's");
	print_row(what, memory->values, switches);
	return p99_us + quantile(memory->values, switches, 500);
}

static void choose_gpu(const char *gpu)
{
	setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID", 1);
	if (gpu)
		setenv("CUDA_VISIBLE_DEVICES", gpu, 1);
	else
		unsetenv("CUDA_VISIBLE_DEVICES");
}

static int report(struct measurement *measurement, struct memory *memory)
{
	double slice_us = 0, handover_us = 0, longest_us;
	int r;

	printf("%-44s %6s %8s %8s %8s %8s\n", "us", "n", "p1", "p50", "p99", "max");
	for (int contexts = 2; contexts <= CONTEXTS_MAX; contexts += 2) {
		r = measure(measurement, contexts);
		if (r < 0)
			return r;
		if (contexts == 2) {
			print_row("empty kernel, the same context again", measurement->alone_us,
			          LAUNCHES);
			print_row("empty kernel, after another context's", measurement->turns_us,
			          LAUNCHES);
			handover_us = quantile(measurement->turns_us, LAUNCHES, 500) -
			              quantile(measurement->alone_us, LAUNCHES, 500);
		}
		longest_us = print_slices(measurement, memory);
		slice_us = longest_us > slice_us ? longest_us : slice_us;
	}
	printf("\nGPU: %s\n", measurement->device);
	printf("slice_us = %lld\n", (long long)(slice_us / SLICE_STEP_US + 1) * SLICE_STEP_US);
	printf("hand-over: %.0f us (the scheduler counts on %d)\n", handover_us,
	       HANDOVER_ASSUMED_US);
	return 0;
}

int calibrate_gpu(const char *gpu)
{
	struct measurement *measurement = mmap(NULL, sizeof(*measurement), PROT_READ | PROT_WRITE,
	                                       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CLEANUP(freep) struct memory *memory = malloc(sizeof(*memory));
	int r;

	if (measurement == MAP_FAILED || !memory)
		return -ENOMEM;
	choose_gpu(gpu);
	r = report(measurement, memory);
	munmap(measurement, sizeof(*measurement));
	return r;
}
