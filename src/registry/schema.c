/* SPDX-License-Identifier: MIT */
/*
 * See schema.h. Columns that are merely missing are added in place. A trial file
 * whose columns would give a new VM other values than ours (weight INTEGER DEFAULT 50)
 * gets its table vms rebuilt, since SQLite cannot change a default: values, unknown
 * columns, indexes and triggers are carried over as they are.
 *
 * Only the columns that version 0 gave a CHECK have one, as its tools expect. No other
 * gets one: the layer settings is the judge of values, and a constraint here would make an
 * upgrade fail where a bad row should be reported.
 */
#include "registry/schema.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "registry/copy.h"

#define SETTING_COLUMN(id) (VM_COLUMN_SETTINGS + SETTING_##id)

const struct schema_column schema_vm_columns[] = {
	[VM_COLUMN_ID] = {"vm_id", "INTEGER NOT NULL UNIQUE", NULL, true},
	[VM_COLUMN_UUID] = {"vm_uuid", "TEXT UNIQUE NOT NULL", NULL, true},
	[VM_COLUMN_NAME] = {"vm_name", "TEXT", NULL, false},
	[VM_COLUMN_POOL] = {"pool_id",
                            "CHAR(1) NOT NULL DEFAULT 'A' CHECK (pool_id IN ('A', 'B')) "
                            "REFERENCES pools(pool_id)",
                            NULL, true},
	[VM_COLUMN_PRIORITY] = {"priority",
                                "INTEGER NOT NULL DEFAULT 1 CHECK (priority IN (0, 1, 2))", NULL,
                                true},
	[VM_COLUMN_CREATED] = {"created_at", "TIMESTAMP DEFAULT CURRENT_TIMESTAMP", NULL, false},
	[VM_COLUMN_UPDATED] = {"updated_at", "TIMESTAMP DEFAULT CURRENT_TIMESTAMP", NULL, false},
	[VM_COLUMN_ALLOW_CUBIN] = {"allow_cubin", "INTEGER DEFAULT 0", "0", false},
	[VM_COLUMN_QUARANTINED] = {"quarantined", "INTEGER DEFAULT 0", "0", false},
	[VM_COLUMN_QUARANTINE_AT] = {"quarantine_at", "INTEGER", NULL, false},
	[VM_COLUMN_QUARANTINE_REASON] = {"quarantine_reason", "TEXT", NULL, false},
	[VM_COLUMN_QUARANTINE_BY] = {"quarantine_by", "TEXT", NULL, false},
	[VM_COLUMN_ERROR_COUNT] = {"error_count", "INTEGER DEFAULT 0", "0", false},
	[SETTING_COLUMN(WEIGHT)] = {"weight", "REAL DEFAULT 1.0", "1.0", false},
	[SETTING_COLUMN(RATE)] = {"max_jobs_per_sec", "REAL DEFAULT 0", "0", false},
	[SETTING_COLUMN(BURST)] = {"burst", "INTEGER DEFAULT 0", "0", false},
	[SETTING_COLUMN(QUEUE_DEPTH)] = {"max_queue_depth", "INTEGER DEFAULT 0", "0", false},
	[SETTING_COLUMN(GPU_SECONDS)] = {"gpu_seconds_per_sec", "REAL DEFAULT 0", "0", false},
	[SETTING_COLUMN(TIMEOUT)] = {"job_timeout_ms", "INTEGER DEFAULT 0", "0", false},
	[SETTING_COLUMN(MEMORY_QUOTA)] = {"memory_quota_mib", "INTEGER DEFAULT 0", "0", false},
	[SETTING_COLUMN(COUNT)] = {NULL, NULL, NULL, false},
};

static const char schema_pools[] =
	"CREATE TABLE IF NOT EXISTS pools ("
	"pool_id CHAR(1) PRIMARY KEY CHECK (pool_id IN ('A', 'B')), "
	"pool_name TEXT NOT NULL, description TEXT, enabled INTEGER DEFAULT 1, "
	"created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, "
	"updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP)";

