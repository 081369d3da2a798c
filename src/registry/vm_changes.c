/* SPDX-License-Identifier: MIT */
/*
 * Table vms: rows come, change and go. A change is checked before anything is written,
 * and whole.
 */
#include <inttypes.h>
#include <stdio.h>

#include "registry/handle.h"
#include "registry/schema.h"

static int fail_setting(struct registry *registry, const struct decimal *number, int64_t stored)
{
	char value[32];

	return registry_fail(registry, REGISTRY_E_INVALID, "%s %s is out of range: %s",
	                     number->name, decimal_format(value, sizeof(value), number, stored),
	                     number->range);
}

static int change_check(struct registry *registry, const struct registry_vm_change *change)
{
	if (change->fields & REGISTRY_FIELD_POOL && change->values.pool >= POOL_COUNT)
		return registry_fail(registry, REGISTRY_E_INVALID, "there are pools A and B only");
	if (change->fields & REGISTRY_FIELD_PRIORITY &&
	    change->values.priority > VGPU_PRIORITY_HIGH)
		return registry_fail(registry, REGISTRY_E_INVALID,
		                     "priority %" PRIu32 " is none of low, medium and high",
		                     change->values.priority);
	for (size_t i = 0; i < SETTING_COUNT; i++) {
		int64_t stored = setting_get(&change->values, &setting_fields[i]);

		if (change->settings & 1u << i &&
		    !decimal_allows(&setting_fields[i].number, stored))
			return fail_setting(registry, &setting_fields[i].number, stored);
	}
	return 0;
}

static int vm_id_check(struct registry *registry, uint32_t vm_id, int64_t rowid)
{
	CLEANUP(statement_freep) sqlite3_stmt *statement = NULL;
	bool row;
	int r;

	r = registry_prepare(registry, &statement, "read",
	                     "SELECT vm_uuid FROM vms WHERE vm_id = ?1 AND rowid <> ?2", "ii",
	                     (int64_t)vm_id, rowid);
	if (r == 0)
		r = registry_step(registry, statement, "read", &row);
	if (r == 0 && row)
		return registry_fail(registry, REGISTRY_E_EXISTS,
		                     "vm_id %" PRIu32 " belongs to VM %s already; choose another",
		                     vm_id, (const char *)sqlite3_column_text(statement, 0));
	return r;
}

static int column_set_int(struct registry *registry, int64_t rowid, enum vm_column column,
                          int64_t value)
{
	char sql[128];

	snprintf(sql, sizeof(sql), "UPDATE vms SET %s = ?1 WHERE rowid = ?2",
	         schema_vm_columns[column].name);
	return registry_run(registry, "change", sql, "ii", value, rowid);
}

static int setting_store(struct registry *registry, int64_t rowid, size_t index, int64_t stored)
{
	const struct setting_field *field = &setting_fields[index];
	char sql[128];

	snprintf(sql, sizeof(sql), "UPDATE vms SET %s = ?1 WHERE rowid = ?2", field->column);
	if (field->number.scale == 1)
		return registry_run(registry, "change", sql, "ii", stored, rowid);
	return registry_run(registry, "change", sql, "di",
	                    decimal_to_double(&field->number, stored), rowid);
}

/* On a change that was checked. */
static int change_apply(struct registry *registry, const char *uuid UNUSED, int64_t rowid,
                        const void *context)
{
	static const char pool_sql[] = "UPDATE vms SET pool_id = ?1 WHERE rowid = ?2";
	static const char name_sql[] = "UPDATE vms SET vm_name = ?1 WHERE rowid = ?2";
	const struct registry_vm_change *change = context;
	char pool[2] = {pool_letter(change->values.pool), '\0'};
	int r = 0;

	if (change->fields & REGISTRY_FIELD_VM_ID) {
		r = vm_id_check(registry, change->vm_id, rowid);
		if (r == 0)
			r = column_set_int(registry, rowid, VM_COLUMN_ID, change->vm_id);
	}
	if (r == 0 && change->fields & REGISTRY_FIELD_NAME)
		r = registry_run(registry, "change", name_sql, "ti", change->name, rowid);
	if (r == 0 && change->fields & REGISTRY_FIELD_POOL)
		r = registry_run(registry, "change", pool_sql, "ti", pool, rowid);
	if (r == 0 && change->fields & REGISTRY_FIELD_PRIORITY)
		r = column_set_int(registry, rowid, VM_COLUMN_PRIORITY, change->values.priority);
	if (r == 0 && change->fields & REGISTRY_FIELD_ALLOW_CUBIN)
		r = column_set_int(registry, rowid, VM_COLUMN_ALLOW_CUBIN, change->allow_cubin);
	for (size_t i = 0; r == 0 && i < SETTING_COUNT; i++) {
		if (change->settings & 1u << i)
			r = setting_store(registry, rowid, i,
			                  setting_get(&change->values, &setting_fields[i]));
	}
	if (r == 0)
		r = registry_run(registry, "change",
		                 "UPDATE vms SET updated_at = CURRENT_TIMESTAMP "
		                 "WHERE rowid = ?1",
		                 "i", rowid);
	return r;
}

