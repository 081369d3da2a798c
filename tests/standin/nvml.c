/* SPDX-License-Identifier: MIT */
/*
 * A libnvidia-ml.so.1 without a GPU, which reports what a script says: nvml_script.h
 * tells how. VGPU_STANDIN_DEVICES=N says how many GPUs there are (1); they have the UUIDs
 * of the stand-in libcuda.so.1.
 */
#include "nvml.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/util.h"
#include "nvml_script.h"

enum {
	NAP_NS = 2000000,
	NO_MEMORY = 20,
};

/* ---- Every call --------------------------------------------------------------------- */

static void nap(void)
{
	const struct timespec time = {.tv_nsec = NAP_NS};

	nanosleep(&time, NULL);
}

/* Blocks if the script says so; the mutex is held by the caller, and not meanwhile. */
static void hang(const char *call)
{
	unsigned int before = nvml.gos;
	int64_t until_ns;

	if (nvml.hang_ns == 0 || (nvml.hang_call[0] && strcmp(nvml.hang_call, call) != 0))
		return;
	until_ns = nvml.hang_ns == GO_COMES ? INT64_MAX : clock_monotonic_ns() + nvml.hang_ns;
	nvml.hang_ns = 0;
	while (nvml.gos == before && clock_monotonic_ns() < until_ns) {
		pthread_mutex_unlock(&nvml.mutex);
		nap();
		pthread_mutex_lock(&nvml.mutex);
		standin_follow_script();
	}
}

/* What @call returns before it does anything; the mutex is held from here on. */
static int enter(const char *call, const struct device *device)
{
	pthread_mutex_lock(&nvml.mutex);
	standin_follow_script();
	hang(call);
	for (size_t i = 0; i < FAILURES_MAX; i++) {
		if (nvml.failures[i].result && strcmp(nvml.failures[i].call, call) == 0)
			return nvml.failures[i].result;
	}
	if (device && nvml.users == 0)
		return NVML_UNINITIALIZED;
	if (device && (device->gone || device->stale))
		return NVML_GPU_IS_LOST;
	if (device && device->reset_required)
		return NVML_RESET_REQUIRED;
	return NVML_SUCCESS;
}

static int leave(int result)
{
	pthread_mutex_unlock(&nvml.mutex);
	return result;
}

/* A call that returns one value of 32 bits. */
static int get_u32(const char *call, struct device *device, const int64_t *value, uint32_t *out)
{
	int r = enter(call, device);

	if (r == NVML_SUCCESS && *value == NONE)
		r = NVML_NOT_SUPPORTED;
	if (r == NVML_SUCCESS)
		*out = (uint32_t)*value;
	return leave(r);
}

/* Tells outside, in a file beside the script, how often NVML is open. */
static void tell_users(void)
{
	char path[LINE_MAX_BYTES + 8];
	FILE *file;

	snprintf(path, sizeof(path), "%s.users", nvml.path);
	file = nvml.path[0] ? fopen(path, "we") : NULL;
	if (!file)
		return;
	fprintf(file, "%u\n", nvml.users);
	fclose(file);
}

int nvmlInit_v2(void)
{
	int r = enter("nvmlInit", NULL);

	if (r != NVML_SUCCESS)
		return leave(r);
	if (nvml.users++ == 0) {
		for (size_t i = 0; i < DEVICES_MAX; i++)
			nvml.devices[i].stale = nvml.devices[i].registered = false;
	}
	tell_users();
	return leave(NVML_SUCCESS);
}

int nvmlInit(void)
{
	return nvmlInit_v2();
}

int nvmlShutdown(void)
{
	int r = enter("nvmlShutdown", NULL);

	if (r == NVML_SUCCESS && nvml.users > 0)
		nvml.users--;
	tell_users();
	return leave(r);
}

const char *nvmlErrorString(int result)
{
	static const struct {
		int result;
		const char *text;
	} texts[] = {
		{NVML_NOT_SUPPORTED, "Not supported here"}, {NVML_NOT_FOUND, "No such thing"},
		{NVML_DRIVER_NOT_LOADED, "No driver"},      {NVML_GPU_IS_LOST, "GPU lost"},
		{NVML_RESET_REQUIRED, "Reset first"},
	};

	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		if (texts[i].result == result)
			return texts[i].text;
	}
	return "Some error";
}

int nvmlSystemGetDriverVersion(char *version, uint32_t bytes)
{
	int r = enter(__func__, NULL);

	snprintf(version, bytes, "0.0-standin");
	return leave(r);
}

