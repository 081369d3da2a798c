/* SPDX-License-Identifier: MIT */
/*
 * Table vms: rows into struct registry_vm. vm_changes.c has the way back.
 *
 * Reading never fails because of a value: what is wrong with a row becomes its
 * problem text, so that one bad row stops one VM. A missing column or NULL means the
 * default, which is how files of older versions are read.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "registry/handle.h"
#include "registry/schema.h"

enum { SELECT_BYTES = 2048, VALUE_TEXT_BYTES = 64 };

void registry_vm_clear(struct registry_vm *vm)
{
	free(vm->stored_uuid);
	free(vm->name);
	free(vm->quarantine_reason);
	free(vm->quarantined_by);
	free(vm->created_at);
	free(vm->updated_at);
	free(vm->problem);
	memset(vm, 0, sizeof(*vm));
}

void registry_vms_clear(struct registry_vms *vms)
{
	for (size_t i = 0; i < vms->count; i++)
		registry_vm_clear(&vms->items[i]);
	free(vms->items);
	memset(vms, 0, sizeof(*vms));
}

/* ---- One row --------------------------------------------------------------------- */

struct row {
	sqlite3_stmt *statement;
	struct registry_vm *vm;
	int result; /* -ENOMEM once memory was short */
};

static void row_problem(struct row *row, const char *format, ...) PRINTF(2, 3);

/* Appends one more thing that is wrong with the row. */
static void row_problem(struct row *row, const char *format, ...)
{
	char *old = row->vm->problem, *one = NULL, *all = NULL;
	va_list args;
	int length;

	va_start(args, format);
	length = vasprintf(&one, format, args);
	va_end(args);
	if (length >= 0) {
		length = old ? asprintf(&all, "%s; %s", old, one)
		             : asprintf(&all, "VM %s: %s",
		                        row->vm->stored_uuid ? row->vm->stored_uuid : "(no uuid)",
		                        one);
		free(one);
	}
	if (length < 0) {
		row->result = -ENOMEM;
		return;
	}
	free(old);
	row->vm->problem = all;
}

/* What the row holds, for a message; text in quotes. */
static const char *row_value(const struct row *row, int column, char *to, size_t size)
{
	/* Before the text is asked for, which changes the type. */
	int type = sqlite3_column_type(row->statement, column);
	const unsigned char *text = sqlite3_column_text(row->statement, column);

	if (type == SQLITE_BLOB)
		text = (const unsigned char *)"binary data";
	snprintf(to, size, type == SQLITE_TEXT ? "'%.*s'" : "%.*s", (int)size - 3,
	         text ? (const char *)text : "");
	return to;
}

/* A whole number from @min to @max; @fallback for NULL and, with a problem, for others. */
static int64_t row_int(struct row *row, enum vm_column column, int64_t min, int64_t max,
                       int64_t fallback, const char *remedy)
{
	int type = sqlite3_column_type(row->statement, (int)column);
	char value[VALUE_TEXT_BYTES];
	int64_t number;

	if (type == SQLITE_NULL)
		return fallback;
	number = sqlite3_column_int64(row->statement, (int)column);
	if (type == SQLITE_INTEGER && number >= min && number <= max)
		return number;
	row_problem(row, "%s is %s, allowed is %" PRId64 " to %" PRId64 "; repair it with %s",
	            schema_vm_columns[column].name,
	            row_value(row, (int)column, value, sizeof(value)), min, max, remedy);
	return fallback;
}

static void row_setting(struct row *row, size_t index)
{
	const struct setting_field *field = &setting_fields[index];
	int column = VM_COLUMN_SETTINGS + (int)index;
	int type = sqlite3_column_type(row->statement, column);
	int64_t stored = setting_get(&vm_settings_default, field);
	char value[VALUE_TEXT_BYTES];

	if (type != SQLITE_NULL &&
	    ((type != SQLITE_INTEGER && type != SQLITE_FLOAT) ||
	     decimal_from_double(&stored, &field->number,
	                         sqlite3_column_double(row->statement, column)) < 0))
		row_problem(row, "%s is %s, allowed is %s; repair it with vgpu-admin %s --%s",
		            field->column, row_value(row, column, value, sizeof(value)),
		            field->number.range, field->command, field->number.name);
	setting_put(&row->vm->settings, field, stored);
}

static void uuid_lower(char *to, const char *from)
{
	size_t i;

	for (i = 0; i < REGISTRY_UUID_BYTES && from[i]; i++)
		to[i] = (char)(from[i] >= 'A' && from[i] <= 'Z' ? from[i] - 'A' + 'a' : from[i]);
	to[i] = '\0';
}

