/* SPDX-License-Identifier: MIT */
/*
 * What the registry keeps of things that went wrong: faults, quarantines, and what holds a
 * GPU.
 */
#include "registry_world.h"

static const struct registry_options options_read = {.mode = REGISTRY_READ};

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_faults_and_quarantine),
		TEST(test_orders_are_kept),
		TEST(test_forgiven_faults),
		TEST(test_faults_of_a_clock_that_was_set_back),
		TEST(test_gpu_holds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
