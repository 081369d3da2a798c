/* SPDX-License-Identifier: MIT */
/*
 * The registry on files of the current version: what is written is read back, what
 * must be refused is, changes are whole, and bad rows stop only themselves.
 */
#include "registry/registry.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "registry/schema.h"

#define UUID_A "aaaaaaaa-0000-4000-8000-000000000001"
#define UUID_B "bbbbbbbb-0000-4000-8000-000000000002"
#define UUID_C "cccccccc-0000-4000-8000-000000000003"

static const struct registry_options options_write = {.mode = REGISTRY_WRITE};
static const struct registry_options options_read = {.mode = REGISTRY_READ};
static const struct registry_vm_change change_none;

struct fixture {
	char directory[64];
	char path[96];
	struct registry *registry;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->directory, "/tmp/test-registry-XXXXXX");
	assert_non_null(mkdtemp(f->directory));
	snprintf(f->path, sizeof(f->path), "%s/vgpu.db", f->directory);
	assert_int_equal(registry_open(&f->registry, f->path, &options_write, NULL), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char other[128];

	registry_free(f->registry);
	unlink(f->path);
	snprintf(other, sizeof(other), "%s/copy.db", f->directory);
	unlink(other);
	assert_int_equal(rmdir(f->directory), 0);
	free(f);
	return 0;
}

static void sql_by_hand(const struct fixture *f, const char *sql)
{
	sqlite3 *db;

	assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
	if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
		fail_msg("%s: %s", sql, sqlite3_errmsg(db));
	sqlite3_close(db);
}

static void insert(struct fixture *f, const char *uuid, const char *name)
{
	struct registry_vm_change change = {.fields = REGISTRY_FIELD_NAME, .name = name};

	assert_int_equal(registry_vm_insert(f->registry, uuid, &change, NULL), 0);
}

/* The column of a setting has the name that the settings' table gives it. */
static void test_columns_follow_settings(void **state UNUSED)
{
	for (size_t i = 0; i < SETTING_COUNT; i++)
		assert_string_equal(schema_vm_columns[VM_COLUMN_SETTINGS + i].name,
		                    setting_fields[i].column);
	assert_null(schema_vm_columns[VM_COLUMN_SETTINGS + SETTING_COUNT].name);
}

static void test_new_vm_has_defaults(void **state)
{
	struct fixture *f = *state;
	struct registry_vm vm;
	uint32_t id = 0;

	assert_int_equal(registry_vm_insert(f->registry, UUID_A, &change_none, &id), 0);
	assert_int_equal(id, 1);
	assert_int_equal(registry_vm_find(f->registry, UUID_A, &vm), 0);
	assert_int_equal(vm.vm_id, 1);
	assert_string_equal(vm.uuid, UUID_A);
	assert_memory_equal(&vm.settings, &vm_settings_default, sizeof(vm.settings));
	assert_null(vm.name);
	assert_null(vm.problem);
	assert_false(vm.quarantined);
	assert_false(vm.allow_cubin);
	assert_int_equal(vm.error_count, 0);
	assert_non_null(vm.created_at);
	registry_vm_clear(&vm);
}

static void test_every_field_survives(void **state)
{
	struct fixture *f = *state;
	struct registry_vm_change change = {
		.fields = REGISTRY_FIELD_VM_ID | REGISTRY_FIELD_NAME | REGISTRY_FIELD_POOL |
	                  REGISTRY_FIELD_PRIORITY | REGISTRY_FIELD_ALLOW_CUBIN,
		.vm_id = 4000000000u,
		.name = "it's \"odd\"\n\xc3\xa9",
		.allow_cubin = true,
		.values = {.pool = 1, .priority = VGPU_PRIORITY_HIGH},
	};
	struct registry_vm vm;

	for (size_t i = 0; i < SETTING_COUNT; i++) {
		change.settings |= 1u << i;
		setting_put(&change.values, &setting_fields[i],
		            setting_fields[i].number.min + 7 * (int64_t)i);
	}
	assert_int_equal(registry_vm_insert(f->registry, UUID_A, &change_none, NULL), 0);
	assert_int_equal(registry_vm_update(f->registry, UUID_A, &change), 0);
	registry_free(f->registry);
	assert_int_equal(registry_open(&f->registry, f->path, &options_read, NULL), 0);
	assert_int_equal(registry_vm_find(f->registry, "AAAAAAAA-0000-4000-8000-000000000001", &vm),
	                 0);
	assert_int_equal(vm.vm_id, 4000000000u);
	assert_string_equal(vm.name, change.name);
	assert_true(vm.allow_cubin);
	assert_memory_equal(&vm.settings, &change.values, sizeof(vm.settings));
	assert_null(vm.problem);
	registry_vm_clear(&vm);
	assert_int_equal(registry_vm_update(f->registry, UUID_A, &change), REGISTRY_E_READ_ONLY);
}

