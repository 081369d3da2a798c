/* SPDX-License-Identifier: MIT */
/*
 * See table.h. Every cell is formatted twice, once to measure and once to print:
 * that needs no memory for the whole table.
 */
#include "admin/table.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "admin/text.h"
#include "base/util.h"

enum { CELL_POINTS_MAX = 48, NUMBER_BYTES = 64, COLUMNS_MAX = 32 };

static void format_us(char *to, size_t size, double us)
{
	if (us < 1000)
		snprintf(to, size, "%.0f us", us);
	else if (us < 1e6)
		snprintf(to, size, "%.1f ms", us / 1e3);
	else
		snprintf(to, size, "%.2f s", us / 1e6);
}

void table_format_seconds(char *to, size_t size, double seconds)
{
	int64_t whole = (int64_t)seconds;

	if (seconds < 60)
		snprintf(to, size, "%.1f s", seconds);
	else if (whole < 3600)
		snprintf(to, size, "%" PRId64 " min %" PRId64 " s", whole / 60, whole % 60);
	else if (whole < 86400)
		snprintf(to, size, "%" PRId64 " h %" PRId64 " min", whole / 3600,
		         whole % 3600 / 60);
	else
		snprintf(to, size, "%" PRId64 " d %" PRId64 " h", whole / 86400,
		         whole % 86400 / 3600);
}

static void format_time(char *to, size_t size, double seconds)
{
	time_t when = (time_t)seconds;
	struct tm local;

	if (when == 0 || !localtime_r(&when, &local) ||
	    strftime(to, size, "%Y-%m-%d %H:%M:%S %z", &local) == 0)
		snprintf(to, size, "-");
}

static void format_number(char *to, size_t size, enum column_format format, double value)
{
	switch (format) {
	case COLUMN_WEIGHT:
		snprintf(to, size, "%.2f", value);
		break;
	case COLUMN_RATE:
		snprintf(to, size, "%.1f", value);
		break;
	case COLUMN_PERCENT:
		snprintf(to, size, "%.1f%%", value * 100);
		break;
	case COLUMN_US:
		format_us(to, size, value);
		break;
	case COLUMN_MS:
		snprintf(to, size, "%.3f", value);
		break;
	case COLUMN_SECONDS:
		table_format_seconds(to, size, value);
		break;
	case COLUMN_TIME:
		format_time(to, size, value);
		break;
	case COLUMN_LIMIT:
	case COLUMN_NUMBER:
	case COLUMN_TEXT:
	case COLUMN_YES_NO:
		snprintf(to, size, "%.15g", value);
		break;
	}
}

/* The caller frees it; NULL without memory. */
static char *cell_text(const json_t *object, const struct column *column)
{
	const json_t *value = json_object_get(object, column->key);
	char number[NUMBER_BYTES];

	if (json_is_string(value))
		return text_escape(json_string_value(value));
	if (json_is_boolean(value))
		return strdup(json_is_true(value) ? "yes" : "no");
	if (!json_is_number(value) ||
	    (column->format == COLUMN_LIMIT && json_number_value(value) == 0))
		return strdup("-");
	format_number(number, sizeof(number), column->format, json_number_value(value));
	return strdup(number);
}

static void pad(FILE *to, size_t count)
{
	while (count-- > 0)
		fputc(' ', to);
}

/* Text to the left, numbers to the right; a long text ends in an ellipsis. */
static void cell_print(FILE *to, const char *text, size_t width, bool right, bool last)
{
	size_t length = text_length(text);

	if (length > width) {
		fwrite(text, 1, text_prefix_bytes(text, width - 1), to);
		fputs("\xe2\x80\xa6", to);
		length = width;
	} else if (right) {
		pad(to, width - length);
		fputs(text, to);
		length = width;
	} else {
		fputs(text, to);
	}
	if (!last)
		pad(to, width - length + 2);
}

static void widths_measure(size_t *widths, const json_t *rows, const struct column *columns)
{
	for (size_t i = 0; columns[i].key; i++) {
		widths[i] = text_length(columns[i].heading);
		for (size_t row = 0; row < json_array_size(rows); row++) {
			const json_t *object = json_array_get(rows, row);
			CLEANUP(freep) char *text = cell_text(object, &columns[i]);
			size_t length = text ? text_length(text) : 0;

			widths[i] = max_u64(widths[i], min_u64(length, CELL_POINTS_MAX));
		}
	}
}

void table_print(FILE *to, const json_t *rows, const struct column *columns)
{
	size_t widths[COLUMNS_MAX];

	widths_measure(widths, rows, columns);
	for (size_t i = 0; columns[i].key; i++)
		cell_print(to, columns[i].heading, widths[i], columns[i].format != COLUMN_TEXT,
		           !columns[i + 1].key);
	fputc('\n', to);
	for (size_t row = 0; row < json_array_size(rows); row++) {
		const json_t *object = json_array_get(rows, row);

		for (size_t i = 0; columns[i].key; i++) {
			CLEANUP(freep) char *text = cell_text(object, &columns[i]);

			cell_print(to, text ? text : "?", widths[i],
			           columns[i].format != COLUMN_TEXT, !columns[i + 1].key);
		}
		fputc('\n', to);
	}
}

void table_print_record(FILE *to, const json_t *object, const struct column *columns)
{
	size_t width = 0;

	for (size_t i = 0; columns[i].key; i++)
		width = max_u64(width, text_length(columns[i].heading));
	for (size_t i = 0; columns[i].key; i++) {
		const json_t *value = json_object_get(object, columns[i].key);
		CLEANUP(freep) char *text = cell_text(object, &columns[i]);

		if (!value || json_is_null(value))
			continue;
		cell_print(to, columns[i].heading, width, false, false);
		fprintf(to, "%s\n", text ? text : "?");
	}
}
