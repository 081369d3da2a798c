/* SPDX-License-Identifier: MIT */
/*
 * The backend on an NVIDIA GPU, through the driver API.
 *
 * One stream takes all jobs in order. A job is launched as soon as it is submitted,
 * between two events that tell when it ended and how long it took; small results are
 * written by the kernels into host memory that is mapped into the GPU, a piece per
 * slot of the queue, so that nothing but the event has to be awaited.
 *
 * Any error that an event reports is one of the context: it is sticky, everything
 * launched later fails with it too, and only a new process has a new context.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/log.h"
#include "base/util.h"
#include "worker/cuda_api.h"
#include "worker/cuda_kernels.h"
#include "worker/residue.h"

enum {
	SLOT_BYTES = 64, /* of mapped host memory */

	SPIN_BLOCK = 256,
	SPIN_FIRST_TURNS = 1024,
	SPIN_CALIBRATION_US = 400, /* well below a time slice of the GPU */
	SPIN_CALIBRATION_RUNS = 12,

	TILE = 64, /* of the sgemm kernels: sides are padded to it */
	MATRIX_SIZES = 5,
	MATRIX_SMALLEST = 256, /* side of size 0; each further one is twice that */

	/* In the page around address 0, which no GPU maps. */
	FAULT_ADDRESS = 16,
};

_Static_assert(SLOT_BYTES >= 4 * OPERATION_RESULTS, "a job's results fit its slot");
_Static_assert(MATRIX_SMALLEST << (MATRIX_SIZES - 1) == VGPU_SGEMM_MAX_N, "all sizes fit");

struct slot {
	void *before;
	void *after;
	uint32_t *results;    /* on the host */
	uint64_t results_gpu; /* the same memory, as kernels address it */
};

/* Device memory of a few words that live as long as the context. */
enum scratch {
	SCRATCH_SUM = 0,  /* u64: checksum in the making */
	SCRATCH_FLAG = 8, /* u32: always 0 */
	SCRATCH_BYTES = 16,
};

struct cuda {
	struct backend base;
	struct cuda_api api;
	void *context; /* NULL: not created */
	void *stream;
	void *functions[CUDA_KERNEL_COUNT];
	struct slot slots[WORKER_QUEUE_JOBS];
	uint64_t scratch;
	/* A, B and C in one piece for each size, 0 until used, at most 256 MiB together. */
	uint64_t matrices[MATRIX_SIZES];
	uint64_t used_bytes;
	bool blocking;
	unsigned int spin_grid;
	double spin_turns_per_us; /* 0: not calibrated */
};

static struct cuda *to_cuda(struct backend *backend)
{
	return CONTAINER_OF(backend, struct cuda, base);
}

struct shape {
	unsigned int grid_x, grid_y, block_x, block_y;
};

static int launch(struct cuda *cuda, enum cuda_kernel kernel, struct shape shape, void **params)
{
	return cuda->api.launch(cuda->functions[kernel], shape.grid_x, shape.grid_y, 1,
	                        shape.block_x, shape.block_y, 1, 0, cuda->stream, params, NULL);
}

static const struct shape one_thread = {1, 1, 1, 1};

static int launch_add(struct cuda *cuda, const struct job *job)
{
	uint32_t a = job->params[0], b = job->params[1];
	void *params[] = {&cuda->slots[job->slot].results_gpu, &a, &b};

	return launch(cuda, CUDA_KERNEL_ADD, one_thread, params);
}

static int launch_spin_turns(struct cuda *cuda, unsigned int slot, uint64_t turns)
{
	const struct shape whole_gpu = {cuda->spin_grid, 1, SPIN_BLOCK, 1};
	void *params[] = {&cuda->slots[slot].results_gpu, &turns};

	return launch(cuda, CUDA_KERNEL_SPIN, whole_gpu, params);
}

static int launch_spin(struct cuda *cuda, const struct job *job)
{
	return launch_spin_turns(cuda, job->slot,
	                         (uint64_t)(job->params[0] * cuda->spin_turns_per_us));
}

