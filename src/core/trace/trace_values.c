/* SPDX-License-Identifier: MIT */
/*
 * See trace_values.h. The ranges are what the configuration and the registry allow, or wider:
 * within them no sum or product of the core overflows.
 */
#include "core/trace/trace_values.h"

#include <errno.h>

#include "base/units.h"

struct trace_member {
	size_t offset;
	enum { MEMBER_I64, MEMBER_U64, MEMBER_I32, MEMBER_U32, MEMBER_BOOL } kind;
	int64_t min, max;
};

#define TURN_MAX_NS (10 * NS_PER_SEC)
#define SPAN_MAX_NS (400 * 86400 * NS_PER_SEC)
#define POINTS_MAX  INT64_C(1000000)
#define WORKERS_MAX INT64_C(1000000)
#define OVERLAP_MAX 32
#define ANY_I64     INT64_MIN, INT64_MAX
#define ANY_U32     0, UINT32_MAX
#define YES_OR_NO   0, 1

#define CONFIG(member, kind, ...)                                       \
	{                                                               \
		offsetof(struct core_config, member), kind, __VA_ARGS__ \
	}
#define SETTINGS(member, kind, ...)                                     \
	{                                                               \
		offsetof(struct vm_settings, member), kind, __VA_ARGS__ \
	}
#define RECORD(member, kind, ...)                                      \
	{                                                              \
		offsetof(struct core_store, member), kind, __VA_ARGS__ \
	}
#define SUBMISSION(member, kind, ...)                                       \
	{                                                                   \
		offsetof(struct core_submission, member), kind, __VA_ARGS__ \
	}
#define RESULT(member, kind, ...)                                       \
	{                                                               \
		offsetof(struct core_result, member), kind, __VA_ARGS__ \
	}

static const struct trace_member config[] = {
	CONFIG(sched.quantum_ns, MEMBER_I64, 1, TURN_MAX_NS),
	CONFIG(sched.slice_ns, MEMBER_I64, 1000, TURN_MAX_NS),
	CONFIG(sched.handover_ns, MEMBER_I64, 0, TURN_MAX_NS),
	CONFIG(sched.overlap_after_ns, MEMBER_I64, 0, TURN_MAX_NS),
	CONFIG(sched.wake_lead_ns, MEMBER_I64, 0, TURN_MAX_NS),
	CONFIG(sched.anticipation_ns, MEMBER_I64, 0, TURN_MAX_NS),
	CONFIG(sched.overlap_max, MEMBER_I32, 1, OVERLAP_MAX),
	CONFIG(sched.boost_percent, MEMBER_I32, 0, 100),
	CONFIG(gpu_count, MEMBER_U32, 1, CORE_MAX_GPUS),
	CONFIG(pools[0].enabled, MEMBER_BOOL, YES_OR_NO),
	CONFIG(pools[0].gpu_mask, MEMBER_U32, ANY_U32),
	CONFIG(pools[0].job_timeout_ns, MEMBER_I64, 0, SPAN_MAX_NS),
	CONFIG(pools[1].enabled, MEMBER_BOOL, YES_OR_NO),
	CONFIG(pools[1].gpu_mask, MEMBER_U32, ANY_U32),
	CONFIG(pools[1].job_timeout_ns, MEMBER_I64, 0, SPAN_MAX_NS),
	CONFIG(job_timeout_ns, MEMBER_I64, 0, SPAN_MAX_NS),
	CONFIG(worker_idle_ns, MEMBER_I64, 0, SPAN_MAX_NS),
	CONFIG(worker_start_timeout_ns, MEMBER_I64, 0, SPAN_MAX_NS),
	CONFIG(worker_patience_ns, MEMBER_I64, 0, SPAN_MAX_NS),
	CONFIG(worker_stop_timeout_ns, MEMBER_I64, 0, SPAN_MAX_NS),
	CONFIG(worker_kill_timeout_ns, MEMBER_I64, 0, SPAN_MAX_NS),
	CONFIG(worker_backoff_min_ns, MEMBER_I64, 0, SPAN_MAX_NS),
	CONFIG(worker_backoff_max_ns, MEMBER_I64, 0, SPAN_MAX_NS),
	CONFIG(max_workers, MEMBER_U32, 1, WORKERS_MAX),
	CONFIG(max_queue_per_vm, MEMBER_U32, ANY_U32),
	CONFIG(max_queued_bytes_per_vm, MEMBER_U32, ANY_U32),
	CONFIG(quarantine_threshold, MEMBER_I64, 0, POINTS_MAX),
	CONFIG(fault_points, MEMBER_I64, 0, POINTS_MAX),
	CONFIG(timeout_points, MEMBER_I64, 0, POINTS_MAX),
	CONFIG(fault_window_ns, MEMBER_I64, 0, SPAN_MAX_NS),
};

static const struct trace_member settings[] = {
	SETTINGS(priority, MEMBER_U32, VGPU_PRIORITY_LOW, VGPU_PRIORITY_HIGH),
	SETTINGS(pool, MEMBER_U32, 0, POOL_COUNT - 1),
	SETTINGS(weight_hundredths, MEMBER_I64, 100, 10000),
	SETTINGS(rate_thousandths, MEMBER_I64, 0, 1000000000),
	SETTINGS(burst_jobs, MEMBER_I64, 0, 1000000),
	SETTINGS(queue_depth, MEMBER_I64, 0, UINT32_MAX),
	SETTINGS(gpu_thousandths, MEMBER_I64, 0, 1000),
	SETTINGS(job_timeout_ms, MEMBER_I64, 0, SPAN_MAX_NS / NS_PER_MS),
	SETTINGS(memory_quota_mib, MEMBER_I64, 0, UINT32_MAX),
};

