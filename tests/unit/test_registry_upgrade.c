/* SPDX-License-Identifier: MIT */
/*
 * Files as other versions left them: every row comes through an upgrade unchanged,
 * a backup of what was there is beside it, and what is not ours is not touched.
 */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "registry/registry.h"

#define UUID_A "aaaaaaaa-0000-4000-8000-000000000001"
#define UUID_B "bbbbbbbb-0000-4000-8000-000000000002"

/* The contract's tables. */
#define POOLS                                                                             \
	"CREATE TABLE pools (pool_id CHAR(1) PRIMARY KEY CHECK (pool_id IN ('A','B')),"   \
	" pool_name TEXT NOT NULL, description TEXT, enabled INTEGER DEFAULT 1,"          \
	" created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,"                                \
	" updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP);"                               \
	"INSERT INTO pools (pool_id, pool_name) VALUES ('A', 'Pool A'), ('B', 'Pool B');" \
	"UPDATE pools SET enabled = 0, description = 'night' WHERE pool_id = 'B';"
#define VMS(further)                                                                        \
	"CREATE TABLE vms (vm_id INTEGER NOT NULL UNIQUE, vm_uuid TEXT UNIQUE NOT NULL,"    \
	" vm_name TEXT, pool_id CHAR(1) NOT NULL DEFAULT 'A' CHECK (pool_id IN ('A','B'))," \
	" priority INTEGER NOT NULL DEFAULT 1 CHECK (priority IN (0,1,2)),"                 \
	" created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,"                                  \
	" updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP" further ","                       \
	" FOREIGN KEY (pool_id) REFERENCES pools(pool_id));"                                \
	"CREATE INDEX idx_vm_uuid ON vms(vm_uuid);"                                         \
	"CREATE INDEX idx_vm_pool ON vms(pool_id);"                                         \
	"CREATE INDEX idx_vm_priority ON vms(priority);"
#define ROWS                                                                                     \
	"INSERT INTO vms (vm_id, vm_uuid, vm_name, pool_id, priority, created_at) VALUES"        \
	" (1, '" UUID_A "', 'it''s \"a\" name', 'A', 0, '2020-01-02 03:04:05'),"                 \
	" (200, '" UUID_B "', '', 'B', 2, '2020-01-02 03:04:05'),"                               \
	" (3, 'cccccccc-0000-4000-8000-000000000003', NULL, 'A', 1, NULL),"                      \
	" (4, 'DDDDDDDD-0000-4000-8000-000000000004', 'caf\xc3\xa9 \xe2\x82\xac', 'A', 1, 0),"   \
	" (5, 'eeeeeeee-0000-4000-8000-000000000005', 'two' || char(10) || 'lines', 'A', 1, 0)," \
	" (6, 'not a uuid', 'odd', 'A', 1, 0);"
#define TRIAL                                                                      \
	", max_jobs_per_sec INTEGER DEFAULT 0, max_queue_depth INTEGER DEFAULT 0," \
	" quarantined INTEGER DEFAULT 0, error_count INTEGER DEFAULT 0"
#define PHASE2_COLUMNS "vm_id, vm_uuid, vm_name, pool_id, priority, created_at, updated_at"

static const struct registry_options options_write = {.mode = REGISTRY_WRITE};
static const struct registry_options options_read = {.mode = REGISTRY_READ};

struct fixture {
	char directory[64];
	char path[96];
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->directory, "/tmp/test-registry-XXXXXX");
	assert_non_null(mkdtemp(f->directory));
	snprintf(f->path, sizeof(f->path), "%s/vgpu.db", f->directory);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	DIR *directory = opendir(f->directory);
	struct dirent *entry;

	while ((entry = readdir(directory)))
		unlinkat(dirfd(directory), entry->d_name, 0);
	closedir(directory);
	assert_int_equal(rmdir(f->directory), 0);
	free(f);
	return 0;
}

static void make(const char *path, const char *sql)
{
	sqlite3 *db;

	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
		fail_msg("%s", sqlite3_errmsg(db));
	sqlite3_close(db);
}

