/* SPDX-License-Identifier: MIT */
/* See metrics_format.h. */
#include "mediator/metrics_format.h"

#include <inttypes.h>
#include <stdbool.h>

#include "base/clock.h"
#include "base/utf8.h"
#include "base/util.h"

enum { BUCKETS = 15 };

/* Upper bounds, ns. */
static const int64_t bounds_ns[][BUCKETS] = {
	[METRICS_BUCKETS_JOB] = {100 * NS_PER_US, 250 * NS_PER_US, 500 * NS_PER_US, NS_PER_MS,
                                 2500 * NS_PER_US, 5 * NS_PER_MS, 10 * NS_PER_MS, 25 * NS_PER_MS,
                                 50 * NS_PER_MS, 100 * NS_PER_MS, 250 * NS_PER_MS, NS_PER_SEC,
                                 5 * NS_PER_SEC, 30 * NS_PER_SEC, 120 * NS_PER_SEC},
	[METRICS_BUCKETS_LOOP] = {2500, 5 * NS_PER_US, 10 * NS_PER_US, 25 * NS_PER_US,
                                  50 * NS_PER_US, 100 * NS_PER_US, 250 * NS_PER_US, 500 * NS_PER_US,
                                  NS_PER_MS, 2500 * NS_PER_US, 5 * NS_PER_MS, 10 * NS_PER_MS,
                                  25 * NS_PER_MS, 100 * NS_PER_MS, NS_PER_SEC},
};

void metrics_write_head(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* C0 and C1: a terminal on which somebody looks at the text obeys both. */
static bool is_control(int32_t point)
{
	return point < ' ' || (point >= 0x7f && point < 0xa0);
}

void metrics_write_label(FILE *out, const char *label, const char *value)
{
	int32_t point;

	fprintf(out, "%s=\"", label);
	for (const char *p = value ? value : ""; *p;) {
		size_t length = utf8_decode(p, &point);

		if (point == '\\' || point == '"')
			fprintf(out, "\\%c", (int)point);
		else if (point == '\n')
			fputs("\\n", out);
		else if (point < 0)
			/* One bad byte would make all of the text unreadable. */
			fputs(UTF8_REPLACEMENT, out);
		else if (!is_control(point))
			fwrite(p, 1, length, out);
		p += length;
	}
	fputc('"', out);
}

void metrics_write_histogram(FILE *out, const char *name, const char *label,
                             enum metrics_buckets buckets, const struct histogram *histogram)
{
	const char *comma = *label ? "," : "";
	char labels[128] = "";

	if (*label)
		snprintf(labels, sizeof(labels), "{%s}", label);
	for (size_t i = 0; i < BUCKETS; i++)
		fprintf(out, "%s_bucket{%s%sle=\"%g\"} %" PRIu64 "\n", name, label, comma,
		        clock_seconds(bounds_ns[buckets][i]),
		        histogram_count_at_most(histogram, bounds_ns[buckets][i]));
	fprintf(out, "%s_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n", name, label, comma,
	        histogram->count);
	fprintf(out, "%s_sum%s %.9g\n", name, labels, clock_seconds((int64_t)histogram->sum_ns));
	fprintf(out, "%s_count%s %" PRIu64 "\n", name, labels, histogram->count);
}
