/* SPDX-License-Identifier: MIT */
/*
 * See record.h. Settings go through setting_fields[]: a new one is in JSON, in exports and
 * in imports by its row there, and in tables by a row in each that shows it.
 */
#include "admin/record.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "admin/options.h"
#include "admin/select.h"
#include "base/utf8.h"

const struct column record_vm_columns[] = {
	{"vm_uuid", "UUID", COLUMN_TEXT},
	{"vm_name", "Name", COLUMN_TEXT},
	{"vm_id", "VM id", COLUMN_NUMBER},
	{"pool", "Pool", COLUMN_TEXT},
	{"priority", "Priority", COLUMN_TEXT},
	{"weight", "Weight", COLUMN_WEIGHT},
	{"max_jobs_per_sec", "Jobs per second", COLUMN_LIMIT},
	{"burst", "Burst", COLUMN_LIMIT},
	{"max_queue_depth", "Queue depth", COLUMN_LIMIT},
	{"gpu_seconds_per_sec", "GPU seconds per second", COLUMN_LIMIT},
	{"job_timeout_ms", "Job timeout (ms)", COLUMN_LIMIT},
	{"memory_quota_mib", "Memory quota (MiB)", COLUMN_LIMIT},
	{"allow_cubin", "Cubin allowed", COLUMN_YES_NO},
	{"quarantined", "Quarantined", COLUMN_YES_NO},
	{"quarantine_reason", "  reason", COLUMN_TEXT},
	{"quarantined_by", "  by", COLUMN_TEXT},
	{"quarantined_at", "  at", COLUMN_TIME},
	{"error_count", "Faults", COLUMN_NUMBER},
	{"created_at", "Created (UTC)", COLUMN_TEXT},
	{"updated_at", "Updated (UTC)", COLUMN_TEXT},
	{"problem", "Problem", COLUMN_TEXT},
	{NULL, NULL, COLUMN_TEXT},
};

const struct column record_pool_columns[] = {
	{"pool", "POOL", COLUMN_TEXT},
	{"name", "NAME", COLUMN_TEXT},
	{"enabled", "ENABLED", COLUMN_YES_NO},
	{"vms", "VMS", COLUMN_NUMBER},
	{"job_timeout_ms", "TIMEOUT MS", COLUMN_LIMIT},
	{"description", "DESCRIPTION", COLUMN_TEXT},
	{"problem", "PROBLEM", COLUMN_TEXT},
	{NULL, NULL, COLUMN_TEXT},
};

const struct column record_fault_columns[] = {
	{"at", "AT", COLUMN_TIME},           {"kind", "KIND", COLUMN_TEXT},
	{"points", "POINTS", COLUMN_NUMBER}, {"detail", "DETAIL", COLUMN_TEXT},
	{"by", "BY", COLUMN_TEXT},           {NULL, NULL, COLUMN_TEXT},
};

json_t *record_text(const char *text)
{
	CLEANUP(freep) char *valid = text ? utf8_repair(text) : NULL;

	return valid ? json_string(valid) : json_null();
}

static json_t *setting_to_json(const struct setting_field *field, int64_t stored)
{
	if (field->number.scale == 1)
		return json_integer(stored);
	return json_real(decimal_to_double(&field->number, stored));
}

json_t *record_vm(const struct registry_vm *vm)
{
	json_t *record = json_object();
	char pool[2] = {pool_letter(vm->settings.pool), '\0'};

	json_object_set_new(record, "vm_uuid",
	                    vm->uuid[0] ? json_string(vm->uuid) : record_text(vm->stored_uuid));
	json_object_set_new(record, "vm_name", record_text(vm->name));
	json_object_set_new(record, "vm_id", json_integer(vm->vm_id));
	json_object_set_new(record, "pool", json_string(pool));
	json_object_set_new(record, "priority", json_string(priority_name(vm->settings.priority)));
	for (size_t i = 0; i < SETTING_COUNT; i++)
		json_object_set_new(
			record, setting_fields[i].column,
			setting_to_json(&setting_fields[i],
		                        setting_get(&vm->settings, &setting_fields[i])));
	json_object_set_new(record, "allow_cubin", json_boolean(vm->allow_cubin));
	json_object_set_new(record, "quarantined", json_boolean(vm->quarantined));
	json_object_set_new(record, "quarantine_reason", record_text(vm->quarantine_reason));
	json_object_set_new(record, "quarantined_by", record_text(vm->quarantined_by));
	json_object_set_new(record, "quarantined_at",
	                    vm->quarantined ? json_integer(vm->quarantined_at_s) : json_null());
	json_object_set_new(record, "error_count", json_integer(vm->error_count));
	json_object_set_new(record, "created_at", record_text(vm->created_at));
	json_object_set_new(record, "updated_at", record_text(vm->updated_at));
	json_object_set_new(record, "problem", record_text(vm->problem));
	return record;
}

