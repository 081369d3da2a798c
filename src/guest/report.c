/* SPDX-License-Identifier: MIT */
/*
 * See report.h.
 */
#include "guest/report.h"

#include <inttypes.h>
#include <string.h>

static void newline(struct report *report)
{
	if (report->json && !report->first)
		fputc(',', report->stream);
	if (!report->json)
		fprintf(report->stream, "%*s", 2 * (report->depth - 1), "");
	report->first = false;
}

static void put_key(struct report *report, const char *key)
{
	newline(report);
	fprintf(report->stream, report->json ? "\"%s\":" : "%s: ", key);
}

static void end_value(struct report *report)
{
	if (!report->json)
		fputc('\n', report->stream);
}

void report_begin(struct report *report, FILE *stream, bool json)
{
	report->stream = stream;
	report->json = json;
	report->first = true;
	report->depth = 1;
	if (json)
		fputc('{', stream);
}

void report_end(struct report *report)
{
	if (report->json)
		fputs("}\n", report->stream);
	fflush(report->stream);
}

void report_open(struct report *report, const char *key)
{
	newline(report);
	fprintf(report->stream, report->json ? "\"%s\":{" : "%s:\n", key);
	report->first = true;
	report->depth++;
}

void report_close(struct report *report)
{
	if (report->json)
		fputc('}', report->stream);
	report->first = false;
	report->depth--;
}

void report_u64(struct report *report, const char *key, uint64_t value)
{
	put_key(report, key);
	fprintf(report->stream, "%" PRIu64, value);
	end_value(report);
}

void report_i64(struct report *report, const char *key, int64_t value)
{
	put_key(report, key);
	fprintf(report->stream, "%" PRId64, value);
	end_value(report);
}

void report_double(struct report *report, const char *key, double value, int decimals)
{
	put_key(report, key);
	fprintf(report->stream, "%.*f", decimals, value);
	end_value(report);
}

void report_bool(struct report *report, const char *key, bool value)
{
	put_key(report, key);
	if (report->json)
		fputs(value ? "true" : "false", report->stream);
	else
		fputs(value ? "yes" : "no", report->stream);
	end_value(report);
}

/* How many of the @left bytes at @at are one valid UTF-8 character of more than one
 * byte; 0 if none. */
static size_t utf8_bytes(const unsigned char *at, size_t left)
{
	size_t bytes = at[0] >= 0xf0 ? 4 : at[0] >= 0xe0 ? 3 : 2;

	if (at[0] < 0xc2 || at[0] > 0xf4 || bytes > left)
		return 0;
	for (size_t i = 1; i < bytes; i++) {
		if ((at[i] & 0xc0) != 0x80)
			return 0;
	}
	/* Overlong forms, surrogates, beyond U+10FFFF, and the C1 control characters. */
	if ((at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xed && at[1] > 0x9f) ||
	    (at[0] == 0xf0 && at[1] < 0x90) || (at[0] == 0xf4 && at[1] > 0x8f) ||
	    (at[0] == 0xc2 && at[1] < 0xa0))
		return 0;
	return bytes;
}

void report_bytes(struct report *report, const char *key, const void *value, size_t bytes)
{
	const unsigned char *at = value;
	size_t step;

	put_key(report, key);
	if (report->json)
		fputc('"', report->stream);
	for (size_t i = 0; i < bytes; i += step) {
		step = 1;
		if (at[i] >= 0x80)
			step = utf8_bytes(at + i, bytes - i);
		if (step == 0 || at[i] < 0x20 || at[i] == 0x7f) {
			fputc('?', report->stream);
			step = 1;
			continue;
		}
		if (report->json && (at[i] == '"' || at[i] == '\\'))
			fputc('\\', report->stream);
		fwrite(at + i, 1, step, report->stream);
	}
	if (report->json)
		fputc('"', report->stream);
	end_value(report);
}

void report_text(struct report *report, const char *key, const char *value)
{
	report_bytes(report, key, value, strlen(value));
}

void report_hex(struct report *report, const char *key, uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "0x%" PRIx64, value);
	report_text(report, key, text);
}
