/* SPDX-License-Identifier: MIT */
/*
 * The backend without a GPU: every operation is done for real by the worker's own
 * thread. A job runs when it is polled as the oldest. Time is the thread's CPU
 * time, so that SPIN consumes what it was asked to however often it is preempted.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/units.h"
#include "base/util.h"
#include "worker/backend.h"
#include "worker/residue.h"
#include "worker/sgemm_cpu.h"

static int64_t cpu_time_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (int64_t)now.tv_sec * NS_PER_SEC + now.tv_nsec;
}

static void cpu_add(struct job *job)
{
	job->results[0] = job->params[0] + job->params[1];
}

static void cpu_spin(struct job *job)
{
	enum { TURNS_PER_LOOK = 512 };
	const int64_t until_ns = cpu_time_ns() + job->params[0] * NS_PER_US;
	volatile uint32_t value = job->params[0];

	while (cpu_time_ns() < until_ns) {
		for (int i = 0; i < TURNS_PER_LOOK; i++)
			value = value * 1664525u + 1013904223u;
	}
}

/* It must end as it does without sanitizers: by the signal. */
__attribute__((no_sanitize("undefined"))) static void cpu_fault(struct job *job UNUSED)
{
	/* Through a variable that the compiler knows nothing about: the store must happen. */
	volatile int *volatile nowhere = NULL;

	/* cppcheck-suppress nullPointer */
	*nowhere = 1; /* NOLINT(clang-analyzer-core.NullDereference) */
}

static void cpu_hang(struct job *job UNUSED)
{
	volatile bool forever = true;

	while (forever)
		;
}

static void cpu_sgemm(struct job *job)
{
	int r = sgemm_cpu(job->results, job->params[0], job->params[1]);

	if (r < 0) {
		job->code = VGPU_CODE_CUDA;
		job->detail = (uint32_t)-r;
	}
}

static void cpu_residue(struct job *job)
{
	struct residue residue;
	int r = residue_of_process(&residue, job->params[0] == 1, (size_t)job->params[1] << 20);

	if (r < 0) {
		job->code = VGPU_CODE_CUDA;
		job->detail = (uint32_t)-r;
		return;
	}
	residue_to_results(&residue, job->results);
}

static void (*const cpu_handlers[OPERATION_COUNT])(struct job *job) = {
	[OPERATION_ADD] = cpu_add,     [OPERATION_SPIN] = cpu_spin,
	[OPERATION_FAULT] = cpu_fault, [OPERATION_HANG] = cpu_hang,
	[OPERATION_SGEMM] = cpu_sgemm, [OPERATION_RESIDUE] = cpu_residue,
};

static int cpu_submit(struct backend *backend UNUSED, struct job *job UNUSED)
{
	return 0;
}

static int cpu_poll(struct backend *backend UNUSED, struct job *job)
{
	int64_t start_ns = cpu_time_ns();

	cpu_handlers[job->operation->id](job);
	job->result_count = job->operation->result_count;
	job->gpu_time_ns = (uint64_t)(cpu_time_ns() - start_ns);
	job->ended = true;
	return 0;
}

/* "model name" of the first processor, or "unknown". */
static void cpu_read_model(char *out, size_t bytes)
{
	FILE *file = fopen("/proc/cpuinfo", "re");
	char line[256];
	char *text;

	snprintf(out, bytes, "unknown");
	if (!file)
		return;
	while (fgets(line, sizeof(line), file)) {
		if (strncmp(line, "model name", strlen("model name")) != 0)
			continue;
		text = strchr(line, ':');
		if (!text)
			break;
		text += 1 + strspn(text + 1, " ");
		snprintf(out, bytes, "%.*s", (int)strcspn(text, "\n"), text);
		break;
	}
	fclose(file);
}

static int cpu_start(struct backend **out, const struct backend_options *options,
                     struct backend_failure *failure)
{
	struct backend *backend;
	char model[80];

	if (options->gpu)
		return backend_fail(failure, -EINVAL, VGPU_CODE_UNAVAILABLE, EINVAL,
		                    "--gpu %s has no meaning for the cpu backend: leave it out",
		                    options->gpu);
	backend = calloc(1, sizeof(*backend));
	if (!backend)
		return backend_fail(failure, -ENOMEM, VGPU_CODE_UNAVAILABLE, ENOMEM,
		                    "out of memory");
	cpu_read_model(model, sizeof(model));
	backend->ops = &cpu_backend;
	backend->info.device.multiprocessors = 1;
	backend->info.device.total_mib =
		(uint32_t)((uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) >>
	                   20);
	snprintf(backend->info.device.name, sizeof(backend->info.device.name), "CPU %s", model);
	snprintf(backend->info.uuid, sizeof(backend->info.uuid), "CPU-0");
	*out = backend;
	return 0;
}

static void cpu_stop(struct backend *backend)
{
	free(backend);
}

const struct backend_ops cpu_backend = {
	.name = "cpu",
	.start = cpu_start,
	.stop = cpu_stop,
	.submit = cpu_submit,
	.poll = cpu_poll,
};