static void test_refusals(void **state)
{
	struct fixture *f = *state;
	struct registry_vm_change change = {.fields = REGISTRY_FIELD_VM_ID, .vm_id = 1};
	struct registry_vm vm;

	assert_int_equal(registry_vm_insert(f->registry, "AAAAAAAA-0000-4000-8000-000000000001",
	                                    &change_none, NULL),
	                 REGISTRY_E_INVALID);
	assert_int_equal(registry_vm_insert(f->registry, "x", &change_none, NULL),
	                 REGISTRY_E_INVALID);
	assert_int_equal(registry_vm_insert(f->registry, UUID_A, &change_none, NULL), 0);
	assert_int_equal(registry_vm_insert(f->registry, UUID_A, &change_none, NULL),
	                 REGISTRY_E_EXISTS);
	assert_int_equal(registry_vm_insert(f->registry, UUID_B, &change, NULL), REGISTRY_E_EXISTS);
	assert_non_null(strstr(registry_message(f->registry), UUID_A));
	assert_int_equal(registry_vm_find(f->registry, UUID_B, &vm), REGISTRY_E_NOT_FOUND);
	assert_int_equal(registry_vm_update(f->registry, UUID_B, &change_none),
	                 REGISTRY_E_NOT_FOUND);
	assert_int_equal(registry_vm_remove(f->registry, UUID_B), REGISTRY_E_NOT_FOUND);
	assert_int_equal(registry_quarantine_set(f->registry, UUID_B, 0, "r", "b"),
	                 REGISTRY_E_NOT_FOUND);

	change = (struct registry_vm_change){.settings = 1, .values.weight_hundredths = 99};
	assert_int_equal(registry_vm_update(f->registry, UUID_A, &change), REGISTRY_E_INVALID);
	assert_non_null(strstr(registry_message(f->registry), "0.99"));
	assert_non_null(strstr(registry_message(f->registry), "1.00 to 100.00"));
	change = (struct registry_vm_change){.fields = REGISTRY_FIELD_POOL, .values.pool = 2};
	assert_int_equal(registry_vm_update(f->registry, UUID_A, &change), REGISTRY_E_INVALID);
	change = (struct registry_vm_change){.fields = REGISTRY_FIELD_PRIORITY,
	                                     .values.priority = 3};
	assert_int_equal(registry_vm_update(f->registry, UUID_A, &change), REGISTRY_E_INVALID);
}

static void test_vm_ids(void **state)
{
	struct fixture *f = *state;
	struct registry_vm_change change = {.fields = REGISTRY_FIELD_VM_ID, .vm_id = UINT32_MAX};
	uint32_t id;

	assert_int_equal(registry_vm_insert(f->registry, UUID_A, &change_none, NULL), 0);
	assert_int_equal(registry_vm_insert(f->registry, UUID_B, &change, NULL), 0);
	/* The highest number is taken: the lowest free one is next. */
	assert_int_equal(registry_vm_insert(f->registry, UUID_C, &change_none, &id), 0);
	assert_int_equal(id, 2);
}

static void test_names(void **state)
{
	struct fixture *f = *state;
	struct registry_vms vms = {.items = NULL};

	insert(f, UUID_A, "web");
	insert(f, UUID_B, "web");
	insert(f, UUID_C, "Web");
	assert_int_equal(registry_vm_find_name(f->registry, "web", &vms), REGISTRY_E_AMBIGUOUS);
	assert_int_equal(vms.count, 2);
	assert_string_equal(vms.items[1].uuid, UUID_B);
	registry_vms_clear(&vms);
	assert_int_equal(registry_vm_find_name(f->registry, "Web", &vms), 0);
	assert_string_equal(vms.items[0].uuid, UUID_C);
	registry_vms_clear(&vms);
	assert_int_equal(registry_vm_find_name(f->registry, "we", &vms), REGISTRY_E_NOT_FOUND);
}

/* A tool of Phase 2 writes rows without our columns. */
static void test_phase2_insert(void **state)
{
	struct fixture *f = *state;
	struct registry_vm vm;

	sql_by_hand(f, "INSERT INTO vms (vm_id, vm_uuid, vm_name, pool_id, priority) "
	               "VALUES (200, '" UUID_A "', 'old', 'B', 2)");
	assert_int_equal(registry_vm_find(f->registry, UUID_A, &vm), 0);
	assert_null(vm.problem);
	assert_int_equal(vm.settings.weight_hundredths, 100);
	assert_int_equal(vm.settings.rate_thousandths, 0);
	assert_int_equal(vm.settings.pool, 1);
	assert_int_equal(vm.settings.priority, VGPU_PRIORITY_HIGH);
	registry_vm_clear(&vm);
}

