/* SPDX-License-Identifier: MIT */
/*
 * See nvml_sample.h. A value that cannot be read is left unknown; only when nothing at
 * all can be read, or NVML says that the GPU is gone, is the GPU out of reach.
 */
#include "mediator/nvml_sample.h"

#include <stdio.h>
#include <string.h>

/*
 * A short-lived driver branch wrote 32 bytes per process instead of 24. Room for that
 * many keeps it from writing past the end.
 */
enum { PROCESS_ROOM_BYTES = 32 };

/* What the first form has become, in case that goes. */
static int read_temperature_struct(const struct nvml_api *api, void *gpu, struct nvml_reading *out)
{
	struct nvml_temperature temperature = {
		.version = NVML_STRUCT_VERSION(struct nvml_temperature, 1),
		.sensor = NVML_SENSOR_GPU,
	};
	int r = api->temperature_struct ? api->temperature_struct(gpu, &temperature)
	                                : NVML_FUNCTION_NOT_FOUND;

	if (r == NVML_SUCCESS)
		health_reading_put(&out->health, HEALTH_TEMPERATURE_C, temperature.celsius);
	return r;
}

static int read_temperature(const struct nvml_api *api, void *gpu, struct nvml_reading *out)
{
	uint32_t celsius;
	int r = api->temperature ? api->temperature(gpu, NVML_SENSOR_GPU, &celsius)
	                         : NVML_FUNCTION_NOT_FOUND;

	if (r == NVML_FUNCTION_NOT_FOUND)
		return read_temperature_struct(api, gpu, out);
	if (r == NVML_SUCCESS)
		health_reading_put(&out->health, HEALTH_TEMPERATURE_C, celsius);
	return r;
}

static int read_slowdown(const struct nvml_api *api, void *gpu, struct nvml_reading *out)
{
	uint32_t celsius;
	int r = api->temperature_threshold(gpu, NVML_THRESHOLD_SLOWDOWN, &celsius);

	/* Some boards answer with 0. */
	if (r == NVML_SUCCESS && celsius > 0)
		health_reading_put(&out->health, HEALTH_SLOWDOWN_C, celsius);
	return r;
}

static int read_margin(const struct nvml_api *api, void *gpu, struct nvml_reading *out)
{
	struct nvml_margin margin = {.version = NVML_STRUCT_VERSION(struct nvml_margin, 1)};
	int r = api->margin(gpu, &margin);

	if (r == NVML_SUCCESS)
		health_reading_put(&out->health, HEALTH_MARGIN_C, margin.degrees);
	return r;
}

static int read_utilization(const struct nvml_api *api, void *gpu, struct nvml_reading *out)
{
	struct nvml_utilization utilization;
	int r = api->utilization(gpu, &utilization);

	if (r == NVML_SUCCESS) {
		health_reading_put(&out->health, HEALTH_GPU_BUSY_PERCENT, utilization.gpu);
		health_reading_put(&out->health, HEALTH_MEMORY_BUSY_PERCENT, utilization.memory);
	}
	return r;
}

static int read_memory_v1(const struct nvml_api *api, void *gpu, struct nvml_reading *out)
{
	struct nvml_memory memory;
	int r = api->memory ? api->memory(gpu, &memory) : NVML_FUNCTION_NOT_FOUND;

	if (r == NVML_SUCCESS) {
		health_reading_put(&out->health, HEALTH_MEMORY_USED_BYTES, (int64_t)memory.used);
		health_reading_put(&out->health, HEALTH_MEMORY_TOTAL_BYTES, (int64_t)memory.total);
	}
	return r;
}

static int read_memory(const struct nvml_api *api, void *gpu, struct nvml_reading *out)
{
	struct nvml_memory_v2 memory = {.version = NVML_STRUCT_VERSION(struct nvml_memory_v2, 2)};
	int r = api->memory_v2 ? api->memory_v2(gpu, &memory) : NVML_FUNCTION_NOT_FOUND;

	/* The library may know the function and the kernel's driver not. */
	if (r == NVML_FUNCTION_NOT_FOUND || r == NVML_VERSION_MISMATCH || r == NVML_NOT_SUPPORTED)
		return read_memory_v1(api, gpu, out);
	if (r == NVML_SUCCESS) {
		health_reading_put(&out->health, HEALTH_MEMORY_USED_BYTES, (int64_t)memory.used);
		health_reading_put(&out->health, HEALTH_MEMORY_TOTAL_BYTES, (int64_t)memory.total);
	}
	return r;
}

static int read_power(const struct nvml_api *api, void *gpu, struct nvml_reading *out)
{
	uint32_t milliwatts;
	int r = api->power(gpu, &milliwatts);

	if (r == NVML_SUCCESS)
		health_reading_put(&out->health, HEALTH_POWER_MW, milliwatts);
	return r;
}

