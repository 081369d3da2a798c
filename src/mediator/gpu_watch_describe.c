/* SPDX-License-Identifier: MIT */
/* See gpu_watch.h: what is known of a GPU, as JSON for operators and as figures for metrics. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "mediator/gpu_watch_internal.h"

static const char *state_name(const struct watched *gpu)
{
	enum health_state state = gpu->health ? health_state(gpu->health) : HEALTH_OK;

	for (int code = 0; code < GPU_CAUSE_COUNT; code++) {
		if (gpu->causes[code].active)
			state = (enum health_state)max_i64(state, HEALTH_DRAINING);
	}
	return health_state_name(state);
}

static void add_reason(json_t *list, const char *code, enum health_state level, int64_t since_ns,
                       const char *message, const char *remedy)
{
	json_array_append_new(list, json_pack("{s:s, s:s, s:f, s:o, s:s}", "code", code, "level",
	                                      health_state_name(level), "age_s",
	                                      clock_seconds(clock_monotonic_ns() - since_ns),
	                                      "message", admin_text(message), "remedy", remedy));
}

static json_t *describe_reasons(const struct watched *gpu)
{
	const struct health_reason *reason = NULL;
	json_t *list = json_array();
	char message[HEALTH_TEXT_BYTES];

	for (int code = 0; code < GPU_CAUSE_COUNT; code++) {
		if (gpu->causes[code].active)
			add_reason(list, gpu_cause_infos[code].code, HEALTH_DRAINING,
			           gpu->causes[code].since_ns,
			           gpu_cause_message(message, sizeof(message), gpu, code),
			           gpu_cause_infos[code].remedy);
	}
	while (gpu->health && (reason = health_next_reason(gpu->health, reason)))
		add_reason(list, reason->code, reason->level, reason->since_ns, reason->message,
		           reason->remedy);
	return list;
}

/* What the mediator does about a reset that is needed; null: none is. */
static json_t *describe_reset(const struct watched *gpu)
{
	static const char *const steps[] = {
		[RESET_RELEASING] = "closing NVML",
		[RESET_COMMAND] = "running reset_command",
		[RESET_VERIFYING] = "verifying that a context works",
	};

	if (gpu->reset.step != RESET_NONE)
		return json_string(steps[gpu->reset.step]);
	return gpu_watch_leaves_reset(gpu) ? json_string("left to the operator") : json_null();
}

static json_t *describe_xids(const struct health *health)
{
	json_t *object = json_object();
	uint64_t number, count;
	char key[24];

	for (size_t i = 0; health_xid_count(health, i, &number, &count); i++) {
		if (count == 0)
			continue;
		snprintf(key, sizeof(key), "%llu", (unsigned long long)number);
		json_object_set_new(object, key, json_integer((json_int_t)count));
	}
	return object;
}

static json_t *mib_or_null(uint64_t bytes)
{
	return bytes == MEMORY_UNKNOWN ? json_null() : json_real((double)bytes / 1048576);
}

/* Who holds GPU memory, and how much it should be. */
static json_t *describe_processes(const struct watched *gpu)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < gpu->use_count; i++) {
		const struct memory_use *use = &gpu->uses[i];
		const struct vm_entry *entry =
			use->ours ? vm_table_find(gpu->watch->mediator, gpu->use_vms[i]) : NULL;
		char note[HEALTH_TEXT_BYTES];

		json_array_append_new(
			list,
			json_pack("{s:i, s:o, s:o, s:s?, s:o, s:o}", "pid", (int)use->pid, "mib",
		                  mib_or_null(use->bytes), "expected_mib",
		                  mib_or_null(use->expected_bytes), "vm_uuid",
		                  entry ? entry->uuid : NULL, "vm_name",
		                  entry && entry->name ? admin_text(entry->name) : json_null(),
		                  "note",
		                  use->note == MEMORY_FINE
		                          ? json_null()
		                          : admin_text(gpu_memory_note(note, sizeof(note), use))));
	}
	return list;
}

/* Why the clocks are not as high as they could be; also reasons that are all in order. */
static json_t *describe_clocks(uint64_t bits)
{
	static const char *const words[] = {
		"idleness",
		"a setting",
		"the power cap",
		"the hardware",
		"a group of GPUs",
		"heat (driver)",
		"heat (hardware)",
		"the host's power supply",
		"the display's setting",
	};
	json_t *list = json_array();

	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		if (bits & UINT64_C(1) << i)
			json_array_append_new(list, json_string(words[i]));
	}
	if (bits >> ARRAY_LEN(words))
		json_array_append_new(list, json_string("something new"));
	return list;
}

static void put_value(json_t *object, const char *key, const struct health_reading *reading,
                      enum health_value value, double scale)
{
	int64_t raw;

