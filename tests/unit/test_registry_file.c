/* SPDX-License-Identifier: MIT */
/*
 * The registry's file: who changed it, many changes in one, and copies of it.
 */
#include "registry_world.h"

#include "registry/handle.h"

static const struct registry_options options_write = {.mode = REGISTRY_WRITE};
static const struct registry_options options_read = {.mode = REGISTRY_READ};
static const struct registry_vm_change change_none;

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
		TEST(test_counter_that_cannot_be_read),
		TEST(test_change_detection),
		TEST(test_batches),
		TEST(test_backup),
		cmocka_unit_test(test_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
