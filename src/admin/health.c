/* SPDX-License-Identifier: MIT */
/* See health.h. Each line of a GPU is one row here: its heading, and who writes the rest. */
#include "admin/health.h"

#include <stdio.h>

#include "admin/table.h"
#include "admin/text.h"
#include "base/util.h"

enum { HEADING_WIDTH = 11 };

static double number(const json_t *gpu, const char *key)
{
	return json_number_value(json_object_get(gpu, key));
}

static bool known(const json_t *gpu, const char *key)
{
	return json_is_number(json_object_get(gpu, key));
}

static void write_text(FILE *to, const json_t *text)
{
	const char *raw = json_string_value(text);
	CLEANUP(freep) char *safe = raw ? text_escape(raw) : NULL;

	fputs(safe ? safe : "", to);
}

/* ---- Lines ----------------------------------------------------------------------------- */

static void write_uuid(FILE *to, const json_t *gpu)
{
	/* With the cpu backend there is nothing to tell apart. */
	if (json_is_string(json_object_get(gpu, "nvml")))
		write_text(to, json_object_get(gpu, "uuid"));
}

static void write_service(FILE *to, const json_t *gpu)
{
	const json_t *reset = json_object_get(gpu, "reset");

	if (json_is_true(json_object_get(gpu, "drained")))
		fputs("drained, no work on it", to);
	if (!json_is_string(reset))
		return;
	fputs(json_is_true(json_object_get(gpu, "drained")) ? "; reset: " : "reset: ", to);
	write_text(to, reset);
}

static void write_nvml(FILE *to, const json_t *gpu)
{
	write_text(to, json_object_get(gpu, "nvml"));
}

static void write_controller(FILE *to, const json_t *gpu)
{
	if (known(gpu, "memory_utilization_percent"))
		fprintf(to, "controller busy %.0f%% of the time",
		        number(gpu, "memory_utilization_percent"));
}

static void write_clocks(FILE *to, const json_t *gpu)
{
	const json_t *reasons = json_object_get(gpu, "clocks_limited_by"), *reason;
	size_t i;

	if (!json_is_array(reasons))
		return;
	fputs(json_array_size(reasons) ? "limited by " : "not limited", to);
	json_array_foreach (reasons, i, reason) {
		fputs(i ? ", " : "", to);
		write_text(to, reason);
	}
}

static void write_ecc(FILE *to, const json_t *gpu)
{
	static const struct {
		const char *word, *now, *life;
	} kinds[] = {
		{"corrected", "ecc_corrected", "ecc_corrected_lifetime"},
		{"uncorrected", "ecc_uncorrected", "ecc_uncorrected_lifetime"},
	};
	const char *before = "";

	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		if (!known(gpu, kinds[i].now) && !known(gpu, kinds[i].life))
			continue;
		fprintf(to, "%s%s", before, kinds[i].word);
		if (known(gpu, kinds[i].now))
			fprintf(to, " %.0f since the last reset", number(gpu, kinds[i].now));
		if (known(gpu, kinds[i].life))
			fprintf(to, " (%.0f ever)", number(gpu, kinds[i].life));
		before = ", ";
	}
}

/* "corrected 3, uncorrected 4", and what @pending and @failed say if they are not 0. */
static void write_repairs(FILE *to, const json_t *gpu, const char *corrected,
                          const char *uncorrected, const char *pending, const char *failed)
{
	if (known(gpu, corrected))
		fprintf(to, "for corrected errors %.0f", number(gpu, corrected));
	if (known(gpu, uncorrected))
		fprintf(to, "%sfor uncorrected %.0f", known(gpu, corrected) ? ", " : "",
		        number(gpu, uncorrected));
	if (number(gpu, pending) > 0)
		fputs("; more wait for a reset", to);
	if (failed && number(gpu, failed) > 0)
		fputs("; one HAS FAILED", to);
}

static void write_rows(FILE *to, const json_t *gpu)
{
	write_repairs(to, gpu, "rows_remapped_corrected", "rows_remapped_uncorrected",
	              "row_remap_pending", "row_remap_failed");
}

