/* SPDX-License-Identifier: MIT */
/*
 * Faults and quarantine: what must still be known after a restart, and must be on
 * the disk before a guest is told.
 *
 * The history is bounded per VM, because a guest decides how often it faults;
 * vms.error_count goes on counting what the history forgets.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "registry/handle.h"

static int64_t at_or_now(int64_t at_s)
{
	return at_s != 0 ? at_s : clock_realtime_s();
}

/* Inside a transaction. The first reason stays: it is the one that explains. */
static int quarantine_store(struct registry *registry, int64_t rowid, int64_t at_s,
                            const char *reason, const char *by)
{
	return registry_run(registry, "change",
	                    "UPDATE vms SET quarantined = 1, quarantine_at = ?1, "
	                    "quarantine_reason = substr(?2, 1, ?3), "
	                    "quarantine_by = substr(?4, 1, ?3), updated_at = CURRENT_TIMESTAMP "
	                    "WHERE rowid = ?5 AND quarantined IS NOT 1",
	                    "ititi", at_or_now(at_s), reason, (int64_t)REGISTRY_DETAIL_BYTES_MAX,
	                    by, rowid);
}

int registry_quarantine_set(struct registry *registry, const char *uuid, int64_t at_s,
                            const char *reason, const char *by)
{
	int64_t rowid;
	int result;

	result = registry_change_begin(registry, "change");
	if (result != 0)
		return result;
	result = registry_vm_rowid(registry, uuid, &rowid);
	if (result == 0)
		result = quarantine_store(registry, rowid, at_s, reason, by);
	return registry_change_end(registry, "change", result);
}

int registry_quarantine_clear(struct registry *registry, const char *uuid)
{
	int64_t rowid;
	int result;

	result = registry_change_begin(registry, "change");
	if (result != 0)
		return result;
	result = registry_vm_rowid(registry, uuid, &rowid);
	if (result == 0)
		result = registry_run(registry, "change",
		                      "UPDATE vms SET quarantined = 0, quarantine_at = NULL, "
		                      "quarantine_reason = NULL, quarantine_by = NULL, "
		                      "updated_at = CURRENT_TIMESTAMP WHERE rowid = ?1",
		                      "i", rowid);
	if (result == 0)
		result = registry_run(registry, "change",
		                      "UPDATE faults SET points = 0 WHERE vm_uuid = lower(?1)", "t",
		                      uuid);
	return registry_change_end(registry, "change", result);
}

static int fault_store(struct registry *registry, const char *uuid,
                       const struct registry_fault_event *event)
{
	int64_t rowid;
	int result;

	result = registry_vm_rowid(registry, uuid, &rowid);
	if (result == 0)
		result = registry_run(registry, "change",
		                      "UPDATE vms SET error_count = coalesce(error_count, 0) + 1 "
		                      "WHERE rowid = ?1",
		                      "i", rowid);
	if (result == 0)
		result = registry_run(registry, "change",
		                      "INSERT INTO faults (vm_uuid, at, kind, points, detail) "
		                      "VALUES (lower(?1), ?2, ?3, ?4, substr(?5, 1, ?6))",
		                      "tititi", uuid, at_or_now(event->at_s), event->kind,
		                      event->points, event->detail,
		                      (int64_t)REGISTRY_DETAIL_BYTES_MAX);
	if (result == 0)
		result = registry_run(registry, "change",
		                      "DELETE FROM faults WHERE vm_uuid = lower(?1) AND id <= "
		                      "(SELECT id FROM faults WHERE vm_uuid = lower(?1) "
		                      "ORDER BY id DESC LIMIT 1 OFFSET ?2)",
		                      "ti", uuid, (int64_t)REGISTRY_FAULTS_PER_VM);
	if (result == 0 && event->quarantine)
		result = quarantine_store(registry, rowid, event->at_s, event->quarantine,
		                          "mediator");
	return result;
}

int registry_fault_record(struct registry *registry, const char *uuid,
                          const struct registry_fault_event *event)
{
	int result = registry_change_begin(registry, "change");

	if (result != 0)
		return result;
	result = fault_store(registry, uuid, event);
	return registry_change_end(registry, "change", result);
}

void registry_faults_clear(struct registry_faults *faults)
{
	for (size_t i = 0; i < faults->count; i++) {
		free(faults->items[i].vm_uuid);
		free(faults->items[i].kind);
		free(faults->items[i].detail);
	}
	free(faults->items);
	memset(faults, 0, sizeof(*faults));
}

static int fault_append(struct registry_faults *faults, size_t *capacity, sqlite3_stmt *statement)
{
	struct registry_fault *fault;
	int result = 0;

	if (faults->count == *capacity) {
		size_t wanted = *capacity ? *capacity * 2 : 16;
		struct registry_fault *items = reallocarray(faults->items, wanted, sizeof(*items));

		if (!items)
			return -ENOMEM;
		faults->items = items;
		*capacity = wanted;
	}
	fault = &faults->items[faults->count++];
	fault->id = sqlite3_column_int64(statement, 0);
	fault->vm_uuid = registry_column_text(statement, 1, &result);
	fault->at_s = sqlite3_column_int64(statement, 2);
	fault->kind = registry_column_text(statement, 3, &result);
	fault->points = sqlite3_column_int64(statement, 4);
	fault->detail = registry_column_text(statement, 5, &result);
	return result;
}

int registry_fault_list(struct registry *registry, const char *uuid, int64_t since_s,
                        struct registry_faults *out)
{
	sqlite3_stmt *statement CLEANUP(statement_freep) = NULL;
	struct registry_faults faults = {.items = NULL};
	size_t capacity = 0;
	bool row;
	int result;

	if (!registry->has_faults) {
		*out = faults;
		return 0;
	}
	result = registry_prepare(registry, &statement, "read",
	                          "SELECT id, vm_uuid, at, kind, points, detail FROM faults "
	                          "WHERE at >= ?1 AND (?2 IS NULL OR vm_uuid = lower(?2)) "
	                          "ORDER BY id",
	                          "it", since_s, uuid);
	while (result == 0) {
		result = registry_step(registry, statement, "read", &row);
		if (result != 0 || !row)
			break;
		result = fault_append(&faults, &capacity, statement);
	}
	if (result != 0) {
		registry_faults_clear(&faults);
		return result;
	}
	*out = faults;
	return 0;
}