json_t *record_vms(const struct registry_vms *vms)
{
	json_t *records = json_array();

	for (size_t i = 0; i < vms->count; i++)
		json_array_append_new(records, record_vm(&vms->items[i]));
	return records;
}

void record_note_problems(const struct registry_vms *vms)
{
	for (size_t i = 0; i < vms->count; i++) {
		if (vms->items[i].problem)
			admin_note("not served: %s", vms->items[i].problem);
	}
}

json_t *record_pool(const struct registry_pool *pool)
{
	json_t *record = json_object();
	char letter[2] = {pool_letter(pool->pool), '\0'};

	json_object_set_new(record, "pool", json_string(letter));
	json_object_set_new(record, "name", record_text(pool->name));
	json_object_set_new(record, "description", record_text(pool->description));
	json_object_set_new(record, "enabled", json_boolean(pool->enabled));
	json_object_set_new(record, "job_timeout_ms", json_integer(pool->job_timeout_ms));
	json_object_set_new(record, "vms", json_integer(pool->vm_count));
	json_object_set_new(record, "problem", record_text(pool->problem));
	return record;
}

json_t *record_fault(const struct registry_fault *fault)
{
	json_t *record = json_object();

	json_object_set_new(record, "at", json_integer(fault->at_s));
	json_object_set_new(record, "kind", record_text(fault->kind));
	json_object_set_new(record, "points", json_integer(fault->points));
	json_object_set_new(record, "detail", record_text(fault->detail));
	json_object_set_new(record, "by", record_text(fault->by));
	return record;
}

/* ---- Options --------------------------------------------------------------------- */

enum admin_exit record_yes_no(struct admin *admin, enum option_id option, bool *out)
{
	const char *text = admin->values[option];

	*out = strcmp(text, "yes") == 0;
	if (*out || strcmp(text, "no") == 0)
		return ADMIN_DONE;
	return admin_fail(admin, ADMIN_USAGE, "--%s=%s is neither yes nor no", options_name(option),
	                  text);
}

static enum admin_exit setting_from_option(struct admin *admin, size_t index,
                                           struct registry_vm_change *out)
{
	const struct setting_field *field = &setting_fields[index];
	const char *text = admin->values[OPTION_SETTINGS + index];
	int64_t stored;
	int r;

	if (!text)
		return ADMIN_DONE;
	r = decimal_parse(&stored, &field->number, text);
	if (r < 0)
		return admin_fail(admin, ADMIN_USAGE, "--%s=%s is %s; allowed is %s",
		                  field->number.name, text,
		                  r == -ERANGE ? "out of range" : "not a number of the form wanted",
		                  field->number.range);
	out->settings |= 1u << index;
	setting_put(&out->values, field, stored);
	return ADMIN_DONE;
}

static enum admin_exit vm_id_from_option(struct admin *admin, struct registry_vm_change *out)
{
	const struct decimal whole = {
		.name = "vm-id", .scale = 1, .max = UINT32_MAX, .zero_allowed = true};
	const char *text = admin->values[OPTION_VM_ID];
	int64_t id;

	if (decimal_parse(&id, &whole, text) < 0)
		return admin_fail(admin, ADMIN_USAGE,
		                  "--vm-id=%s is no whole number from 0 to %" PRIu32, text,
		                  UINT32_MAX);
	out->fields |= REGISTRY_FIELD_VM_ID;
	out->vm_id = (uint32_t)id;
	return ADMIN_DONE;
}

enum admin_exit record_change_from_options(struct admin *admin, struct registry_vm_change *out)
{
	const char *priority = admin->values[OPTION_PRIORITY];
	enum admin_exit status = ADMIN_DONE;