static uint32_t device_count(void)
{
	const char *text = getenv("VGPU_STANDIN_DEVICES");

	return text ? (uint32_t)strtoul(text, NULL, 10) : 1;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, struct device **device)
{
	unsigned int index;
	int r = enter(__func__, NULL);

	if (r != NVML_SUCCESS)
		return leave(r);
	if (sscanf(uuid, "GPU-5747414e-4400-0000-0000-%12x", &index) != 1 ||
	    index >= min_u64(device_count(), DEVICES_MAX))
		return leave(NVML_NOT_FOUND);
	if (nvml.devices[index].gone)
		return leave(NVML_GPU_IS_LOST);
	*device = &nvml.devices[index];
	return leave(NVML_SUCCESS);
}

/* ---- Values ------------------------------------------------------------------------- */

int nvmlDeviceGetTemperature(struct device *device, int sensor, uint32_t *celsius)
{
	if (sensor != NVML_SENSOR_GPU)
		return NVML_INVALID_ARGUMENT;
	return get_u32(__func__, device, &device->temperature, celsius);
}

int nvmlDeviceGetTemperatureV(struct device *device, struct nvml_temperature *temperature)
{
	if (temperature->version != NVML_STRUCT_VERSION(struct nvml_temperature, 1))
		return NVML_VERSION_MISMATCH;
	if (temperature->sensor != NVML_SENSOR_GPU)
		return NVML_INVALID_ARGUMENT;
	return get_u32(__func__, device, &device->temperature, (uint32_t *)&temperature->celsius);
}

int nvmlDeviceGetTemperatureThreshold(struct device *device, int threshold, uint32_t *celsius)
{
	if (threshold != NVML_THRESHOLD_SLOWDOWN)
		return NVML_INVALID_ARGUMENT;
	return get_u32(__func__, device, &device->slowdown, celsius);
}

int nvmlDeviceGetMarginTemperature(struct device *device, struct nvml_margin *margin)
{
	if (margin->version != NVML_STRUCT_VERSION(struct nvml_margin, 1))
		return NVML_VERSION_MISMATCH;
	return get_u32(__func__, device, &device->margin, (uint32_t *)&margin->degrees);
}

int nvmlDeviceGetUtilizationRates(struct device *device, struct nvml_utilization *utilization)
{
	int r = get_u32(__func__, device, &device->gpu_busy, &utilization->gpu);

	if (r == NVML_SUCCESS)
		utilization->memory = (uint32_t)device->memory_busy;
	return r;
}

int nvmlDeviceGetMemoryInfo(struct device *device, struct nvml_memory *memory)
{
	int r = enter(__func__, device);

	memory->total = (uint64_t)device->memory_total;
	memory->used = (uint64_t)device->memory_used;
	memory->free = memory->total - memory->used;
	return leave(r);
}

int nvmlDeviceGetMemoryInfo_v2(struct device *device, struct nvml_memory_v2 *memory)
{
	int r = enter(__func__, device);

	if (memory->version != NVML_STRUCT_VERSION(struct nvml_memory_v2, 2))
		return leave(NVML_VERSION_MISMATCH);
	memory->total = (uint64_t)device->memory_total;
	memory->reserved = 0;
	memory->used = (uint64_t)device->memory_used;
	memory->free = memory->total - memory->used;
	return leave(r);
}

int nvmlDeviceGetPowerUsage(struct device *device, uint32_t *milliwatts)
{
	return get_u32(__func__, device, &device->power, milliwatts);
}

int nvmlDeviceGetTotalEccErrors(struct device *device, int kind, int counter, uint64_t *errors)
{
	int r = enter(__func__, device);

	*errors = device->ecc[kind & 1][counter & 1];
	return leave(r);
}

