/* SPDX-License-Identifier: MIT */
/*
 * The tables behind health.h: every reason, and the conditions that are read off a
 * GPU's values. For health.c and health_rules.c only.
 */
#ifndef CORE_HEALTH_RULES_H
#define CORE_HEALTH_RULES_H

#include "core/watch/health.h"

/* Worst first: the order in which they are listed. */
enum health_code {
	HEALTH_CODE_LOST,
	HEALTH_CODE_RESET_FAILED,
	HEALTH_CODE_RESET_IN_VAIN,
	HEALTH_CODE_REBOOT_WANTED,
	HEALTH_CODE_NO_CONTEXT,
	HEALTH_CODE_XID_RESET,
	HEALTH_CODE_RESET_REQUIRED,
	HEALTH_CODE_RESET_WANTED,
	HEALTH_CODE_ROWS_FAILED,
	HEALTH_CODE_NO_READINGS,
	HEALTH_CODE_UNREACHABLE,
	HEALTH_CODE_STARTS_FAIL,
	HEALTH_CODE_TEMPERATURE,
	HEALTH_CODE_THROTTLE_THERMAL,
	HEALTH_CODE_THROTTLE_POWER,
	HEALTH_CODE_THROTTLE_HARDWARE,
	HEALTH_CODE_ECC_UNCORRECTED,
	HEALTH_CODE_XID_CONTAINED,
	HEALTH_CODE_ROWS_PENDING,
	HEALTH_CODE_PAGES_PENDING,
	HEALTH_CODE_RECOVERY_OTHER,
	HEALTH_CODE_RECOVERY_ANNOUNCED,
	HEALTH_CODE_XID_WARNING,
	HEALTH_CODE_READINGS_PAUSED,
	HEALTH_CODE_COUNT,
};

/* What ends a reason, beside a reset that is verified. */
enum health_end {
	HEALTH_ENDS_BY_RULE,    /* its condition is gone: a row of health_rules says when */
	HEALTH_ENDS_BY_START,   /* a worker has started there */
	HEALTH_ENDS_BY_TIME,    /* HEALTH_REPORT_S without a repetition */
	HEALTH_ENDS_BY_RESET,   /* a reset, ours or somebody else's */
	HEALTH_ENDS_BY_READING, /* readings come again: its row says for how long */
};

enum health_reset {
	HEALTH_RESET_NO,    /* has nothing to do with it */
	HEALTH_RESET_HELPS, /* worth trying */
	HEALTH_RESET_BARRED /* do not try while this holds */
};

struct health_code_info {
	const char *name;
	enum health_state level;
	bool drains;
	enum health_reset reset;
	enum health_end end;
	const char *remedy;
};

extern const struct health_code_info health_codes[HEALTH_CODE_COUNT];

enum health_answer {
	HEALTH_NO,
	HEALTH_YES,
	HEALTH_DONT_KNOW, /* the value is missing: what was thought before holds */
};

struct health_rule {
	enum health_code code;
	/* @active: the reason holds already, which may lower the bar. */
	enum health_answer (*holds)(const struct health_rule *rule,
	                            const struct health_reading *reading, bool active);
	int64_t bits;   /* what `holds` looks for */
	int64_t unless; /* and what excuses it */
	enum health_value value;
	int64_t on_ns;        /* the condition must hold this long to become a reason */
	int64_t off_ns;       /* and be gone this long to end it */
	bool end_means_reset; /* it can only have ended by a reset */
	const char *text;
	const char *unit; /* the value follows the text; NULL = it does not */
};

extern const struct health_rule health_rules[];
extern const size_t health_rule_count;

#endif
