/* SPDX-License-Identifier: MIT */
/* See metrics_format.h. */
#include "mediator/metrics_format.h"

#include <inttypes.h>

#include "base/clock.h"
#include "base/utf8.h"
#include "base/util.h"

/* Upper bounds of latency buckets, ns. */
static const int64_t bucket_bounds_ns[] = {
	100 * NS_PER_US, 250 * NS_PER_US, 500 * NS_PER_US, NS_PER_MS,       2500 * NS_PER_US,
	5 * NS_PER_MS,   10 * NS_PER_MS,  25 * NS_PER_MS,  50 * NS_PER_MS,  100 * NS_PER_MS,
	250 * NS_PER_MS, NS_PER_SEC,      5 * NS_PER_SEC,  30 * NS_PER_SEC, 120 * NS_PER_SEC,
};

void metrics_write_head(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
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
		else if (point >= ' ')
			fwrite(p, 1, length, out);
		p += length;
	}
	fputc('"', out);
}

void metrics_write_histogram(FILE *out, const char *name, const char *label,
                             const struct histogram *histogram)
{
	for (size_t i = 0; i < ARRAY_LEN(bucket_bounds_ns); i++)
		fprintf(out, "%s_bucket{%s,le=\"%g\"} %" PRIu64 "\n", name, label,
		        clock_seconds(bucket_bounds_ns[i]),
		        histogram_count_at_most(histogram, bucket_bounds_ns[i]));
	fprintf(out, "%s_bucket{%s,le=\"+Inf\"} %" PRIu64 "\n", name, label, histogram->count);
	fprintf(out, "%s_sum{%s} %.9g\n", name, label, clock_seconds((int64_t)histogram->sum_ns));
	fprintf(out, "%s_count{%s} %" PRIu64 "\n", name, label, histogram->count);
}