static const char *const schema_rest[] = {
	"INSERT OR IGNORE INTO pools (pool_id, pool_name) VALUES ('A', 'Pool A')",
	"INSERT OR IGNORE INTO pools (pool_id, pool_name) VALUES ('B', 'Pool B')",
	"CREATE INDEX IF NOT EXISTS idx_vm_uuid ON vms(vm_uuid)",
	"CREATE INDEX IF NOT EXISTS idx_vm_pool ON vms(pool_id)",
	"CREATE INDEX IF NOT EXISTS idx_vm_priority ON vms(priority)",
	("CREATE TABLE IF NOT EXISTS faults (id INTEGER PRIMARY KEY AUTOINCREMENT, "
         "vm_uuid TEXT NOT NULL, at INTEGER NOT NULL, kind TEXT NOT NULL, "
         "points INTEGER NOT NULL DEFAULT 0, detail TEXT)"),
	"CREATE INDEX IF NOT EXISTS idx_fault_vm ON faults(vm_uuid, id)",
	("CREATE TABLE IF NOT EXISTS gpu_holds (gpu_uuid TEXT NOT NULL, code TEXT NOT NULL, "
         "at INTEGER NOT NULL, message TEXT, held_by TEXT, PRIMARY KEY (gpu_uuid, code))"),
};

/* What PRAGMA table_info says of one column. */
struct column_info {
	const char *name;
	const char *type;
	bool not_null;
	const char *fallback;
};

typedef int (*column_visit)(struct registry *registry, const struct column_info *info,
                            void *context);

static int columns_visit(struct registry *registry, const char *pragma, column_visit visit,
                         void *context)
{
	CLEANUP(statement_freep) sqlite3_stmt *statement = NULL;
	bool row;
	int r;

	r = registry_prepare(registry, &statement, "read", pragma, "");
	while (r == 0) {
		r = registry_step(registry, statement, "read", &row);
		if (r != 0 || !row)
			break;
		struct column_info info = {
			.name = (const char *)sqlite3_column_text(statement, 1),
			.type = (const char *)sqlite3_column_text(statement, 2),
			.not_null = sqlite3_column_int(statement, 3) != 0,
			.fallback = (const char *)sqlite3_column_text(statement, 4),
		};
		if (!info.name)
			return -ENOMEM;
		r = visit(registry, &info, context);
	}
	return r;
}

static int vm_column_index(const char *name)
{
	for (int i = 0; schema_vm_columns[i].name; i++) {
		if (strcasecmp(schema_vm_columns[i].name, name) == 0)
			return i;
	}
	return -1;
}

/* Would an INSERT that does not name this column, as tools of version 0 write it, go wrong? */
static bool column_is_wrong(const struct schema_column *ours, const struct column_info *info)
{
	const char *fallback = info->fallback;
	char *end;

	if (!ours->fallback)
		return false;
	if (!fallback)
		return info->not_null;
	if (*fallback == '\'' || *fallback == '"')
		fallback++;
	if (strtod(fallback, &end) != strtod(ours->fallback, NULL) || end == fallback)
		return true;
	/* An integer column would hold 2.5 as well, but says something else to its readers. */
	return strncmp(ours->declaration, "REAL DEFAULT 1", 14) == 0 && info->type &&
	       strcasecmp(info->type, "REAL") != 0;
}

struct inspection {
	bool rebuild;
};

static int inspect_vm_column(struct registry *registry, const struct column_info *info,
                             void *context)
{
	struct inspection *inspection = context;
	int i = vm_column_index(info->name);

	if (i < 0)
		return 0;
	registry->vm_columns |= 1u << i;
	if (column_is_wrong(&schema_vm_columns[i], info))
		inspection->rebuild = true;
	return 0;
}

static int inspect_pool_column(struct registry *registry, const struct column_info *info,
                               void *context UNUSED)
{
	if (strcasecmp(info->name, "job_timeout_ms") == 0)
		registry->pool_timeout = true;
	return 0;
}