static int read_ecc(const struct nvml_api *api, void *gpu, struct nvml_reading *out)
{
	static const struct {
		enum health_value value;
		int kind, counter;
	} rows[] = {
		{HEALTH_ECC_CORRECTED, NVML_ECC_CORRECTED, NVML_ECC_VOLATILE},
		{HEALTH_ECC_UNCORRECTED, NVML_ECC_UNCORRECTED, NVML_ECC_VOLATILE},
		{HEALTH_ECC_CORRECTED_LIFE, NVML_ECC_CORRECTED, NVML_ECC_AGGREGATE},
		{HEALTH_ECC_UNCORRECTED_LIFE, NVML_ECC_UNCORRECTED, NVML_ECC_AGGREGATE},
	};
	int any = NVML_NOT_SUPPORTED;

	/* A GPU may have some of them. */
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		uint64_t errors;
		int r = api->ecc(gpu, rows[i].kind, rows[i].counter, &errors);

		if (r == NVML_SUCCESS)
			health_reading_put(&out->health, rows[i].value, (int64_t)errors);
		if (any != NVML_SUCCESS)
			any = r;
	}
	return any;
}

static int read_clock_reasons(const struct nvml_api *api, void *gpu, struct nvml_reading *out)
{
	uint64_t reasons;
	int r = api->clock_reasons(gpu, &reasons);

	if (r == NVML_SUCCESS)
		health_reading_put(&out->health, HEALTH_CLOCK_REASONS, (int64_t)reasons);
	return r;
}

static int read_rows(const struct nvml_api *api, void *gpu, struct nvml_reading *out)
{
	uint32_t corrected, uncorrected, pending, failed;
	int r = api->rows(gpu, &corrected, &uncorrected, &pending, &failed);

	if (r == NVML_SUCCESS) {
		health_reading_put(&out->health, HEALTH_ROWS_CORRECTED, corrected);
		health_reading_put(&out->health, HEALTH_ROWS_UNCORRECTED, uncorrected);
		health_reading_put(&out->health, HEALTH_ROWS_PENDING, pending != 0);
		health_reading_put(&out->health, HEALTH_ROWS_FAILED, failed != 0);
	}
	return r;
}

static int read_pages(const struct nvml_api *api, void *gpu, struct nvml_reading *out)
{
	static const enum health_value values[] = {
		[NVML_RETIRED_CORRECTED] = HEALTH_PAGES_CORRECTED,
		[NVML_RETIRED_UNCORRECTED] = HEALTH_PAGES_UNCORRECTED,
	};
	int r = NVML_SUCCESS;

	for (int cause = 0; cause < (int)ARRAY_LEN(values) && r == NVML_SUCCESS; cause++) {
		uint32_t count = 0;

		r = api->pages(gpu, cause, &count, NULL);
		if (r == NVML_INSUFFICIENT_SIZE)
			r = NVML_SUCCESS;
		if (r == NVML_SUCCESS)
			health_reading_put(&out->health, values[cause], count);
	}
	return r;
}

static int read_pages_pending(const struct nvml_api *api, void *gpu, struct nvml_reading *out)
{
	int pending;
	int r = api->pages_pending(gpu, &pending);

	if (r == NVML_SUCCESS)
		health_reading_put(&out->health, HEALTH_PAGES_PENDING, pending != 0);
	return r;
}

static bool field_value(const struct nvml_field *field, uint32_t *out)
{
	if (field->result != NVML_SUCCESS || field->value_type != NVML_VALUE_UNSIGNED)
		return false;
	memcpy(out, &field->value, sizeof(*out));
	return true;
}

static int read_recovery(const struct nvml_api *api, void *gpu, struct nvml_reading *out)
{
	struct nvml_field fields[] = {
		{.field = NVML_FIELD_RECOVERY_ACTION},
		{.field = NVML_FIELD_RESET_STATUS},
		{.field = NVML_FIELD_DRAIN_AND_RESET},
	};
	uint32_t action, reset = 0, drain = 0;
	int r = api->fields(gpu, ARRAY_LEN(fields), fields);
	bool known;

	if (r != NVML_SUCCESS)
		return r;
	known = field_value(&fields[0], &action);
	if (!known) {
		known = field_value(&fields[1], &reset);
		known |= field_value(&fields[2], &drain);
		action = drain   ? HEALTH_RECOVERY_DRAIN_AND_RESET
		         : reset ? HEALTH_RECOVERY_RESET
		                 : HEALTH_RECOVERY_NONE;
	}
	if (known)
		health_reading_put(&out->health, HEALTH_RECOVERY_ACTION, action);
	return known ? NVML_SUCCESS : fields[0].result;
}

static void add_process(struct nvml_reading *out, uint32_t pid, uint64_t bytes)
{
	if (out->process_count < NVML_PROCESSES_MAX)
		out->processes[out->process_count++] =
			(struct nvml_use){.pid = (int32_t)pid, .bytes = bytes};
}

