/* SPDX-License-Identifier: MIT */
/* See trace_line.h. */
#include "core/trace/trace_line.h"

#include <errno.h>
#include <string.h>

#include "core/trace/trace_values.h"

enum { NUMBER_BYTES = 21 }; /* a space, a sign, 19 digits */

_Static_assert(32 + TRACE_VALUES_MAX * NUMBER_BYTES <= TRACE_LINE_BYTES, "the longest line");

const char *trace_kind_name(uint32_t kind)
{
	static const char *const others[] = {"check", "end"};

	return kind < CORE_EVENT_COUNT ? trace_shapes[kind].name : others[kind - CORE_EVENT_COUNT];
}

static char *put_number(char *at, int64_t value)
{
	uint64_t rest = value < 0 ? -(uint64_t)value : (uint64_t)value;
	char digits[NUMBER_BYTES];
	size_t count = 0;

	do
		digits[count++] = (char)('0' + rest % 10);
	while (rest /= 10);
	*at++ = ' ';
	if (value < 0)
		*at++ = '-';
	while (count)
		*at++ = digits[--count];
	return at;
}

size_t trace_line_format(char to[static TRACE_LINE_BYTES], uint32_t kind, const int64_t *values,
                         size_t count)
{
	char *at = stpcpy(to, trace_kind_name(kind));

	for (size_t i = 0; i < count; i++)
		at = put_number(at, values[i]);
	*at++ = '\n';
	return (size_t)(at - to);
}

static int find_kind(uint32_t *out, const char *name, size_t length)
{
	for (uint32_t kind = 0; kind < TRACE_KINDS; kind++) {
		if (strlen(trace_kind_name(kind)) == length &&
		    memcmp(trace_kind_name(kind), name, length) == 0) {
			*out = kind;
			return 0;
		}
	}
	return -EINVAL;
}

/* Reads a number as put_number() writes it. Returns where it ends, or NULL. */
static const char *take_number(int64_t *out, const char *at, const char *end)
{
	uint64_t value = 0, most = INT64_MAX;
	const char *digits;
	bool negative;

	if (at == end || *at++ != ' ')
		return NULL;
	negative = at < end && *at == '-';
	at += negative;
	most += negative;
	digits = at;
	for (; at < end && *at >= '0' && *at <= '9'; at++) {
		uint64_t digit = (uint64_t)(*at - '0');

		if (value > (most - digit) / 10)
			return NULL;
		value = 10 * value + digit;
	}
	if (at == digits || (*digits == '0' && (negative || at > digits + 1)))
		return NULL;
	*out = (int64_t)(negative ? -value : value);
	return at;
}

int trace_line_parse(struct trace_line *out, const char *text, size_t length, const char **why)
{
	const char *end = text + length, *space = memchr(text, ' ', length);
	const char *at = space ? space : end;
	struct trace_line line = {.count = 0};
	size_t wanted;

	*why = "there is no such event";
	if (find_kind(&line.kind, text, (size_t)(at - text)) < 0)
		return -EINVAL;
	wanted = line.kind < CORE_EVENT_COUNT ? trace_value_count(line.kind) : 1;
	while (at < end) {
		*why = "it has more numbers than this";
		if (line.count == wanted)
			return -EINVAL;
		*why = "that is not a whole number after one space";
		at = take_number(&line.values[line.count++], at, end);
		if (!at)
			return -EINVAL;
	}
	*why = "it has fewer numbers than it should";
	if (line.count < wanted)
		return -EINVAL;
	*why = "it has no such end";
	if (line.kind == TRACE_END && (line.values[0] < 0 || line.values[0] >= TRACE_END_COUNT))
		return -EINVAL;
	*out = line;
	return 0;
}
