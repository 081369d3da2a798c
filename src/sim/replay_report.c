/* SPDX-License-Identifier: MIT */
/* What a replay shows: see replay.h. */
#include <inttypes.h>

#include <jansson.h>

#include "base/units.h"
#include "sim/replay.h"

static const char *const end_names[TRACE_END_COUNT + 1] = {
	[TRACE_END_STOPPED] = "stopped",
	[TRACE_END_FULL] = "full",
	[TRACE_END_SLOW] = "slow",
	[TRACE_END_COUNT] = "cut",
};

static const char *const end_texts[TRACE_END_COUNT + 1] = {
	[TRACE_END_STOPPED] = "it ends with the mediator",
	[TRACE_END_FULL] = "it ends at its largest size",
	[TRACE_END_SLOW] = "it ends where the disk did not keep up",
	[TRACE_END_COUNT] = "it breaks off",
};

static uint64_t event_count(const struct replay_figures *figures)
{
	uint64_t count = 0;

	for (uint32_t kind = 0; kind < CORE_EVENT_COUNT; kind++)
		count += figures->lines[kind];
	return count;
}

static double percent(double part, double whole)
{
	return whole > 0 ? 100 * part / whole : 0;
}

static void table_vms(FILE *to, const struct replay_figures *figures)
{
	double span_ns = (double)(figures->last_ns - figures->first_ns);

	fprintf(to, "\n%-4s %3s %7s %9s %7s %7s %7s %12s %8s %8s\n", "vm", "gpu", "phi", "jobs",
	        "failed", "refused", "faults", "charged", "charged%", "due%");
	for (uint32_t i = 0; i < figures->vm_count; i++) {
		const struct replay_vm *vm = &figures->vms[i];

		fprintf(to,
		        "%-4u %3u %7.2f %9" PRIu64 " %7" PRIu64 " %7" PRIu64 " %7" PRIu64
		        " %10.3fms %8.2f %8.2f\n",
		        i, vm->gpu, (double)vm->phi / 100, vm->done, vm->failed, vm->refused,
		        vm->faults, (double)vm->charged_ns / NS_PER_MS,
		        percent((double)vm->charged_ns, span_ns), percent(vm->due_ns, span_ns));
	}
}

void replay_table(FILE *to, const char *path, const struct replay_figures *figures)
{
	fprintf(to,
	        "%s: by vgpu-mediator %s; %.3f s, %" PRIu64 " events, %" PRIu64
	        " decisions, %" PRIu64 " turns, %" PRIu64 " switches; %s\n",
	        path, figures->version, (double)(figures->last_ns - figures->first_ns) / NS_PER_SEC,
	        event_count(figures), figures->decisions, figures->turns, figures->switches,
	        end_texts[figures->end]);
	if (!figures->problem[0])
		fprintf(to, "equal at all of %" PRIu64 " checks\n", figures->lines[TRACE_CHECK]);
	fputc('\n', to);
	for (uint32_t kind = 0; kind < CORE_EVENT_COUNT; kind++) {
		if (figures->lines[kind])
			fprintf(to, "%-20s %9" PRIu64 "\n", trace_kind_name(kind),
			        figures->lines[kind]);
	}
	table_vms(to, figures);
}

static json_t *json_vm(const struct replay_vm *vm, uint32_t number)
{
	return json_pack("{s:i, s:i, s:f, s:I, s:I, s:I, s:I, s:I, s:I}", "vm", (int)number, "gpu",
	                 (int)vm->gpu, "phi", (double)vm->phi / 100, "jobs", (json_int_t)vm->done,
	                 "failed", (json_int_t)vm->failed, "refused", (json_int_t)vm->refused,
	                 "faults", (json_int_t)vm->faults, "charged_ns", (json_int_t)vm->charged_ns,
	                 "due_ns", (json_int_t)vm->due_ns);
}

/* Where it went wrong, or null. */
static json_t *json_problem(const struct replay_figures *figures)
{
	if (!figures->problem[0])
		return json_null();
	return json_pack("{s:I, s:s}", "line", (json_int_t)figures->line, "text", figures->problem);
}

void replay_json(FILE *to, const char *path, const struct replay_figures *figures)
{
	json_t *events = json_object(), *vms = json_array(), *object;

	for (uint32_t kind = 0; kind < CORE_EVENT_COUNT; kind++)
		json_object_set_new(events, trace_kind_name(kind),
		                    json_integer((json_int_t)figures->lines[kind]));
	for (uint32_t i = 0; i < figures->vm_count; i++)
		json_array_append_new(vms, json_vm(&figures->vms[i], i));
	object = json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o}", "file", path,
	                   "version", figures->version, "end", end_names[figures->end], "span_ns",
	                   (json_int_t)(figures->last_ns - figures->first_ns), "decisions",
	                   (json_int_t)figures->decisions, "turns", (json_int_t)figures->turns,
	                   "switches", (json_int_t)figures->switches, "checks",
	                   (json_int_t)figures->lines[TRACE_CHECK], "problem",
	                   json_problem(figures), "events", events, "vms", vms);
	json_dumpf(object, to, JSON_COMPACT);
	fputc('\n', to);
	json_decref(object);
}