static int launch_fault(struct cuda *cuda, const struct job *job UNUSED)
{
	uint64_t address = FAULT_ADDRESS;
	void *params[] = {&address};

	return launch(cuda, CUDA_KERNEL_FAULT, one_thread, params);
}

static int launch_hang(struct cuda *cuda, const struct job *job UNUSED)
{
	uint64_t flag = cuda->scratch + SCRATCH_FLAG;
	void *params[] = {&flag};

	return launch(cuda, CUDA_KERNEL_HANG, one_thread, params);
}

/* Finds or makes room for three matrices of @side; *@out is the first. */
static int find_matrices(struct cuda *cuda, uint64_t *out, uint32_t side, uint64_t *bytes_each)
{
	unsigned int size = 0;
	int r;

	while ((uint32_t)MATRIX_SMALLEST << size < side)
		size++;
	*bytes_each = UINT64_C(4) * (MATRIX_SMALLEST << size) * (MATRIX_SMALLEST << size);
	if (!cuda->matrices[size]) {
		r = cuda->api.memory_alloc(&cuda->matrices[size], 3 * *bytes_each);
		if (r != CUDA_SUCCESS) {
			cuda->matrices[size] = 0;
			return r;
		}
		cuda->used_bytes += 3 * *bytes_each;
		cuda->base.info.device.used_mib = (uint32_t)((cuda->used_bytes + 0xfffff) >> 20);
	}
	*out = cuda->matrices[size];
	return CUDA_SUCCESS;
}

static int launch_sgemm(struct cuda *cuda, const struct job *job)
{
	uint32_t n = job->params[0], seed = job->params[1];
	uint32_t ld = (n + TILE - 1) / TILE * TILE;
	uint64_t out = cuda->slots[job->slot].results_gpu, sum = cuda->scratch + SCRATCH_SUM;
	uint64_t a, b, c, bytes_each;
	int r;

	r = find_matrices(cuda, &a, ld, &bytes_each);
	if (r != CUDA_SUCCESS)
		return r;
	b = a + bytes_each;
	c = b + bytes_each;

	const struct {
		enum cuda_kernel kernel;
		struct shape shape;
		void *params[6];
	} steps[] = {
		{CUDA_KERNEL_SGEMM_FILL,
	         {ld / TILE, ld / 4, TILE, 4},
	         {&a, &b, &sum, &n, &ld, &seed}},
		{CUDA_KERNEL_SGEMM_MULTIPLY, {ld / TILE, ld / TILE, 256, 1}, {&c, &a, &b, &ld}},
		{CUDA_KERNEL_SGEMM_SUM, {n, 1, 64, 1}, {&c, &sum, &n, &ld, &seed}},
		{CUDA_KERNEL_SGEMM_COLLECT,
	         {1, 1, OPERATION_RESULTS, 1},
	         {&out, &c, &sum, &n, &ld, &seed}},
	};

	for (size_t i = 0; i < ARRAY_LEN(steps) && r == CUDA_SUCCESS; i++)
		r = launch(cuda, steps[i].kernel, steps[i].shape, (void **)steps[i].params);
	return r;
}

/* By the driver's own calls, which are over when they return. */
static int launch_residue(struct cuda *cuda, const struct job *job)
{
	struct residue residue;
	int r = residue_of_gpu(&residue, &cuda->api, job->params[0] == 1,
	                       (size_t)job->params[1] << 20);

	if (r == CUDA_SUCCESS)
		residue_to_results(&residue, cuda->slots[job->slot].results);
	return r;
}

static int (*const launchers[OPERATION_COUNT])(struct cuda *cuda, const struct job *job) = {
	[OPERATION_ADD] = launch_add,     [OPERATION_SPIN] = launch_spin,
	[OPERATION_FAULT] = launch_fault, [OPERATION_HANG] = launch_hang,
	[OPERATION_SGEMM] = launch_sgemm, [OPERATION_RESIDUE] = launch_residue,
};

