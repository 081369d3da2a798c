/* SPDX-License-Identifier: MIT */
/*
 * Text that others chose, such as VM names, made safe for a terminal.
 */
#ifndef ADMIN_TEXT_H
#define ADMIN_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Code points, which is how columns are measured. */
size_t text_length(const char *text);

/* The bytes of the first @count code points. */
size_t text_prefix_bytes(const char *text, size_t count);

/*
 * A copy in which everything that could move the cursor, hide or reorder what is shown
 * is written \n, \t, \xNN or \uNNNN. The caller frees it; NULL without memory.
 */
char *text_escape(const char *text);

/* Control characters, which no VM name may have on its way to xe. */
bool text_has_control(const char *text);

#endif
