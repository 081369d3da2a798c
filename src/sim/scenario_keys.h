/* SPDX-License-Identifier: MIT */
/*
 * The words of scenario files; only what reads and writes them includes this.
 */
#ifndef SIM_SCENARIO_KEYS_H
#define SIM_SCENARIO_KEYS_H

#include "sim/scenario.h"

/* Of struct scenario and of struct scenario_vm, ended by a NULL key. */
extern const struct scenario_number scenario_numbers[];
extern const struct scenario_number scenario_vm_numbers[];

extern const char *const load_names[LOAD_COUNT];
extern const char *const counts_names[COUNTS_COUNT];

/* What is written after the name of an event. */
enum argument {
	ARGUMENT_NONE,
	ARGUMENT_SWITCH, /* on, off */
	ARGUMENT_PRIORITY,
	ARGUMENT_POOL,
	ARGUMENT_NUMBER, /* the name is a key: of a VM's settings, of the scenario's rules */
};

struct happening_word {
	const char *name; /* NULL: the key's */
	enum argument argument;
	bool of_scenario; /* no VM's */
};

extern const struct happening_word happening_words[HAPPENS_COUNT];

/* One line of [expect POLICY]. */
struct expect_row {
	const char *key;
	size_t range;  /* offset in struct scenario_expect */
	size_t figure; /* offset in struct report_summary */
	bool of_waits;
};

extern const struct expect_row expect_rows[]; /* ended by a NULL key */

/* A row as a number of the settings' kind: same parser, same text. */
struct decimal scenario_decimal(const struct scenario_number *number);
/* Thousandths. */
extern const struct decimal scenario_range_decimal;

struct scenario_range *scenario_range_of(struct scenario_expect *expect,
                                         const struct expect_row *row);

/* Decimal text of a stored value without needless zeros; returns @to. */
const char *scenario_format(char *to, size_t size, const struct decimal *decimal, int64_t stored);

#endif
