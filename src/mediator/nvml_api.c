/* SPDX-License-Identifier: MIT */
/*
 * See nvml_api.h. Several rows may fill one member: the first symbol that is there
 * wins, so newer versions with the same arguments come first.
 */
#include "mediator/nvml_api.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"

enum need {
	REQUIRED,
	OPTIONAL, /* told when it is missing */
	EXTRA,    /* not told: another function does nearly as well */
};

#define SYMBOL(name, member, need)                            \
	{                                                     \
		name, offsetof(struct nvml_api, member), need \
	}

static const struct {
	const char *name;
	size_t offset; /* of the pointer in struct nvml_api */
	enum need need;
} symbols[] = {
	SYMBOL("nvmlInit_v2", init, REQUIRED),
	SYMBOL("nvmlInit", init, REQUIRED),
	SYMBOL("nvmlShutdown", shutdown, REQUIRED),
	SYMBOL("nvmlDeviceGetHandleByUUID", handle_by_uuid, REQUIRED),
	SYMBOL("nvmlErrorString", error_string, EXTRA),
	SYMBOL("nvmlSystemGetDriverVersion", driver_version, EXTRA),
	SYMBOL("nvmlDeviceGetTemperatureV", temperature_struct, EXTRA),
	SYMBOL("nvmlDeviceGetTemperature", temperature, OPTIONAL),
	SYMBOL("nvmlDeviceGetTemperatureThreshold", temperature_threshold, OPTIONAL),
	SYMBOL("nvmlDeviceGetMarginTemperature", margin, EXTRA),
	SYMBOL("nvmlDeviceGetUtilizationRates", utilization, OPTIONAL),
	SYMBOL("nvmlDeviceGetMemoryInfo_v2", memory_v2, EXTRA),
	SYMBOL("nvmlDeviceGetMemoryInfo", memory, OPTIONAL),
	SYMBOL("nvmlDeviceGetPowerUsage", power, OPTIONAL),
	SYMBOL("nvmlDeviceGetTotalEccErrors", ecc, OPTIONAL),
	SYMBOL("nvmlDeviceGetCurrentClocksEventReasons", clock_reasons, OPTIONAL),
	SYMBOL("nvmlDeviceGetCurrentClocksThrottleReasons", clock_reasons, OPTIONAL),
	SYMBOL("nvmlDeviceGetRemappedRows", rows, OPTIONAL),
	SYMBOL("nvmlDeviceGetRetiredPages", pages, OPTIONAL),
	SYMBOL("nvmlDeviceGetRetiredPagesPendingStatus", pages_pending, OPTIONAL),
	SYMBOL("nvmlDeviceGetComputeRunningProcesses_v3", processes, EXTRA),
	SYMBOL("nvmlDeviceGetComputeRunningProcesses_v2", processes, EXTRA),
	SYMBOL("nvmlDeviceGetComputeRunningProcesses", processes_v1, OPTIONAL),
	SYMBOL("nvmlDeviceGetFieldValues", fields, OPTIONAL),
	SYMBOL("nvmlEventSetCreate", events_create, OPTIONAL),
	SYMBOL("nvmlDeviceRegisterEvents", events_register, OPTIONAL),
	SYMBOL("nvmlEventSetWait_v2", events_wait, OPTIONAL),
	SYMBOL("nvmlEventSetWait", events_wait, OPTIONAL),
	SYMBOL("nvmlEventSetFree", events_free, OPTIONAL),
};

/* What helps against errors that operators meet. */
static const struct {
	int result;
	const char *remedy;
} remedies[] = {
	{NVML_DRIVER_NOT_LOADED, "is the nvidia kernel module loaded (lsmod)?"},
	{NVML_LIBRARY_MISMATCH,
         "kernel module and library differ in version: reboot after a driver update"},
	{NVML_NO_PERMISSION, "may this process open /dev/nvidiactl?"},
	{NVML_UNKNOWN_ERROR, "does nvidia-smi work?"},
};

static void **member_at(struct nvml_api *api, size_t offset)
{
	return (void **)(void *)((char *)api + offset);
}

/* Adds @name to the list in @note, as far as there is room. */
static void add_missing(char note[NVML_WHY_BYTES], const char *name)
{
	size_t used = strlen(note);

	snprintf(note + used, NVML_WHY_BYTES - used, "%s%s", used ? ", " : "", name);
}

int nvml_api_load(struct nvml_api *out, const char *library, char note[NVML_WHY_BYTES])
{
	void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
	struct nvml_api api = {.init = NULL};

	if (!handle) {
		snprintf(note, NVML_WHY_BYTES,
		         "%s not found: is the NVIDIA driver installed in this system? (%s)",
		         library, dlerror());
		return -ENOENT;
	}
	for (size_t i = 0; i < ARRAY_LEN(symbols); i++) {
		void **member = member_at(&api, symbols[i].offset);

		if (!*member)
			*member = dlsym(handle, symbols[i].name);
	}
	note[0] = '\0';
	for (size_t i = 0; i < ARRAY_LEN(symbols); i++) {
		/* Told by the name of the last, the oldest version. */
		bool last =
			i + 1 == ARRAY_LEN(symbols) || symbols[i + 1].offset != symbols[i].offset;

		if (!last || *member_at(&api, symbols[i].offset))
			continue;
		if (symbols[i].need == REQUIRED) {
			snprintf(note, NVML_WHY_BYTES,
			         "%s has no symbol %s: it is not NVIDIA's management library",
			         library, symbols[i].name);
			return -ENOSYS;
		}
		if (symbols[i].need == OPTIONAL)
			add_missing(note, symbols[i].name);
	}
	*out = api;
	return 0;
}

const char *nvml_api_error(const struct nvml_api *api, int result)
{
	const char *text = api->error_string ? api->error_string(result) : NULL;

	return text ? text : "NVML gives no explanation";
}

const char *nvml_api_remedy(int result)
{
	for (size_t i = 0; i < ARRAY_LEN(remedies); i++) {
		if (remedies[i].result == result)
			return remedies[i].remedy;
	}
	return "";
}
