/* SPDX-License-Identifier: MIT */
/*
 * See health.h. A reason is active or not; everything else is its row in the tables of
 * health_rules.c. Time is looked at only when an event comes: while nothing is read,
 * nothing can be said to have passed.
 *
 * A reset by somebody else shows in three ways: a GPU that was lost or refused to work
 * answers again, the driver takes its wish for a reset back, or repairs of the memory that
 * waited for one are done. ECC counters that fall are no sign: an operator can clear them.
 */
#include "core/watch/health.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/units.h"
#include "core/watch/health_rules.h"

#define NEVER INT64_MIN

struct reason {
	struct health_reason shown;
	bool active;
	bool told;         /* as active */
	int64_t last_ns;   /* when it was last repeated */
	int64_t change_ns; /* since when its rule says otherwise; NEVER = it agrees */
};

struct xid_count {
	uint64_t number;
	uint64_t count;
};

struct health {
	struct reason reasons[HEALTH_CODE_COUNT];
	struct health_counters counters;
	int64_t reset_ns; /* the last real one; NEVER */
	int64_t tried_ns; /* the last time that it was mended by a reset or without one; NEVER */
	bool recovery_known;
	bool ecc_known[2]; /* last[] can be compared with */
	int64_t ecc_last[2];
	uint64_t xid_counts[HEALTH_XID_COUNT];          /* as in health_xids */
	struct xid_count others[HEALTH_OTHER_XIDS + 1]; /* the last takes the rest */
};

const char *const health_value_names[HEALTH_VALUE_COUNT] = {
	[HEALTH_TEMPERATURE_C] = "temperature_celsius",
	[HEALTH_SLOWDOWN_C] = "temperature_slowdown_celsius",
	[HEALTH_MARGIN_C] = "temperature_margin_celsius",
	[HEALTH_GPU_BUSY_PERCENT] = "utilization_percent",
	[HEALTH_MEMORY_BUSY_PERCENT] = "memory_utilization_percent",
	[HEALTH_MEMORY_USED_BYTES] = "memory_used_bytes",
	[HEALTH_MEMORY_TOTAL_BYTES] = "memory_total_bytes",
	[HEALTH_POWER_MW] = "power_milliwatts",
	[HEALTH_ECC_CORRECTED] = "ecc_corrected",
	[HEALTH_ECC_UNCORRECTED] = "ecc_uncorrected",
	[HEALTH_ECC_CORRECTED_LIFE] = "ecc_corrected_lifetime",
	[HEALTH_ECC_UNCORRECTED_LIFE] = "ecc_uncorrected_lifetime",
	[HEALTH_CLOCK_REASONS] = "clock_reasons",
	[HEALTH_ROWS_CORRECTED] = "rows_remapped_corrected",
	[HEALTH_ROWS_UNCORRECTED] = "rows_remapped_uncorrected",
	[HEALTH_ROWS_PENDING] = "row_remap_pending",
	[HEALTH_ROWS_FAILED] = "row_remap_failed",
	[HEALTH_PAGES_CORRECTED] = "pages_retired_corrected",
	[HEALTH_PAGES_UNCORRECTED] = "pages_retired_uncorrected",
	[HEALTH_PAGES_PENDING] = "page_retirement_pending",
	[HEALTH_RECOVERY_ACTION] = "recovery_action",
};

_Static_assert(HEALTH_VALUE_COUNT <= 32, "health_reading.valid has a bit for each");

bool health_reading_get(const struct health_reading *reading, enum health_value value, int64_t *out)
{
	if (!(reading->valid & (1u << value)))
		return false;
	*out = reading->values[value];
	return true;
}

void health_reading_put(struct health_reading *reading, enum health_value value, int64_t is)
{
	reading->valid |= 1u << value;
	reading->values[value] = is;
}

const char *health_state_name(enum health_state state)
{
	static const char *const names[HEALTH_STATE_COUNT] = {
		[HEALTH_OK] = "ok",           [HEALTH_DEGRADED] = "degraded",
		[HEALTH_UNKNOWN] = "unknown", [HEALTH_DRAINING] = "draining",
		[HEALTH_FAILED] = "failed",
	};

	return names[state];
}

/* ---- Reasons ----------------------------------------------------------------------- */