static int cuda_submit(struct backend *backend, struct job *job)
{
	struct cuda *cuda = to_cuda(backend);
	struct slot *slot = &cuda->slots[job->slot];
	int r, alive;

	r = cuda->api.event_record(slot->before, cuda->stream);
	if (r == CUDA_SUCCESS)
		r = launchers[job->operation->id](cuda, job);
	if (r == CUDA_SUCCESS)
		r = cuda->api.event_record(slot->after, cuda->stream);
	if (r == CUDA_SUCCESS)
		return 0;
	job->code = VGPU_CODE_CUDA;
	job->detail = (uint32_t)r;
	/* An error of the launch itself concerns this job only, unless the stream is dead. */
	alive = cuda->api.stream_query(cuda->stream);
	if (alive != CUDA_SUCCESS && alive != CUDA_ERROR_NOT_READY)
		return BACKEND_E_LOST;
	job->ended = true;
	return 0;
}

static int cuda_poll(struct backend *backend, struct job *job)
{
	struct cuda *cuda = to_cuda(backend);
	const struct slot *slot = &cuda->slots[job->slot];
	float ms = 0;
	int r;

	r = cuda->blocking ? cuda->api.event_synchronize(slot->after)
	                   : cuda->api.event_query(slot->after);
	if (r == CUDA_ERROR_NOT_READY)
		return BACKEND_E_RUNNING;
	if (r == CUDA_SUCCESS)
		r = cuda->api.event_elapsed(&ms, slot->before, slot->after);
	if (r != CUDA_SUCCESS) {
		job->code = VGPU_CODE_CUDA;
		job->detail = (uint32_t)r;
		return BACKEND_E_LOST;
	}
	memcpy(job->results, slot->results, sizeof(job->results));
	job->result_count = job->operation->result_count;
	job->gpu_time_ns = (uint64_t)(ms * 1e6);
	job->ended = true;
	return 0;
}

/* ---- Start -------------------------------------------------------------- */

static void format_uuid(char *out, size_t bytes, const struct cuda_uuid *uuid)
{
	int used = snprintf(out, bytes, "GPU-");

	for (unsigned int i = 0; i < sizeof(uuid->bytes); i++)
		used += snprintf(out + used, bytes - (size_t)used, "%s%02x",
		                 i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid->bytes[i]);
}

/* Is device @device, the @index-th, the one that @wanted names? Fills its uuid. */
static int match_device(struct cuda *cuda, int device, int index, const char *wanted, bool *out)
{
	struct cuda_uuid uuid;
	char number[16];
	int r;

	r = cuda->api.device_uuid(&uuid, device);
	if (r != CUDA_SUCCESS)
		return r;
	format_uuid(cuda->base.info.uuid, sizeof(cuda->base.info.uuid), &uuid);
	snprintf(number, sizeof(number), "%d", index);
	*out = !wanted || strcmp(wanted, number) == 0 ||
	       strcasecmp(wanted, cuda->base.info.uuid) == 0;
	return CUDA_SUCCESS;
}

static int find_device(struct cuda *cuda, int *out, const char *wanted,
                       struct backend_failure *failure)
{
	bool found = false;
	int count = 0, r;

	r = cuda->api.device_count(&count);
	if (r != CUDA_SUCCESS)
		return cuda_api_fail(&cuda->api, failure, r, "cuDeviceGetCount");
	for (int i = 0; i < count; i++) {
		r = cuda->api.device_get(out, i);
		if (r == CUDA_SUCCESS)
			r = match_device(cuda, *out, i, wanted, &found);
		if (r != CUDA_SUCCESS)
			return cuda_api_fail(&cuda->api, failure, r, "looking at the GPUs");
		if (found)
			return 0;
	}
	return backend_fail(failure, -ENODEV, VGPU_CODE_UNAVAILABLE, ENODEV,
	                    "no GPU \"%s\" among the %d of this system: see nvidia-smi -L for "
	                    "indexes and UUIDs",
	                    wanted ? wanted : "0", count);
}

