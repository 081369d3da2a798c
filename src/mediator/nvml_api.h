/* SPDX-License-Identifier: MIT */
/*
 * The part of NVML that the mediator uses, found in libnvidia-ml.so.1 at run time:
 * nothing of NVIDIA's is needed to build. Types are declared here from the API's
 * documented binary interface; handles are opaque pointers.
 *
 * Functions return one of enum nvml_result. A driver may be older or newer than what
 * is known here: every function but the first few may be missing (NULL), and where
 * there are several versions with different arguments each is a member of its own.
 */
#ifndef MEDIATOR_NVML_API_H
#define MEDIATOR_NVML_API_H

#include <stddef.h>
#include <stdint.h>

enum nvml_result {
	NVML_SUCCESS = 0,
	NVML_UNINITIALIZED = 1,
	NVML_INVALID_ARGUMENT = 2,
	NVML_NOT_SUPPORTED = 3,
	NVML_NO_PERMISSION = 4,
	NVML_NOT_FOUND = 6,
	NVML_INSUFFICIENT_SIZE = 7,
	NVML_DRIVER_NOT_LOADED = 9,
	NVML_TIMEOUT = 10,
	NVML_FUNCTION_NOT_FOUND = 13,
	NVML_GPU_IS_LOST = 15,
	NVML_RESET_REQUIRED = 16,
	NVML_LIBRARY_MISMATCH = 18,
	NVML_VERSION_MISMATCH = 25, /* of a structure */
	NVML_UNKNOWN_ERROR = 999,
};

enum {
	NVML_SENSOR_GPU = 0,
	NVML_THRESHOLD_SLOWDOWN = 1,
	NVML_ECC_CORRECTED = 0,
	NVML_ECC_UNCORRECTED = 1,
	NVML_ECC_VOLATILE = 0,
	NVML_ECC_AGGREGATE = 1,
	NVML_RETIRED_CORRECTED = 0, /* because of several corrected errors */
	NVML_RETIRED_UNCORRECTED = 1,
	NVML_EVENT_XID = 8,
	NVML_FIELD_RESET_STATUS = 226,    /* 1: wants a reset */
	NVML_FIELD_DRAIN_AND_RESET = 227, /* 1: wants a drain and a reset */
	NVML_FIELD_RECOVERY_ACTION = 230, /* what newer drivers have instead of both */
	NVML_VALUE_UNSIGNED = 1,          /* nvml_field.value_type: the value is 32 bits wide */
};

/* For structures that carry their own version. */
#define NVML_STRUCT_VERSION(type, version) ((uint32_t)sizeof(type) | (uint32_t)(version) << 24)

#define NVML_VALUE_NOT_AVAILABLE UINT64_MAX

struct nvml_utilization {
	uint32_t gpu; /* percent */
	uint32_t memory;
};

struct nvml_memory {
	uint64_t total;
	uint64_t free;
	uint64_t used; /* the driver's own part with it */
};

struct nvml_memory_v2 {
	uint32_t version; /* NVML_STRUCT_VERSION(…, 2) */
	uint64_t total;
	uint64_t reserved;
	uint64_t free;
	uint64_t used;
};

struct nvml_margin {
	uint32_t version; /* NVML_STRUCT_VERSION(…, 1) */
	int32_t degrees;
};

struct nvml_temperature {
	uint32_t version; /* NVML_STRUCT_VERSION(…, 1) */
	int32_t sensor;
	int32_t celsius;
};

struct nvml_process_v1 {
	uint32_t pid;
	uint64_t used_bytes;
};

struct nvml_process {
	uint32_t pid;
	uint64_t used_bytes;
	uint32_t gpu_instance;
	uint32_t compute_instance;
};

/* The first form of nvmlEventSetWait fills in only what comes before the instances. */
struct nvml_event {
	void *gpu;
	uint64_t type;
	uint64_t data; /* the Xid */
	uint32_t gpu_instance;
	uint32_t compute_instance;
};

struct nvml_field {
	uint32_t field;
	uint32_t scope;
	int64_t timestamp_us;
	int64_t latency_us;
	uint32_t value_type;
	int32_t result;
	uint64_t value; /* narrower types lie at its beginning */
};

_Static_assert(sizeof(struct nvml_memory_v2) == 40, "as in NVML");
_Static_assert(sizeof(struct nvml_process_v1) == 16, "as in NVML");
_Static_assert(sizeof(struct nvml_process) == 24, "as in NVML");
_Static_assert(sizeof(struct nvml_event) == 32, "as in NVML");
_Static_assert(sizeof(struct nvml_field) == 40, "as in NVML");

enum { NVML_WHY_BYTES = 512 };

struct nvml_api {
	/* Always there. */
	int (*init)(void);
	int (*shutdown)(void);
	int (*handle_by_uuid)(const char *uuid, void **gpu);
	/* NULL where the library has none of the versions. */
	const char *(*error_string)(int result);
	int (*driver_version)(char *version, uint32_t bytes);
	int (*temperature)(void *gpu, int sensor, uint32_t *celsius);
	int (*temperature_struct)(void *gpu, struct nvml_temperature *temperature);
	int (*temperature_threshold)(void *gpu, int threshold, uint32_t *celsius);
	int (*margin)(void *gpu, struct nvml_margin *margin);
	int (*utilization)(void *gpu, struct nvml_utilization *utilization);
	int (*memory_v2)(void *gpu, struct nvml_memory_v2 *memory);
	int (*memory)(void *gpu, struct nvml_memory *memory);
	int (*power)(void *gpu, uint32_t *milliwatts);
	int (*ecc)(void *gpu, int kind, int counter, uint64_t *errors);
	int (*clock_reasons)(void *gpu, uint64_t *reasons);
	int (*rows)(void *gpu, uint32_t *corrected, uint32_t *uncorrected, uint32_t *pending,
	            uint32_t *failed);
	/* With *@count 0 and no @addresses INSUFFICIENT_SIZE, and *@count says how many. */
	int (*pages)(void *gpu, int cause, uint32_t *count, uint64_t *addresses);
	int (*pages_pending)(void *gpu, int *pending);
	int (*processes)(void *gpu, uint32_t *count, struct nvml_process *processes);
	int (*processes_v1)(void *gpu, uint32_t *count, struct nvml_process_v1 *processes);
	int (*fields)(void *gpu, int count, struct nvml_field *fields);
	int (*events_create)(void **set);
	int (*events_register)(void *gpu, uint64_t types, void *set);
	int (*events_wait)(void *set, struct nvml_event *event, uint32_t timeout_ms);
	int (*events_free)(void *set);
};

/*
 * Loads @library and every symbol that it has. 0 with @note naming what is missing ("" =
 * nothing), or -ENOENT (no library) or -ENOSYS (not this library) with @note saying so
 * and what may help. The library stays loaded until the process ends: a thread may hang
 * in it.
 */
int nvml_api_load(struct nvml_api *out, const char *library, char note[NVML_WHY_BYTES]);

/* What @result means, in NVML's words where it has any. Never NULL. */
const char *nvml_api_error(const struct nvml_api *api, int result);

/* What may help against @result of nvmlInit; "" where nothing special does. */
const char *nvml_api_remedy(int result);

#endif