static void write_pages(FILE *to, const json_t *gpu)
{
	write_repairs(to, gpu, "pages_retired_corrected", "pages_retired_uncorrected",
	              "page_retirement_pending", NULL);
}

static void write_xids(FILE *to, const json_t *gpu)
{
	json_t *xids = json_object_get(gpu, "xids");
	const char *xid, *before = "";
	json_t *count;

	json_object_foreach (xids, xid, count) {
		fprintf(to, "%s%s: %.0f", before, xid, json_number_value(count));
		before = ", ";
	}
}

static const struct {
	const char *heading;
	void (*write)(FILE *to, const json_t *gpu); /* nothing: the line is left out */
} lines[] = {
	{"Service", write_service},   {"UUID", write_uuid},     {"NVML", write_nvml},
	{"Memory", write_controller}, {"Clocks", write_clocks}, {"ECC errors", write_ecc},
	{"Remapped", write_rows},     {"Retired", write_pages}, {"Xids", write_xids},
};

/* ---- Of one GPU ------------------------------------------------------------------------ */

static void begin_line(FILE *to, const char *heading)
{
	fprintf(to, "  %-*s", HEADING_WIDTH, heading);
}

/* What belongs to the line before, on one of its own: both together are too long to be read. */
static void write_below(FILE *to, const char *word, const json_t *text)
{
	begin_line(to, "");
	fprintf(to, "%s ", word);
	write_text(to, text);
	fputc('\n', to);
}

static void write_reason(FILE *to, const json_t *reason)
{
	char age[32];

	begin_line(to, "Why");
	write_text(to, json_object_get(reason, "message"));
	if (known(reason, "age_s")) {
		table_format_seconds(age, sizeof(age), number(reason, "age_s"));
		fprintf(to, ", for %s", age);
	}
	fputc('\n', to);
	write_below(to, "->", json_object_get(reason, "remedy"));
}

static void write_process(FILE *to, const json_t *process)
{
	const json_t *note = json_object_get(process, "note");
	const json_t *vm = json_object_get(process, "vm_name");

	if (!json_is_string(vm))
		vm = json_object_get(process, "vm_uuid");
	begin_line(to, "Process");
	fprintf(to, "%.0f", number(process, "pid"));
	if (json_is_string(vm)) {
		fputs(" of ", to);
		write_text(to, vm);
	}
	if (known(process, "mib"))
		fprintf(to, ": %.0f MiB", number(process, "mib"));
	if (known(process, "expected_mib"))
		fprintf(to, " of the %.0f it should hold", number(process, "expected_mib"));
	fputc('\n', to);
	if (json_is_string(note))
		write_below(to, "NOTE:", note);
}

static void write_readings(FILE *to, const json_t *gpu)
{
	for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
		CLEANUP(freep) char *text = NULL;
		size_t size = 0;
		FILE *line = open_memstream(&text, &size);

		if (!line)
			return;
		lines[i].write(line, gpu);
		if (fclose(line) != 0 || size == 0)
			continue;
		begin_line(to, lines[i].heading);
		fprintf(to, "%s\n", text);
	}
}

static void write_gpu(FILE *to, const json_t *gpu)
{
	const json_t *item;
	size_t i;

	json_array_foreach (json_object_get(gpu, "reasons"), i, item) {
		write_reason(to, item);
	}
	write_readings(to, gpu);
	json_array_foreach (json_object_get(gpu, "processes"), i, item) {
		write_process(to, item);
	}
}

void health_print(const json_t *gpus)
{
	const json_t *gpu;
	size_t i;

	json_array_foreach (gpus, i, gpu) {
		CLEANUP(freep) char *text = NULL;
		size_t size = 0;
		FILE *to = open_memstream(&text, &size);

		if (!to)
			return;
		write_gpu(to, gpu);
		/* With the cpu backend there is nothing more to say. */
		if (fclose(to) == 0 && size > 0)
			printf("\nGPU %zu:\n%s", i, text);
	}
}