static void test_bad_rows_stop_themselves(void **state)
{
	static const struct {
		const char *sql;
		const char *said;
	} cases[] = {
		{"UPDATE vms SET weight = 1.005", "weight is 1.005, allowed is 1.00 to 100.00"},
		{"UPDATE vms SET weight = 'nan'", "weight is 'nan'"},
		{"UPDATE vms SET weight = -1", "weight is -1.0"},
		{"UPDATE vms SET weight = 1e999", "weight is Inf"},
		{"UPDATE vms SET weight = x'00ff'", "weight is binary data"},
		{"UPDATE vms SET max_jobs_per_sec = 'many'", "max_jobs_per_sec is 'many'"},
		{"UPDATE vms SET max_queue_depth = 1.5", "max_queue_depth is 1.5"},
		{"UPDATE vms SET max_queue_depth = 9223372036854775807", "max_queue_depth is 92"},
		{"UPDATE vms SET job_timeout_ms = 9", "job_timeout_ms is 9, allowed is 0"},
		{"UPDATE vms SET quarantined = 2", "quarantined is 2, allowed is 0 to 1"},
		{"UPDATE vms SET vm_id = -1", "vm_id is -1"},
		{"UPDATE vms SET vm_id = 4294967296", "vm_id is 4294967296"},
		{"UPDATE vms SET vm_uuid = '../../x'", "vm_uuid is no UUID"},
		{"PRAGMA ignore_check_constraints = 1; UPDATE vms SET pool_id = 'C'",
	         "pool_id is 'C', allowed is A or B"},
		{"PRAGMA ignore_check_constraints = 1; UPDATE vms SET priority = 7",
	         "priority is 7, allowed is 0 to 2"},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct registry_vms vms;
		char sql[512];

		sql_by_hand(f, "PRAGMA ignore_check_constraints = 1; DELETE FROM vms");
		insert(f, UUID_A, "bad");
		insert(f, UUID_B, "good");
		snprintf(sql, sizeof(sql), "%s WHERE vm_name = 'bad'", cases[i].sql);
		sql_by_hand(f, sql);
		/* The file as such is sound, and opens. */
		registry_free(f->registry);
		assert_int_equal(registry_open(&f->registry, f->path, &options_write, NULL), 0);
		assert_int_equal(registry_check(f->registry), 0);
		assert_int_equal(registry_vm_list(f->registry, &vms), 0);
		assert_int_equal(vms.count, 2);
		for (size_t k = 0; k < 2; k++) {
			if (strcmp(vms.items[k].name, "good") == 0) {
				assert_null(vms.items[k].problem);
				continue;
			}
			assert_non_null(vms.items[k].problem);
			print_message("%s\n", vms.items[k].problem);
			assert_non_null(strstr(vms.items[k].problem, cases[i].said));
			assert_non_null(strstr(vms.items[k].problem, vms.items[k].stored_uuid));
			/* A row that cannot be served can still be removed. */
			assert_int_equal(registry_vm_remove(f->registry, vms.items[k].stored_uuid),
			                 0);
		}
		registry_vms_clear(&vms);
	}
}

static void test_repair_and_duplicates(void **state)
{
	struct registry_vm_change change = {.settings = 1, .values.weight_hundredths = 250};
	struct fixture *f = *state;
	struct registry_vms vms;

	insert(f, UUID_A, "one");
	sql_by_hand(f, "UPDATE vms SET weight = 'x'");
	assert_int_equal(registry_vm_update(f->registry, UUID_A, &change), 0);
	sql_by_hand(f, "INSERT INTO vms (vm_id, vm_uuid) VALUES (9, upper('" UUID_A "'))");
	insert(f, UUID_B, "two");
	assert_int_equal(registry_vm_list(f->registry, &vms), 0);
	assert_int_equal(vms.count, 3);
	assert_int_equal(vms.items[0].settings.weight_hundredths, 250);
	assert_non_null(strstr(vms.items[0].problem, "several rows"));
	assert_non_null(strstr(vms.items[1].problem, "several rows"));
	assert_null(vms.items[2].problem);
	/* Its stored text selects exactly one of them. */
	assert_int_equal(registry_vm_remove(f->registry, vms.items[1].stored_uuid), 0);
	registry_vms_clear(&vms);
	assert_int_equal(registry_vm_list(f->registry, &vms), 0);
	assert_int_equal(vms.count, 2);
	assert_string_equal(vms.items[0].stored_uuid, UUID_A);
	assert_null(vms.items[0].problem);
	registry_vms_clear(&vms);
}

