/* SPDX-License-Identifier: MIT */
/* See scenario_keys.h. */
#include "sim/scenario_keys.h"

#include <string.h>

#include "base/units.h"
#include "sim/report.h"

#define SCENARIO(member) offsetof(struct scenario, member)
#define RULE(member)     offsetof(struct scenario_rules, member)
#define VM(member)       offsetof(struct scenario_vm, member)

enum { DAY_MS = 86400000 };

#define DAY_US INT64_C(86400000000)

const struct scenario_number scenario_numbers[] = {
	{"seed", 1, 0, INT64_C(1000000000000000), NUMBER_U64, SCENARIO(seed)},
	{"duration-ms", NS_PER_MS, 1, DAY_MS, NUMBER_I64, SCENARIO(duration_ns)},
	{"warmup-ms", NS_PER_MS, 0, DAY_MS, NUMBER_I64, SCENARIO(warmup_ns)},
	{"gpus", 1, 1, 2, NUMBER_U32, SCENARIO(gpus)},
	{"shared-gpus", 1, 0, 1, NUMBER_U32, SCENARIO(shared)},
	{NULL, 0, 0, 0, NUMBER_I64, 0},
};

/* Where the mediator has a key of the same meaning, its range. */
const struct scenario_number scenario_rule_numbers[] = {
	{"worker-start-us", NS_PER_US, 0, 60000000, NUMBER_I64, RULE(worker_start_ns)},
	{"start-fail-percent", 1, 0, 100, NUMBER_U32, RULE(start_fail_percent)},
	{"worker-reap-us", NS_PER_US, 0, 60000000, NUMBER_I64, RULE(worker_reap_ns)},
	{"slow-reap-percent", 1, 0, 100, NUMBER_U32, RULE(slow_reap_percent)},
	{"slow-reap-us", NS_PER_US, 0, 60000000, NUMBER_I64, RULE(slow_reap_ns)},
	{"store-us", NS_PER_US, 0, 60000000, NUMBER_I64, RULE(store_ns)},
	{"store-fail-percent", 1, 0, 100, NUMBER_U32, RULE(store_fail_percent)},
	{"hardware-percent", 1, 0, 100, NUMBER_U32, RULE(hardware_percent)},
	{"answer-twice-percent", 1, 0, 100, NUMBER_U32, RULE(twice_percent)},
	{"max-workers", 1, 1, 1024, NUMBER_U32, RULE(core.max_workers)},
	{"max-queue-per-vm", 1, 1, 65536, NUMBER_U32, RULE(core.max_queue_per_vm)},
	{"quarantine-threshold", 1, 1, 1000000, NUMBER_I64, RULE(core.quarantine_threshold)},
	{"fault-points", 1, 0, 1000000, NUMBER_I64, RULE(core.fault_points)},
	{"timeout-points", 1, 0, 1000000, NUMBER_I64, RULE(core.timeout_points)},
	{"fault-window-ms", NS_PER_MS, 1, DAY_MS, NUMBER_I64, RULE(core.fault_window_ns)},
	{"worker-idle-ms", NS_PER_MS, 1, DAY_MS, NUMBER_I64, RULE(core.worker_idle_ns)},
	{"worker-patience-ms", NS_PER_MS, 1, DAY_MS, NUMBER_I64, RULE(core.worker_patience_ns)},
	{"start-timeout-ms", NS_PER_MS, 1, DAY_MS, NUMBER_I64, RULE(core.worker_start_timeout_ns)},
	{"stop-timeout-ms", NS_PER_MS, 1, DAY_MS, NUMBER_I64, RULE(core.worker_stop_timeout_ns)},
	{"kill-timeout-ms", NS_PER_MS, 1, DAY_MS, NUMBER_I64, RULE(core.worker_kill_timeout_ns)},
	{"backoff-min-ms", NS_PER_MS, 1, DAY_MS, NUMBER_I64, RULE(core.worker_backoff_min_ns)},
	{"backoff-max-ms", NS_PER_MS, 1, DAY_MS, NUMBER_I64, RULE(core.worker_backoff_max_ns)},
	{"pool-a-enabled", 1, 0, 1, NUMBER_BOOL, RULE(core.pools[0].enabled)},
	{"pool-b-enabled", 1, 0, 1, NUMBER_BOOL, RULE(core.pools[1].enabled)},
	{"job-timeout-ms", NS_PER_MS, 10, DAY_MS, NUMBER_I64, RULE(core.job_timeout_ns)},
	{"quantum-us", NS_PER_US, 100, 1000000, NUMBER_I64, RULE(core.sched.quantum_ns)},
	{"slice-us", NS_PER_US, 100, 100000, NUMBER_I64, RULE(core.sched.slice_ns)},
	{"handover-us", NS_PER_US, 0, 100000, NUMBER_I64, RULE(core.sched.handover_ns)},
	{"overlap-max", 1, 1, 32, NUMBER_I32, RULE(core.sched.overlap_max)},
	{"overlap-after-ms", NS_PER_MS, 0, 10000, NUMBER_I64, RULE(core.sched.overlap_after_ns)},
	{"wake-lead-ms", NS_PER_MS, 0, 10000, NUMBER_I64, RULE(core.sched.wake_lead_ns)},
	{"anticipation-us", NS_PER_US, 0, 10000, NUMBER_I64, RULE(core.sched.anticipation_ns)},
	{"boost-percent", 1, 0, 100, NUMBER_I32, RULE(core.sched.boost_percent)},
	{NULL, 0, 0, 0, NUMBER_I64, 0},
};