/* All values of a query in one text, the caller's to free. */
static char *dump(const char *path, const char *sql)
{
	sqlite3_stmt *statement;
	char *text = strdup("");
	sqlite3 *db;

	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK)
		fail_msg("%s: %s", sql, sqlite3_errmsg(db));
	while (sqlite3_step(statement) == SQLITE_ROW) {
		for (int i = 0; i < sqlite3_column_count(statement); i++) {
			const char *value = (const char *)sqlite3_column_text(statement, i);
			char *longer;

			assert_true(asprintf(&longer, "%s%s|", text, value ? value : "NULL") > 0);
			free(text);
			text = longer;
		}
	}
	sqlite3_finalize(statement);
	sqlite3_close(db);
	return text;
}

static void assert_dump(const char *path, const char *sql, const char *expected)
{
	CLEANUP(freep) char *text = dump(path, sql);

	assert_string_equal(text, expected);
}

static size_t read_file(const char *path, char *to, size_t size)
{
	FILE *file = fopen(path, "rb");
	size_t length;

	assert_non_null(file);
	length = fread(to, 1, size, file);
	fclose(file);
	return length;
}

/* Upgrades and checks what must hold for every old file. Returns the open registry. */
static struct registry *upgrade(struct fixture *f)
{
	static const char rows[] = "SELECT " PHASE2_COLUMNS " FROM vms ORDER BY rowid";
	CLEANUP(freep) char *before = dump(f->path, rows);
	CLEANUP(freep) char *after = NULL;
	CLEANUP(freep) char *in_backup = NULL;
	struct registry_error why = {.text = ""};
	struct registry *registry;
	struct registry_pools pools;

	if (registry_open(&registry, f->path, &options_write, &why) != 0)
		fail_msg("%s", why.text);
	after = dump(f->path, rows);
	assert_string_equal(after, before);
	assert_non_null(registry_upgrade_backup(registry));
	in_backup = dump(registry_upgrade_backup(registry), rows);
	assert_string_equal(in_backup, before);
	assert_dump(registry_upgrade_backup(registry), "PRAGMA user_version", "0|");
	assert_dump(f->path, "PRAGMA user_version", "4|");
	assert_dump(f->path,
	            "SELECT name FROM sqlite_master WHERE tbl_name = 'vms' AND type = 'index' "
	            "AND sql IS NOT NULL ORDER BY name",
	            "idx_vm_pool|idx_vm_priority|idx_vm_uuid|");
	assert_int_equal(registry_check(registry), 0);
	assert_int_equal(registry_pool_list(registry, &pools), 0);
	assert_false(pools.items[1].enabled);
	assert_string_equal(pools.items[1].description, "night");
	registry_pools_clear(&pools);
	/* What a tool of Phase 2 writes afterwards gets our defaults. */
	make(f->path, "INSERT INTO vms (vm_id, vm_uuid, vm_name, pool_id, priority) VALUES "
	              "(77, '77777777-0000-4000-8000-000000000077', 'new', 'A', 1)");
	assert_dump(
		f->path,
		"SELECT weight, max_jobs_per_sec = 0, max_queue_depth, quarantined, error_count, "
		"typeof(weight) FROM vms WHERE vm_id = 77",
		"1.0|1|0|0|0|real|");
	return registry;
}

static void test_phase2(void **state)
{
	struct fixture *f = *state;
	struct registry *registry, *again;
	struct registry_vms vms;

	make(f->path, POOLS VMS("") ROWS);
	registry = upgrade(f);
	assert_int_equal(registry_vm_list(registry, &vms), 0);
	assert_int_equal(vms.count, 7);
	assert_string_equal(vms.items[0].name, "it's \"a\" name");
	assert_int_equal(vms.items[0].settings.weight_hundredths, 100);
	assert_null(vms.items[0].problem);
	/* Upper case is the same UUID; no UUID at all cannot be served. */
	assert_string_equal(vms.items[2].uuid, "dddddddd-0000-4000-8000-000000000004");
	assert_null(vms.items[2].problem);
	assert_non_null(vms.items[4].problem);
	registry_vms_clear(&vms);

	/* A second opening has nothing to do. */
	assert_int_equal(registry_open(&again, f->path, &options_write, NULL), 0);
	assert_null(registry_upgrade_backup(again));
	registry_free(again);
	registry_free(registry);
}

