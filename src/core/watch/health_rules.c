/* SPDX-License-Identifier: MIT */
/* See health_rules.h. */
#include "core/watch/health_rules.h"

#include "base/units.h"

enum {
	DEFAULT_SLOWDOWN_C = 90, /* where NVML does not tell */
	COOLED_DOWN_C = 5,       /* below the threshold */
	NOTICE_S = 2,            /* what lasts no longer is a glitch */
};

#define CODE(n, l, d, r, e, text)                                                   \
	{                                                                           \
		.name = (n), .level = (l), .drains = (d), .reset = (r), .end = (e), \
		.remedy = (text)                                                    \
	}

const struct health_code_info health_codes[HEALTH_CODE_COUNT] = {
	[HEALTH_CODE_LOST] =
		CODE("lost", HEALTH_FAILED, true, HEALTH_RESET_HELPS, HEALTH_ENDS_BY_RULE,
                     "check power, slot and cables; reset the GPU or restart the host"),
	[HEALTH_CODE_RESET_FAILED] =
		CODE("reset_failed", HEALTH_FAILED, true, HEALTH_RESET_BARRED, HEALTH_ENDS_BY_RESET,
                     "restart the host, then resume it; if that does not help, replace the GPU"),
	[HEALTH_CODE_RESET_IN_VAIN] = CODE(
		"reset_in_vain", HEALTH_FAILED, true, HEALTH_RESET_BARRED, HEALTH_ENDS_BY_RESET,
		"reset it or restart the host, test it with NVIDIA's diagnostics, then resume it"),
	[HEALTH_CODE_REBOOT_WANTED] =
		CODE("reboot_wanted", HEALTH_FAILED, true, HEALTH_RESET_BARRED, HEALTH_ENDS_BY_RULE,
                     "restart the host"),
	[HEALTH_CODE_NO_CONTEXT] =
		CODE("no_context", HEALTH_FAILED, true, HEALTH_RESET_HELPS, HEALTH_ENDS_BY_RESET,
                     "does nvidia-smi list it? reset it or restart the host"),
	[HEALTH_CODE_XID_RESET] =
		CODE("xid_reset", HEALTH_DRAINING, true, HEALTH_RESET_HELPS, HEALTH_ENDS_BY_RESET,
                     "reset the GPU (nvidia-smi --gpu-reset) once it is drained"),
	[HEALTH_CODE_RESET_REQUIRED] = CODE(
		"reset_required", HEALTH_DRAINING, true, HEALTH_RESET_HELPS, HEALTH_ENDS_BY_RULE,
		"reset the GPU (nvidia-smi --gpu-reset) once it is drained"),
	[HEALTH_CODE_RESET_WANTED] =
		CODE("reset_wanted", HEALTH_DRAINING, true, HEALTH_RESET_HELPS, HEALTH_ENDS_BY_RULE,
                     "reset the GPU (nvidia-smi --gpu-reset) once it is drained"),
	[HEALTH_CODE_ROWS_FAILED] =
		CODE("row_remap_failed", HEALTH_DRAINING, true, HEALTH_RESET_NO,
                     HEALTH_ENDS_BY_RULE, "its memory can no longer be repaired: replace the GPU"),
	[HEALTH_CODE_NO_READINGS] =
		CODE("no_readings", HEALTH_UNKNOWN, false, HEALTH_RESET_NO, HEALTH_ENDS_BY_READING,
                     "does nvidia-smi answer? jobs go on meanwhile"),
	[HEALTH_CODE_UNREACHABLE] =
		CODE("unreachable", HEALTH_UNKNOWN, false, HEALTH_RESET_NO, HEALTH_ENDS_BY_RULE,
                     "does nvidia-smi list this GPU? jobs go on meanwhile"),
	[HEALTH_CODE_STARTS_FAIL] =
		CODE("starts_fail", HEALTH_DEGRADED, false, HEALTH_RESET_NO, HEALTH_ENDS_BY_START,
                     "the log has what each said; try vgpu-worker --probe"),
	[HEALTH_CODE_TEMPERATURE] =
		CODE("temperature", HEALTH_DEGRADED, false, HEALTH_RESET_NO, HEALTH_ENDS_BY_RULE,
                     "check fans and air flow; jobs become slower"),
	[HEALTH_CODE_THROTTLE_THERMAL] =
		CODE("throttle_thermal", HEALTH_DEGRADED, false, HEALTH_RESET_NO,
                     HEALTH_ENDS_BY_RULE, "check fans and air flow; jobs become slower"),
	[HEALTH_CODE_THROTTLE_POWER] =
		CODE("throttle_power_brake", HEALTH_DEGRADED, false, HEALTH_RESET_NO,
                     HEALTH_ENDS_BY_RULE, "check the power supply; jobs become slower"),
	[HEALTH_CODE_THROTTLE_HARDWARE] =
		CODE("throttle_hardware", HEALTH_DEGRADED, false, HEALTH_RESET_NO,
                     HEALTH_ENDS_BY_RULE, "check cooling and power supply; jobs become slower"),
	[HEALTH_CODE_ECC_UNCORRECTED] =
		CODE("ecc_uncorrected", HEALTH_DEGRADED, false, HEALTH_RESET_NO,
                     HEALTH_ENDS_BY_TIME, "plan a reset; if it comes back, replace the GPU"),
	[HEALTH_CODE_XID_CONTAINED] =
		CODE("xid_contained", HEALTH_DEGRADED, false, HEALTH_RESET_NO, HEALTH_ENDS_BY_TIME,
                     "the job that met it has failed; plan a reset to repair the memory"),
	[HEALTH_CODE_ROWS_PENDING] =
		CODE("row_remap_pending", HEALTH_DEGRADED, false, HEALTH_RESET_NO,
                     HEALTH_ENDS_BY_RULE, "plan a reset: it puts spare memory in place"),
	[HEALTH_CODE_PAGES_PENDING] =
		CODE("page_retirement_pending", HEALTH_DEGRADED, false, HEALTH_RESET_NO,
                     HEALTH_ENDS_BY_RULE, "plan a reset: it takes the bad pages out of use"),
	[HEALTH_CODE_RECOVERY_OTHER] =
		CODE("recovery_wanted", HEALTH_DEGRADED, false, HEALTH_RESET_NO,
                     HEALTH_ENDS_BY_RULE, "look for Xid 154 in the kernel log"),
	[HEALTH_CODE_RECOVERY_ANNOUNCED] = CODE(
		"recovery_announced", HEALTH_DEGRADED, false, HEALTH_RESET_NO, HEALTH_ENDS_BY_TIME,
		"look for Xid 154 in the kernel log: it names the action"),
	[HEALTH_CODE_XID_WARNING] =
		CODE("xid_warning", HEALTH_DEGRADED, false, HEALTH_RESET_NO, HEALTH_ENDS_BY_TIME,
                     "watch its memory errors; plan a reset"),
	[HEALTH_CODE_READINGS_PAUSED] =
		CODE("readings_paused", HEALTH_OK, false, HEALTH_RESET_NO, HEALTH_ENDS_BY_READING,
                     "none needed: it ends with that reset, and jobs go on meanwhile"),
};