static void row_uuid(struct row *row)
{
	char canonical[REGISTRY_UUID_BYTES + 1];

	row->vm->stored_uuid = registry_column_text(row->statement, VM_COLUMN_UUID, &row->result);
	if (row->vm->stored_uuid) {
		uuid_lower(canonical, row->vm->stored_uuid);
		if (registry_uuid_valid(canonical)) {
			memcpy(row->vm->uuid, canonical, REGISTRY_UUID_BYTES);
			return;
		}
	}
	row_problem(row, "vm_uuid is no UUID; remove the row with vgpu-admin remove-vm and "
	                 "register the VM again");
}

static void row_pool(struct row *row)
{
	const char *text = (const char *)sqlite3_column_text(row->statement, VM_COLUMN_POOL);
	char value[VALUE_TEXT_BYTES];

	if (text && pool_parse(&row->vm->settings.pool, text) < 0)
		row_problem(row,
		            "pool_id is %s, allowed is A or B; repair it with vgpu-admin "
		            "set-pool",
		            row_value(row, VM_COLUMN_POOL, value, sizeof(value)));
}

/* Returns 0 or -ENOMEM; *@vm is to be cleared in either case. */
static int row_read(sqlite3_stmt *statement, struct registry_vm *vm)
{
	struct row row = {.statement = statement, .vm = vm};
	const struct {
		char **to;
		enum vm_column column;
	} texts[] = {
		{&vm->name, VM_COLUMN_NAME},
		{&vm->created_at, VM_COLUMN_CREATED},
		{&vm->updated_at, VM_COLUMN_UPDATED},
		{&vm->quarantine_reason, VM_COLUMN_QUARANTINE_REASON},
		{&vm->quarantined_by, VM_COLUMN_QUARANTINE_BY},
	};

	memset(vm, 0, sizeof(*vm));
	vm->settings = vm_settings_default;
	row_uuid(&row);
	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		*texts[i].to = registry_column_text(statement, (int)texts[i].column, &row.result);
	vm->vm_id = (uint32_t)row_int(&row, VM_COLUMN_ID, 0, UINT32_MAX, 0, "vgpu-admin set-vm-id");
	row_pool(&row);
	vm->settings.priority =
		(uint32_t)row_int(&row, VM_COLUMN_PRIORITY, VGPU_PRIORITY_LOW, VGPU_PRIORITY_HIGH,
	                          VGPU_PRIORITY_MEDIUM, "vgpu-admin set-priority");
	vm->allow_cubin =
		row_int(&row, VM_COLUMN_ALLOW_CUBIN, 0, 1, 0, "vgpu-admin update-vm") != 0;
	/* A quarantine that cannot be read is one. */
	vm->quarantined =
		row_int(&row, VM_COLUMN_QUARANTINED, 0, 1, 1, "vgpu-admin clear-quarantine") != 0;
	if (sqlite3_column_type(statement, VM_COLUMN_QUARANTINED) == SQLITE_NULL)
		vm->quarantined = false;
	vm->quarantined_at_s = sqlite3_column_int64(statement, VM_COLUMN_QUARANTINE_AT);
	vm->error_count =
		row_int(&row, VM_COLUMN_ERROR_COUNT, 0, INT64_MAX, 0, "sqlite3, setting it to 0");
	for (size_t i = 0; i < SETTING_COUNT; i++)
		row_setting(&row, i);
	return row.result;
}

/* ---- Reading --------------------------------------------------------------------- */

/* SELECT of all columns in the order of enum vm_column; NULL where the file has none. */
static void select_build(const struct registry *registry, char *sql, size_t size, const char *rest)
{
	size_t used = (size_t)snprintf(sql, size, "SELECT ");

	for (int i = 0; schema_vm_columns[i].name; i++)
		used += (size_t)snprintf(sql + used, size - used, "%s%s", i ? ", " : "",
		                         registry->vm_columns & 1u << i ? schema_vm_columns[i].name
		                                                        : "NULL");
	snprintf(sql + used, size - used, " FROM vms %s", rest);
}

static int vms_append(struct registry *registry UNUSED, sqlite3_stmt *statement, void *context)
{
	struct registry_vms *vms = context;
	struct registry_vm *items = registry_grown(vms->items, vms->count, sizeof(*items));

	if (!items)
		return -ENOMEM;
	vms->items = items;
	return row_read(statement, &vms->items[vms->count++]);
}