/* The last row of the VM's history; the caller clears *@faults. */
static const struct registry_fault *last_of(struct fixture *f, const char *uuid,
                                            struct registry_faults *faults)
{
	assert_int_equal(registry_fault_list(f->registry, uuid, 0, faults), 0);
	assert_true(faults->count > 0);
	return &faults->items[faults->count - 1];
}

static void expect_last(struct fixture *f, const char *uuid, const char *kind, const char *detail,
                        const char *by, int64_t points)
{
	struct registry_faults faults;
	const struct registry_fault *last = last_of(f, uuid, &faults);

	assert_string_equal(last->kind, kind);
	assert_int_equal(last->points, points);
	if (detail)
		assert_string_equal(last->detail, detail);
	else
		assert_null(last->detail);
	if (by)
		assert_string_equal(last->by, by);
	else
		assert_null(last->by);
	registry_faults_clear(&faults);
}

static size_t rows_of(struct fixture *f, const char *uuid)
{
	struct registry_faults faults;
	size_t count;

	assert_int_equal(registry_fault_list(f->registry, uuid, 0, &faults), 0);
	count = faults.count;
	registry_faults_clear(&faults);
	return count;
}

static void test_faults_and_quarantine(void **state)
{
	struct fixture *f = *state;
	struct registry_fault_event event = {.at_s = 1000, .kind = "gpu_fault", .points = 1};
	struct registry_faults faults;
	struct registry_vm vm;

	insert(f, UUID_A, "a");
	insert(f, UUID_B, "b");
	for (int i = 0; i < REGISTRY_FAULTS_PER_VM + 10; i++, event.at_s++)
		assert_int_equal(registry_fault_record(f->registry, UUID_A, &event), 0);
	event = (struct registry_fault_event){.at_s = 5000,
	                                      .kind = "timeout",
	                                      .points = 3,
	                                      .detail = "job 7",
	                                      .quarantine = "9 points"};
	assert_int_equal(registry_fault_record(f->registry, UUID_A, &event), 0);
	event.quarantine = NULL;
	event.count = 4;
	assert_int_equal(registry_fault_record(f->registry, UUID_B, &event), 0);
	assert_int_equal(registry_fault_record(f->registry, UUID_C, &event), REGISTRY_E_NOT_FOUND);

	assert_int_equal(registry_fault_list(f->registry, UUID_A, 0, &faults), 0);
	assert_int_equal(faults.count, REGISTRY_FAULTS_PER_VM + 1);
	assert_int_equal(faults.items[0].at_s, 1011);
	assert_string_equal(faults.items[faults.count - 2].detail, "job 7");
	registry_faults_clear(&faults);
	expect_last(f, UUID_A, "quarantined", "9 points", "vgpu-mediator", 0);
	expect_last(f, UUID_B, "timeout", "job 7", NULL, 3);
	assert_int_equal(registry_fault_list(f->registry, NULL, 2000, &faults), 0);
	assert_int_equal(faults.count, 3);
	assert_string_equal(faults.items[2].vm_uuid, UUID_B);
	registry_faults_clear(&faults);

	assert_int_equal(registry_vm_find(f->registry, UUID_A, &vm), 0);
	assert_true(vm.quarantined);
	assert_string_equal(vm.quarantine_reason, "9 points");
	assert_string_equal(vm.quarantined_by, "vgpu-mediator");
	assert_int_equal(vm.quarantined_at_s, 5000);
	assert_int_equal(vm.error_count, REGISTRY_FAULTS_PER_VM + 11);
	registry_vm_clear(&vm);
	assert_int_equal(registry_vm_find(f->registry, UUID_B, &vm), 0);
	assert_int_equal(vm.error_count, 4);
	registry_vm_clear(&vm);

	assert_int_equal(registry_quarantine_clear(f->registry, UUID_A, "mended", "root"), 0);
	assert_int_equal(registry_vm_find(f->registry, UUID_A, &vm), 0);
	assert_false(vm.quarantined);
	assert_null(vm.quarantine_reason);
	assert_int_equal(vm.error_count, REGISTRY_FAULTS_PER_VM + 11);
	registry_vm_clear(&vm);
	expect_last(f, UUID_A, "cleared", "mended", "root", 0);
	assert_int_equal(registry_fault_list(f->registry, UUID_A, 0, &faults), 0);
	assert_int_equal(faults.count, REGISTRY_FAULTS_PER_VM + 2);
	for (size_t i = 0; i < faults.count; i++)
		assert_int_equal(faults.items[i].points, 0);
	registry_faults_clear(&faults);

	assert_int_equal(registry_vm_remove(f->registry, UUID_A), 0);
	assert_int_equal(registry_fault_list(f->registry, NULL, 0, &faults), 0);
	assert_int_equal(faults.count, 1);
	registry_faults_clear(&faults);
}