int nvmlDeviceGetCurrentClocksEventReasons(struct device *device, uint64_t *reasons)
{
	uint32_t bits = 0;
	int r = get_u32(__func__, device, &device->clock_reasons, &bits);

	*reasons = bits;
	return r;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(struct device *device, uint64_t *reasons)
{
	return nvmlDeviceGetCurrentClocksEventReasons(device, reasons);
}

int nvmlDeviceGetRemappedRows(struct device *device, uint32_t *corrected, uint32_t *uncorrected,
                              uint32_t *pending, uint32_t *failed)
{
	int r = enter(__func__, device);

	*corrected = (uint32_t)device->rows_corrected;
	*uncorrected = (uint32_t)device->rows_uncorrected;
	*pending = (uint32_t)device->rows_pending;
	*failed = (uint32_t)device->rows_failed;
	return leave(r);
}

int nvmlDeviceGetRetiredPages(struct device *device, int cause, uint32_t *count,
                              uint64_t *addresses UNUSED)
{
	const int64_t *is = cause == NVML_RETIRED_CORRECTED ? &device->pages_corrected
	                                                    : &device->pages_uncorrected;
	uint32_t room = *count;
	int r = get_u32(__func__, device, is, count);

	return r == NVML_SUCCESS && *count > room ? NVML_INSUFFICIENT_SIZE : r;
}

int nvmlDeviceGetRetiredPagesPendingStatus(struct device *device, int *pending)
{
	return get_u32(__func__, device, &device->pages_pending, (uint32_t *)pending);
}

int nvmlDeviceGetComputeRunningProcesses(struct device *device, uint32_t *count,
                                         struct nvml_process_v1 *processes)
{
	uint32_t room = *count;
	int r = enter(__func__, device);

	if (r != NVML_SUCCESS)
		return leave(r);
	*count = device->process_count;
	if (device->process_count > room)
		return leave(NVML_INSUFFICIENT_SIZE);
	for (uint32_t i = 0; i < device->process_count; i++)
		processes[i] = (struct nvml_process_v1){device->processes[i].pid,
		                                        device->processes[i].used_bytes};
	return leave(NVML_SUCCESS);
}

static int get_processes(const char *call, struct device *device, uint32_t *count,
                         struct nvml_process *processes)
{
	uint32_t room = *count;
	int r = enter(call, device);

	if (r != NVML_SUCCESS)
		return leave(r);
	*count = device->process_count;
	if (device->process_count > room)
		return leave(NVML_INSUFFICIENT_SIZE);
	memcpy(processes, device->processes, device->process_count * sizeof(*processes));
	return leave(NVML_SUCCESS);
}

int nvmlDeviceGetComputeRunningProcesses_v2(struct device *device, uint32_t *count,
                                            struct nvml_process *processes)
{
	return get_processes(__func__, device, count, processes);
}

int nvmlDeviceGetComputeRunningProcesses_v3(struct device *device, uint32_t *count,
                                            struct nvml_process *processes)
{
	return get_processes(__func__, device, count, processes);
}

int nvmlDeviceGetFieldValues(struct device *device, int count, struct nvml_field *fields)
{
	int r = enter(__func__, device);

	for (int i = 0; i < count && r == NVML_SUCCESS; i++) {
		int64_t is = fields[i].field == NVML_FIELD_RECOVERY_ACTION ? device->recovery_action
		             : fields[i].field == NVML_FIELD_RESET_STATUS  ? device->reset_status
		             : fields[i].field == NVML_FIELD_DRAIN_AND_RESET
		                     ? device->drain_and_reset
		                     : NONE;
		uint32_t value = (uint32_t)is;

		fields[i].result = is != NONE ? NVML_SUCCESS : NVML_NOT_SUPPORTED;
		fields[i].value_type = NVML_VALUE_UNSIGNED;
		memcpy(&fields[i].value, &value, sizeof(value));
	}
	return leave(r);
}

/* ---- Events ------------------------------------------------------------------------- */

unsigned int standin_nvml_xids_left(void)
{
	unsigned int left;

	pthread_mutex_lock(&nvml.mutex);
	standin_follow_script();
	left = (unsigned int)nvml.xid_count;
	pthread_mutex_unlock(&nvml.mutex);
	return left;
}

int nvmlEventSetCreate(void **set)
{
	int r = enter(__func__, NULL);

	*set = r == NVML_SUCCESS ? malloc(1) : NULL;
	return leave(r == NVML_SUCCESS && !*set ? NO_MEMORY : r);
}

int nvmlDeviceRegisterEvents(struct device *device, uint64_t types, void *set UNUSED)
{
	int r = enter(__func__, device);

	if (r == NVML_SUCCESS && (types & NVML_EVENT_XID))
		device->registered = true;
	return leave(r);
}

int nvmlEventSetWait_v2(void *set UNUSED, struct nvml_event *event, uint32_t timeout_ms)
{
	int64_t until_ns = clock_monotonic_ns() + timeout_ms * NS_PER_MS;
	int r = enter("nvmlEventSetWait", NULL);

	while (r == NVML_SUCCESS && nvml.xid_count == 0) {
		if (clock_monotonic_ns() >= until_ns)
			return leave(NVML_TIMEOUT);
		leave(r);
		nap();
		r = enter("nvmlEventSetWait", NULL);
	}
	if (r != NVML_SUCCESS)
		return leave(r);
	event->gpu = nvml.xids[0].device;
	event->type = NVML_EVENT_XID;
	event->data = nvml.xids[0].xid;
	memmove(nvml.xids, nvml.xids + 1, --nvml.xid_count * sizeof(nvml.xids[0]));
	return leave(NVML_SUCCESS);
}

int nvmlEventSetWait(void *set, struct nvml_event *event, uint32_t timeout_ms)
{
	return nvmlEventSetWait_v2(set, event, timeout_ms);
}

int nvmlEventSetFree(void *set)
{
	int r = enter(__func__, NULL);

	free(set);
	return leave(r);
}