static void begin(struct health *health, int64_t now_ns, enum health_code code, const char *message)
{
	struct reason *reason = &health->reasons[code];

	snprintf(reason->shown.message, sizeof(reason->shown.message), "%s", message);
	reason->last_ns = now_ns;
	if (reason->active)
		return;
	reason->active = true;
	reason->shown.since_ns = now_ns;
	if (health_codes[code].reset == HEALTH_RESET_HELPS && health->tried_ns != NEVER &&
	    now_ns - health->tried_ns < HEALTH_RESET_TRUST_S * NS_PER_SEC)
		begin(health, now_ns, HEALTH_CODE_RESET_IN_VAIN,
		      "the GPU needs a reset again, minutes after the last try");
}

static void end(struct health *health, enum health_code code)
{
	health->reasons[code].active = false;
	health->reasons[code].change_ns = NEVER;
}

/* The GPU was reset: what happened before says nothing about it any more. */
static void forget_causes(struct health *health, int64_t now_ns)
{
	for (int code = 0; code < HEALTH_CODE_COUNT; code++) {
		if (health_codes[code].end == HEALTH_ENDS_BY_RESET ||
		    health_codes[code].end == HEALTH_ENDS_BY_TIME)
			end(health, code);
	}
	/* What shows in several ways within moments is one reset. */
	if (health->reset_ns == NEVER ||
	    now_ns - health->reset_ns >= HEALTH_RESET_APART_S * NS_PER_SEC)
		health->counters.resets++;
	health->reset_ns = health->tried_ns = now_ns;
	health->ecc_known[0] = health->ecc_known[1] = false;
}

static void expire(struct health *health, int64_t now_ns)
{
	for (int code = 0; code < HEALTH_CODE_COUNT; code++) {
		const struct reason *reason = &health->reasons[code];

		if (reason->active && health_codes[code].end == HEALTH_ENDS_BY_TIME &&
		    now_ns - reason->last_ns >= HEALTH_REPORT_S * NS_PER_SEC)
			end(health, code);
	}
}

static void describe(char *to, size_t size, const struct health_rule *rule,
                     const struct health_reading *reading)
{
	int64_t is;

	if (reading->contact == HEALTH_UNREACHABLE && rule->code == HEALTH_CODE_UNREACHABLE)
		snprintf(to, size, "%.60s: %.90s", rule->text, reading->error);
	else if (rule->unit && health_reading_get(reading, rule->value, &is))
		snprintf(to, size, "%s %" PRId64 "%s", rule->text, is, rule->unit);
	else
		snprintf(to, size, "%s", rule->text);
}

/* A condition becomes a reason, or stops to be one, once it has lasted. */
static void apply_rule(struct health *health, int64_t now_ns, const struct health_rule *rule,
                       const struct health_reading *reading)
{
	struct reason *reason = &health->reasons[rule->code];
	enum health_answer holds = rule->holds(rule, reading, reason->active);
	char message[HEALTH_TEXT_BYTES];

	if (holds == HEALTH_DONT_KNOW)
		return;
	if ((holds == HEALTH_YES) == reason->active) {
		reason->change_ns = NEVER;
		return;
	}
	if (reason->change_ns == NEVER)
		reason->change_ns = now_ns;
	if (now_ns - reason->change_ns < (reason->active ? rule->off_ns : rule->on_ns))
		return;
	reason->change_ns = NEVER;
	if (holds == HEALTH_YES) {
		describe(message, sizeof(message), rule, reading);
		begin(health, now_ns, rule->code, message);
	} else {
		end(health, rule->code);
		if (rule->end_means_reset)
			forget_causes(health, now_ns);
	}
}

/* ---- Events ------------------------------------------------------------------------ */

static void count_ecc(struct health *health, int64_t now_ns, const struct health_reading *reading)
{
	const struct {
		enum health_value value;
		uint64_t *count;
	} kinds[] = {
		{HEALTH_ECC_CORRECTED, &health->counters.ecc_corrected},
		{HEALTH_ECC_UNCORRECTED, &health->counters.ecc_uncorrected},
	};

	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		char message[HEALTH_TEXT_BYTES];
		int64_t is, more;

		if (!health_reading_get(reading, kinds[i].value, &is))
			continue;
		more = health->ecc_known[i] ? is - health->ecc_last[i] : 0;
		health->ecc_known[i] = true;
		health->ecc_last[i] = is;
		if (more <= 0)
			continue;
		*kinds[i].count += (uint64_t)more;
		if (kinds[i].value != HEALTH_ECC_UNCORRECTED)
			continue;
		snprintf(message, sizeof(message),
		         "memory errors that ECC cannot correct, %" PRId64
		         " since the driver loaded",
		         is);
		begin(health, now_ns, HEALTH_CODE_ECC_UNCORRECTED, message);
	}
}

