/* SPDX-License-Identifier: MIT */
/*
 * A libcuda.so.1 without a GPU, for tests of everything above it.
 *
 * It knows the project's kernels by name and does on the CPU what they do, so that
 * right answers come out; whether the PTX computes the same is another test's
 * question. GPU addresses are host addresses. The work is done at the launch; when it
 * counts as finished follows from a clock that every launch pushes on, so that jobs
 * queue, overlap and take time as on a device.
 *
 * The environment tells it to misbehave:
 *   VGPU_STANDIN_DEVICES=N        how many GPUs there are (1)
 *   VGPU_STANDIN_INIT_ERROR=E     cuInit fails with E
 *   VGPU_STANDIN_INIT_HANG=1      cuInit never returns
 *   VGPU_STANDIN_CONTEXT_ERROR=E  cuCtxCreate fails with E
 *   VGPU_STANDIN_MEMORY_MIB=N     device memory to be had (8192)
 *   VGPU_STANDIN_KERNEL=NAME      each launch of this kernel
 *   VGPU_STANDIN_AFTER=N          but for the first N
 *   VGPU_STANDIN_THEN=...         does: a number: fails with that error; "die": ends the
 *                                 process; "escape": a thread from before opens a file;
 *                                 "thread": makes a thread
 *   VGPU_STANDIN_TRACE=1          tells every launch on standard error: name, grid,
 *                                 block, parameters
 * An error of 214, of 220, or of 700 and more, but for 701, stays with the context, as on
 * a device.
 * With CUDA_VISIBLE_DEVICES set there are no devices at all: the worker has to
 * clear it.
 */
#include "cuda.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/util.h"
#include "vgpu/sgemm.h"

enum {
	SUCCESS = 0,
	INVALID_VALUE = 1,
	OUT_OF_MEMORY = 2,
	NO_DEVICE = 100,
	ECC_UNCORRECTABLE = 214,
	INVALID_PTX = 218,
	NVLINK_UNCORRECTABLE = 220,
	OPERATING_SYSTEM = 304,
	NOT_FOUND = 500,
	NOT_READY = 600,
	ILLEGAL_ADDRESS = 700,
	OUT_OF_RESOURCES = 701,

	SHORT_NS = 2000,    /* a small kernel */
	FAULT_NS = 5000000, /* until the fault is noticed */
	DEFAULT_MEMORY_MIB = 8192,
	MULTIPROCESSORS = 4,
	BLOCKS_MAX = 32, /* allocations of all kinds */
};

#define NEVER_NS INT64_MAX

struct event {
	int64_t time_ns; /* when the stream gets there */
};

/* What a kernel does, with how many threads; returns how long it takes. */
struct kernel {
	const char *name;
	int64_t (*run)(void **params);
	const char *params; /* a letter each: p is 64 bits wide, u 32 */
};

static struct {
	int64_t busy_until_ns;
	int64_t fault_ns; /* the context is dead from then on; NEVER_NS: alive */
	int fault_error;
	uint64_t memory_left;
	void *blocks[BLOCKS_MAX];
	unsigned int block_count;
	unsigned long launches; /* of the kernel that misbehaves */
	pthread_t helper;       /* from the creation of the context to its end */
	sem_t helper_asked, helper_answered;
	bool helper_ends, helper_opened;
} gpu = {.fault_ns = NEVER_NS};

static long setting(const char *name, long otherwise)
{
	const char *text = getenv(name);

	return text ? atol(text) : otherwise;
}

/* The error that a dead context answers everything with, or 0. */
static int context_error(void)
{
	return clock_monotonic_ns() >= gpu.fault_ns ? gpu.fault_error : SUCCESS;
}

/* ---- Kernels ------------------------------------------------------------ */

#define PARAM(type, index)         (*(type *)params[index])
#define PARAM_POINTER(type, index) ((type *)(uintptr_t)PARAM(uint64_t, index))

static int64_t run_nop(void **params UNUSED)
{
	return SHORT_NS;
}

static int64_t run_add(void **params)
{
	*PARAM_POINTER(uint32_t, 0) = PARAM(uint32_t, 1) + PARAM(uint32_t, 2);
	return SHORT_NS;
}

