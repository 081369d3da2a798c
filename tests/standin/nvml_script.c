/* SPDX-License-Identifier: MIT */
/* See nvml_script.h. */
#include "nvml_script.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/util.h"

struct standin nvml = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static const struct {
	const char *name;
	size_t offset; /* of the int64_t in struct device */
	int64_t otherwise;
} values[] = {
	{"temperature", offsetof(struct device, temperature), 40},
	{"slowdown", offsetof(struct device, slowdown), 90},
	{"margin", offsetof(struct device, margin), NONE},
	{"gpu_busy", offsetof(struct device, gpu_busy), 0},
	{"memory_busy", offsetof(struct device, memory_busy), 0},
	{"memory_used", offsetof(struct device, memory_used), 0},
	{"memory_total", offsetof(struct device, memory_total), INT64_C(8192) << 20},
	{"power", offsetof(struct device, power), 70000},
	{"clock_reasons", offsetof(struct device, clock_reasons), 1},
	{"rows_corrected", offsetof(struct device, rows_corrected), 0},
	{"rows_uncorrected", offsetof(struct device, rows_uncorrected), 0},
	{"rows_pending", offsetof(struct device, rows_pending), 0},
	{"rows_failed", offsetof(struct device, rows_failed), 0},
	{"pages_corrected", offsetof(struct device, pages_corrected), NONE},
	{"pages_uncorrected", offsetof(struct device, pages_uncorrected), NONE},
	{"pages_pending", offsetof(struct device, pages_pending), NONE},
	{"recovery_action", offsetof(struct device, recovery_action), 0},
	{"reset_status", offsetof(struct device, reset_status), NONE},
	{"drain_and_reset", offsetof(struct device, drain_and_reset), NONE},
};

static int64_t *value_of(struct device *device, size_t index)
{
	return (int64_t *)(void *)((char *)device + values[index].offset);
}

static void start_anew(const char *path)
{
	snprintf(nvml.path, sizeof(nvml.path), "%s", path);
	nvml.offset = 0;
	nvml.start_ns = clock_monotonic_ns();
	nvml.later_count = nvml.xid_count = 0;
	nvml.hang_ns = 0;
	memset(nvml.failures, 0, sizeof(nvml.failures));
	memset(nvml.devices, 0, sizeof(nvml.devices));
	for (size_t d = 0; d < DEVICES_MAX; d++) {
		for (size_t i = 0; i < ARRAY_LEN(values); i++)
			*value_of(&nvml.devices[d], i) = values[i].otherwise;
	}
}

static void reset(struct device *device)
{
	int64_t *const wishes[] = {&device->recovery_action, &device->reset_status,
	                           &device->drain_and_reset, &device->pages_pending};

	device->gone = device->reset_required = false;
	device->ecc[NVML_ECC_CORRECTED][NVML_ECC_VOLATILE] = 0;
	device->ecc[NVML_ECC_UNCORRECTED][NVML_ECC_VOLATILE] = 0;
	device->rows_pending = 0;
	for (size_t i = 0; i < ARRAY_LEN(wishes); i++) {
		if (*wishes[i] != NONE)
			*wishes[i] = 0;
	}
	device->process_count = 0;
}

static void set_processes(struct device *device, const char *text)
{
	unsigned int pid;
	unsigned long long bytes;
	int used;

	device->process_count = 0;
	while (device->process_count < PROCESSES_MAX &&
	       sscanf(text, " %u:%llu%n", &pid, &bytes, &used) == 2) {
		device->processes[device->process_count++] =
			(struct nvml_process){.pid = pid, .used_bytes = bytes};
		text += used;
	}
}

static void set_failure(const char *text)
{
	struct failure wanted = {.result = 0}, *free_row = NULL;

	sscanf(text, "%63s %d", wanted.call, &wanted.result);
	for (size_t i = 0; i < FAILURES_MAX; i++) {
		struct failure *row = &nvml.failures[i];

		if (strcmp(row->call, wanted.call) == 0 || (!row->call[0] && !free_row))
			free_row = row;
	}
	if (free_row)
		*free_row = wanted;
}

static void set_hang(const char *text)
{
	double seconds = 0;
	bool named = isalpha((unsigned char)text[0]);

	nvml.hang_call[0] = '\0';
	if (named)
		sscanf(text, "%63s %lf", nvml.hang_call, &seconds);
	else
		sscanf(text, "%lf", &seconds);
	nvml.hang_ns = seconds > 0 ? (int64_t)(seconds * NS_PER_SEC) : GO_COMES;
}