	if (health_reading_get(reading, value, &raw))
		json_object_set_new(object, key, json_real((double)raw * scale));
}

static void put_mib(json_t *object, const char *key, const struct health_reading *reading,
                    enum health_value value)
{
	int64_t raw;

	if (health_reading_get(reading, value, &raw))
		json_object_set_new(object, key, json_integer(raw >> 20));
}

static void describe_reading(const struct watched *gpu, json_t *object)
{
	int64_t clocks;

	if (gpu->last.processes_known)
		json_object_set_new(object, "processes", describe_processes(gpu));
	for (enum health_value v = 0; v < HEALTH_VALUE_COUNT; v++)
		put_value(object, health_value_names[v], &gpu->last.health, v, 1);
	if (health_reading_get(&gpu->last.health, HEALTH_CLOCK_REASONS, &clocks))
		json_object_set_new(object, "clocks_limited_by", describe_clocks((uint64_t)clocks));
	put_value(object, "temperature_c", &gpu->last.health, HEALTH_TEMPERATURE_C, 1);
	put_value(object, "power_w", &gpu->last.health, HEALTH_POWER_MW, 1e-3);
	put_value(object, "utilization", &gpu->last.health, HEALTH_GPU_BUSY_PERCENT, 1e-2);
	put_mib(object, "memory_used_mib", &gpu->last.health, HEALTH_MEMORY_USED_BYTES);
	put_mib(object, "memory_total_mib", &gpu->last.health, HEALTH_MEMORY_TOTAL_BYTES);
}

/* What does not depend on how it is: who it is and how busy the core keeps it. */
static json_t *describe_load(const struct mediator *mediator, uint32_t index)
{
	const struct gpu_info *info = &mediator->gpus.gpus[index];
	struct sched_stats stats;

	core_gpu_stats(mediator->core, index, &stats);
	return json_pack("{s:i, s:s, s:s, s:f, s:I, s:i, s:i}", "index", (int)index, "uuid",
	                 info->uuid, "name", info->name, "busy_s", clock_seconds(stats.busy_ns),
	                 "context_switches", (json_int_t)stats.context_switches, "ready",
	                 (int)stats.ready, "open", (int)stats.open);
}

json_t *gpu_watch_describe(const struct gpu_watch *watch, uint32_t index)
{
	json_t *object = describe_load(watch->mediator, index);
	const struct watched *gpu = &watch->gpus[index];

	if (!object)
		return NULL;
	json_object_set_new(object, "health", json_string(state_name(gpu)));
	json_object_set_new(object, "drained", json_boolean(gpu->drained));
	json_object_set_new(object, "reasons", describe_reasons(gpu));
	if (!watch->reader)
		return object;
	json_object_set_new(object, "nvml",
	                    json_string(nvml_state_name(nvml_reader_state(watch->reader))));
	json_object_set_new(object, "reset", describe_reset(gpu));
	json_object_set_new(object, "xids", describe_xids(gpu->health));
	if (gpu->has_reading)
		describe_reading(gpu, object);
	return object;
}

void gpu_watch_vm_memory(const struct gpu_watch *watch, uint32_t core_vm, uint64_t *bytes,
                         uint64_t *expected_bytes)
{
	const struct watched *gpu = &watch->gpus[core_vm_gpu(watch->mediator->core, core_vm)];

	*bytes = *expected_bytes = MEMORY_UNKNOWN;
	for (uint32_t i = 0; i < gpu->use_count; i++) {
		if (!gpu->uses[i].ours || gpu->use_vms[i] != core_vm)
			continue;
		*bytes = gpu->uses[i].bytes;
		*expected_bytes = gpu->uses[i].expected_bytes;
	}
}

void gpu_watch_figures(const struct gpu_watch *watch, uint32_t index, struct gpu_figures *out)
{
	const struct watched *gpu = &watch->gpus[index];

	*out = (struct gpu_figures){
		.state = state_name(gpu),
		.reading = gpu->has_reading ? &gpu->last.health : NULL,
		.health = gpu->health,
		.processes_known = gpu->has_reading && gpu->last.processes_known,
		.nvml_up = watch->reader && nvml_reader_state(watch->reader) == NVML_STATE_UP,
	};
	for (uint32_t i = 0; i < gpu->use_count; i++) {
		if (gpu->uses[i].note != MEMORY_FOREIGN)
			continue;
		out->foreign_processes++;
		if (gpu->uses[i].bytes != MEMORY_UNKNOWN)
			out->foreign_bytes += gpu->uses[i].bytes;
	}
	if (gpu->health)
		health_counters(gpu->health, &out->counters);
}