static int64_t run_spin(void **params)
{
	return SHORT_NS + PARAM(int64_t, 1);
}

static int64_t run_fault(void **params UNUSED)
{
	gpu.fault_error = ILLEGAL_ADDRESS;
	gpu.fault_ns = max_i64(gpu.busy_until_ns, clock_monotonic_ns()) + FAULT_NS;
	return 2 * FAULT_NS;
}

static int64_t run_hang(void **params)
{
	return *PARAM_POINTER(const uint32_t, 0) ? SHORT_NS : NEVER_NS;
}

static int64_t run_sgemm_fill(void **params)
{
	float *a = PARAM_POINTER(float, 0), *b = PARAM_POINTER(float, 1);
	const uint32_t n = PARAM(uint32_t, 3), ld = PARAM(uint32_t, 4), seed = PARAM(uint32_t, 5);

	*PARAM_POINTER(uint64_t, 2) = 0;
	memset(a, 0, sizeof(*a) * ld * ld);
	memset(b, 0, sizeof(*b) * ld * ld);
	for (uint32_t i = 0; i < n; i++) {
		for (uint32_t j = 0; j < n; j++) {
			a[(size_t)i * ld + j] = (float)vgpu_sgemm_a(seed, i * n + j);
			b[(size_t)i * ld + j] = (float)vgpu_sgemm_b(seed, i * n + j);
		}
	}
	return SHORT_NS;
}

static int64_t run_sgemm_multiply(void **params)
{
	float *c = PARAM_POINTER(float, 0);
	const float *a = PARAM_POINTER(const float, 1), *b = PARAM_POINTER(const float, 2);
	const size_t ld = PARAM(uint32_t, 3);

	memset(c, 0, sizeof(*c) * ld * ld);
	for (size_t i = 0; i < ld; i++) {
		for (size_t k = 0; k < ld; k++) {
			for (size_t j = 0; j < ld; j++)
				c[i * ld + j] += a[i * ld + k] * b[k * ld + j];
		}
	}
	return SHORT_NS;
}

static int64_t run_sgemm_sum(void **params)
{
	const float *c = PARAM_POINTER(const float, 0);
	uint64_t *sum = PARAM_POINTER(uint64_t, 1);
	const uint32_t n = PARAM(uint32_t, 2), ld = PARAM(uint32_t, 3), seed = PARAM(uint32_t, 4);

	for (uint32_t i = 0; i < n; i++) {
		for (uint32_t j = 0; j < n; j++)
			*sum += (uint64_t)(int64_t)c[(size_t)i * ld + j] *
			        vgpu_sgemm_row_weight(seed, i) * vgpu_sgemm_column_weight(seed, j);
	}
	return SHORT_NS;
}

static int64_t run_sgemm_collect(void **params)
{
	uint32_t *out = PARAM_POINTER(uint32_t, 0);
	const float *c = PARAM_POINTER(const float, 1);
	const uint64_t sum = *PARAM_POINTER(const uint64_t, 2);
	const uint32_t n = PARAM(uint32_t, 3), ld = PARAM(uint32_t, 4), seed = PARAM(uint32_t, 5);

	out[0] = (uint32_t)sum;
	out[1] = (uint32_t)(sum >> 32);
	for (uint32_t k = 0; k < VGPU_SGEMM_SAMPLES; k++) {
		uint32_t index = vgpu_sgemm_sample(seed, n, k);

		memcpy(&out[2 + k], &c[(size_t)(index / n) * ld + index % n], sizeof(*out));
	}
	return SHORT_NS;
}

/* Two pauses of two milliseconds, with a slice of two between them. */
static int64_t run_watch(void **params)
{
	uint64_t *out = PARAM_POINTER(uint64_t, 0);

	out[0] = 2;
	for (uint64_t i = 0; i < 4; i++)
		out[1 + i] = (uint64_t)clock_monotonic_ns() + 2 * i * NS_PER_MS;
	return SHORT_NS;
}