/* Who ordered what, and why, stays: a later order does not take it away, nor do faults. */
static void test_orders_are_kept(void **state)
{
	const struct registry_fault_event event = {.kind = "gpu_fault", .points = 1};
	struct fixture *f = *state;
	struct registry_vm vm;
	size_t rows;

	insert(f, UUID_A, "a");
	/* There is nothing to clear, and so nothing to tell. */
	assert_int_equal(registry_quarantine_clear(f->registry, UUID_A, "why not", "root"), 0);
	assert_int_equal(rows_of(f, UUID_A), 0);
	assert_int_equal(registry_quarantine_set(f->registry, UUID_A, 6000, "first", "alice"), 0);
	assert_int_equal(registry_quarantine_set(f->registry, UUID_A, 7000, "second", "bob"), 0);
	expect_last(f, UUID_A, "quarantined", "second", "bob", 0);
	assert_int_equal(registry_quarantine_set(f->registry, UUID_A, 8000, "second", "bob"), 0);
	assert_int_equal(rows_of(f, UUID_A), 2);
	assert_int_equal(registry_vm_find(f->registry, UUID_A, &vm), 0);
	assert_string_equal(vm.quarantine_reason, "second");
	assert_string_equal(vm.quarantined_by, "bob");
	assert_int_equal(vm.quarantined_at_s, 7000);
	registry_vm_clear(&vm);
	assert_int_equal(registry_quarantine_clear(f->registry, UUID_A, NULL, "carol"), 0);
	expect_last(f, UUID_A, "cleared", NULL, "carol", 0);
	/* Points alone are something to clear. */
	assert_int_equal(registry_fault_record(f->registry, UUID_A, &event), 0);
	assert_int_equal(registry_quarantine_clear(f->registry, UUID_A, "again", "dave"), 0);
	expect_last(f, UUID_A, "cleared", "again", "dave", 0);
	rows = rows_of(f, UUID_A);
	assert_int_equal(rows, 5);
	for (int i = 0; i < REGISTRY_FAULTS_PER_VM + 10; i++)
		assert_int_equal(registry_fault_record(f->registry, UUID_A, &event), 0);
	assert_int_equal(rows_of(f, UUID_A), 4 + REGISTRY_FAULTS_PER_VM);
	for (int i = 0; i < REGISTRY_ORDERS_PER_VM; i++) {
		assert_int_equal(registry_quarantine_set(f->registry, UUID_A, 0, "r", "b"), 0);
		assert_int_equal(registry_quarantine_clear(f->registry, UUID_A, "r", "b"), 0);
	}
	assert_int_equal(rows_of(f, UUID_A), REGISTRY_ORDERS_PER_VM + REGISTRY_FAULTS_PER_VM);
}

/* What hardware has done loses its points, and says why. */
static void test_forgiven_faults(void **state)
{
	struct registry_fault_event event = {.at_s = 1000, .kind = "gpu_fault", .points = 1};
	struct fixture *f = *state;
	struct registry_faults faults;

	insert(f, UUID_A, "a");
	insert(f, UUID_B, "b");
	assert_int_equal(registry_fault_record(f->registry, UUID_A, &event), 0);
	event.at_s = 1004;
	event.detail = "CUDA error 719";
	assert_int_equal(registry_fault_record(f->registry, UUID_A, &event), 0);
	assert_int_equal(registry_fault_record(f->registry, UUID_B, &event), 0);
	assert_int_equal(registry_recovery_record(f->registry, UUID_A, 1005), 0);
	assert_int_equal(registry_faults_forgive(f->registry, UUID_A, 1004, "a broken GPU"), 0);
	assert_int_equal(registry_fault_list(f->registry, UUID_A, 0, &faults), 0);
	assert_int_equal(faults.count, 3);
	assert_int_equal(faults.items[0].points, 1);
	assert_int_equal(faults.items[1].points, 0);
	assert_string_equal(faults.items[1].detail, "CUDA error 719; a broken GPU");
	assert_string_equal(faults.items[2].kind, "recovered");
	assert_null(faults.items[2].detail);
	registry_faults_clear(&faults);

	/* What counts, VM by VM: the forgiven one does not. */
	assert_int_equal(registry_quarantine_set(f->registry, UUID_B, 1006, "r", "b"), 0);
	assert_int_equal(registry_fault_list_counting(f->registry, &faults), 0);
	assert_int_equal(faults.count, 4);
	assert_string_equal(faults.items[0].vm_uuid, UUID_A);
	assert_int_equal(faults.items[0].at_s, 1000);
	assert_string_equal(faults.items[1].kind, "recovered");
	assert_string_equal(faults.items[2].vm_uuid, UUID_B);
	assert_int_equal(faults.items[2].points, 1);
	assert_string_equal(faults.items[3].kind, "quarantined");
	registry_faults_clear(&faults);
}