void health_reading_came(struct health *health, int64_t now_ns,
                         const struct health_reading *reading)
{
	int64_t action;

	expire(health, now_ns);
	for (size_t i = 0; i < health_rule_count; i++)
		apply_rule(health, now_ns, &health_rules[i], reading);
	count_ecc(health, now_ns, reading);
	health->recovery_known = health_reading_get(reading, HEALTH_RECOVERY_ACTION, &action);
}

/* What has not yet lasted cannot be seen to. */
static void forget_changes(struct health *health)
{
	for (int code = 0; code < HEALTH_CODE_COUNT; code++)
		health->reasons[code].change_ns = NEVER;
}

void health_readings_stopped(struct health *health, int64_t now_ns, const char *why)
{
	forget_changes(health);
	end(health, HEALTH_CODE_READINGS_PAUSED);
	begin(health, now_ns, HEALTH_CODE_NO_READINGS, why);
}

void health_readings_paused(struct health *health, int64_t now_ns, const char *why)
{
	forget_changes(health);
	if (!health->reasons[HEALTH_CODE_NO_READINGS].active)
		begin(health, now_ns, HEALTH_CODE_READINGS_PAUSED, why);
}

static void count_xid(struct health *health, uint64_t number, const struct health_xid *xid)
{
	struct xid_count *other = health->others;

	if (xid->number != 0) {
		health->xid_counts[xid - health_xids]++;
		return;
	}
	while (other < &health->others[HEALTH_OTHER_XIDS] && other->count &&
	       other->number != number)
		other++;
	if (other < &health->others[HEALTH_OTHER_XIDS])
		other->number = number;
	other->count++;
}

void health_xid_came(struct health *health, int64_t now_ns, uint64_t number)
{
	static const enum health_code codes[] = {
		[HEALTH_XID_JOB] = HEALTH_CODE_COUNT,
		[HEALTH_XID_NOTED] = HEALTH_CODE_COUNT,
		[HEALTH_XID_WARNING] = HEALTH_CODE_XID_WARNING,
		[HEALTH_XID_CONTAINED] = HEALTH_CODE_XID_CONTAINED,
		[HEALTH_XID_RECOVERY] = HEALTH_CODE_RECOVERY_ANNOUNCED,
		[HEALTH_XID_RESET] = HEALTH_CODE_XID_RESET,
	};
	const struct health_xid *xid = health_xid_find(number);
	char message[HEALTH_TEXT_BYTES];

	count_xid(health, number, xid);
	if (codes[xid->class] == HEALTH_CODE_COUNT)
		return;
	/* The next reading says which action; the Xid alone does not. */
	if (xid->class == HEALTH_XID_RECOVERY && health->recovery_known)
		return;
	snprintf(message, sizeof(message), "Xid %" PRIu32 ": %s", xid->number, xid->text);
	begin(health, now_ns, codes[xid->class], message);
}

void health_starts_fail(struct health *health, int64_t now_ns, const char *who)
{
	char message[HEALTH_TEXT_BYTES];

	snprintf(message, sizeof(message), "workers do not start there, that of %.100s for one",
	         who);
	begin(health, now_ns, HEALTH_CODE_STARTS_FAIL, message);
}

bool health_started(struct health *health)
{
	bool news = health->reasons[HEALTH_CODE_STARTS_FAIL].active;

	end(health, HEALTH_CODE_STARTS_FAIL);
	return news;
}

void health_no_context(struct health *health, int64_t now_ns)
{
	begin(health, now_ns, HEALTH_CODE_NO_CONTEXT, "it did not answer at the mediator's start");
}

static bool is_mended(enum health_code code, enum health_mend how)
{
	if (how == HEALTH_MEND_FRESH)
		return code == HEALTH_CODE_XID_RESET || code == HEALTH_CODE_NO_CONTEXT;
	return health_codes[code].end != HEALTH_ENDS_BY_READING;
}

void health_mended(struct health *health, int64_t now_ns, enum health_mend how)
{
	for (int code = 0; code < HEALTH_CODE_COUNT; code++) {
		if (is_mended(code, how))
			end(health, code);
	}
	/* Whoever vouches for it gets the benefit of another try. */
	health->tried_ns = how == HEALTH_MEND_WORD ? NEVER : now_ns;
	if (how == HEALTH_MEND_RESET)
		forget_causes(health, now_ns);
	if (how == HEALTH_MEND_FRESH && health_needs_reset(health))
		begin(health, now_ns, HEALTH_CODE_RESET_IN_VAIN,
		      "a fresh context works, but the GPU still needs a reset");
}