/* ---- Conditions -------------------------------------------------------------------- */

static enum health_answer answer(bool yes)
{
	return yes ? HEALTH_YES : HEALTH_NO;
}

/* rule->bits: the contact that it is about. */
static enum health_answer contact_is(const struct health_rule *rule,
                                     const struct health_reading *reading, bool active)
{
	/* A GPU that is gone may turn up as any error; only an answer ends that. */
	if (active && rule->end_means_reset)
		return answer(reading->contact != HEALTH_ANSWERS);
	return answer(reading->contact == (enum health_contact)rule->bits);
}

static enum health_answer never(const struct health_rule *rule,
                                const struct health_reading *reading, bool active)
{
	return HEALTH_NO;
}

static enum health_answer too_hot(const struct health_rule *rule,
                                  const struct health_reading *reading, bool active)
{
	int64_t cooler = active ? COOLED_DOWN_C : 0;
	int64_t slowdown = DEFAULT_SLOWDOWN_C, is;

	if (health_reading_get(reading, HEALTH_MARGIN_C, &is))
		return answer(active ? is < cooler : is <= 0);
	if (!health_reading_get(reading, HEALTH_TEMPERATURE_C, &is))
		return HEALTH_DONT_KNOW;
	health_reading_get(reading, HEALTH_SLOWDOWN_C, &slowdown);
	return answer(active ? is > slowdown - cooler : is >= slowdown);
}