static void test_faults_of_a_clock_that_was_set_back(void **state)
{
	struct registry_fault_event event = {.kind = "gpu_fault", .points = 1};
	const int64_t times[] = {1000, 2000, 2001, 90000};
	struct fixture *f = *state;
	struct registry_faults faults;
	bool changed;

	insert(f, UUID_A, "a");
	for (size_t i = 0; i < ARRAY_LEN(times); i++) {
		event.at_s = times[i];
		assert_int_equal(registry_fault_record(f->registry, UUID_A, &event), 0);
	}
	assert_int_equal(registry_faults_not_after(f->registry, 2000), 0);
	/* That was no other process. */
	assert_int_equal(registry_changed(f->registry, &changed), 0);
	assert_false(changed);
	assert_int_equal(registry_fault_list(f->registry, UUID_A, 0, &faults), 0);
	for (size_t i = 0; i < ARRAY_LEN(times); i++)
		assert_int_equal(faults.items[i].at_s, i ? 2000 : 1000);
	registry_faults_clear(&faults);
}

static void test_gpu_holds(void **state)
{
	struct fixture *f = *state;
	const struct registry_gpu_hold_event by_hand = {
		.code = "by_hand", .at_s = 7000, .by = "alice"};
	const struct registry_gpu_hold_event both[] = {
		{.code = "xid_reset", .at_s = 6000, .message = "Xid 48: it's bad"},
		by_hand,
	};
	struct registry_gpu_holds holds;
	struct registry *again;

	assert_int_equal(registry_gpu_holds_set(f->registry, "GPU-1", &by_hand, 1), 0);
	assert_int_equal(registry_gpu_holds_set(f->registry, "GPU-0", both, 2), 0);
	assert_int_equal(registry_open(&again, f->path, &options_read, NULL), 0);
	assert_int_equal(registry_gpu_hold_list(again, &holds), 0);
	assert_int_equal(holds.count, 3);
	assert_string_equal(holds.items[0].gpu_uuid, "GPU-0");
	assert_string_equal(holds.items[0].code, "xid_reset");
	assert_string_equal(holds.items[0].message, "Xid 48: it's bad");
	assert_int_equal(holds.items[0].at_s, 6000);
	assert_null(holds.items[0].by);
	assert_string_equal(holds.items[1].by, "alice");
	assert_null(holds.items[1].message);
	assert_string_equal(holds.items[2].gpu_uuid, "GPU-1");
	registry_gpu_holds_clear(&holds);

	/* A set takes the place of the one before; a bad one changes nothing. */
	assert_true(registry_gpu_holds_set(f->registry, "GPU-0",
	                                   (struct registry_gpu_hold_event[]){by_hand, by_hand},
	                                   2) != 0);
	assert_int_equal(registry_gpu_holds_set(f->registry, "GPU-1", NULL, 0), 0);
	assert_int_equal(registry_gpu_hold_list(again, &holds), 0);
	assert_int_equal(holds.count, 2);
	assert_string_equal(holds.items[0].code, "xid_reset");
	registry_gpu_holds_clear(&holds);
	registry_free(again);
}

static void test_pools(void **state)
{
	struct fixture *f = *state;
	struct registry_pools pools;

	insert(f, UUID_A, "a");
	assert_int_equal(registry_pool_set_enabled(f->registry, 1, false), 0);
	assert_int_equal(registry_pool_set_timeout(f->registry, 1, 500), 0);
	assert_int_equal(registry_pool_set_timeout(f->registry, 1, 9), REGISTRY_E_INVALID);
	assert_int_equal(registry_pool_set_enabled(f->registry, 2, false), REGISTRY_E_INVALID);
	sql_by_hand(f, "UPDATE pools SET job_timeout_ms = 'x' WHERE pool_id = 'A'");
	assert_int_equal(registry_pool_list(f->registry, &pools), 0);
	assert_string_equal(pools.items[0].name, "Pool A");
	assert_true(pools.items[0].enabled);
	assert_int_equal(pools.items[0].vm_count, 1);
	assert_int_equal(pools.items[0].job_timeout_ms, 0);
	assert_non_null(strstr(pools.items[0].problem, "job_timeout_ms is x"));
	assert_false(pools.items[1].enabled);
	assert_int_equal(pools.items[1].job_timeout_ms, 500);
	assert_null(pools.items[1].problem);
	registry_pools_clear(&pools);
	/* A row that is missing is written by the change. */
	sql_by_hand(f, "DELETE FROM pools");
	assert_int_equal(registry_pool_set_enabled(f->registry, 1, false), 0);
	assert_int_equal(registry_pool_set_timeout(f->registry, 0, 77), 0);
	assert_int_equal(registry_pool_list(f->registry, &pools), 0);
	assert_int_equal(pools.items[0].job_timeout_ms, 77);
	assert_true(pools.items[0].enabled);
	assert_string_equal(pools.items[1].name, "Pool B");
	assert_false(pools.items[1].enabled);
	registry_pools_clear(&pools);
}