static int describe_device(struct cuda *cuda, int device, struct backend_failure *failure)
{
	struct backend_info *info = &cuda->base.info;
	int major = 0, minor = 0, multiprocessors = 0, threads = 0, version = 0;
	const struct {
		int attribute;
		int *value;
	} attributes[] = {
		{CUDA_ATTRIBUTE_CAPABILITY_MAJOR, &major},
		{CUDA_ATTRIBUTE_CAPABILITY_MINOR, &minor},
		{CUDA_ATTRIBUTE_MULTIPROCESSORS, &multiprocessors},
		{CUDA_ATTRIBUTE_THREADS_PER_MULTIPROCESSOR, &threads},
	};
	size_t bytes = 0;
	int r;

	r = cuda->api.device_name(info->device.name, sizeof(info->device.name), device);
	if (r == CUDA_SUCCESS)
		r = cuda->api.device_memory(&bytes, device);
	if (r == CUDA_SUCCESS)
		r = cuda->api.driver_version(&version);
	for (size_t i = 0; i < ARRAY_LEN(attributes) && r == CUDA_SUCCESS; i++)
		r = cuda->api.device_attribute(attributes[i].value, attributes[i].attribute,
		                               device);
	if (r != CUDA_SUCCESS)
		return cuda_api_fail(&cuda->api, failure, r, "asking for the GPU's properties");
	info->device.backend = 1;
	info->device.capability = (uint32_t)major << 16 | (uint32_t)minor;
	info->device.multiprocessors = (uint32_t)multiprocessors;
	info->device.total_mib = (uint32_t)(bytes >> 20);
	snprintf(info->driver, sizeof(info->driver), "CUDA %d.%d", version / 1000,
	         version % 1000 / 10);
	cuda->spin_grid = (unsigned int)(multiprocessors * max_i64(threads / SPIN_BLOCK, 1));
	return 0;
}

static int create_slots(struct cuda *cuda)
{
	const unsigned int flags = cuda->blocking ? CUDA_EVENT_BLOCKING : 0;
	uint64_t memory_gpu;
	void *memory;
	int r;

	r = cuda->api.host_alloc(&memory, WORKER_QUEUE_JOBS * SLOT_BYTES, CUDA_HOST_ALLOC_MAPPED);
	if (r == CUDA_SUCCESS)
		r = cuda->api.host_address(&memory_gpu, memory, 0);
	for (size_t i = 0; i < WORKER_QUEUE_JOBS && r == CUDA_SUCCESS; i++) {
		struct slot *slot = &cuda->slots[i];

		slot->results = (uint32_t *)memory + i * SLOT_BYTES / sizeof(uint32_t);
		slot->results_gpu = memory_gpu + i * SLOT_BYTES;
		r = cuda->api.event_create(&slot->before, flags);
		if (r == CUDA_SUCCESS)
			r = cuda->api.event_create(&slot->after, flags);
	}
	return r;
}

/* Runs @turns of the spin kernel and waits for the end; slot 0 must be free. */
static int time_spin(struct cuda *cuda, uint64_t turns, double *us)
{
	struct slot *slot = &cuda->slots[0];
	float ms = 0;
	int r;

	r = cuda->api.event_record(slot->before, cuda->stream);
	if (r == CUDA_SUCCESS)
		r = launch_spin_turns(cuda, 0, turns);
	if (r == CUDA_SUCCESS)
		r = cuda->api.event_record(slot->after, cuda->stream);
	if (r == CUDA_SUCCESS)
		r = cuda->api.event_synchronize(slot->after);
	if (r == CUDA_SUCCESS)
		r = cuda->api.event_elapsed(&ms, slot->before, slot->after);
	*us = ms * 1e3;
	return r;
}

/*
 * How much arithmetic is a microsecond? Other contexts' slices only ever make a run
 * longer, so the shortest of several runs that fit a slice is the true one.
 */
static int calibrate_spin(struct cuda *cuda)
{
	uint64_t turns = SPIN_FIRST_TURNS;
	double us = 0, shortest_us;
	int r;

	r = time_spin(cuda, turns, &us);
	while (r == CUDA_SUCCESS && us < SPIN_CALIBRATION_US) {
		turns *= 2;
		r = time_spin(cuda, turns, &us);
	}
	shortest_us = us;
	for (int i = 0; i < SPIN_CALIBRATION_RUNS && r == CUDA_SUCCESS; i++) {
		r = time_spin(cuda, turns, &us);
		if (us < shortest_us)
			shortest_us = us;
	}
	if (r == CUDA_SUCCESS && shortest_us > 0)
		cuda->spin_turns_per_us = (double)turns / shortest_us;
	log_debug("spin: %.1f turns per us", cuda->spin_turns_per_us);
	return r;
}