static const struct kernel kernels[] = {
	{"vgpu_nop", run_nop, ""},
	{"vgpu_add", run_add, "puu"},
	{"vgpu_spin", run_spin, "pp"},
	{"vgpu_fault", run_fault, "p"},
	{"vgpu_hang", run_hang, "p"},
	{"vgpu_sgemm_fill", run_sgemm_fill, "pppuuu"},
	{"vgpu_sgemm_multiply", run_sgemm_multiply, "pppu"},
	{"vgpu_sgemm_sum", run_sgemm_sum, "ppuuu"},
	{"vgpu_sgemm_collect", run_sgemm_collect, "pppuuu"},
	{"vgpu_watch", run_watch, "pppp"},
};

/* ---- Library and devices ------------------------------------------------ */

int cuInit(unsigned int flags UNUSED)
{
	while (setting("VGPU_STANDIN_INIT_HANGS", 0))
		pause();
	while (setting("VGPU_STANDIN_INIT_HANG", 0))
		pause();
	gpu.memory_left = (uint64_t)setting("VGPU_STANDIN_MEMORY_MIB", DEFAULT_MEMORY_MIB) << 20;
	return (int)setting("VGPU_STANDIN_INIT_ERROR", SUCCESS);
}

int cuDriverGetVersion(int *version)
{
	*version = 13000;
	return SUCCESS;
}