	memset(out, 0, sizeof(*out));
	if (admin_given(admin, OPTION_VM_ID))
		status = vm_id_from_option(admin, out);
	if (status == ADMIN_DONE && admin_given(admin, OPTION_POOL) &&
	    !admin->command->pool_selects) {
		status = select_pool(admin, &out->values.pool);
		out->fields |= REGISTRY_FIELD_POOL;
	}
	if (status == ADMIN_DONE && priority) {
		if (priority_parse(&out->values.priority, priority) < 0)
			status = admin_fail(
				admin, ADMIN_USAGE,
				"--priority=%s is no priority; allowed is low, medium or high",
				priority);
		out->fields |= REGISTRY_FIELD_PRIORITY;
	}
	if (status == ADMIN_DONE && admin_given(admin, OPTION_ALLOW_CUBIN)) {
		status = record_yes_no(admin, OPTION_ALLOW_CUBIN, &out->allow_cubin);
		out->fields |= REGISTRY_FIELD_ALLOW_CUBIN;
	}
	if (admin_given(admin, OPTION_NAME)) {
		out->name = admin->values[OPTION_NAME];
		out->fields |= REGISTRY_FIELD_NAME;
	}
	for (size_t i = 0; status == ADMIN_DONE && i < SETTING_COUNT; i++)
		status = setting_from_option(admin, i, out);
	return status;
}

/* ---- JSON ------------------------------------------------------------------------ */

static char *reason(const char *format, ...) PRINTF(1, 2);

static char *reason(const char *format, ...)
{
	va_list args;
	char *text;

	va_start(args, format);
	if (vasprintf(&text, format, args) < 0)
		text = strdup("out of memory");
	va_end(args);
	return text;
}

static bool is_text_or_null(const json_t *value)
{
	return !value || json_is_string(value) || json_is_null(value);
}

static char *quarantine_check(const json_t *object)
{
	static const char *const texts[] = {"quarantine_reason", "quarantined_by"};
	const json_t *quarantined = json_object_get(object, "quarantined");
	const json_t *at = json_object_get(object, "quarantined_at");

	if (quarantined && !json_is_boolean(quarantined))
		return reason("quarantined is neither true nor false");
	if (at && !json_is_integer(at) && !json_is_null(at))
		return reason("quarantined_at is no whole number");
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		if (!is_text_or_null(json_object_get(object, texts[i])))
			return reason("%s is no text", texts[i]);
	}
	return NULL;
}

static char *settings_from_json(const json_t *object, struct registry_vm_change *out)
{
	for (size_t i = 0; i < SETTING_COUNT; i++) {
		const struct setting_field *field = &setting_fields[i];
		const json_t *value = json_object_get(object, field->column);
		int64_t stored;

		if (!value)
			continue;
		if (!json_is_number(value) ||
		    decimal_from_double(&stored, &field->number, json_number_value(value)) < 0)
			return reason("%s is out of range; allowed is %s", field->column,
			              field->number.range);
		setting_put(&out->values, field, stored);
		out->settings |= 1u << i;
	}
	return quarantine_check(object);
}

char *record_change_from_json(const json_t *object, struct registry_vm_change *out)
{
	const json_t *name = json_object_get(object, "vm_name");
	const json_t *id = json_object_get(object, "vm_id");
	const json_t *pool = json_object_get(object, "pool");
	const json_t *priority = json_object_get(object, "priority");
	const json_t *cubin = json_object_get(object, "allow_cubin");

	memset(out, 0, sizeof(*out));
	out->fields = (name ? REGISTRY_FIELD_NAME : 0) | (id ? REGISTRY_FIELD_VM_ID : 0) |
	              (pool ? REGISTRY_FIELD_POOL : 0) | (priority ? REGISTRY_FIELD_PRIORITY : 0) |
	              (cubin ? REGISTRY_FIELD_ALLOW_CUBIN : 0);
	if (!is_text_or_null(name))
		return reason("vm_name is no text");
	out->name = json_string_value(name);
	if (id && (!json_is_integer(id) || json_integer_value(id) < 0 ||
	           json_integer_value(id) > UINT32_MAX))
		return reason("vm_id is no whole number from 0 to %" PRIu32, UINT32_MAX);
	out->vm_id = (uint32_t)json_integer_value(id);
	if (pool &&
	    (!json_is_string(pool) || pool_parse(&out->values.pool, json_string_value(pool)) < 0))
		return reason("pool is neither \"A\" nor \"B\"");
	if (priority && (!json_is_string(priority) ||
	                 priority_parse(&out->values.priority, json_string_value(priority)) < 0))
		return reason("priority is none of \"low\", \"medium\" and \"high\"");
	if (cubin && !json_is_boolean(cubin))
		return reason("allow_cubin is neither true nor false");
	out->allow_cubin = json_is_true(cubin);
	return settings_from_json(object, out);
}