/* The file's own methods, but that its change counter cannot be read. */
static sqlite3_io_methods failing_methods;
static const sqlite3_io_methods *whole_methods;

static int read_but_the_counter(sqlite3_file *file, void *to, int amount, sqlite3_int64 offset)
{
	/* SQLite itself reads more there. */
	if (amount == 4 && offset == 24)
		return SQLITE_IOERR_READ;
	return whole_methods->xRead(file, to, amount, offset);
}

static void test_counter_that_cannot_be_read(void **state)
{
	struct fixture *f = *state;
	sqlite3_file *file = NULL;
	struct registry_vm vm;
	bool changed;

	insert(f, UUID_A, "a");
	assert_int_equal(
		sqlite3_file_control(f->registry->db, "main", SQLITE_FCNTL_FILE_POINTER, &file),
		SQLITE_OK);
	whole_methods = file->pMethods;
	failing_methods = *whole_methods;
	failing_methods.xRead = read_but_the_counter;
	file->pMethods = &failing_methods;
	/* Before the change: nothing happens, and nobody is locked out. */
	assert_true(registry_quarantine_set(f->registry, UUID_A, 0, "why", "me") != 0);
	assert_true(registry_batch_begin(f->registry) != 0);
	sql_by_hand(f, "UPDATE vms SET vm_name = 'b'");
	/* After it: done is done. It looks foreign later, which costs a look at the file. */
	file->pMethods = whole_methods;
	assert_int_equal(registry_batch_begin(f->registry), 0);
	assert_int_equal(registry_quarantine_set(f->registry, UUID_A, 0, "why", "me"), 0);
	file->pMethods = &failing_methods;
	assert_int_equal(registry_batch_end(f->registry, true), 0);
	file->pMethods = whole_methods;
	assert_int_equal(registry_changed(f->registry, &changed), 0);
	assert_true(changed);
	assert_int_equal(registry_vm_find(f->registry, UUID_A, &vm), 0);
	assert_true(vm.quarantined);
	assert_null(registry_warning(f->registry));
	registry_vm_clear(&vm);
}

static void test_change_detection(void **state)
{
	struct fixture *f = *state;
	bool changed = true;
	char other[128];

	assert_int_equal(registry_changed(f->registry, &changed), 0);
	assert_false(changed);
	insert(f, UUID_A, "own");
	assert_int_equal(registry_changed(f->registry, &changed), 0);
	assert_false(changed);
	sql_by_hand(f, "UPDATE vms SET priority = 2");
	assert_int_equal(registry_changed(f->registry, &changed), 0);
	assert_true(changed);
	assert_int_equal(registry_changed(f->registry, &changed), 0);
	assert_false(changed);
	/* A foreign change is not hidden by an own one after it. */
	sql_by_hand(f, "UPDATE vms SET priority = 1");
	insert(f, UUID_B, "own");
	assert_int_equal(registry_changed(f->registry, &changed), 0);
	assert_true(changed);
	/* An own change that fails is none. */
	assert_int_equal(registry_vm_remove(f->registry, UUID_C), REGISTRY_E_NOT_FOUND);
	assert_int_equal(registry_changed(f->registry, &changed), 0);
	assert_false(changed);

	snprintf(other, sizeof(other), "%s/copy.db", f->directory);
	assert_int_equal(registry_backup(f->registry, other), 0);
	assert_int_equal(rename(other, f->path), 0);
	assert_int_equal(registry_changed(f->registry, &changed), REGISTRY_E_REPLACED);
}