static void test_trial_with_real_weight(void **state)
{
	struct fixture *f = *state;
	struct registry *registry;

	make(f->path, POOLS VMS(", weight REAL DEFAULT 1.0" TRIAL) ROWS
	     "UPDATE vms SET weight = 2.5, error_count = 3, quarantined = 1 WHERE vm_id = 200");
	registry = upgrade(f);
	assert_dump(f->path,
	            "SELECT weight, error_count, quarantined FROM vms WHERE vm_id IN (1, 200) "
	            "ORDER BY vm_id",
	            "1.0|0|0|2.5|3|1|");
	registry_free(registry);
}

static void test_trial_with_integer_weight(void **state)
{
	struct fixture *f = *state;
	struct registry *registry;
	struct registry_vm vm;

	/* With a column, an index and a trigger of their own, and rows out of range. */
	make(f->path, POOLS VMS(", weight INTEGER DEFAULT 50" TRIAL
	                        ", \"site \"\"note\" TEXT DEFAULT 'x y' NOT NULL") ROWS
	     "UPDATE vms SET weight = 7, \"site \"\"note\" = 'rack 3' WHERE vm_id = 200;"
	     "UPDATE vms SET weight = 150 WHERE vm_id = 3;"
	     "UPDATE vms SET weight = NULL WHERE vm_id = 4;"
	     "CREATE TRIGGER touch AFTER UPDATE OF vm_name ON vms BEGIN "
	     "UPDATE vms SET updated_at = 'touched' WHERE vm_id = new.vm_id; END;"
	     "CREATE VIEW names AS SELECT vm_name FROM vms;");
	registry = upgrade(f);
	assert_dump(f->path, "SELECT weight FROM vms WHERE vm_id <> 77 ORDER BY vm_id",
	            "50.0|150.0|NULL|50.0|50.0|7.0|");
	assert_dump(f->path,
	            "SELECT \"site \"\"note\" FROM vms WHERE vm_id IN (1, 77, 200) ORDER BY vm_id",
	            "x y|x y|rack 3|");
	make(f->path, "UPDATE vms SET vm_name = 'n' WHERE vm_id = 1");
	assert_dump(f->path, "SELECT updated_at FROM vms WHERE vm_id = 1", "touched|");
	assert_dump(f->path, "SELECT count(*) FROM names", "7|");
	/* An integer of a trial is kept where it is in range, and reported where it is not. */
	assert_int_equal(registry_vm_find(registry, UUID_A, &vm), 0);
	assert_int_equal(vm.settings.weight_hundredths, 5000);
	assert_null(vm.problem);
	registry_vm_clear(&vm);
	assert_int_equal(registry_vm_find(registry, "cccccccc-0000-4000-8000-000000000003", &vm),
	                 0);
	assert_non_null(strstr(vm.problem, "weight is 150"));
	registry_vm_clear(&vm);
	registry_free(registry);
}

/* A version number that was set does not hide a table that is not what it says. */
static void test_columns_decide_not_the_number(void **state)
{
	struct fixture *f = *state;
	struct registry *registry;

	make(f->path, POOLS VMS("") "PRAGMA user_version = 3");
	assert_int_equal(registry_open(&registry, f->path, &options_write, NULL), 0);
	assert_dump(f->path, "SELECT count(weight) FROM vms", "0|");
	registry_free(registry);
}

static void test_reading_leaves_an_old_file_alone(void **state)
{
	struct fixture *f = *state;
	static char before[65536], after[65536];
	struct registry_gpu_holds holds;
	struct registry_faults faults;
	struct registry_pools pools;
	struct registry *registry;
	struct registry_vms vms;
	size_t length;

	make(f->path, POOLS VMS("") ROWS);
	length = read_file(f->path, before, sizeof(before));
	assert_int_equal(registry_open(&registry, f->path, &options_read, NULL), 0);
	assert_int_equal(registry_vm_list(registry, &vms), 0);
	assert_int_equal(vms.count, 6);
	assert_int_equal(vms.items[5].settings.weight_hundredths, 100);
	registry_vms_clear(&vms);
	assert_int_equal(registry_pool_list(registry, &pools), 0);
	assert_int_equal(pools.items[0].vm_count, 5);
	registry_pools_clear(&pools);
	assert_int_equal(registry_fault_list(registry, NULL, 0, &faults), 0);
	assert_int_equal(faults.count, 0);
	assert_int_equal(registry_gpu_hold_list(registry, &holds), 0);
	assert_int_equal(holds.count, 0);
	registry_free(registry);
	assert_int_equal(read_file(f->path, after, sizeof(after)), length);
	assert_memory_equal(before, after, length);
}

