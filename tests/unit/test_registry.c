/* SPDX-License-Identifier: MIT */
/*
 * VMs and pools in the registry: what is written is read back, what must be refused is, and
 * bad rows stop only themselves. test_registry_faults.c has what went wrong with them, and
 * test_registry_file.c the file as a whole.
 */
#include "registry_world.h"

#include "registry/schema.h"

static const struct registry_options options_write = {.mode = REGISTRY_WRITE};
static const struct registry_options options_read = {.mode = REGISTRY_READ};
static const struct registry_vm_change change_none;

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

/* Under the sanitizers: what a second row says leaves nothing of the first behind. */
static void test_a_pool_with_two_rows(void **state)
{
	struct fixture *f = *state;
	struct registry_pools pools;

	sql_by_hand(f, "CREATE TABLE other AS SELECT * FROM pools; DROP TABLE pools;"
	               "ALTER TABLE other RENAME TO pools;"
	               "UPDATE pools SET pool_id = 'A', description = pool_name, "
	               "job_timeout_ms = 3;"
	               "UPDATE pools SET job_timeout_ms = 50 WHERE pool_name = 'Pool B'");
	assert_int_equal(registry_pool_list(f->registry, &pools), 0);
	assert_string_equal(pools.items[0].name, "Pool B");
	assert_string_equal(pools.items[0].description, "Pool B");
	assert_null(pools.items[0].problem);
	assert_int_equal(pools.items[0].job_timeout_ms, 50);
	registry_pools_clear(&pools);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_columns_follow_settings),
		TEST(test_new_vm_has_defaults),
		TEST(test_every_field_survives),
		TEST(test_refusals),
		TEST(test_vm_ids),
		TEST(test_names),
		TEST(test_phase2_insert),
		TEST(test_bad_rows_stop_themselves),
		TEST(test_repair_and_duplicates),
		TEST(test_numbers_change_places),
		TEST(test_pools),
		TEST(test_a_pool_with_two_rows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
