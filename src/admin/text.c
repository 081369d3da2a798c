/* SPDX-License-Identifier: MIT */
/*
 * See text.h. A guest's owner names the VM; the name must not be able to draw on the
 * operator's terminal.
 */
#include "admin/text.h"

#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "base/util.h"

enum { ESCAPE_BYTES_MAX = 8 };

size_t text_length(const char *text)
{
	size_t count = 0;
	int32_t point;

	for (; *text; text += utf8_decode(text, &point))
		count++;
	return count;
}

size_t text_prefix_bytes(const char *text, size_t count)
{
	const char *end = text;
	int32_t point;

	while (*end && count-- > 0)
		end += utf8_decode(end, &point);
	return (size_t)(end - text);
}

/* Controls, and what reorders or hides text: marks, embeddings, isolates, the BOM. */
static bool point_is_hidden(int32_t point)
{
	static const struct {
		int32_t first, last;
	} ranges[] = {
		{0x00, 0x1f},     {0x7f, 0x9f},     {0xad, 0xad},     {0x61c, 0x61c},
		{0x200b, 0x200f}, {0x2028, 0x202e}, {0x2060, 0x206f}, {0xfeff, 0xfeff},
	};

	for (size_t i = 0; i < ARRAY_LEN(ranges); i++) {
		if (point >= ranges[i].first && point <= ranges[i].last)
			return true;
	}
	return false;
}

static size_t write_escape(char *to, int32_t point, uint8_t byte)
{
	if (point >= 0 && !point_is_hidden(point))
		return 0;
	if (point == '\n' || point == '\t' || point == '\r')
		return (size_t)sprintf(to, "\\%c", point == '\n' ? 'n' : point == '\t' ? 't' : 'r');
	if (point < 0)
		return (size_t)sprintf(to, "\\x%02x", byte);
	return (size_t)sprintf(to, point < 0x100 ? "\\x%02x" : "\\u%04x", (unsigned int)point);
}

char *text_escape(const char *text)
{
	return utf8_rewrite(text, ESCAPE_BYTES_MAX, write_escape);
}

bool text_has_control(const char *text)
{
	while (*text) {
		int32_t point;

		text += utf8_decode(text, &point);
		if ((point >= 0 && point < 0x20) || (point >= 0x7f && point < 0xa0))
			return true;
	}
	return false;
}