/* False for a command that is none of these. */
static bool apply_event(struct device *device, const char *verb, const char *rest)
{
	if (strcmp(verb, "lost") == 0) {
		device->gone = device->stale = true;
	} else if (strcmp(verb, "back") == 0) {
		device->gone = false;
	} else if (strcmp(verb, "reset_required") == 0) {
		device->reset_required = true;
	} else if (strcmp(verb, "reset") == 0) {
		reset(device);
	} else if (strcmp(verb, "processes") == 0) {
		set_processes(device, rest);
	} else if (strcmp(verb, "fail") == 0) {
		set_failure(rest);
	} else if (strcmp(verb, "hang") == 0) {
		set_hang(rest);
	} else if (strcmp(verb, "go") == 0) {
		nvml.gos++;
		nvml.hang_ns = 0;
	} else if (strcmp(verb, "xid") == 0) {
		if (device->registered && nvml.xid_count < XIDS_MAX) {
			nvml.xids[nvml.xid_count].device = device;
			nvml.xids[nvml.xid_count++].xid = strtoull(rest, NULL, 0);
		}
	} else {
		return false;
	}
	return true;
}

static bool apply_value(struct device *device, const char *verb, const char *rest)
{
	const int kind = strcmp(verb, "ecc_corrected") == 0     ? NVML_ECC_CORRECTED
	                 : strcmp(verb, "ecc_uncorrected") == 0 ? NVML_ECC_UNCORRECTED
	                                                        : -1;

	for (size_t i = 0; i < ARRAY_LEN(values); i++) {
		if (strcmp(verb, values[i].name) == 0) {
			*value_of(device, i) =
				strcmp(rest, "none") == 0 ? NONE : strtoll(rest, NULL, 0);
			return true;
		}
	}
	if (kind < 0)
		return false;
	device->ecc[kind][NVML_ECC_VOLATILE] += strtoull(rest, NULL, 0);
	device->ecc[kind][NVML_ECC_AGGREGATE] += strtoull(rest, NULL, 0);
	return true;
}

/* One line without its `at`. A script that is wrong must not make a test pass. */
static void apply(const char *line)
{
	unsigned int gpu = 0;
	char verb[CALL_BYTES] = "";
	const char *rest = line;
	int used = 0;

	if (sscanf(rest, "gpu %u %n", &gpu, &used) == 1)
		rest += used;
	used = 0;
	if (sscanf(rest, "%63s %n", verb, &used) < 1 || verb[0] == '#')
		return;
	rest += used;
	if (gpu < DEVICES_MAX && (apply_event(&nvml.devices[gpu], verb, rest) ||
	                          apply_value(&nvml.devices[gpu], verb, rest)))
		return;
	fprintf(stderr, "stand-in NVML: cannot read '%s'\n", line);
	abort();
}

static void take_line(const char *line)
{
	double seconds;
	int used = 0;

	if (sscanf(line, "at %lf %n", &seconds, &used) != 1) {
		apply(line);
		return;
	}
	if (nvml.later_count == LATER_MAX)
		abort();
	nvml.later[nvml.later_count].at_ns = nvml.start_ns + (int64_t)(seconds * NS_PER_SEC);
	snprintf(nvml.later[nvml.later_count++].line, LINE_MAX_BYTES, "%s", line + used);
}

static void read_new_lines(void)
{
	char line[LINE_MAX_BYTES];
	FILE *file = nvml.path[0] ? fopen(nvml.path, "re") : NULL;

	if (!file)
		return;
	fseek(file, nvml.offset, SEEK_SET);
	while (fgets(line, sizeof(line), file)) {
		char *end = strchr(line, '\n');

		/* The rest of it is still being written. */
		if (!end)
			break;
		*end = '\0';
		nvml.offset = ftell(file);
		take_line(line);
	}
	fclose(file);
}

void standin_follow_script(void)
{
	const char *path = getenv("VGPU_STANDIN_NVML_SCRIPT");
	int64_t now_ns = clock_monotonic_ns();

	if (nvml.start_ns == 0 || strcmp(path ? path : "", nvml.path) != 0)
		start_anew(path ? path : "");
	read_new_lines();
	for (size_t i = 0; i < nvml.later_count;) {
		char line[LINE_MAX_BYTES];

		if (nvml.later[i].at_ns > now_ns) {
			i++;
			continue;
		}
		memcpy(line, nvml.later[i].line, sizeof(line));
		memmove(&nvml.later[i], &nvml.later[i + 1],
		        (--nvml.later_count - i) * sizeof(nvml.later[0]));
		apply(line);
	}
}