static void test_batches(void **state)
{
	struct fixture *f = *state;
	struct registry_vms vms;

	assert_int_equal(registry_batch_begin(f->registry), 0);
	insert(f, UUID_A, "a");
	assert_int_equal(registry_vm_insert(f->registry, UUID_A, &change_none, NULL),
	                 REGISTRY_E_EXISTS);
	insert(f, UUID_B, "b");
	assert_int_equal(registry_batch_end(f->registry, true), 0);
	assert_int_equal(registry_batch_begin(f->registry), 0);
	insert(f, UUID_C, "c");
	assert_int_equal(registry_batch_end(f->registry, false), 0);
	assert_int_equal(registry_vm_list(f->registry, &vms), 0);
	assert_int_equal(vms.count, 2);
	registry_vms_clear(&vms);
}

static void test_numbers_change_places(void **state)
{
	struct registry_vm_change change = {.fields = REGISTRY_FIELD_VM_ID};
	struct fixture *f = *state;
	struct registry_vms vms;

	insert(f, UUID_A, "a");
	insert(f, UUID_B, "b");
	assert_int_equal(registry_batch_begin(f->registry), 0);
	assert_int_equal(registry_vm_release_id(f->registry, UUID_A), 0);
	assert_int_equal(registry_vm_release_id(f->registry, UUID_B), 0);
	assert_int_equal(registry_vm_release_id(f->registry, UUID_C), REGISTRY_E_NOT_FOUND);
	change.vm_id = 2;
	assert_int_equal(registry_vm_update(f->registry, UUID_A, &change), 0);
	change.vm_id = 1;
	assert_int_equal(registry_vm_update(f->registry, UUID_B, &change), 0);
	assert_int_equal(registry_batch_end(f->registry, true), 0);
	assert_int_equal(registry_vm_list(f->registry, &vms), 0);
	assert_string_equal(vms.items[0].uuid, UUID_B);
	assert_int_equal(vms.items[0].vm_id, 1);
	assert_int_equal(vms.items[1].vm_id, 2);
	registry_vms_clear(&vms);
}

static void test_backup(void **state)
{
	struct fixture *f = *state;
	CLEANUP(registry_freep) struct registry *copy = NULL;
	struct registry_vm vm;
	char other[128];

	insert(f, UUID_A, "a");
	snprintf(other, sizeof(other), "%s/copy.db", f->directory);
	assert_int_equal(registry_backup(f->registry, other), 0);
	assert_int_equal(registry_backup(f->registry, other), REGISTRY_E_EXISTS);
	assert_int_equal(registry_backup(f->registry, "/nonexistent/x.db"),
	                 REGISTRY_E_NO_DIRECTORY);
	assert_int_equal(registry_open(&copy, other, &options_read, NULL), 0);
	assert_int_equal(registry_vm_find(copy, UUID_A, &vm), 0);
	registry_vm_clear(&vm);
}

static void test_memory(void **state UNUSED)
{
	CLEANUP(registry_freep) struct registry *registry = NULL;
	struct registry_pools pools;
	bool changed = true;

	assert_int_equal(registry_open(&registry, ":memory:", &options_write, NULL), 0);
	assert_int_equal(registry_vm_insert(registry, UUID_A, &change_none, NULL), 0);
	assert_int_equal(registry_changed(registry, &changed), 0);
	assert_false(changed);
	assert_int_equal(registry_pool_list(registry, &pools), 0);
	assert_int_equal(pools.items[0].vm_count, 1);
	registry_pools_clear(&pools);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_columns_follow_settings),
		cmocka_unit_test_setup_teardown(test_new_vm_has_defaults, setup, teardown),
		cmocka_unit_test_setup_teardown(test_every_field_survives, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
		cmocka_unit_test_setup_teardown(test_vm_ids, setup, teardown),
		cmocka_unit_test_setup_teardown(test_names, setup, teardown),
		cmocka_unit_test_setup_teardown(test_phase2_insert, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_rows_stop_themselves, setup, teardown),
		cmocka_unit_test_setup_teardown(test_repair_and_duplicates, setup, teardown),
		cmocka_unit_test_setup_teardown(test_faults_and_quarantine, setup, teardown),
		cmocka_unit_test_setup_teardown(test_orders_are_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(test_forgiven_faults, setup, teardown),
		cmocka_unit_test_setup_teardown(test_faults_of_a_clock_that_was_set_back, setup,
	                                        teardown),
		cmocka_unit_test_setup_teardown(test_gpu_holds, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pools, setup, teardown),
		cmocka_unit_test_setup_teardown(test_counter_that_cannot_be_read, setup, teardown),
		cmocka_unit_test_setup_teardown(test_change_detection, setup, teardown),
		cmocka_unit_test_setup_teardown(test_batches, setup, teardown),
		cmocka_unit_test_setup_teardown(test_numbers_change_places, setup, teardown),
		cmocka_unit_test_setup_teardown(test_backup, setup, teardown),
		cmocka_unit_test(test_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