static int inspect_fault_column(struct registry *registry, const struct column_info *info,
                                void *context UNUSED)
{
	if (strcasecmp(info->name, "done_by") == 0)
		registry->fault_done_by = true;
	return 0;
}

static int table_find(struct registry *registry, const char *name, bool *found)
{
	char sql[128];
	int64_t count = 0;
	int r;

	snprintf(sql, sizeof(sql),
	         "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = '%s'", name);
	r = registry_query_int(registry, &count, sql, 0);
	*found = count > 0;
	return r;
}

static int inspect(struct registry *registry, struct inspection *inspection)
{
	int r;

	registry->vm_columns = 0;
	registry->pool_timeout = false;
	registry->fault_done_by = false;
	inspection->rebuild = false;
	r = columns_visit(registry, "PRAGMA table_info(vms)", inspect_vm_column, inspection);
	if (r == 0)
		r = columns_visit(registry, "PRAGMA table_info(pools)", inspect_pool_column, NULL);
	if (r == 0)
		r = table_find(registry, "faults", &registry->has_faults);
	if (r == 0)
		r = columns_visit(registry, "PRAGMA table_info(faults)", inspect_fault_column,
		                  NULL);
	if (r == 0)
		r = table_find(registry, "gpu_holds", &registry->has_gpu_holds);
	/* A column with a default that SQLite cannot add later (the time) needs a new table. */
	if (registry->vm_columns != 0 && (!(registry->vm_columns & 1u << VM_COLUMN_CREATED) ||
	                                  !(registry->vm_columns & 1u << VM_COLUMN_UPDATED)))
		inspection->rebuild = true;
	return r;
}

int schema_inspect(struct registry *registry)
{
	struct inspection ignored;

	return inspect(registry, &ignored);
}

static uint32_t all_columns(void)
{
	return (1u << (ARRAY_LEN(schema_vm_columns) - 1)) - 1;
}

static int version_check(struct registry *registry, int64_t *out)
{
	int r = registry_query_int(registry, out, "PRAGMA user_version", 0);

	if (r != 0)
		return r;
	if (*out > REGISTRY_VERSION)
		return registry_fail(registry, REGISTRY_E_NEWER,
		                     "registry %s has version %" PRId64 ", newer than the %d that "
		                     "this program knows; it was left untouched: install the newer "
		                     "vgpu, or restore a backup made before its upgrade",
		                     registry->path, *out, REGISTRY_VERSION);
	return 0;
}

/* Refuses SQLite files that hold something else before anything is added to them. */
static int ownership_check(struct registry *registry, bool *empty)
{
	int64_t objects;
	int r;

	r = registry_query_int(registry, &objects, "SELECT count(*) FROM sqlite_master", 0);
	if (r != 0)
		return r;
	*empty = objects == 0;
	for (int i = 0; !*empty && schema_vm_columns[i].name; i++) {
		if (schema_vm_columns[i].required && !(registry->vm_columns & 1u << i))
			return registry_fail(registry, REGISTRY_E_NOT_A_DATABASE,
			                     "%s is an SQLite database, but no registry of VMs: it "
			                     "has no column %s in a table vms; check the path",
			                     registry->path, schema_vm_columns[i].name);
	}
	return 0;
}

static int state_find(struct registry *registry, enum schema_state *out,
                      struct inspection *inspection, int64_t *version)
{
	bool empty;
	int r;

	r = version_check(registry, version);
	if (r == 0)
		r = inspect(registry, inspection);
	if (r == 0)
		r = ownership_check(registry, &empty);
	if (r != 0)
		return r;
	if (empty)
		*out = SCHEMA_STATE_EMPTY;
	else if (*version == REGISTRY_VERSION && registry->vm_columns == all_columns() &&
	         registry->pool_timeout && registry->fault_done_by && registry->has_gpu_holds &&
	         !inspection->rebuild)
		*out = SCHEMA_STATE_CURRENT;
	else
		*out = SCHEMA_STATE_OLD;
	return 0;
}

int schema_state(struct registry *registry, enum schema_state *out)
{
	struct inspection inspection;
	int64_t version;

	return state_find(registry, out, &inspection, &version);
}

