/* SPDX-License-Identifier: MIT */
/*
 * What people read, made from the same JSON that --json prints: an array of objects
 * becomes aligned columns, an object becomes a list of its fields. Which members,
 * under which heading and how they are written is a table of struct column.
 */
#ifndef ADMIN_TABLE_H
#define ADMIN_TABLE_H

#include <jansson.h>
#include <stdio.h>

enum column_format {
	COLUMN_TEXT,
	COLUMN_NUMBER,  /* as short as it is exact */
	COLUMN_WEIGHT,  /* two decimals */
	COLUMN_RATE,    /* one decimal */
	COLUMN_LIMIT,   /* a number, of which 0 means none */
	COLUMN_PERCENT, /* of a ratio */
	COLUMN_US,      /* microseconds, in the unit that fits */
	COLUMN_MS,      /* milliseconds, three decimals */
	COLUMN_SECONDS, /* a duration */
	COLUMN_TIME,    /* seconds since the epoch */
	COLUMN_YES_NO,
};

struct column {
	const char *key; /* of the JSON object */
	const char *heading;
	enum column_format format;
};

/* A duration in the unit that fits, as COLUMN_SECONDS has it. */
void table_format_seconds(char *to, size_t size, double seconds);

/* @columns ends with a NULL key. A missing or null member is written "-". */
void table_print(FILE *to, const json_t *rows, const struct column *columns);

/* The same for one object, whose missing and null members are left out. */
void table_print_record(FILE *to, const json_t *object, const struct column *columns);

#endif
