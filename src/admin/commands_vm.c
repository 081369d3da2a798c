/* SPDX-License-Identifier: MIT */
/*
 * VMs as such: which there are, in the toolstack and in the registry, and taking
 * one in.
 */
#include <string.h>

#include "admin/commands.h"
#include "admin/link.h"
#include "admin/record.h"
#include "admin/select.h"
#include "admin/xe.h"

enum { FAULTS_SHOWN = 20 };

static const struct column list_columns[] = {
	{"vm_id", "ID", COLUMN_NUMBER},      {"vm_name", "NAME", COLUMN_TEXT},
	{"pool", "POOL", COLUMN_TEXT},       {"priority", "PRIORITY", COLUMN_TEXT},
	{"weight", "WEIGHT", COLUMN_WEIGHT}, {"quarantined", "QUARANTINED", COLUMN_YES_NO},
	{"vm_uuid", "UUID", COLUMN_TEXT},    {NULL, NULL, COLUMN_TEXT},
};

static const struct column scan_columns[] = {
	{"vm_name", "NAME", COLUMN_TEXT},
	{"in_xe", "IN XE", COLUMN_YES_NO},
	{"registered", "REGISTERED", COLUMN_YES_NO},
	{"vm_uuid", "UUID", COLUMN_TEXT},
	{NULL, NULL, COLUMN_TEXT},
};

/* What only a running mediator knows of a VM. */
static const struct column now_columns[] = {
	{"gpu", "GPU", COLUMN_NUMBER},
	{"worker", "Worker", COLUMN_TEXT},
	{"failed_starts", "  failed starts", COLUMN_NUMBER},
	{"connected", "Connections", COLUMN_NUMBER},
	{"queue_depth", "Jobs queued", COLUMN_NUMBER},
	{"in_flight", "  running", COLUMN_NUMBER},
	{"fault_points", "Fault points", COLUMN_NUMBER},
	{"share", "Share", COLUMN_PERCENT},
	{"share_target", "  target", COLUMN_PERCENT},
	{NULL, NULL, COLUMN_TEXT},
};

/* The name that xe knows. None while xe cannot be asked, which is only a remark. */
static char *name_from_xe(struct admin *admin, const char *uuid, char **remark)
{
	struct xe_error why = {.text = "out of memory"};
	char *name = NULL;
	int length = 0;

	if (xe_vm_name(&name, uuid, admin->xe_timeout_ms, &why) != 0)
		length = asprintf(remark,
		                  "registered without a name (%s); update-vm --name sets one",
		                  why.text);
	else if (!name)
		length = asprintf(remark, "xe knows no VM %s; registered all the same", uuid);
	if (length < 0)
		*remark = NULL;
	return name;
}

enum admin_exit command_register_vm(struct admin *admin)
{
	CLEANUP(freep) char *uuid = NULL;
	CLEANUP(freep) char *name = NULL;
	CLEANUP(freep) char *remark = NULL;
	struct registry_vm_change change;
	struct registry_vm vm;
	enum admin_exit status;
	int r;

	status = record_change_from_options(admin, &change);
	if (status == ADMIN_DONE)
		status = admin_open(admin, REGISTRY_WRITE);
	if (status == ADMIN_DONE)
		status = select_uuid(admin, &uuid);
	if (status != ADMIN_DONE)
		return status;
	if (!admin_given(admin, OPTION_NAME) && admin_given(admin, OPTION_VM_NAME)) {
		change.name = admin->values[OPTION_VM_NAME];
		change.fields |= REGISTRY_FIELD_NAME;
	} else if (!admin_given(admin, OPTION_NAME)) {
		name = name_from_xe(admin, uuid, &remark);
		change.name = name;
		change.fields |= REGISTRY_FIELD_NAME;
	}
	r = registry_vm_insert(admin->registry, uuid, &change, NULL);
	if (r == 0)
		r = registry_vm_find(admin->registry, uuid, &vm);
	if (r != 0)
		return admin_fail_registry(admin, r);
	admin->changed = true;
	if (remark)
		admin_note("%s", remark);
	status = admin_answer(admin, record_vm(&vm));
	if (status == ADMIN_DONE)
		admin_say(admin, "registered VM %s as vm_id %u", vm.uuid, vm.vm_id);
	registry_vm_clear(&vm);
	return status;
}

static json_t *faults_newest(const struct registry_faults *faults)
{
	size_t first = faults->count > FAULTS_SHOWN ? faults->count - FAULTS_SHOWN : 0;
	json_t *list = json_array();

	for (size_t i = first; i < faults->count; i++)
		json_array_append_new(list, record_fault(&faults->items[i]));
	return list;
}

/* The VM as the mediator has it now; null while none runs, or does not know it. */
static json_t *vm_now(const struct admin *admin, const char *uuid)
{
	CLEANUP(json_freep) json_t *live = NULL;
	struct link_error why;
	json_t *vm;
	size_t i;

	if (link_call(&live, admin->socket_path, "status", NULL, &why) != 0)
		return json_null();
	json_array_foreach (json_object_get(live, "vms"), i, vm) {
		const char *other = json_string_value(json_object_get(vm, "vm_uuid"));

		if (other && strcmp(other, uuid) == 0)
			return json_incref(vm);
	}
	return json_null();
}

