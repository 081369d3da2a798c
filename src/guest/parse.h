/* SPDX-License-Identifier: MIT */
/*
 * Strict numbers from the command line: the whole text, decimal, in range, or nothing.
 */
#ifndef GUEST_PARSE_H
#define GUEST_PARSE_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Whether @text is a decimal integer from @min to @max, and only that: no blanks, no
 * plus sign, no suffix. Sets *@out if so.
 */
bool parse_integer(const char *text, int64_t min, int64_t max, int64_t *out);

#endif