/* ---- Making it so ---------------------------------------------------------------- */

static int vms_create(struct registry *registry, const char *table, const char *further)
{
	char sql[4096];
	size_t used;

	used = (size_t)snprintf(sql, sizeof(sql), "CREATE TABLE %s (", table);
	for (int i = 0; schema_vm_columns[i].name; i++)
		used += (size_t)snprintf(sql + used, sizeof(sql) - used, "%s%s %s", i ? ", " : "",
		                         schema_vm_columns[i].name,
		                         schema_vm_columns[i].declaration);
	if (used + strlen(further) + 2 > sizeof(sql))
		return registry_fail(registry, REGISTRY_E_NOT_A_DATABASE,
		                     "registry %s: its table vms has too many columns of its own",
		                     registry->path);
	snprintf(sql + used, sizeof(sql) - used, "%s)", further);
	return registry_run(registry, "create", sql, "");
}

static int vms_add_columns(struct registry *registry)
{
	char sql[256];
	int r = 0;

	for (int i = 0; r == 0 && schema_vm_columns[i].name; i++) {
		if (registry->vm_columns & 1u << i)
			continue;
		snprintf(sql, sizeof(sql), "ALTER TABLE vms ADD COLUMN %s %s",
		         schema_vm_columns[i].name, schema_vm_columns[i].declaration);
		r = registry_run(registry, "upgrade", sql, "");
	}
	return r;
}

/* Lists of what a rebuild carries over; too much for them makes the upgrade fail whole. */
struct rebuild {
	char names[2048];   /* columns in both tables, quoted, with commas */
	char further[1024]; /* declarations of columns that are not ours */
};

static int list_append(struct registry *registry, char *list, size_t size, char *text)
{
	size_t used = strlen(list);
	int r = 0;

	if (!text)
		return -ENOMEM;
	if (used + strlen(text) >= size)
		r = registry_fail(registry, REGISTRY_E_NOT_A_DATABASE,
		                  "registry %s: its table vms has too many columns of its own",
		                  registry->path);
	else
		memcpy(list + used, text, strlen(text) + 1);
	sqlite3_free(text);
	return r;
}

static int rebuild_column(struct registry *registry, const struct column_info *info, void *context)
{
	struct rebuild *rebuild = context;
	int r;

	r = list_append(registry, rebuild->names, sizeof(rebuild->names),
	                sqlite3_mprintf("%s\"%w\"", rebuild->names[0] ? ", " : "", info->name));
	if (r != 0 || vm_column_index(info->name) >= 0)
		return r;
	/* An unknown column without its NOT NULL: an INSERT must not begin to fail. */
	return list_append(
		registry, rebuild->further, sizeof(rebuild->further),
		sqlite3_mprintf(", \"%w\" %s%s%s%s", info->name, info->type ? info->type : "",
	                        info->fallback ? " DEFAULT (" : "",
	                        info->fallback ? info->fallback : "", info->fallback ? ")" : ""));
}

/* Indexes and triggers go with the old table; they are kept aside as SQL. */
static int vms_companions_save(struct registry *registry)
{
	return registry_run(registry, "upgrade",
	                    "CREATE TEMP TABLE companions AS SELECT sql FROM main.sqlite_master "
	                    "WHERE tbl_name = 'vms' AND type IN ('index', 'trigger') "
	                    "AND sql IS NOT NULL ORDER BY type, rowid",
	                    "");
}

static int vms_companions_restore(struct registry *registry)
{
	int64_t count = 0;
	int r;

	r = registry_query_int(registry, &count, "SELECT count(*) FROM temp.companions", 0);
	for (int64_t i = 1; r == 0 && i <= count; i++) {
		CLEANUP(statement_freep) sqlite3_stmt *statement = NULL;
		CLEANUP(freep) char *sql = NULL;
		bool row;

		r = registry_prepare(registry, &statement, "upgrade",
		                     "SELECT sql FROM temp.companions WHERE rowid = ?1", "i", i);
		if (r == 0)
			r = registry_step(registry, statement, "upgrade", &row);
		if (r == 0)
			sql = registry_column_text(statement, 0, &r);
		if (r == 0 && sql)
			r = registry_run(registry, "upgrade", sql, "");
	}
	if (r == 0)
		r = registry_run(registry, "upgrade", "DROP TABLE temp.companions", "");
	return r;
}