static int vms_select(struct registry *registry, struct registry_vms *out, const char *rest,
                      const char *argument)
{
	CLEANUP(statement_freep) sqlite3_stmt *statement = NULL;
	struct registry_vms vms = {.items = NULL};
	char sql[SELECT_BYTES];
	int r;

	select_build(registry, sql, sizeof(sql), rest);
	r = registry_prepare(registry, &statement, "read", sql, argument ? "t" : "", argument);
	r = registry_rows(registry, statement, r, vms_append, &vms);
	if (r != 0) {
		registry_vms_clear(&vms);
		return r;
	}
	*out = vms;
	return 0;
}

/* Two rows that name the same VM in different case: neither can be believed. */
static int duplicate_mark(struct registry *registry UNUSED, sqlite3_stmt *statement, void *context)
{
	const char *uuid = (const char *)sqlite3_column_text(statement, 0);
	struct registry_vms *vms = context;

	for (size_t i = 0; uuid && i < vms->count; i++) {
		struct row row = {.vm = &vms->items[i]};

		if (strcmp(vms->items[i].uuid, uuid) != 0)
			continue;
		row_problem(&row, "several rows have this vm_uuid in different case; "
		                  "remove all but one with vgpu-admin remove-vm");
		if (row.result != 0)
			return row.result;
	}
	return 0;
}

static int duplicates_mark(struct registry *registry, struct registry_vms *vms)
{
	CLEANUP(statement_freep) sqlite3_stmt *statement = NULL;
	int r;

	r = registry_prepare(registry, &statement, "read",
	                     "SELECT lower(vm_uuid) FROM vms GROUP BY lower(vm_uuid) "
	                     "HAVING count(*) > 1",
	                     "");
	return registry_rows(registry, statement, r, duplicate_mark, vms);
}

int registry_vm_list(struct registry *registry, struct registry_vms *out)
{
	struct registry_vms vms;
	int r;

	if (registry->vm_columns == 0) {
		memset(out, 0, sizeof(*out));
		return 0;
	}
	r = vms_select(registry, &vms, "ORDER BY vm_id, rowid", NULL);
	if (r != 0)
		return r;
	r = duplicates_mark(registry, &vms);
	if (r != 0) {
		registry_vms_clear(&vms);
		return r;
	}
	*out = vms;
	return 0;
}

static int fail_unknown(struct registry *registry, const char *uuid)
{
	return registry_fail(registry, REGISTRY_E_NOT_FOUND,
	                     "no VM %s in registry %s; vgpu-admin list-vms shows those there are",
	                     uuid, registry->path);
}

int registry_vm_find(struct registry *registry, const char *uuid, struct registry_vm *out)
{
	struct registry_vms vms = {.items = NULL};
	int r = 0;

	if (registry->vm_columns != 0)
		r = vms_select(registry, &vms,
		               "WHERE lower(vm_uuid) = lower(?1) "
		               "ORDER BY vm_uuid = ?1 DESC LIMIT 1",
		               uuid);
	if (r != 0)
		return r;
	if (vms.count == 0)
		return fail_unknown(registry, uuid);
	*out = vms.items[0];
	free(vms.items);
	return 0;
}

int registry_vm_find_name(struct registry *registry, const char *name, struct registry_vms *out)
{
	struct registry_vms vms = {.items = NULL};
	int r = 0;

	if (registry->vm_columns & 1u << VM_COLUMN_NAME)
		r = vms_select(registry, &vms, "WHERE vm_name = ?1 ORDER BY vm_id, rowid", name);
	if (r != 0)
		return r;
	if (vms.count == 0)
		return registry_fail(registry, REGISTRY_E_NOT_FOUND,
		                     "no VM named \"%s\" in registry %s; vgpu-admin list-vms shows "
		                     "those there are",
		                     name, registry->path);
	*out = vms;
	if (vms.count > 1)
		return registry_fail(registry, REGISTRY_E_AMBIGUOUS,
		                     "%zu VMs are named \"%s\"; select one with --vm-uuid",
		                     vms.count, name);
	return 0;
}

int registry_vm_rowid(struct registry *registry, const char *uuid, int64_t *rowid)
{
	CLEANUP(statement_freep) sqlite3_stmt *statement = NULL;
	bool row;
	int r;

	r = registry_prepare(registry, &statement, "read",
	                     "SELECT rowid FROM vms WHERE lower(vm_uuid) = lower(?1) "
	                     "ORDER BY vm_uuid = ?1 DESC LIMIT 1",
	                     "t", uuid);
	if (r == 0)
		r = registry_step(registry, statement, "read", &row);
	if (r != 0)
		return r;
	if (!row)
		return fail_unknown(registry, uuid);
	*rowid = sqlite3_column_int64(statement, 0);
	return 0;
}
