/* SPDX-License-Identifier: MIT */
/* See gpu_record.h. Names in the output need no escaping: the harness chooses them. */
#include "gpu_record.h"

#include <inttypes.h>

#include "base/units.h"
#include "base/util.h"
#include "vgpu/protocol.h"

static bool in_window(const struct record *record, int64_t now_ns)
{
	return now_ns >= record->window_ns && now_ns < record->end_ns;
}

static void add_failure(struct record *record, uint32_t code, int64_t latency_ns, int64_t now_ns)
{
	uint32_t i = record->failure_count;

	if (i == RECORD_FAILURES)
		return;
	record->failures[i].at_ns = now_ns;
	record->failures[i].latency_ns = latency_ns;
	record->failures[i].code = code;
	record->failure_count++;
}

static void add_done(struct record *record, const struct pattern *pattern,
                     const struct actor_job *job, int64_t latency_ns, int64_t now_ns)
{
	int64_t bucket = (now_ns - record->window_ns) / (RECORD_BUCKET_MS * NS_PER_MS);
	uint32_t i = record->sample_count;

	histogram_add(&record->latency_ns, (uint64_t)latency_ns);
	record->work_us += job->us;
	if (bucket < RECORD_BUCKETS) {
		record->buckets[bucket].done++;
		record->buckets[bucket].work_us += job->us;
	}
	if (!pattern->samples || i == RECORD_SAMPLES)
		return;
	record->samples[i].at_us = (uint32_t)((now_ns - record->window_ns) / NS_PER_US);
	record->samples[i].latency_us = (uint32_t)(latency_ns / NS_PER_US);
	record->sample_count++;
}

void record_job(struct record *record, const struct pattern *pattern, const struct actor_job *job,
                uint32_t code, uint32_t gpu_us, int64_t now_ns)
{
	int64_t latency_ns = max_i64(0, now_ns - job->planned_ns);

	if (!record->first_ns)
		record->first_ns = now_ns;
	record->last_ns = now_ns;
	/* A job that hangs may end after the window and is still of interest. */
	if (code != VGPU_CODE_OK)
		add_failure(record, code, latency_ns, now_ns);
	if (!in_window(record, now_ns))
		return;
	record->codes[min_u64(code, RECORD_CODES - 1)]++;
	record->gpu_us += gpu_us;
	if (code == VGPU_CODE_OK)
		add_done(record, pattern, job, latency_ns, now_ns);
}

void record_refusal(struct record *record, int64_t sent_ns, int64_t now_ns)
{
	if (!in_window(record, now_ns))
		return;
	record->refusals++;
	histogram_add(&record->refusal_ns, (uint64_t)max_i64(0, now_ns - sent_ns));
}

static double to_us(uint64_t ns)
{
	return (double)ns / (double)NS_PER_US;
}

static double to_ms(int64_t ns)
{
	return (double)ns / (double)NS_PER_MS;
}

static void print_histogram(const char *name, const struct histogram *histogram, FILE *to)
{
	fprintf(to,
	        "\"%s\": {\"count\": %" PRIu64
	        ", \"mean\": %.1f, \"min\": %.1f, \"p50\": %.1f, \"p95\": %.1f, \"p99\": %.1f, "
	        "\"p999\": %.1f, \"max\": %.1f}, ",
	        name, histogram->count, histogram_mean(histogram) / 1e3, to_us(histogram->min),
	        to_us(histogram_quantile(histogram, 500)),
	        to_us(histogram_quantile(histogram, 950)),
	        to_us(histogram_quantile(histogram, 990)),
	        to_us(histogram_quantile(histogram, 999)), to_us(histogram->max));
}

static void print_buckets(const struct record *record, FILE *to)
{
	int64_t count = min_i64(RECORD_BUCKETS, (record->end_ns - record->window_ns + NS_PER_MS) /
	                                                (RECORD_BUCKET_MS * NS_PER_MS));

	fputs("\"bucket_done\": [", to);
	for (int64_t i = 0; i < count; i++)
		fprintf(to, "%s%u", i ? "," : "", record->buckets[i].done);
	fputs("], \"bucket_work_us\": [", to);
	for (int64_t i = 0; i < count; i++)
		fprintf(to, "%s%u", i ? "," : "", record->buckets[i].work_us);
	fputs("], ", to);
}

static void print_lists(const struct record *record, FILE *to)
{
	fputs("\"codes\": {", to);
	for (unsigned int i = 0, printed = 0; i < RECORD_CODES; i++) {
		if (record->codes[i])
			fprintf(to, "%s\"%u\": %" PRIu64, printed++ ? ", " : "", i,
			        record->codes[i]);
	}
	fputs("}, \"failures\": [", to);
	for (uint32_t i = 0; i < record->failure_count; i++)
		fprintf(to, "%s{\"at_ms\": %.3f, \"latency_ms\": %.3f, \"code\": %u}",
		        i ? ", " : "", to_ms(record->failures[i].at_ns - record->window_ns),
		        to_ms(record->failures[i].latency_ns), record->failures[i].code);
	fputs("], \"samples\": [", to);
	for (uint32_t i = 0; i < record->sample_count; i++)
		fprintf(to, "%s[%u,%u]", i ? "," : "", record->samples[i].at_us,
		        record->samples[i].latency_us);
	fputs("]", to);
}

void record_print(const struct record *record, const struct actor *actor, FILE *to)
{
	fprintf(to,
	        "{\"name\": \"%s\", \"done\": %" PRIu64 ", \"work_us\": %" PRIu64
	        ", \"gpu_us\": %" PRIu64 ", \"submitted\": %" PRIu64 ", \"skipped\": %" PRIu64
	        ", \"unanswered\": %" PRId64 ", \"refusals\": %" PRIu64
	        ", \"early_retries\": %" PRIu64 ", \"first_ms\": %.3f, \"last_ms\": %.3f, ",
	        actor->pattern->name, record->codes[VGPU_CODE_OK], record->work_us, record->gpu_us,
	        actor->taken, actor->skipped, actor->under_way, record->refusals,
	        record->early_retries, to_ms(record->first_ns - record->window_ns),
	        to_ms(record->last_ns - record->window_ns));
	print_histogram("latency_us", &record->latency_ns, to);
	print_histogram("refusal_us", &record->refusal_ns, to);
	print_buckets(record, to);
	print_lists(record, to);
	fputc('}', to);
}
