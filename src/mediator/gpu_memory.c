/* SPDX-License-Identifier: MIT */
/*
 * Whose processes are on a GPU: what NVML lists is matched with our workers and what they
 * say, and what the core's memory_watch makes of it is told.
 */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "mediator/gpu_watch_internal.h"

enum { NAME_BYTES = 20 };

_Static_assert((int)NVML_PROCESSES_MAX <= (int)MEMORY_USES_MAX, "all of a reading are looked at");

static unsigned long long mib(uint64_t bytes)
{
	return bytes >> 20;
}

static void match_worker(void *context, const struct worker_info *info)
{
	struct watched *gpu = context;

	for (uint32_t i = 0; i < gpu->use_count; i++) {
		if (gpu->uses[i].pid != info->pid)
			continue;
		gpu->use_vms[i] = info->vm;
		gpu->uses[i].ours = true;
		gpu->uses[i].told_bytes = (uint64_t)info->device.used_mib << 20;
		gpu->uses[i].told_ns = info->told_ns;
	}
}

static const char *process_name(char to[NAME_BYTES], int32_t pid)
{
	char path[32];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	file = fopen(path, "re");
	if (!file || !fgets(to, NAME_BYTES, file))
		snprintf(to, NAME_BYTES, "gone by now");
	if (file)
		fclose(file);
	to[strcspn(to, "\n")] = '\0';
	return to;
}

const char *gpu_memory_note(char *to, size_t size, const struct memory_use *use)
{
	char name[NAME_BYTES];

	if (use->note == MEMORY_EXCESS)
		snprintf(to, size,
		         "worker %d holds %llu MiB, where its context and its jobs make %llu",
		         (int)use->pid, mib(use->bytes), mib(use->expected_bytes));
	else
		snprintf(to, size,
		         "process %d (%s) is none of ours: it takes memory, and time that is "
		         "charged to VMs",
		         (int)use->pid, process_name(name, use->pid));
	return to;
}

static void tell(void *context, const struct memory_use *use, enum memory_note note, bool began)
{
	const struct watched *gpu = context;
	char text[HEALTH_TEXT_BYTES];

	if (began)
		log_warning("GPU %u: %s", gpu->index, gpu_memory_note(text, sizeof(text), use));
	else
		log_info("GPU %u: over: %s %d %s", gpu->index,
		         note == MEMORY_EXCESS ? "worker" : "process", (int)use->pid,
		         note == MEMORY_EXCESS ? "holds too much" : "beside ours");
}

void gpu_memory_look(struct watched *gpu)
{
	const struct nvml_reading *reading = &gpu->last;

	gpu->use_count = reading->processes_known ? reading->process_count : 0;
	for (uint32_t i = 0; i < gpu->use_count; i++)
		gpu->uses[i] = (struct memory_use){
			.pid = reading->processes[i].pid,
			.bytes = reading->processes[i].bytes,
		};
	if (!reading->processes_known)
		return;
	worker_host_walk(gpu->watch->mediator->workers, match_worker, gpu);
	memory_watch_look(&gpu->memory, reading->at_ns, gpu->uses, gpu->use_count, tell, gpu);
}