/* Opening must fail with @code for both modes, change nothing and leave nothing behind. */
static void assert_refused(struct fixture *f, int code)
{
	static char before[65536], after[65536];
	struct registry_error why;
	struct registry *registry;
	size_t length = read_file(f->path, before, sizeof(before));
	DIR *directory;
	int files = 0;

	assert_int_equal(registry_open(&registry, f->path, &options_read, NULL), code);
	assert_int_equal(registry_open(&registry, f->path, &options_write, &why), code);
	print_message("%s\n", why.text);
	assert_non_null(strstr(why.text, f->path));
	assert_int_equal(read_file(f->path, after, sizeof(after)), length);
	assert_memory_equal(before, after, length);
	directory = opendir(f->directory);
	for (struct dirent *entry; (entry = readdir(directory));)
		files += entry->d_name[0] != '.';
	closedir(directory);
	assert_int_equal(files, 1);
}

static void test_newer(void **state)
{
	struct fixture *f = *state;

	make(f->path, POOLS VMS("") ROWS "PRAGMA user_version = 5");
	assert_refused(f, REGISTRY_E_NEWER);
}

static void test_somebody_elses(void **state)
{
	struct fixture *f = *state;

	make(f->path, "CREATE TABLE songs (title TEXT)");
	assert_refused(f, REGISTRY_E_NOT_A_DATABASE);
}

static void test_garbage(void **state)
{
	/* One byte is how SQLite itself leaves an empty file on some systems. */
	static const size_t lengths[] = {2, 99, 100, 512, 5000};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
		FILE *file = fopen(f->path, "wb");

		for (size_t k = 0; k < lengths[i]; k++)
			fputc("garbage"[k % 7], file);
		fclose(file);
		assert_refused(f, REGISTRY_E_NOT_A_DATABASE);
	}
}

static void test_damaged(void **state)
{
	struct fixture *f = *state;
	static char whole[65536];
	size_t length;
	FILE *file;

	make(f->path, POOLS VMS("") ROWS);
	length = read_file(f->path, whole, sizeof(whole));
	assert_int_equal(truncate(f->path, (off_t)length - 4096), 0);
	assert_refused(f, REGISTRY_E_CORRUPT);

	/* A page in the middle is something else. */
	memset(whole + 8192 + 8, 0xa5, 64);
	file = fopen(f->path, "wb");
	assert_int_equal(fwrite(whole, 1, length, file), length);
	fclose(file);
	assert_refused(f, REGISTRY_E_CORRUPT);
}

static void test_paths(void **state)
{
	struct fixture *f = *state;
	struct registry *registry;
	char path[128];

	assert_int_equal(registry_open(&registry, f->directory, &options_write, NULL),
	                 REGISTRY_E_NOT_A_DATABASE);
	assert_int_equal(registry_open(&registry, f->path, &options_read, NULL),
	                 REGISTRY_E_MISSING);
	snprintf(path, sizeof(path), "%s/none/vgpu.db", f->directory);
	assert_int_equal(registry_open(&registry, path, &options_write, NULL),
	                 REGISTRY_E_NO_DIRECTORY);
	/* An empty file, as a killed creation leaves it, is as good as none. */
	fclose(fopen(f->path, "w"));
	assert_int_equal(registry_open(&registry, f->path, &options_read, NULL), 0);
	registry_free(registry);
	assert_int_equal(registry_open(&registry, f->path, &options_write, NULL), 0);
	assert_null(registry_upgrade_backup(registry));
	registry_free(registry);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_phase2, setup, teardown),
		cmocka_unit_test_setup_teardown(test_trial_with_real_weight, setup, teardown),
		cmocka_unit_test_setup_teardown(test_trial_with_integer_weight, setup, teardown),
		cmocka_unit_test_setup_teardown(test_columns_decide_not_the_number, setup,
	                                        teardown),
		cmocka_unit_test_setup_teardown(test_reading_leaves_an_old_file_alone, setup,
	                                        teardown),
		cmocka_unit_test_setup_teardown(test_newer, setup, teardown),
		cmocka_unit_test_setup_teardown(test_somebody_elses, setup, teardown),
		cmocka_unit_test_setup_teardown(test_garbage, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
		cmocka_unit_test_setup_teardown(test_paths, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
