/* SPDX-License-Identifier: MIT */
/*
 * Faults and quarantine: what must still be known after a restart, and must be on
 * the disk before a guest is told.
 *
 * One table holds the history of a VM: its faults, and who ordered what because of them.
 * Both are bounded, each for itself: a guest decides how often it faults, and must not
 * push out what people have said. vms.error_count goes on counting what is forgotten.
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

/* ---- Inside a transaction -------------------------------------------------------- */

/* Whether a row is about a quarantine; the rest is about faults. */
#define IS_ORDER "(kind IN ('" REGISTRY_KIND_QUARANTINED "', '" REGISTRY_KIND_CLEARED "'))"

static int history_trim(struct registry *registry, const char *uuid, bool order)
{
	return registry_run(registry, "change",
	                    "DELETE FROM faults WHERE vm_uuid = lower(?1) AND " IS_ORDER " = ?2 "
	                    "AND id <= (SELECT id FROM faults WHERE vm_uuid = lower(?1) "
	                    "AND " IS_ORDER " = ?2 ORDER BY id DESC LIMIT 1 OFFSET ?3)",
	                    "tii", uuid, (int64_t)order,
	                    (int64_t)(order ? REGISTRY_ORDERS_PER_VM : REGISTRY_FAULTS_PER_VM));
}

/* @by NULL: it is about a fault; else who gave the order. */
static int history_add(struct registry *registry, const char *uuid,
                       const struct registry_fault_event *event, const char *by)
{
	int r = registry_run(registry, "change",
	                     "INSERT INTO faults (vm_uuid, at, kind, points, detail, done_by) "
	                     "VALUES (lower(?1), ?2, ?3, ?4, substr(?5, 1, ?7), substr(?6, 1, ?7))",
	                     "tititti", uuid, at_or_now(event->at_s), event->kind, event->points,
	                     event->detail, by, (int64_t)REGISTRY_DETAIL_BYTES_MAX);

	return r == 0 ? history_trim(registry, uuid, by != NULL) : r;
}

/* A quarantine, or its end. */
struct order {
	int64_t at_s; /* 0 = now */
	const char *reason;
	const char *by;
};

static int quarantine_store(struct registry *registry, const char *uuid, int64_t rowid,
                            const void *context)
{
	const struct order *order = context;
	const struct registry_fault_event event = {
		.at_s = order->at_s,
		.kind = REGISTRY_KIND_QUARANTINED,
		.detail = order->reason,
	};
	int r;

	r = registry_run(registry, "change",
	                 "UPDATE vms SET quarantined = 1, quarantine_at = ?1, "
	                 "quarantine_reason = substr(?2, 1, ?3), "
	                 "quarantine_by = substr(?4, 1, ?3), updated_at = CURRENT_TIMESTAMP "
	                 "WHERE rowid = ?5 AND NOT (quarantined IS 1 "
	                 "AND quarantine_reason IS substr(?2, 1, ?3) "
	                 "AND quarantine_by IS substr(?4, 1, ?3))",
	                 "ititi", at_or_now(order->at_s), order->reason,
	                 (int64_t)REGISTRY_DETAIL_BYTES_MAX, order->by, rowid);
	if (r != 0 || sqlite3_changes(registry->db) == 0)
		return r;
	return history_add(registry, uuid, &event, order->by);
}

static int quarantine_clear(struct registry *registry, const char *uuid, int64_t rowid,
                            const void *context)
{
	const struct order *order = context;
	const struct registry_fault_event event = {
		.kind = REGISTRY_KIND_CLEARED,
		.detail = order->reason,
	};
	int r, changes;

	r = registry_run(registry, "change",
	                 "UPDATE vms SET quarantined = 0, quarantine_at = NULL, "
	                 "quarantine_reason = NULL, quarantine_by = NULL, "
	                 "updated_at = CURRENT_TIMESTAMP "
	                 "WHERE rowid = ?1 AND quarantined IS NOT 0",
	                 "i", rowid);
	if (r != 0)
		return r;
	changes = sqlite3_changes(registry->db);
	r = registry_run(registry, "change",
	                 "UPDATE faults SET points = 0 "
	                 "WHERE vm_uuid = lower(?1) AND points <> 0",
	                 "t", uuid);
	if (r != 0 || changes + sqlite3_changes(registry->db) == 0)
		return r;
	return history_add(registry, uuid, &event, order->by);
}

static int fault_store(struct registry *registry, const char *uuid, int64_t rowid,
                       const void *context)
{
	const struct registry_fault_event *event = context;
	const struct order order = {event->at_s, event->quarantine, REGISTRY_BY_MEDIATOR};
	int r;

	r = registry_run(registry, "change",
	                 "UPDATE vms SET error_count = coalesce(error_count, 0) + ?2 "
	                 "WHERE rowid = ?1",
	                 "ii", rowid, (int64_t)(event->count ? event->count : 1));
	if (r == 0)
		r = history_add(registry, uuid, event, NULL);
	if (r == 0 && event->quarantine)
		r = quarantine_store(registry, uuid, rowid, &order);
	return r;
}

static int recovery_store(struct registry *registry, const char *uuid, int64_t rowid UNUSED,
                          const void *context)
{
	return history_add(registry, uuid, context, NULL);
}

