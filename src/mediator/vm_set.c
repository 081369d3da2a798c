/* SPDX-License-Identifier: MIT */
/*
 * vm-set: what an operator may set for a VM, asked for over the admin socket. The
 * registry's thread writes it, as vgpu-admin would, and the mediator takes it over.
 *
 * Values are read by the table of settings, from numbers as well as from text, so that
 * none passes here that is refused elsewhere.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "mediator/internal.h"

struct change {
	struct registry_vm_change what;
	char wrong[256]; /* why it is refused, or "" */
};

static void refuse(struct change *change, const char *name, const json_t *value,
                   const char *allowed)
{
	CLEANUP(freep) char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));

	snprintf(change->wrong, sizeof(change->wrong), "%s = %.64s: allowed is %s", name,
	         text ? text : "?", allowed);
}

static void read_setting(struct change *change, size_t setting, const json_t *value)
{
	const struct setting_field *field = &setting_fields[setting];
	int64_t stored;
	int r = -EINVAL;

	if (json_is_string(value))
		r = decimal_parse(&stored, &field->number, json_string_value(value));
	else if (json_is_number(value))
		r = decimal_from_double(&stored, &field->number, json_number_value(value));
	if (r < 0) {
		refuse(change, field->param, value, field->number.range);
		return;
	}
	setting_put(&change->what.values, field, stored);
	change->what.settings |= 1u << setting;
}

static void read_priority(struct change *change, const json_t *value)
{
	const char *text = json_string_value(value);

	if (!text || priority_parse(&change->what.values.priority, text) < 0)
		refuse(change, "priority", value, "\"low\", \"medium\" or \"high\"");
	change->what.fields |= REGISTRY_FIELD_PRIORITY;
}

static void read_pool(struct change *change, const json_t *value)
{
	const char *text = json_string_value(value);

	if (!text || pool_parse(&change->what.values.pool, text) < 0)
		refuse(change, "pool", value, "\"A\" or \"B\"");
	change->what.fields |= REGISTRY_FIELD_POOL;
}

/* SETTING_COUNT: there is none of that name. */
static size_t find_setting(const char *param)
{
	size_t i = 0;

	while (i < SETTING_COUNT && strcmp(setting_fields[i].param, param) != 0)
		i++;
	return i;
}

static void read_param(struct change *change, const char *name, const json_t *value)
{
	size_t setting = find_setting(name);

	if (setting < SETTING_COUNT)
		read_setting(change, setting, value);
	else if (strcmp(name, "priority") == 0)
		read_priority(change, value);
	else if (strcmp(name, "pool") == 0)
		read_pool(change, value);
	else if (strcmp(name, "vm_uuid") != 0)
		snprintf(change->wrong, sizeof(change->wrong), "nothing of a VM is called %.64s",
		         name);
}

void vm_set(void *owner, struct admin_call *call, const json_t *params)
{
	const char *uuid = json_string_value(json_object_get(params, "vm_uuid"));
	json_t *members = (json_t *)(uintptr_t)params; /* jansson walks nothing that is const */
	struct change change = {.wrong = ""};
	const char *name;
	json_t *value;

	if (!uuid) {
		admin_call_error(call, ADMIN_E_PARAMS, "vm_uuid must say which VM");
		return;
	}
	json_object_foreach (members, name, value) {
		read_param(&change, name, value);
		if (change.wrong[0])
			break;
	}
	if (!change.wrong[0] && !change.what.fields && !change.what.settings)
		snprintf(change.wrong, sizeof(change.wrong), "nothing is to be set");
	if (change.wrong[0])
		admin_call_error(call, ADMIN_E_PARAMS, "%s", change.wrong);
	else
		mediator_change_vm(owner, call, uuid, &change.what);
}