void health_reset_failed(struct health *health, int64_t now_ns, const char *why)
{
	char message[HEALTH_TEXT_BYTES];

	snprintf(message, sizeof(message), "the reset failed: %.130s", why);
	begin(health, now_ns, HEALTH_CODE_RESET_FAILED, message);
}

bool health_restore(struct health *health, int64_t now_ns, const char *name, int64_t since_ns,
                    const char *message)
{
	for (int code = 0; code < HEALTH_CODE_COUNT; code++) {
		if (!health_codes[code].drains || strcmp(health_codes[code].name, name) != 0)
			continue;
		begin(health, now_ns, code, message);
		health->reasons[code].shown.since_ns = since_ns;
		return true;
	}
	return false;
}

int health_new(struct health **out, int64_t now_ns)
{
	struct health *health = calloc(1, sizeof(*health));

	if (!health)
		return -ENOMEM;
	for (int code = 0; code < HEALTH_CODE_COUNT; code++) {
		health->reasons[code].shown = (struct health_reason){
			.code = health_codes[code].name,
			.level = health_codes[code].level,
			.drains = health_codes[code].drains,
			.remedy = health_codes[code].remedy,
		};
		health->reasons[code].change_ns = NEVER;
	}
	health->reset_ns = health->tried_ns = NEVER;
	health_readings_stopped(health, now_ns, "nothing has been read yet");
	/* That everything starts unknown is no news, and ends with the first reading. */
	health->reasons[HEALTH_CODE_NO_READINGS].told = true;
	health->reasons[HEALTH_CODE_NO_READINGS].change_ns = now_ns - HEALTH_SETTLE_S * NS_PER_SEC;
	*out = health;
	return 0;
}

void health_free(struct health *health)
{
	free(health);
}

/* ---- What comes out ---------------------------------------------------------------- */

enum health_state health_state(const struct health *health)
{
	enum health_state worst = HEALTH_OK;

	for (int code = 0; code < HEALTH_CODE_COUNT; code++) {
		if (health->reasons[code].active && health_codes[code].level > worst)
			worst = health_codes[code].level;
	}
	return worst;
}

bool health_needs_drain(const struct health *health)
{
	for (int code = 0; code < HEALTH_CODE_COUNT; code++) {
		if (health->reasons[code].active && health_codes[code].drains)
			return true;
	}
	return false;
}

bool health_needs_reset(const struct health *health)
{
	bool helps = false;

	for (int code = 0; code < HEALTH_CODE_COUNT; code++) {
		if (!health->reasons[code].active)
			continue;
		if (health_codes[code].reset == HEALTH_RESET_BARRED)
			return false;
		helps |= health_codes[code].reset == HEALTH_RESET_HELPS;
	}
	return helps;
}

const struct health_reason *health_next_reason(const struct health *health,
                                               const struct health_reason *after)
{
	const struct reason *end_of = &health->reasons[HEALTH_CODE_COUNT];
	const struct reason *reason = health->reasons;

	if (after)
		reason = CONTAINER_OF(after, struct reason, shown) + 1;
	while (reason < end_of && !reason->active)
		reason++;
	return reason < end_of ? &reason->shown : NULL;
}

bool health_next_news(struct health *health, struct health_news *out)
{
	for (int code = 0; code < HEALTH_CODE_COUNT; code++) {
		struct reason *reason = &health->reasons[code];

		if (reason->active == reason->told)
			continue;
		reason->told = reason->active;
		*out = (struct health_news){.reason = &reason->shown, .began = reason->active};
		return true;
	}
	return false;
}

void health_counters(const struct health *health, struct health_counters *out)
{
	*out = health->counters;
}

bool health_xid_count(const struct health *health, size_t index, uint64_t *number, uint64_t *count)
{
	if (index < HEALTH_XID_COUNT) {
		*number = health_xids[index].number;
		*count = health->xid_counts[index];
		return true;
	}
	/* Those that came, in the order of their first coming; then what found no place. */
	index -= HEALTH_XID_COUNT;
	if (index > HEALTH_OTHER_XIDS || health->others[index].count == 0)
		return false;
	*number = health->others[index].number;
	*count = health->others[index].count;
	return true;
}