/* Points that were the hardware's doing. */
struct forgiveness {
	int64_t since_s;
	const char *why;
};

static int points_forgive(struct registry *registry, const char *uuid, int64_t rowid UNUSED,
                          const void *context)
{
	const struct forgiveness *forgiveness = context;

	return registry_run(registry, "change",
	                    "UPDATE faults SET points = 0, detail = "
	                    "substr(coalesce(nullif(detail, '') || '; ', '') || ?3, 1, ?4) "
	                    "WHERE vm_uuid = lower(?1) AND at >= ?2 AND points <> 0",
	                    "titi", uuid, forgiveness->since_s, forgiveness->why,
	                    (int64_t)REGISTRY_DETAIL_BYTES_MAX);
}

/* ---- Changes --------------------------------------------------------------------- */

int registry_quarantine_set(struct registry *registry, const char *uuid, int64_t at_s,
                            const char *reason, const char *by)
{
	const struct order order = {at_s, reason, by};

	return registry_change_vm(registry, uuid, quarantine_store, &order);
}

int registry_quarantine_clear(struct registry *registry, const char *uuid, const char *reason,
                              const char *by)
{
	const struct order order = {0, reason, by};

	return registry_change_vm(registry, uuid, quarantine_clear, &order);
}

int registry_fault_record(struct registry *registry, const char *uuid,
                          const struct registry_fault_event *event)
{
	return registry_change_vm(registry, uuid, fault_store, event);
}

int registry_recovery_record(struct registry *registry, const char *uuid, int64_t at_s)
{
	const struct registry_fault_event event = {
		.at_s = at_s,
		.kind = REGISTRY_KIND_RECOVERED,
	};

	return registry_change_vm(registry, uuid, recovery_store, &event);
}

int registry_faults_forgive(struct registry *registry, const char *uuid, int64_t since_s,
                            const char *why)
{
	const struct forgiveness forgiveness = {since_s, why};

	return registry_change_vm(registry, uuid, points_forgive, &forgiveness);
}

int registry_faults_not_after(struct registry *registry, int64_t now_s)
{
	int r = registry_change_begin(registry, "change");

	if (r != 0)
		return r;
	r = registry_run(registry, "change", "UPDATE faults SET at = ?1 WHERE at > ?1", "i", now_s);
	return registry_change_end(registry, "change", r);
}

/* ---- Reading --------------------------------------------------------------------- */

void registry_faults_clear(struct registry_faults *faults)
{
	for (size_t i = 0; i < faults->count; i++) {
		free(faults->items[i].vm_uuid);
		free(faults->items[i].kind);
		free(faults->items[i].detail);
		free(faults->items[i].by);
	}
	free(faults->items);
	memset(faults, 0, sizeof(*faults));
}

static int fault_append(struct registry *registry UNUSED, sqlite3_stmt *statement, void *context)
{
	struct registry_faults *faults = context;
	struct registry_fault *items = registry_grown(faults->items, faults->count, sizeof(*items));
	int r = 0;

	if (!items)
		return -ENOMEM;
	faults->items = items;
	items[faults->count++] = (struct registry_fault){
		.id = sqlite3_column_int64(statement, 0),
		.vm_uuid = registry_column_text(statement, 1, &r),
		.at_s = sqlite3_column_int64(statement, 2),
		.kind = registry_column_text(statement, 3, &r),
		.points = sqlite3_column_int64(statement, 4),
		.detail = registry_column_text(statement, 5, &r),
		.by = registry_column_text(statement, 6, &r),
	};
	return r;
}

/* Runs @statement to its end, unless @r is an error already. */
static int faults_collect(struct registry *registry, sqlite3_stmt *statement, int r,
                          struct registry_faults *out)
{
	struct registry_faults faults = {.items = NULL};

	r = registry_rows(registry, statement, r, fault_append, &faults);
	if (r != 0) {
		registry_faults_clear(&faults);
		return r;
	}
	*out = faults;
	return 0;
}

int registry_fault_list(struct registry *registry, const char *uuid, int64_t since_s,
                        struct registry_faults *out)
{
	CLEANUP(statement_freep) sqlite3_stmt *statement = NULL;
	char sql[256];
	int r;

	*out = (struct registry_faults){.items = NULL};
	if (!registry->has_faults)
		return 0;
	snprintf(sql, sizeof(sql),
	         "SELECT id, vm_uuid, at, kind, points, detail, %s FROM faults "
	         "WHERE at >= ?1 AND (?2 IS NULL OR vm_uuid = lower(?2)) ORDER BY id",
	         registry->fault_done_by ? "done_by" : "NULL");
	r = registry_prepare(registry, &statement, "read", sql, "it", since_s, uuid);
	return faults_collect(registry, statement, r, out);
}

int registry_fault_list_counting(struct registry *registry, struct registry_faults *out)
{
	CLEANUP(statement_freep) sqlite3_stmt *statement = NULL;
	int r;

	r = registry_prepare(registry, &statement, "read",
	                     "SELECT id, vm_uuid, at, kind, points, NULL, NULL FROM faults "
	                     "WHERE points <> 0 OR kind IN ('" REGISTRY_KIND_QUARANTINED
	                     "', '" REGISTRY_KIND_RECOVERED "') ORDER BY vm_uuid, id",
	                     "");
	return faults_collect(registry, statement, r, out);
}