static int read_processes_v1(const struct nvml_api *api, void *gpu, struct nvml_reading *out)
{
	struct nvml_process_v1 list[NVML_PROCESSES_MAX];
	uint32_t count = NVML_PROCESSES_MAX;
	int r = api->processes_v1 ? api->processes_v1(gpu, &count, list) : NVML_FUNCTION_NOT_FOUND;

	out->processes_known = r == NVML_SUCCESS;
	for (uint32_t i = 0; r == NVML_SUCCESS && i < count; i++)
		add_process(out, list[i].pid, list[i].used_bytes);
	return r;
}

static int read_processes(const struct nvml_api *api, void *gpu, struct nvml_reading *out)
{
	struct nvml_process
		list[NVML_PROCESSES_MAX * PROCESS_ROOM_BYTES / sizeof(struct nvml_process) + 1];
	uint32_t count = NVML_PROCESSES_MAX;
	int r = api->processes ? api->processes(gpu, &count, list) : NVML_FUNCTION_NOT_FOUND;

	if (r == NVML_FUNCTION_NOT_FOUND)
		return read_processes_v1(api, gpu, out);
	out->processes_known = r == NVML_SUCCESS;
	for (uint32_t i = 0; r == NVML_SUCCESS && i < count; i++)
		add_process(out, list[i].pid, list[i].used_bytes);
	return r;
}

#define READER(name, function, member)                             \
	{                                                          \
		name, function, offsetof(struct nvml_api, member), \
			offsetof(struct nvml_api, member)          \
	}

static const struct {
	const char *call; /* what it mainly is, for people */
	int (*read)(const struct nvml_api *api, void *gpu, struct nvml_reading *out);
	size_t offset; /* either of these must be there */
	size_t or_offset;
} readers[] = {
	{"nvmlDeviceGetTemperature", read_temperature, offsetof(struct nvml_api, temperature),
         offsetof(struct nvml_api, temperature_struct)},
	READER("nvmlDeviceGetTemperatureThreshold", read_slowdown, temperature_threshold),
	READER("nvmlDeviceGetMarginTemperature", read_margin, margin),
	READER("nvmlDeviceGetUtilizationRates", read_utilization, utilization),
	{"nvmlDeviceGetMemoryInfo", read_memory, offsetof(struct nvml_api, memory_v2),
         offsetof(struct nvml_api, memory)},
	READER("nvmlDeviceGetPowerUsage", read_power, power),
	READER("nvmlDeviceGetTotalEccErrors", read_ecc, ecc),
	READER("nvmlDeviceGetCurrentClocksEventReasons", read_clock_reasons, clock_reasons),
	READER("nvmlDeviceGetRemappedRows", read_rows, rows),
	READER("nvmlDeviceGetRetiredPages", read_pages, pages),
	READER("nvmlDeviceGetRetiredPagesPendingStatus", read_pages_pending, pages_pending),
	READER("nvmlDeviceGetFieldValues", read_recovery, fields),
	{"nvmlDeviceGetComputeRunningProcesses", read_processes,
         offsetof(struct nvml_api, processes), offsetof(struct nvml_api, processes_v1)},
};

static bool has(const struct nvml_api *api, size_t offset)
{
	return *(void *const *)(const void *)((const char *)api + offset) != NULL;
}

void nvml_sample_error(struct nvml_reading *out, const struct nvml_api *api, int result,
                       const char *call)
{
	out->health.contact = result == NVML_GPU_IS_LOST      ? HEALTH_LOST
	                      : result == NVML_RESET_REQUIRED ? HEALTH_RESET_REQUIRED
	                                                      : HEALTH_UNREACHABLE;
	snprintf(out->health.error, sizeof(out->health.error), "%s: %s (%d)", call,
	         nvml_api_error(api, result), result);
}

void nvml_sample(struct nvml_reading *out, const struct nvml_api *api, void *handle,
                 struct nvml_watch *watch)
{
	const char *failed_call = "";
	int failed = NVML_SUCCESS;
	bool answered = false;

	memset(out, 0, sizeof(*out));
	for (size_t i = 0; i < ARRAY_LEN(readers); i++) {
		int r;

		if (!has(api, readers[i].offset) && !has(api, readers[i].or_offset))
			continue;
		nvml_watch_begin(watch, readers[i].call);
		r = readers[i].read(api, handle, out);
		nvml_watch_end(watch);
		/* That it knows no such value is an answer too. */
		answered |= r == NVML_SUCCESS || r == NVML_NOT_SUPPORTED;
		if (r == NVML_SUCCESS || r == NVML_NOT_SUPPORTED)
			continue;
		failed = r;
		failed_call = readers[i].call;
		if (r == NVML_GPU_IS_LOST || r == NVML_RESET_REQUIRED || r == NVML_UNINITIALIZED) {
			answered = false;
			break;
		}
	}
	if (!answered && failed != NVML_SUCCESS)
		nvml_sample_error(out, api, failed, failed_call);
}