/*
 * Everything that makes the driver open files or start threads has to happen here,
 * before the sandbox closes: hence the launch at the end.
 */
static int prepare_context(struct cuda *cuda, int device, const struct backend_options *options,
                           struct backend_failure *failure)
{
	int r;

	r = cuda->api.context_create(
		&cuda->context,
		CUDA_CONTEXT_MAP_HOST |
			(options->blocking ? CUDA_CONTEXT_BLOCKING : CUDA_CONTEXT_YIELD),
		device);
	if (r != CUDA_SUCCESS) {
		cuda->context = NULL;
		return cuda_api_fail(&cuda->api, failure, r, "cuCtxCreate");
	}
	r = cuda_kernels_load(cuda->functions, &cuda->api, failure);
	if (r < 0)
		return r;
	r = cuda->api.stream_create(&cuda->stream, CUDA_STREAM_NON_BLOCKING);
	if (r == CUDA_SUCCESS)
		r = create_slots(cuda);
	if (r == CUDA_SUCCESS)
		r = cuda->api.memory_alloc(&cuda->scratch, SCRATCH_BYTES);
	if (r == CUDA_SUCCESS)
		r = cuda->api.memory_fill(cuda->scratch, 0, SCRATCH_BYTES);
	if (r == CUDA_SUCCESS)
		r = launch(cuda, CUDA_KERNEL_NOP, one_thread, NULL);
	if (r == CUDA_SUCCESS)
		r = cuda->api.context_synchronize();
	if (r == CUDA_SUCCESS && options->test_ops)
		r = calibrate_spin(cuda);
	return r == CUDA_SUCCESS ? 0 : cuda_api_fail(&cuda->api, failure, r, "first launch");
}

static void set_environment(void)
{
	/* --gpu alone decides, with the same numbers as nvidia-smi. */
	unsetenv("CUDA_VISIBLE_DEVICES");
	setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID", 1);
	/* No files behind the sandbox, and all loading before it. */
	setenv("CUDA_CACHE_DISABLE", "1", 1);
	setenv("CUDA_MODULE_LOADING", "EAGER", 1);
}

static void cuda_stop(struct backend *backend)
{
	struct cuda *cuda = to_cuda(backend);

	/* Modules, stream, events and memory go with it. */
	if (cuda->context)
		cuda->api.context_destroy(cuda->context);
	free(cuda);
}

static int cuda_start(struct backend **out, const struct backend_options *options,
                      struct backend_failure *failure)
{
	struct cuda *cuda = calloc(1, sizeof(*cuda));
	int device = 0, r;

	if (!cuda)
		return backend_fail(failure, -ENOMEM, VGPU_CODE_UNAVAILABLE, ENOMEM,
		                    "out of memory");
	cuda->base.ops = &cuda_backend;
	cuda->blocking = options->blocking;
	set_environment();
	r = cuda_api_load(&cuda->api, failure);
	if (r < 0)
		goto fail;
	r = cuda->api.init(0);
	if (r != CUDA_SUCCESS) {
		r = cuda_api_fail(&cuda->api, failure, r, "cuInit");
		goto fail;
	}
	r = find_device(cuda, &device, options->gpu, failure);
	if (r == 0)
		r = describe_device(cuda, device, failure);
	if (r == 0)
		r = prepare_context(cuda, device, options, failure);
	if (r < 0)
		goto fail;
	*out = &cuda->base;
	return 0;
fail:
	cuda_stop(&cuda->base);
	return r;
}

const struct backend_ops cuda_backend = {
	.name = "cuda",
	.linger_ns = 100 * 1000,
	.start = cuda_start,
	.stop = cuda_stop,
	.submit = cuda_submit,
	.poll = cuda_poll,
};