static enum health_answer has_bits(const struct health_rule *rule,
                                   const struct health_reading *reading, bool active)
{
	int64_t is;

	if (!health_reading_get(reading, rule->value, &is))
		return HEALTH_DONT_KNOW;
	return answer((is & rule->bits) && !(is & rule->unless));
}

#define ACTION(name) (INT64_C(1) << HEALTH_RECOVERY_##name)

/* rule->bits: a bit for each action that it is about; without: all but rule->unless. */
static enum health_answer wants(const struct health_rule *rule,
                                const struct health_reading *reading, bool active)
{
	int64_t action, bit;

	if (!health_reading_get(reading, HEALTH_RECOVERY_ACTION, &action))
		return HEALTH_DONT_KNOW;
	bit = action < 0 || action > 62 ? 0 : INT64_C(1) << action;
	return answer(rule->bits ? (bit & rule->bits) != 0 : !(bit & rule->unless));
}

#define SECONDS(s) ((s)*NS_PER_SEC)
#define ANY_BIT    INT64_C(-1)
#define LASTS      .on_ns = SECONDS(NOTICE_S), .off_ns = SECONDS(HEALTH_SETTLE_S)

const struct health_rule health_rules[] = {
	/* These begin when readings stop. */
	{.code = HEALTH_CODE_NO_READINGS, .holds = never, .off_ns = SECONDS(HEALTH_SETTLE_S)},
	{.code = HEALTH_CODE_READINGS_PAUSED, .holds = never},
	{.code = HEALTH_CODE_LOST,
         .holds = contact_is,
         .bits = HEALTH_LOST,
         .off_ns = SECONDS(HEALTH_RETURN_S),
         .end_means_reset = true,
         .text = "the GPU is lost: it has fallen off the bus"},
	{.code = HEALTH_CODE_RESET_REQUIRED,
         .holds = contact_is,
         .bits = HEALTH_RESET_REQUIRED,
         .off_ns = SECONDS(HEALTH_RETURN_S),
         .end_means_reset = true,
         .text = "the driver refuses the GPU until it is reset"},
	{.code = HEALTH_CODE_UNREACHABLE,
         .holds = contact_is,
         .bits = HEALTH_UNREACHABLE,
         LASTS,
         .text = "NVML has no values of the GPU"},
	{.code = HEALTH_CODE_REBOOT_WANTED,
         .holds = wants,
         .bits = ACTION(REBOOT),
         .value = HEALTH_RECOVERY_ACTION,
         LASTS,
         .text = "the driver asks for a restart of the host"},
	{.code = HEALTH_CODE_RESET_WANTED,
         .holds = wants,
         .bits = ACTION(RESET) | ACTION(DRAIN_PEERS) | ACTION(DRAIN_AND_RESET),
         .value = HEALTH_RECOVERY_ACTION,
         LASTS,
         .end_means_reset = true,
         .text = "the driver asks for a reset, recovery action",
         .unit = ""},
	{.code = HEALTH_CODE_RECOVERY_OTHER,
         .holds = wants,
         .unless = ACTION(NONE) | ACTION(RESET) | ACTION(REBOOT) | ACTION(DRAIN_PEERS) |
                   ACTION(DRAIN_AND_RESET),
         .value = HEALTH_RECOVERY_ACTION,
         LASTS,
         .text = "the driver asks for recovery action",
         .unit = ""},
	{.code = HEALTH_CODE_ROWS_FAILED,
         .holds = has_bits,
         .bits = ANY_BIT,
         .value = HEALTH_ROWS_FAILED,
         LASTS,
         .text = "a bad row of memory could not be remapped"},
	{.code = HEALTH_CODE_ROWS_PENDING,
         .holds = has_bits,
         .bits = ANY_BIT,
         .value = HEALTH_ROWS_PENDING,
         LASTS,
         .end_means_reset = true,
         .text = "bad rows of memory wait for a reset to be remapped"},
	{.code = HEALTH_CODE_PAGES_PENDING,
         .holds = has_bits,
         .bits = ANY_BIT,
         .value = HEALTH_PAGES_PENDING,
         LASTS,
         .end_means_reset = true,
         .text = "bad pages of memory wait for a reset to be retired"},
	{.code = HEALTH_CODE_TEMPERATURE,
         .holds = too_hot,
         .value = HEALTH_TEMPERATURE_C,
         .on_ns = SECONDS(5),
         .off_ns = SECONDS(10),
         .text = "the GPU is as hot as it may get:",
         .unit = " degrees Celsius"},
	{.code = HEALTH_CODE_THROTTLE_THERMAL,
         .holds = has_bits,
         .bits = HEALTH_CLOCKS_THERMAL,
         .value = HEALTH_CLOCK_REASONS,
         .on_ns = SECONDS(NOTICE_S),
         .off_ns = SECONDS(10),
         .text = "the hardware slows down because of heat"},
	{.code = HEALTH_CODE_THROTTLE_POWER,
         .holds = has_bits,
         .bits = HEALTH_CLOCKS_POWER_BRAKE,
         .value = HEALTH_CLOCK_REASONS,
         .on_ns = SECONDS(NOTICE_S),
         .off_ns = SECONDS(10),
         .text = "the host's power supply makes the hardware slow down"},
	{.code = HEALTH_CODE_THROTTLE_HARDWARE,
         .holds = has_bits,
         .bits = HEALTH_CLOCKS_HARDWARE,
         .unless = HEALTH_CLOCKS_THERMAL | HEALTH_CLOCKS_POWER_BRAKE,
         .value = HEALTH_CLOCK_REASONS,
         .on_ns = SECONDS(NOTICE_S),
         .off_ns = SECONDS(10),
         .text = "the hardware slows down, heat or power"},
};