const struct scenario_number scenario_vm_numbers[] = {
	{"outstanding", 1, 1, 1000, NUMBER_U32, VM(outstanding)},
	{"think-us", NS_PER_US, 0, 1000000000, NUMBER_I64, VM(think_ns)},
	{"period-us", NS_PER_US, 1, 1000000000, NUMBER_I64, VM(period_ns)},
	{"length-us", NS_PER_US, 0, 1000000000, NUMBER_I64, VM(length_ns)},
	{"spread-percent", 1, 0, 200, NUMBER_U32, VM(spread_percent)},
	{"first-us", NS_PER_US, 0, 1000000000, NUMBER_I64, VM(first_ns)},
	{"first-jobs", 1, 0, 1000000, NUMBER_U32, VM(first_jobs)},
	{"alternate-us", NS_PER_US, 0, 1000000000, NUMBER_I64, VM(alternate_ns)},
	{"alternate-every", 1, 0, 1000000, NUMBER_U32, VM(alternate_every)},
	{"fault-every", 1, 0, 1000000, NUMBER_U32, VM(fault_every)},
	{"hang-every", 1, 0, 1000000, NUMBER_U32, VM(hang_every)},
	{"malformed-every", 1, 0, 1000000, NUMBER_U32, VM(malformed_every)},
	{"join-us", NS_PER_US, 0, DAY_US, NUMBER_I64, VM(join_ns)},
	{"leave-us", NS_PER_US, 0, DAY_US, NUMBER_I64, VM(leave_ns)},
	{"stream", 1, 0, UINT32_MAX, NUMBER_U32, VM(stream)},
	{NULL, 0, 0, 0, NUMBER_I64, 0},
};

const char *const load_names[LOAD_COUNT] = {
	[LOAD_BACKLOGGED] = "backlogged",
	[LOAD_CLOSED] = "closed",
	[LOAD_PERIODIC] = "periodic",
	[LOAD_POISSON] = "poisson",
};

const char *const counts_names[COUNTS_COUNT] = {
	[COUNTS_SHARE] = "share",
	[COUNTS_EXCESS] = "excess",
	[COUNTS_WAIT] = "wait",
	[COUNTS_NOTHING] = "nothing",
};

