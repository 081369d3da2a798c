/* SPDX-License-Identifier: MIT */
/*
 * See parse.h.
 */
#include "guest/parse.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>

bool parse_integer(const char *text, int64_t min, int64_t max, int64_t *out)
{
	const char *digits = text[0] == '-' ? text + 1 : text;
	long long value;
	char *end;

	if (!isdigit((unsigned char)digits[0]))
		return false;
	errno = 0;
	value = strtoll(text, &end, 10);
	if (*end != '\0' || errno || value < min || value > max)
		return false;
	*out = value;
	return true;
}