const size_t health_rule_count = ARRAY_LEN(health_rules);

/* ---- Xid errors -------------------------------------------------------------------- */

const struct health_xid health_xids[HEALTH_XID_COUNT + 1] = {
	{13, HEALTH_XID_JOB, "a kernel did something illegal"},
	{31, HEALTH_XID_JOB, "a kernel used an address that is not mapped"},
	{43, HEALTH_XID_JOB, "a job's channel was stopped after a fault of its own"},
	{45, HEALTH_XID_JOB, "work was thrown away because its process ended"},
	{48, HEALTH_XID_RESET, "memory error that ECC cannot correct"},
	{62, HEALTH_XID_RESET, "the GPU's microcontroller has halted"},
	{63, HEALTH_XID_WARNING, "bad memory was marked for replacement"},
	{64, HEALTH_XID_RESET, "bad memory could not be marked for replacement"},
	{68, HEALTH_XID_JOB, "the video engine met an error"},
	{74, HEALTH_XID_RESET, "NVLink error"},
	{79, HEALTH_XID_RESET, "the GPU has fallen off the bus"},
	{92, HEALTH_XID_WARNING, "many memory errors that ECC corrected"},
	{94, HEALTH_XID_CONTAINED, "memory error that ECC cannot correct, contained to one job"},
	{95, HEALTH_XID_RESET, "memory error that ECC cannot correct and that was not contained"},
	{109, HEALTH_XID_JOB, "a context switch took too long"},
	{119, HEALTH_XID_RESET, "the GPU's system processor does not answer"},
	{120, HEALTH_XID_RESET, "the GPU's system processor has failed"},
	{140, HEALTH_XID_RESET, "memory errors that ECC cannot correct, recovery has failed"},
	{154, HEALTH_XID_RECOVERY, "the action needed for recovery has changed"},
	{0, HEALTH_XID_NOTED, "not in the list of known errors"},
};

const struct health_xid *health_xid_find(uint64_t number)
{
	const struct health_xid *xid = health_xids;

	while (xid->number != 0 && xid->number != number)
		xid++;
	return xid;
}
