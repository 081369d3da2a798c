/* SPDX-License-Identifier: MIT */
/* See utf8.h. */
#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

#include "base/util.h"

size_t utf8_decode(const char *text, int32_t *out)
{
	static const struct {
		uint8_t mask, lead;
		int32_t least;
	} forms[] = {
		{0x80, 0x00, 0}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};
	const uint8_t *bytes = (const uint8_t *)text;

	*out = -1;
	for (size_t length = 1; length <= ARRAY_LEN(forms); length++) {
		int32_t value = bytes[0] & (uint8_t)~forms[length - 1].mask;

		if ((bytes[0] & forms[length - 1].mask) != forms[length - 1].lead)
			continue;
		for (size_t i = 1; i < length; i++) {
			if ((bytes[i] & 0xc0) != 0x80)
				return 1;
			value = value << 6 | (bytes[i] & 0x3f);
		}
		if (value < forms[length - 1].least || value > 0x10ffff ||
		    (value >= 0xd800 && value <= 0xdfff))
			return 1;
		*out = value;
		return length;
	}
	return 1;
}

char *utf8_rewrite(const char *text, size_t bytes_max, utf8_writer *write)
{
	char *copy = malloc(strlen(text) * bytes_max + 1);
	char *to = copy;

	if (!copy)
		return NULL;
	while (*text) {
		int32_t point;
		size_t length = utf8_decode(text, &point);
		size_t written = write(to, point, (uint8_t)*text);

		if (written == 0) {
			memcpy(to, text, length);
			written = length;
		}
		to += written;
		text += length;
	}
	*to = '\0';
	return copy;
}

static size_t write_replacement(char *to, int32_t point, uint8_t byte UNUSED)
{
	return point < 0 ? (size_t)(stpcpy(to, UTF8_REPLACEMENT) - to) : 0;
}

char *utf8_repair(const char *text)
{
	return utf8_rewrite(text, strlen(UTF8_REPLACEMENT), write_replacement);
}