static const struct trace_member record[] = {
	RECORD(record, MEMBER_U32, CORE_RECORD_FAULT, CORE_RECORD_FORGIVEN),
	RECORD(at_ns, MEMBER_I64, -8 * TRACE_TIME_MAX_NS, 8 * TRACE_TIME_MAX_NS),
	RECORD(fault, MEMBER_U32, 0, CORE_FAULT_COUNT), /* which is none: RECOVERED */
	RECORD(points, MEMBER_I64, 0, INT64_C(1) << 40),
};

static const struct trace_member submission[] = {
	SUBMISSION(client, MEMBER_U64, ANY_I64),
	SUBMISSION(cookie, MEMBER_U64, ANY_I64),
	SUBMISSION(opcode, MEMBER_U32, ANY_U32),
	SUBMISSION(bytes, MEMBER_U32, ANY_U32),
	SUBMISSION(without_gpu, MEMBER_BOOL, YES_OR_NO),
	SUBMISSION(malformed, MEMBER_U32, 0, VGPU_CODE_COUNT - 1),
};

static const struct trace_member result[] = {
	RESULT(code, MEMBER_U32, 0, VGPU_CODE_COUNT - 1),
	RESULT(detail, MEMBER_U32, ANY_U32),
	RESULT(command, MEMBER_U32, ANY_U32),
	RESULT(gpu_time_ns, MEMBER_U64, ANY_I64),
	RESULT(context_lost, MEMBER_BOOL, YES_OR_NO),
};

_Static_assert(sizeof(enum core_record) == sizeof(uint32_t), "an enum is kept as MEMBER_U32");
_Static_assert(ARRAY_LEN(config) + 1 <= TRACE_VALUES_MAX, "the longest event");

#define MEMBERS(of) of, ARRAY_LEN(of)

const struct trace_shape trace_shapes[CORE_EVENT_COUNT] = {
	[CORE_EVENT_NEW] = {"new", 1, MEMBERS(config)},
	[CORE_EVENT_CONFIG_SET] = {"config_set", 1, MEMBERS(config)},
	[CORE_EVENT_VM_ADD] = {"vm_add", 3, MEMBERS(settings)},
	[CORE_EVENT_VM_SET] = {"vm_set", 3, MEMBERS(settings)},
	[CORE_EVENT_VM_REMOVE] = {"vm_remove", 2, NULL, 0},
	[CORE_EVENT_RECORD] = {"record", 1, MEMBERS(record)},
	[CORE_EVENT_RESTORE] = {"restore", 2, NULL, 0},
	[CORE_EVENT_JOB_SUBMITTED] = {"job_submitted", 2, MEMBERS(submission)},
	[CORE_EVENT_JOB_DONE] = {"job_done", 4, MEMBERS(result)},
	[CORE_EVENT_JOB_CANCEL] = {"job_cancel", 2, NULL, 0},
	[CORE_EVENT_CLIENT_GONE] = {"client_gone", 3, NULL, 0},
	[CORE_EVENT_WORKER_READY] = {"worker_ready", 3, NULL, 0},
	[CORE_EVENT_WORKER_DEAD] = {"worker_dead", 4, NULL, 0},
	[CORE_EVENT_STORE_DONE] = {"store_done", 3, NULL, 0},
	[CORE_EVENT_GPU_SET_DRAINING] = {"gpu_set_draining", 3, NULL, 0},
	[CORE_EVENT_GPU_SET_FAULTY] = {"gpu_set_faulty", 3, NULL, 0},
	[CORE_EVENT_GPU_HARDWARE_FAULT] = {"gpu_hardware_fault", 2, NULL, 0},
	[CORE_EVENT_TICK] = {"tick", 1, NULL, 0},
	[CORE_EVENT_SHUTDOWN] = {"shutdown", 1, NULL, 0},
	[CORE_EVENT_ABANDON] = {"abandon", 1, NULL, 0},
};

static int64_t load(const void *what, const struct trace_member *member)
{
	const void *at = (const char *)what + member->offset;

	switch (member->kind) {
	case MEMBER_I32:
		return *(const int32_t *)at;
	case MEMBER_U32:
		return *(const uint32_t *)at;
	case MEMBER_BOOL:
		return *(const bool *)at;
	case MEMBER_I64:
	case MEMBER_U64:
		break;
	}
	return *(const int64_t *)at;
}

static void store(void *what, const struct trace_member *member, int64_t value)
{
	void *at = (char *)what + member->offset;

	switch (member->kind) {
	case MEMBER_I32:
	case MEMBER_U32:
		*(uint32_t *)at = (uint32_t)value;
		return;
	case MEMBER_BOOL:
		*(bool *)at = value != 0;
		return;
	case MEMBER_I64:
	case MEMBER_U64:
		break;
	}
	*(int64_t *)at = value;
}

void trace_pack(int64_t *to, enum core_event event, const void *what)
{
	const struct trace_shape *shape = &trace_shapes[event];

	for (size_t i = 0; i < shape->member_count; i++)
		to[i] = load(what, &shape->members[i]);
}

int trace_unpack(void *what, enum core_event event, const int64_t *values)
{
	const struct trace_shape *shape = &trace_shapes[event];

	for (size_t i = 0; i < shape->member_count; i++) {
		if (values[i] < shape->members[i].min || values[i] > shape->members[i].max)
			return -EINVAL;
		store(what, &shape->members[i], values[i]);
	}
	return 0;
}