/*
 * The next after the highest, or the lowest free one when the highest is taken. What is no
 * whole number is the trouble of its own row alone.
 */
static int vm_id_next(struct registry *registry, uint32_t *out)
{
	int64_t next;
	int r;

	r = registry_query_int(registry, &next,
	                       "SELECT max(vm_id) + 1 FROM vms "
	                       "WHERE typeof(vm_id) = 'integer'",
	                       1);
	if (r == 0 && (next < 1 || next > UINT32_MAX))
		r = registry_query_int(registry, &next,
		                       "SELECT min(vm_id) + 1 FROM vms "
		                       "WHERE typeof(vm_id) = 'integer' AND vm_id >= 0 AND "
		                       "vm_id + 1 NOT IN (SELECT vm_id FROM vms)",
		                       1);
	*out = (uint32_t)next;
	return r;
}

static int insert_row(struct registry *registry, const char *uuid,
                      const struct registry_vm_change *change, uint32_t *vm_id)
{
	int64_t rowid;
	int r;

	r = registry_vm_rowid(registry, uuid, &rowid);
	if (r == 0)
		return registry_fail(registry, REGISTRY_E_EXISTS,
		                     "VM %s is registered already; vgpu-admin update-vm changes it",
		                     uuid);
	if (r != REGISTRY_E_NOT_FOUND)
		return r;
	*vm_id = change->vm_id;
	r = change->fields & REGISTRY_FIELD_VM_ID ? vm_id_check(registry, *vm_id, -1)
	                                          : vm_id_next(registry, vm_id);
	/* The defaults are those of the columns, as for tools that know no others. */
	if (r == 0)
		r = registry_run(registry, "change",
		                 "INSERT INTO vms (vm_id, vm_uuid) VALUES (?1, ?2)", "it",
		                 (int64_t)*vm_id, uuid);
	if (r != 0)
		return r;
	return change_apply(registry, uuid, sqlite3_last_insert_rowid(registry->db), change);
}

int registry_vm_insert(struct registry *registry, const char *uuid,
                       const struct registry_vm_change *change, uint32_t *vm_id)
{
	uint32_t given = 0;
	int r;

	if (!registry_uuid_valid(uuid))
		return registry_fail(registry, REGISTRY_E_INVALID,
		                     "\"%s\" is no UUID of the form "
		                     "01234567-89ab-cdef-0123-456789abcdef in lower case",
		                     uuid);
	r = change_check(registry, change);
	if (r == 0)
		r = registry_change_begin(registry, "change");
	if (r != 0)
		return r;
	r = insert_row(registry, uuid, change, &given);
	r = registry_change_end(registry, "change", r);
	if (r == 0 && vm_id)
		*vm_id = given;
	return r;
}

int registry_change_vm(struct registry *registry, const char *uuid, vm_change change,
                       const void *context)
{
	int64_t rowid;
	int r;

	r = registry_change_begin(registry, "change");
	if (r != 0)
		return r;
	r = registry_vm_rowid(registry, uuid, &rowid);
	if (r == 0)
		r = change(registry, uuid, rowid, context);
	return registry_change_end(registry, "change", r);
}

int registry_vm_update(struct registry *registry, const char *uuid,
                       const struct registry_vm_change *change)
{
	int r = change_check(registry, change);

	return r == 0 ? registry_change_vm(registry, uuid, change_apply, change) : r;
}

static int id_release(struct registry *registry, const char *uuid UNUSED, int64_t rowid,
                      const void *context UNUSED)
{
	return registry_run(registry, "change",
	                    "UPDATE vms SET vm_id = (SELECT min(0, min(vm_id)) - 1 FROM vms) "
	                    "WHERE rowid = ?1",
	                    "i", rowid);
}

int registry_vm_release_id(struct registry *registry, const char *uuid)
{
	return registry_change_vm(registry, uuid, id_release, NULL);
}

static int row_remove(struct registry *registry, const char *uuid, int64_t rowid,
                      const void *context UNUSED)
{
	int r;

	r = registry_run(registry, "change", "DELETE FROM vms WHERE rowid = ?1", "i", rowid);
	if (r == 0)
		r = registry_run(registry, "change", "DELETE FROM faults WHERE vm_uuid = lower(?1)",
		                 "t", uuid);
	return r;
}

int registry_vm_remove(struct registry *registry, const char *uuid)
{
	return registry_change_vm(registry, uuid, row_remove, NULL);
}