static int vms_rebuild(struct registry *registry)
{
	struct rebuild rebuild = {.names = ""};
	char *insert;
	int r;

	r = columns_visit(registry, "PRAGMA table_info(vms)", rebuild_column, &rebuild);
	if (r == 0)
		r = vms_companions_save(registry);
	if (r == 0)
		r = vms_create(registry, "vms_upgraded", rebuild.further);
	if (r != 0)
		return r;
	insert = sqlite3_mprintf("INSERT INTO vms_upgraded (%s) SELECT %s FROM vms ORDER BY rowid",
	                         rebuild.names, rebuild.names);
	if (!insert)
		return -ENOMEM;
	r = registry_run(registry, "upgrade", insert, "");
	sqlite3_free(insert);
	if (r == 0)
		r = registry_run(registry, "upgrade", "DROP TABLE vms", "");
	if (r == 0)
		r = registry_run(registry, "upgrade", "ALTER TABLE vms_upgraded RENAME TO vms", "");
	return r == 0 ? vms_companions_restore(registry) : r;
}

static int upgrade_tables(struct registry *registry, const struct inspection *inspection,
                          bool create)
{
	char version[64];
	int r;

	r = registry_run(registry, "create", schema_pools, "");
	if (r == 0 && !registry->pool_timeout)
		r = registry_run(registry, "upgrade",
		                 "ALTER TABLE pools ADD COLUMN job_timeout_ms INTEGER DEFAULT 0",
		                 "");
	if (r != 0)
		return r;
	if (create)
		r = vms_create(registry, "vms", "");
	else if (inspection->rebuild)
		r = vms_rebuild(registry);
	else
		r = vms_add_columns(registry);
	for (size_t i = 0; r == 0 && i < ARRAY_LEN(schema_rest); i++)
		r = registry_run(registry, "upgrade", schema_rest[i], "");
	if (r == 0 && !registry->fault_done_by)
		r = registry_run(registry, "upgrade", "ALTER TABLE faults ADD COLUMN done_by TEXT",
		                 "");
	snprintf(version, sizeof(version), "PRAGMA user_version = %d", REGISTRY_VERSION);
	return r == 0 ? registry_run(registry, "upgrade", version, "") : r;
}

int schema_upgrade(struct registry *registry)
{
	struct inspection inspection;
	enum schema_state state;
	int64_t version;
	int r;

	/*
	 * For a rebuild, and only possible outside the transaction: rows that break a CHECK are
	 * carried over, and the renamed table drags no other tables' references along.
	 */
	r = registry_run(registry, "upgrade", "PRAGMA ignore_check_constraints = ON", "");
	if (r == 0)
		r = registry_run(registry, "upgrade", "PRAGMA legacy_alter_table = ON", "");
	if (r == 0)
		r = registry_change_begin(registry, "upgrade");
	if (r != 0)
		return r;
	r = state_find(registry, &state, &inspection, &version);
	if (r == 0 && state == SCHEMA_STATE_OLD)
		r = copy_before_upgrade(registry, version, &registry->upgrade_backup);
	if (r == 0 && state != SCHEMA_STATE_CURRENT)
		r = upgrade_tables(registry, &inspection, state == SCHEMA_STATE_EMPTY);
	/* The file is as it was. A service that is started again and again must not fill the disk.
	 */
	if (r != 0)
		copy_remove(&registry->upgrade_backup);
	r = registry_change_end(registry, "upgrade", r);
	if (r == 0)
		r = registry_run(registry, "upgrade", "PRAGMA legacy_alter_table = OFF", "");
	if (r == 0)
		r = registry_run(registry, "upgrade", "PRAGMA ignore_check_constraints = OFF", "");
	return r;
}
