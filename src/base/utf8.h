/* SPDX-License-Identifier: MIT */
/*
 * Text whose bytes others chose, such as a VM's name, for JSON and whatever else must
 * be UTF-8.
 */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

#define UTF8_REPLACEMENT "\xef\xbf\xbd" /* U+FFFD, which stands for a bad byte */

/*
 * Reads one code point. Returns the bytes it takes, at least 1; *@out is -1 for a byte
 * that begins no valid UTF-8. Not to be called at the end of @text.
 */
size_t utf8_decode(const char *text, int32_t *out);

/*
 * Writes at @to what stands for @point, or for @byte where @point is -1. Returns how many
 * bytes; 0 = the point stays as it is.
 */
typedef size_t utf8_writer(char *to, int32_t point, uint8_t byte);

/*
 * A copy for which @write is asked about each point; it writes at most @bytes_max, at least
 * 1, for each byte of @text. The caller frees it; NULL without memory.
 */
char *utf8_rewrite(const char *text, size_t bytes_max, utf8_writer *write);

/* A copy with UTF8_REPLACEMENT for each bad byte. The caller frees it; NULL without memory. */
char *utf8_repair(const char *text);

#endif