const struct happening_word happening_words[HAPPENS_COUNT] = {
	[HAPPENS_SETTING] = {NULL, ARGUMENT_NUMBER, false},
	[HAPPENS_PRIORITY] = {"priority", ARGUMENT_PRIORITY, false},
	[HAPPENS_POOL] = {"pool", ARGUMENT_POOL, false},
	[HAPPENS_HANG] = {"hang", ARGUMENT_NONE, false},
	[HAPPENS_FAULT] = {"fault", ARGUMENT_NONE, false},
	[HAPPENS_DEATH] = {"death", ARGUMENT_NONE, false},
	[HAPPENS_DRAIN] = {"drain", ARGUMENT_SWITCH, false},
	[HAPPENS_QUARANTINE] = {"quarantine", ARGUMENT_SWITCH, false},
	[HAPPENS_HARDWARE] = {"hardware-fault", ARGUMENT_NONE, false},
	[HAPPENS_FAULTY] = {"faulty", ARGUMENT_SWITCH, false},
	[HAPPENS_CANCEL] = {"cancel", ARGUMENT_NONE, false},
	[HAPPENS_HANGUP] = {"hangup", ARGUMENT_NONE, false},
	[HAPPENS_RULE] = {NULL, ARGUMENT_NUMBER, true},
	[HAPPENS_RESTART] = {"restart", ARGUMENT_NONE, true},
};

#define EXPECT(key, member, of_waits)                                     \
	{                                                                 \
		key, offsetof(struct scenario_expect, member),            \
			offsetof(struct report_summary, member), of_waits \
	}

const struct expect_row expect_rows[] = {
	EXPECT("busy-percent", busy_percent, false),
	EXPECT("kept-percent", kept_percent, false),
	EXPECT("share-error-percent", share_error_percent, false),
	EXPECT("gpu-error-percent", gpu_error_percent, false),
	EXPECT("least-percent", least_percent, false),
	EXPECT("excess-turns", excess_turns, false),
	EXPECT("failed-jobs", failed_jobs, false),
	EXPECT("wait-p50-ms", wait_p50_ms, true),
	EXPECT("wait-p99-ms", wait_p99_ms, true),
	EXPECT("wait-max-ms", wait_max_ms, true),
	{NULL, 0, 0, false},
};

const struct decimal scenario_range_decimal = {
	.scale = 1000,
	.max = INT64_C(1000000000000),
};

struct decimal scenario_decimal(const struct scenario_number *number)
{
	return (struct decimal){
		.name = number->key,
		.scale = number->scale,
		.min = number->min * number->scale,
		.max = number->max * number->scale,
	};
}

int64_t scenario_get(const void *base, const struct scenario_number *number)
{
	const void *at = (const char *)base + number->offset;

	switch (number->kind) {
	case NUMBER_U32:
		return *(const uint32_t *)at;
	case NUMBER_I32:
		return *(const int32_t *)at;
	case NUMBER_BOOL:
		return *(const bool *)at;
	case NUMBER_U64:
	case NUMBER_I64:
		break;
	}
	return *(const int64_t *)at;
}

void scenario_put(void *base, const struct scenario_number *number, int64_t value)
{
	void *at = (char *)base + number->offset;

	switch (number->kind) {
	case NUMBER_U32:
		*(uint32_t *)at = (uint32_t)value;
		return;
	case NUMBER_I32:
		*(int32_t *)at = (int32_t)value;
		return;
	case NUMBER_BOOL:
		*(bool *)at = value != 0;
		return;
	case NUMBER_U64:
	case NUMBER_I64:
		break;
	}
	*(int64_t *)at = value;
}

struct scenario_range *scenario_range_of(struct scenario_expect *expect,
                                         const struct expect_row *row)
{
	return (struct scenario_range *)(void *)((char *)expect + row->range);
}

const char *scenario_format(char *to, size_t size, const struct decimal *decimal, int64_t stored)
{
	decimal_format(to, size, decimal, stored);
	if (strchr(to, '.')) {
		size_t length = strlen(to);

		while (to[length - 1] == '0')
			length--;
		to[to[length - 1] == '.' ? length - 1 : length] = '\0';
	}
	return to;
}