static void show_vm(const json_t *record)
{
	const json_t *now = json_object_get(record, "now");
	const json_t *faults = json_object_get(record, "faults");

	table_print_record(stdout, record, record_vm_columns);
	if (json_is_object(now)) {
		printf("\nNow:\n");
		table_print_record(stdout, now, now_columns);
	}
	if (json_array_size(faults) > 0) {
		printf("\nFaults, and what was done about them:\n");
		table_print(stdout, faults, record_fault_columns);
	}
}

enum admin_exit command_show_vm(struct admin *admin)
{
	CLEANUP(registry_vms_clear) struct registry_vms vms = {.items = NULL};
	CLEANUP(registry_faults_clear) struct registry_faults faults = {.items = NULL};
	enum admin_exit status;
	json_t *record;
	int r;

	status = admin_open(admin, REGISTRY_READ);
	if (status == ADMIN_DONE)
		status = select_vms(admin, &vms);
	if (status != ADMIN_DONE)
		return status;
	r = registry_fault_list(admin->registry, vms.items[0].stored_uuid, 0, &faults);
	if (r != 0)
		return admin_fail_registry(admin, r);
	record = record_vm(&vms.items[0]);
	json_object_set_new(record, "now", vm_now(admin, vms.items[0].uuid));
	json_object_set_new(record, "faults", faults_newest(&faults));
	status = admin_answer(admin, record);
	if (status == ADMIN_DONE && !admin->json)
		show_vm(record);
	return status;
}

enum admin_exit command_list_vms(struct admin *admin)
{
	CLEANUP(registry_vms_clear) struct registry_vms vms = {.items = NULL};
	enum admin_exit status = ADMIN_DONE;

	if (!admin_given(admin, OPTION_POOL))
		admin->values[OPTION_ALL] = "";
	status = admin_open(admin, REGISTRY_READ);
	if (status == ADMIN_DONE)
		status = select_vms(admin, &vms);
	if (status != ADMIN_DONE)
		return status;
	status = admin_answer_table(admin, json_pack("{s:o}", "vms", record_vms(&vms)), "vms",
	                            list_columns);
	record_note_problems(&vms);
	return status;
}

/* ---- Scan-vms -------------------------------------------------------------------- */

static const struct registry_vm *find_registered(const struct registry_vms *vms, const char *uuid)
{
	for (size_t i = 0; i < vms->count; i++) {
		if (strcmp(vms->items[i].uuid, uuid) == 0)
			return &vms->items[i];
	}
	return NULL;
}

static void scan_append(json_t *rows, const char *uuid, const char *name, bool in_xe,
                        bool registered)
{
	json_array_append_new(rows, json_pack("{s:o, s:o, s:b, s:b}", "vm_uuid", record_text(uuid),
	                                      "vm_name", record_text(name), "in_xe", (int)in_xe,
	                                      "registered", (int)registered));
}

static enum admin_exit scan_rows(struct admin *admin, const struct xe_list *found,
                                 const struct registry_vms *vms, json_t *rows)
{
	struct xe_error why = {.text = "out of memory"};

	for (size_t i = 0; i < found->count; i++) {
		CLEANUP(freep) char *name = NULL;

		if (!registry_uuid_valid(found->items[i]))
			return admin_fail(admin, ADMIN_FAILED,
			                  "xe answered \"%s\", which is no UUID", found->items[i]);
		if (xe_vm_name(&name, found->items[i], admin->xe_timeout_ms, &why) != 0)
			return admin_fail(admin, ADMIN_FAILED, "%s", why.text);
		scan_append(rows, found->items[i], name, true,
		            find_registered(vms, found->items[i]) != NULL);
	}
	for (size_t i = 0; i < vms->count; i++) {
		bool in_xe = false;

		for (size_t k = 0; k < found->count && !in_xe; k++)
			in_xe = strcmp(found->items[k], vms->items[i].uuid) == 0;
		if (!in_xe)
			scan_append(rows, vms->items[i].stored_uuid, vms->items[i].name, false,
			            true);
	}
	return ADMIN_DONE;
}

enum admin_exit command_scan_vms(struct admin *admin)
{
	CLEANUP(registry_vms_clear) struct registry_vms vms = {.items = NULL};
	CLEANUP(xe_list_clear) struct xe_list found = {.items = NULL};
	struct xe_error why = {.text = "out of memory"};
	CLEANUP(json_freep) json_t *rows = json_array();
	enum admin_exit status;
	int r;

	status = admin_open(admin, REGISTRY_READ);
	if (status != ADMIN_DONE)
		return status;
	r = registry_vm_list(admin->registry, &vms);
	if (r != 0)
		return admin_fail_registry(admin, r);
	if (xe_find_vms(&found, NULL, admin->xe_timeout_ms, &why) != 0)
		return admin_fail(admin, ADMIN_FAILED,
		                  "cannot scan: %s; list-vms shows what is registered", why.text);
	status = scan_rows(admin, &found, &vms, rows);
	if (status != ADMIN_DONE)
		return status;
	return admin_answer_table(admin, json_pack("{s:O}", "vms", rows), "vms", scan_columns);
}
