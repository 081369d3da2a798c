/* SPDX-License-Identifier: MIT */
/*
 * Decimal numbers as people write them, kept as scaled integers: the only parser and
 * the only judge of their ranges, whoever the number comes from.
 */
#ifndef SETTINGS_DECIMAL_H
#define SETTINGS_DECIMAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One kind of number. */
struct decimal {
	const char *name;  /* what it is called where it is written: "weight"; may be NULL */
	const char *range; /* for messages: "1.00 to 100.00"; NULL: min and max say it */
	int64_t scale;     /* stored = written * scale; a power of ten */
	int64_t min;       /* in stored units */
	int64_t max;
	bool zero_allowed; /* 0 = off, below min */
};

bool decimal_allows(const struct decimal *decimal, int64_t stored);

/*
 * Reads a decimal number as people write it: digits, at most one point, no more
 * decimals than the scale holds, no sign, exponent, blank or trailing text. Returns 0
 * and sets *@out in stored units, or -EINVAL for text that is no such number or
 * -ERANGE for one out of range.
 */
int decimal_parse(int64_t *out, const struct decimal *decimal, const char *text);

/* The same for a number that a database or a JSON text holds as a double. */
int decimal_from_double(int64_t *out, const struct decimal *decimal, double value);

/* For whoever keeps it as a double: the exact quotient of the scale. */
double decimal_to_double(const struct decimal *decimal, int64_t stored);

/* Writes the value as people read it ("2.50"); returns @to. */
const char *decimal_format(char *to, size_t size, const struct decimal *decimal, int64_t stored);

#endif
