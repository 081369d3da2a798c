/* SPDX-License-Identifier: MIT */
/*
 * The functions of libnvidia-ml.so.1 that the stand-in has, under their real names. A
 * GPU's handle is opaque to callers; here it is a pointer into the table of GPUs.
 */
#ifndef STANDIN_NVML_H
#define STANDIN_NVML_H

#include <stdint.h>

#include "mediator/nvml_api.h"

struct device;

/* Not NVML's: how many Xid errors nobody has fetched yet. */
unsigned int standin_nvml_xids_left(void);

int nvmlInit(void);
int nvmlInit_v2(void);
int nvmlShutdown(void);
const char *nvmlErrorString(int result);
int nvmlSystemGetDriverVersion(char *version, uint32_t bytes);
int nvmlDeviceGetHandleByUUID(const char *uuid, struct device **device);
int nvmlDeviceGetTemperature(struct device *device, int sensor, uint32_t *celsius);
int nvmlDeviceGetTemperatureV(struct device *device, struct nvml_temperature *temperature);
int nvmlDeviceGetTemperatureThreshold(struct device *device, int threshold, uint32_t *celsius);
int nvmlDeviceGetMarginTemperature(struct device *device, struct nvml_margin *margin);
int nvmlDeviceGetUtilizationRates(struct device *device, struct nvml_utilization *utilization);
int nvmlDeviceGetMemoryInfo(struct device *device, struct nvml_memory *memory);
int nvmlDeviceGetMemoryInfo_v2(struct device *device, struct nvml_memory_v2 *memory);
int nvmlDeviceGetPowerUsage(struct device *device, uint32_t *milliwatts);
int nvmlDeviceGetTotalEccErrors(struct device *device, int kind, int counter, uint64_t *errors);
int nvmlDeviceGetCurrentClocksEventReasons(struct device *device, uint64_t *reasons);
int nvmlDeviceGetCurrentClocksThrottleReasons(struct device *device, uint64_t *reasons);
int nvmlDeviceGetRemappedRows(struct device *device, uint32_t *corrected, uint32_t *uncorrected,
                              uint32_t *pending, uint32_t *failed);
int nvmlDeviceGetRetiredPages(struct device *device, int cause, uint32_t *count,
                              uint64_t *addresses);
int nvmlDeviceGetRetiredPagesPendingStatus(struct device *device, int *pending);
int nvmlDeviceGetComputeRunningProcesses(struct device *device, uint32_t *count,
                                         struct nvml_process_v1 *processes);
int nvmlDeviceGetComputeRunningProcesses_v2(struct device *device, uint32_t *count,
                                            struct nvml_process *processes);
int nvmlDeviceGetComputeRunningProcesses_v3(struct device *device, uint32_t *count,
                                            struct nvml_process *processes);
int nvmlDeviceGetFieldValues(struct device *device, int count, struct nvml_field *fields);
int nvmlEventSetCreate(void **set);
int nvmlDeviceRegisterEvents(struct device *device, uint64_t types, void *set);
int nvmlEventSetWait(void *set, struct nvml_event *event, uint32_t timeout_ms);
int nvmlEventSetWait_v2(void *set, struct nvml_event *event, uint32_t timeout_ms);
int nvmlEventSetFree(void *set);

#endif