static const struct {
	int error;
	const char *name;
	const char *text;
} errors[] = {
	{INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
	{OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
	{NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
	{INVALID_PTX, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"},
	{OPERATING_SYSTEM, "CUDA_ERROR_OPERATING_SYSTEM", "OS call failed"},
	{NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
	{ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access"},
	{OUT_OF_RESOURCES, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources"},
};

int cuGetErrorName(int error, const char **name)
{
	for (size_t i = 0; i < ARRAY_LEN(errors); i++) {
		if (errors[i].error == error) {
			*name = errors[i].name;
			return SUCCESS;
		}
	}
	return INVALID_VALUE;
}

int cuGetErrorString(int error, const char **text)
{
	for (size_t i = 0; i < ARRAY_LEN(errors); i++) {
		if (errors[i].error == error) {
			*text = errors[i].text;
			return SUCCESS;
		}
	}
	return INVALID_VALUE;
}

int cuDeviceGetCount(int *count)
{
	*count = getenv("CUDA_VISIBLE_DEVICES") ? 0 : (int)setting("VGPU_STANDIN_DEVICES", 1);
	return SUCCESS;
}

int cuDeviceGet(int *device, int index)
{
	*device = index;
	return SUCCESS;
}

int cuDeviceGetName(char *name, int bytes, int device)
{
	snprintf(name, (size_t)bytes, "Stand-in GPU %d", device);
	return SUCCESS;
}

/* GPU-5747414e-4400-0000-0000-00000000000N: N is the index. */
int cuDeviceGetUuid(uint8_t uuid[16], int device)
{
	memset(uuid, 0, 16);
	memcpy(uuid, "WGAND", 5);
	uuid[15] = (uint8_t)device;
	return SUCCESS;
}

int cuDeviceTotalMem_v2(size_t *bytes, int device UNUSED)
{
	*bytes = (size_t)DEFAULT_MEMORY_MIB << 20;
	return SUCCESS;
}

int cuDeviceGetAttribute(int *value, int attribute, int device UNUSED)
{
	static const struct {
		int attribute;
		int value;
	} attributes[] = {
		{16, MULTIPROCESSORS},
		{39, 2048},
		{75, 9},
		{76, 0},
	};

	for (size_t i = 0; i < ARRAY_LEN(attributes); i++) {
		if (attributes[i].attribute == attribute) {
			*value = attributes[i].value;
			return SUCCESS;
		}
	}
	return INVALID_VALUE;
}

/* ---- Context ------------------------------------------------------------ */

/* Like the driver's threads it is there before the sandbox is. */
static void *helper_main(void *unused UNUSED)
{
	int fd;

	for (;;) {
		while (sem_wait(&gpu.helper_asked) < 0)
			;
		if (gpu.helper_ends)
			return NULL;
		fd = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
		gpu.helper_opened = fd >= 0;
		if (fd >= 0)
			close(fd);
		sem_post(&gpu.helper_answered);
	}
}

static void *late_main(void *unused)
{
	return unused;
}

int cuCtxCreate_v2(void **context, unsigned int flags UNUSED, int device UNUSED)
{
	int error = (int)setting("VGPU_STANDIN_CONTEXT_ERROR", SUCCESS);

	if (error)
		return error;
	sem_init(&gpu.helper_asked, 0, 0);
	sem_init(&gpu.helper_answered, 0, 0);
	if (pthread_create(&gpu.helper, NULL, helper_main, NULL) != 0)
		return OPERATING_SYSTEM;
	*context = &gpu;
	return SUCCESS;
}

static void wait_until(int64_t time_ns)
{
	const struct timespec until = {time_ns / NS_PER_SEC, time_ns % NS_PER_SEC};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
		;
}

/* Like the driver's it waits for what runs. */
int cuCtxDestroy_v2(void *context)
{
	if (context != &gpu)
		return INVALID_VALUE;
	wait_until(min_i64(gpu.busy_until_ns, gpu.fault_ns));
	gpu.helper_ends = true;
	sem_post(&gpu.helper_asked);
	pthread_join(gpu.helper, NULL);
	while (gpu.block_count)
		free(gpu.blocks[--gpu.block_count]);
	return SUCCESS;
}

int cuCtxSynchronize(void)
{
	wait_until(min_i64(gpu.busy_until_ns, gpu.fault_ns));
	return context_error();
}

/* ---- Modules and memory ------------------------------------------------- */

int cuModuleLoadData(const char **module, const char *image)
{
	if (!strstr(image, ".version") || !strstr(image, ".target"))
		return INVALID_PTX;
	*module = image;
	return context_error();
}

int cuModuleGetFunction(const struct kernel **function, const char *module, const char *name)
{
	char entry[96];

	snprintf(entry, sizeof(entry), ".entry %s(", name);
	if (!strstr(module, entry))
		return NOT_FOUND;
	for (size_t i = 0; i < ARRAY_LEN(kernels); i++) {
		if (strcmp(kernels[i].name, name) == 0) {
			*function = &kernels[i];
			return context_error();
		}
	}
	return NOT_FOUND;
}

static void *new_block(size_t bytes)
{
	void *block = gpu.block_count < BLOCKS_MAX ? malloc(bytes) : NULL;

	if (block)
		gpu.blocks[gpu.block_count++] = block;
	return block;
}

int cuMemAlloc_v2(uint64_t *address, size_t bytes)
{
	void *block = bytes <= gpu.memory_left ? new_block(bytes) : NULL;

	if (!block)
		return OUT_OF_MEMORY;
	/* Fresh memory is zeroed, or full of what another process has left. */
	memset(block, (int)setting("VGPU_STANDIN_RESIDUE_BYTE", 0), bytes);
	gpu.memory_left -= bytes;
	*address = (uint64_t)(uintptr_t)block;
	return context_error();
}

int cuMemsetD8_v2(uint64_t address, unsigned char value, size_t bytes)
{
	memset((void *)(uintptr_t)address, value, bytes);
	return context_error();
}

int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t bytes)
{
	memcpy(to, (const void *)(uintptr_t)from, bytes);
	return context_error();
}

int cuMemHostAlloc(void **memory, size_t bytes, unsigned int flags UNUSED)
{
	*memory = new_block(bytes);
	return *memory ? context_error() : OUT_OF_MEMORY;
}

int cuMemHostGetDevicePointer_v2(uint64_t *address, void *memory, unsigned int flags UNUSED)
{
	*address = (uint64_t)(uintptr_t)memory;
	return context_error();
}

/* ---- Stream and events -------------------------------------------------- */

int cuStreamCreate(void **stream, unsigned int flags UNUSED)
{
	*stream = &gpu;
	return context_error();
}

int cuStreamQuery(void *stream UNUSED)
{
	int error = context_error();

	if (error)
		return error;
	return clock_monotonic_ns() < gpu.busy_until_ns ? NOT_READY : SUCCESS;
}

int cuEventCreate(struct event **event, unsigned int flags UNUSED)
{
	*event = new_block(sizeof(**event));
	return *event ? context_error() : OUT_OF_MEMORY;
}

int cuEventRecord(struct event *event, void *stream UNUSED)
{
	event->time_ns = max_i64(clock_monotonic_ns(), gpu.busy_until_ns);
	return context_error();
}

int cuEventQuery(struct event *event)
{
	int error = context_error();

	if (error)
		return error;
	return clock_monotonic_ns() < event->time_ns ? NOT_READY : SUCCESS;
}

int cuEventSynchronize(struct event *event)
{
	wait_until(min_i64(event->time_ns, gpu.fault_ns));
	return cuEventQuery(event);
}

int cuEventElapsedTime(float *ms, struct event *from, struct event *to)
{
	*ms = (float)(to->time_ns - from->time_ns) / 1e6f;
	return context_error();
}

/* Whether the context is lost with this error. */
static bool is_sticky(int error)
{
	return error == ECC_UNCORRECTABLE || error == NVLINK_UNCORRECTABLE ||
	       (error >= ILLEGAL_ADDRESS && error != OUT_OF_RESOURCES);
}

/* What the environment asks of this launch; 0 for nothing. */
static int misbehave(const struct kernel *kernel)
{
	const char *name = getenv("VGPU_STANDIN_KERNEL"), *then = getenv("VGPU_STANDIN_THEN");
	pthread_t late;
	int error;

	if (!name || !then || strcmp(name, kernel->name) != 0)
		return SUCCESS;
	if (gpu.launches++ < (unsigned long)setting("VGPU_STANDIN_AFTER", 0))
		return SUCCESS;
	if (strcmp(then, "die") == 0)
		abort();
	if (strcmp(then, "escape") == 0) {
		sem_post(&gpu.helper_asked);
		while (sem_wait(&gpu.helper_answered) < 0)
			;
		return gpu.helper_opened ? OPERATING_SYSTEM : SUCCESS;
	}
	if (strcmp(then, "thread") == 0) {
		if (pthread_create(&late, NULL, late_main, NULL) != 0)
			return OPERATING_SYSTEM;
		return pthread_join(late, NULL) == 0 ? SUCCESS : OPERATING_SYSTEM;
	}
	error = atoi(then);
	if (is_sticky(error)) {
		gpu.fault_error = error;
		gpu.fault_ns = clock_monotonic_ns();
	}
	return error;
}

static void trace(const struct kernel *kernel, const unsigned int shape[6], void **params)
{
	char line[512];
	int used;

	used = snprintf(line, sizeof(line), "standin: launch %s", kernel->name);
	for (size_t i = 0; i < 6; i++)
		used += snprintf(line + used, sizeof(line) - (size_t)used, " %u", shape[i]);
	for (size_t i = 0; kernel->params[i]; i++)
		used += snprintf(line + used, sizeof(line) - (size_t)used, " %llu",
		                 kernel->params[i] == 'p' ? (unsigned long long)PARAM(uint64_t, i)
		                                          : (unsigned long long)PARAM(uint32_t, i));
	dprintf(STDERR_FILENO, "%s\n", line);
}

int cuLaunchKernel(const struct kernel *kernel, unsigned int grid_x, unsigned int grid_y,
                   unsigned int grid_z, unsigned int block_x, unsigned int block_y,
                   unsigned int block_z, unsigned int shared_bytes UNUSED, void *stream UNUSED,
                   void **params, void **extra UNUSED)
{
	const unsigned int shape[] = {grid_x, grid_y, grid_z, block_x, block_y, block_z};
	int64_t duration_ns;
	int error = context_error();

	if (error == SUCCESS)
		error = misbehave(kernel);
	if (error)
		return error;
	if (!grid_x || !grid_y || !grid_z || block_x * block_y * block_z == 0 ||
	    block_x * block_y * block_z > 1024)
		return INVALID_VALUE;
	if (setting("VGPU_STANDIN_TRACE", 0))
		trace(kernel, shape, params);
	duration_ns = kernel->run(params);
	gpu.busy_until_ns = max_i64(gpu.busy_until_ns, clock_monotonic_ns());
	gpu.busy_until_ns = duration_ns < NEVER_NS - gpu.busy_until_ns
	                            ? gpu.busy_until_ns + duration_ns
	                            : NEVER_NS;
	return SUCCESS;
}
