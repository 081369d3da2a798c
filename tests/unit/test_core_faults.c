/* SPDX-License-Identifier: MIT */
/*
 * What faults cost a VM: points and quarantine, that they are stored before anybody is
 * told, what happens when they cannot be, what a restart brings back, and that hardware
 * which fails is held against nobody.
 */
#include "core_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/util.h"
#include "core/watch/exceptions.h"

static void assert_refused(struct world *world, uint32_t vm)
{
	world_expect_answer(world, world_submit(world, vm, 1), VGPU_CODE_QUARANTINED);
	world_expect_nothing(world);
}

/* A worker's death with one job, whose cookie is *@cookie: the STORE that comes of it. */
static struct core_store die_once(struct world *world, uint32_t vm, uint64_t *cookie)
{
	struct core_store store;
	uint64_t generation;

	*cookie = world_submit(world, vm, 1);
	generation = world_start_worker(world, vm);
	world_expect_send(world, *cookie);
	world_dead(world, vm, generation);
	store = world_expect_fault(world, CORE_FAULT_DEATH);
	assert_true(store.at_ns == world->now_ns);
	return store;
}

/* One death after another, all of them stored. Returns the last STORE. */
static struct core_store die(struct world *world, uint32_t vm, int times)
{
	struct core_store store = {.count = 0};
	uint64_t cookie;

	for (int i = 0; i < times; i++) {
		store = die_once(world, vm, &cookie);
		world_stored(world, &store, true);
		world_expect_answer(world, cookie, VGPU_CODE_CUDA);
		world_expect_nothing(world);
	}
	return store;
}

/* A job over its limit of @limit_ns; its worker is gone at the end. */
static struct core_store hang(struct world *world, uint32_t vm, int64_t limit_ns)
{
	uint64_t cookie = world_submit(world, vm, 1), generation = world_start_worker(world, vm);
	struct core_store store;

	world_expect_send(world, cookie);
	world_pass(world, limit_ns - 1);
	world_expect_nothing(world);
	world_pass(world, 1);
	world_expect(world, CORE_ACTION_KILL_WORKER);
	store = world_store_fault(world, CORE_FAULT_TIMEOUT);
	assert_true(store.at_ns == world->now_ns);
	assert_true(store.detail == (uint32_t)(limit_ns / MS));
	world_expect_answer(world, cookie, VGPU_CODE_TIMEOUT);
	world_dead(world, vm, generation);
	world_expect_nothing(world);
	return store;
}

/* A job of which the worker says that its context is lost, with that CUresult. */
static struct core_store lose_context(struct world *world, uint32_t vm, uint32_t detail)
{
	uint64_t cookie = world_submit(world, vm, 1), generation = world_start_worker(world, vm);
	struct core_action sent = world_expect_send(world, cookie);
	struct core_store store;

	world_lost(world, &sent, detail);
	world_expect(world, CORE_ACTION_KILL_WORKER);
	store = world_store_fault(world, CORE_FAULT_GPU);
	assert_int_equal(store.detail, detail);
	assert_int_equal(world_expect_answer(world, cookie, VGPU_CODE_CUDA).answer.detail, detail);
	world_dead(world, vm, generation);
	world_expect_nothing(world);
	return store;
}

/* Storing is tried again: the same, under another ticket. */
static struct core_store expect_again(struct world *world, const struct core_store *before)
{
	struct core_store again = world_expect(world, CORE_ACTION_STORE).store;

	assert_true(again.ticket > before->ticket);
	assert_int_equal(again.record, before->record);
	assert_true(again.at_ns == before->at_ns);
	assert_int_equal(again.fault, before->fault);
	assert_int_equal(again.detail, before->detail);
	assert_int_equal(again.count, before->count);
	assert_int_equal(again.points, before->points);
	assert_int_equal(again.quarantine, before->quarantine);
	return again;
}

/* ---- Points --------------------------------------------------------------------------- */

static void test_points_are_forgotten(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL);
	int64_t window_ns = world->config.fault_window_ns;

	/* Eight within the window is the most that is let pass, for ever. */
	for (int i = 0; i < 40; i++) {
		world_pass(world, window_ns / 8);
		assert_false(die(world, vm, 1).quarantine);
		assert_in_range(world_stats(world, vm).fault_score, 1, 8);
	}
	assert_int_equal(world_stats(world, vm).fault_score, 8);
	assert_true(die(world, vm, 1).quarantine);
}

static void test_timeouts_count_three(void **state)
{
	struct world *world = *state;
	struct vm_settings settings = vm_settings_default;
	uint32_t vm;

	settings.job_timeout_ms = 10;
	vm = world_add_vm(world, &settings);
	for (int i = 1; i <= 3; i++)
		assert_int_equal(hang(world, vm, 10 * MS).quarantine, i == 3);
	assert_refused(world, vm);
}

/* An operator quarantines a VM that works: the queue is told, what runs may end. */
static void test_quarantine_by_an_operator(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL);
	uint64_t running, queued;
	struct core_action sent;

	world_warm(world, vm);
	running = world_submit(world, vm, 1);
	queued = world_submit(world, vm, 1);
	sent = world_expect_send(world, running);
	core_vm_set(world->core, world->now_ns, vm, &vm_settings_default, true);
	world_look(world);
	world_expect_answer(world, queued, VGPU_CODE_QUARANTINED);
	world_expect_nothing(world);
	world_done(world, &sent, VGPU_CODE_OK, 0);
	world_expect_answer(world, running, VGPU_CODE_OK);
	world_expect_nothing(world);
}

/* ---- Storing --------------------------------------------------------------------------- */

/* No answer to a fault leaves before it is stored, whatever it brings; nothing runs until then. */
static void test_every_fault_is_stored_first(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL);
	uint64_t blamed, waiting;
	struct core_store store = die_once(world, vm, &blamed), other;

	assert_false(store.quarantine);
	assert_int_equal(store.detail, WORLD_DEATH_STATUS);
	waiting = world_submit(world, vm, 1);
	world_pass(world, 60 * S);
	world_expect_nothing(world);
	assert_int_equal(world_stats(world, vm).depth, 2);
	other = store;
	other.ticket++; /* of nobody */
	world_stored(world, &other, true);
	world_expect_nothing(world);
	world_stored(world, &store, true);
	world_expect_answer(world, blamed, VGPU_CODE_CUDA);
	world_start_worker(world, vm);
	world_expect_send(world, waiting);
}

static void test_a_timeout_is_stored_first(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL);
	uint64_t generation = world_warm(world, vm), hanging = world_submit(world, vm, 1), waiting;
	struct core_store store;

	waiting = world_submit(world, vm, 1);
	world_expect_send(world, hanging);
	world_pass(world, world->config.job_timeout_ns);
	world_expect(world, CORE_ACTION_KILL_WORKER);
	store = world_expect_fault(world, CORE_FAULT_TIMEOUT);
	world_dead(world, vm, generation);
	world_pass(world, 60 * S);
	world_expect_nothing(world);
	world_stored(world, &store, true);
	world_expect_answer(world, hanging, VGPU_CODE_TIMEOUT);
	world_start_worker(world, vm);
	world_expect_send(world, waiting);
}

static void test_quarantine_is_stored_first(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL);
	uint64_t blamed, waiting;
	struct core_store store;

	die(world, vm, 8);
	store = die_once(world, vm, &blamed);
	assert_true(store.quarantine);
	assert_int_equal(store.points, 1);
	waiting = world_submit(world, vm, 1);
	world_pass(world, 60 * S);
	world_expect_nothing(world);
	world_stored(world, &store, true);
	world_expect_answer(world, blamed, VGPU_CODE_CUDA);
	world_expect_answer(world, waiting, VGPU_CODE_QUARANTINED);
	world_expect_nothing(world);
	assert_true(world_stats(world, vm).quarantined);
	assert_refused(world, vm);
	/* Only an operator ends it, and with it the points. */
	world_pass(world, 60 * S);
	assert_refused(world, vm);
	core_vm_set(world->core, world->now_ns, vm, &vm_settings_default, false);
	world_look(world);
	assert_int_equal(world_stats(world, vm).fault_score, 0);
	die(world, vm, 8);
	assert_false(world_stats(world, vm).quarantined);
}

/* If it cannot be stored the answer leaves all the same, and storing is tried again. */
static void test_a_fault_that_cannot_be_stored(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL);
	struct core_store first, second;
	uint64_t blamed;

	first = die_once(world, vm, &blamed);
	world_stored(world, &first, false);
	world_expect_answer(world, blamed, VGPU_CODE_CUDA);
	for (int attempt = 0; attempt < 3; attempt++) {
		world_pass(world, 60 * S);
		first = expect_again(world, &first);
		world_expect_nothing(world);
		world_stored(world, &first, false);
		/* The VM is not held up by that. */
		world_expect_nothing(world);
	}
	/* The next one takes it along, and its answer waits for both. */
	blamed = world_submit(world, vm, 1);
	world_pass(world, S);
	world_dead(world, vm, world_start_worker(world, vm));
	world_expect_send(world, blamed);
	first = expect_again(world, &first);
	world_stored(world, &first, true);
	second = world_expect_fault(world, CORE_FAULT_DEATH);
	world_expect_nothing(world);
	world_stored(world, &second, true);
	world_expect_answer(world, blamed, VGPU_CODE_CUDA);
	world_pass(world, 3600 * S);
	world_expect_nothing(world);
}

static void test_quarantine_that_cannot_be_stored(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL);
	struct core_store store;
	uint64_t blamed;

	die(world, vm, 8);
	store = die_once(world, vm, &blamed);
	world_stored(world, &store, false);
	world_expect_answer(world, blamed, VGPU_CODE_CUDA);
	assert_refused(world, vm);
	/* The registry, which does not know, does not lift it. */
	core_vm_set(world->core, world->now_ns, vm, &vm_settings_default, false);
	world_look(world);
	assert_refused(world, vm);
	for (int attempt = 0; attempt < 3; attempt++) {
		world_pass(world, 60 * S);
		store = expect_again(world, &store);
		world_expect_nothing(world);
		world_stored(world, &store, attempt == 2);
	}
	world_pass(world, 3600 * S);
	world_expect_nothing(world);
	core_vm_set(world->core, world->now_ns, vm, &vm_settings_default, false);
	world_look(world);
	world_warm(world, vm);
}

/* However many cannot be stored: none is lost from the sums, and the memory is bounded. */
static void test_many_faults_that_cannot_be_stored(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL), count = 0, records = 0;
	struct core_store store;
	int64_t points = 0;

	enum { FAULTS = 3 * CORE_RECORDS_MAX };

	world->config.quarantine_threshold = FAULTS;
	core_config_set(world->core, world->now_ns, &world->config);
	for (int i = 0; i < FAULTS; i++) {
		uint64_t cookie = world_submit(world, vm, 1);

		world_dead(world, vm, world_start_worker(world, vm));
		world_expect_send(world, cookie);
		store = world_expect(world, CORE_ACTION_STORE).store;
		world_stored(world, &store, false);
		world_expect_answer(world, cookie, VGPU_CODE_CUDA);
		world_expect_nothing(world);
	}
	assert_refused(world, vm);
	world_pass(world, 10 * S);
	while (world->count) {
		store = world_expect(world, CORE_ACTION_STORE).store;
		assert_int_equal(store.fault, CORE_FAULT_DEATH);
		count += store.count;
		points += store.points;
		assert_int_equal(store.quarantine, count == FAULTS);
		records++;
		world_stored(world, &store, true);
	}
	assert_int_equal(count, FAULTS);
	assert_int_equal(points, FAULTS);
	assert_int_equal(records, CORE_RECORDS_MAX);
}

/* An operator's quarantine, which is stored already, does not let the answer to a fault out. */
static void test_an_operator_quarantines_meanwhile(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL);
	uint64_t blamed, waiting;
	struct core_store store = die_once(world, vm, &blamed);

	waiting = world_submit(world, vm, 1);
	core_vm_set(world->core, world->now_ns, vm, &vm_settings_default, true);
	world_look(world);
	world_expect_answer(world, waiting, VGPU_CODE_QUARANTINED);
	world_expect_nothing(world);
	world_stored(world, &store, true);
	world_expect_answer(world, blamed, VGPU_CODE_CUDA);
	assert_refused(world, vm);
}

/* A VM removed while its fault is being stored goes when that is done. */
static void test_removal_waits_for_the_store(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL);
	uint64_t blamed;
	struct core_store store = die_once(world, vm, &blamed);

	core_vm_remove(world->core, world->now_ns, vm);
	world_look(world);
	world_expect_nothing(world);
	world_stored(world, &store, false);
	world_expect_answer(world, blamed, VGPU_CODE_CUDA);
	world_expect(world, CORE_ACTION_VM_GONE);
	world_expect_nothing(world);
}

/* ---- What the registry remembers -------------------------------------------------------- */

static struct core_store remembered(int64_t at_ns, enum core_fault fault, int64_t points)
{
	return (struct core_store){.at_ns = at_ns, .fault = fault, .points = points};
}

static void restore(struct world *world, uint32_t vm, const struct core_store *records,
                    size_t count)
{
	core_vm_restore(world->core, world->now_ns, vm, records, count);
	world_look(world);
}

static void test_points_of_before(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL);
	int64_t window_ns = world->config.fault_window_ns;
	const struct core_store records[] = {
		remembered(world->now_ns - 3 * window_ns, CORE_FAULT_GPU, 9),
		remembered(world->now_ns - window_ns + S, CORE_FAULT_GPU, 5),
		remembered(world->now_ns - S, CORE_FAULT_GPU, 3),
	};

	restore(world, vm, records, ARRAY_LEN(records));
	assert_int_equal(world_stats(world, vm).fault_score, 8);
	world_pass(world, S);
	assert_int_equal(world_stats(world, vm).fault_score, 3);
	assert_false(die(world, vm, 5).quarantine);
	assert_true(die(world, vm, 1).quarantine);
}

/* Points that somebody has taken away in the registry count no more, quarantined or not. */
static void test_points_that_are_cleared(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL);

	die(world, vm, 8);
	assert_int_equal(world_stats(world, vm).fault_score, 8);
	restore(world, vm, NULL, 0);
	assert_int_equal(world_stats(world, vm).fault_score, 0);
	assert_false(die(world, vm, 8).quarantine);
}

/* What is not stored yet is not in the registry, and counts. */
static void test_points_on_their_way(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL);
	struct core_store store, before[2];
	uint64_t blamed;

	before[0] = die(world, vm, 1);
	store = die_once(world, vm, &blamed);
	restore(world, vm, before, 1);
	assert_int_equal(world_stats(world, vm).fault_score, 2);
	world_stored(world, &store, false);
	world_expect_answer(world, blamed, VGPU_CODE_CUDA);
	restore(world, vm, before, 1);
	assert_int_equal(world_stats(world, vm).fault_score, 2);
	world_pass(world, 60 * S);
	store = world_expect(world, CORE_ACTION_STORE).store;
	world_stored(world, &store, true);
	before[1] = store;
	restore(world, vm, before, 2);
	assert_int_equal(world_stats(world, vm).fault_score, 2);
}

/* A VM that hung before a restart has its short limit until a job succeeds, as without one. */
static void test_a_short_limit_of_before(void **state)
{
	struct world *world = *state;
	struct core_store records[] = {
		remembered(world->now_ns - 60 * S, CORE_FAULT_TIMEOUT, 3),
		remembered(world->now_ns - 50 * S, CORE_FAULT_DEATH, 1),
		{.record = CORE_RECORD_RECOVERED, .at_ns = world->now_ns - 40 * S},
	};
	uint32_t vm = world_add_vm(world, NULL);

	world->config.quarantine_threshold = 100;
	core_config_set(world->core, world->now_ns, &world->config);
	restore(world, vm, records, 2);
	hang(world, vm, 3 * S);
	restore(world, vm, records, 3);
	hang(world, vm, 30 * S);
	restore(world, vm, records, 2);
	hang(world, vm, 3 * S);
	/* Cleared: the limit is whole, too. */
	restore(world, vm, NULL, 0);
	hang(world, vm, 30 * S);
}

/* ---- Hardware ---------------------------------------------------------------------------- */

static void test_whose_doing_an_exception_is(void **state UNUSED)
{
	static const uint32_t jobs[] = {700, 702, 710, 714, 715, 716, 717, 718, 719, 721};
	static const uint32_t others[] = {0,   1,   2,   100, 101, 201, 214,
	                                  220, 226, 701, 720, 802, 999};

	for (size_t i = 0; i < ARRAY_LEN(jobs); i++)
		assert_true(exception_is_the_jobs(jobs[i]));
	for (size_t i = 0; i < ARRAY_LEN(others); i++)
		assert_false(exception_is_the_jobs(others[i]));
}

/* An error of the hardware ends the worker, not the queue, and is counted without points. */
static void test_a_context_lost_to_the_hardware(void **state)
{
	struct world *world = *state;
	static const uint32_t errors[] = {214, 220, 802, 999};
	uint32_t vm = world_add_vm(world, NULL);

	for (size_t i = 0; i < ARRAY_LEN(errors); i++)
		assert_int_equal(lose_context(world, vm, errors[i]).points, 0);
	assert_int_equal(world_stats(world, vm).fault_score, 0);
	assert_int_equal(world_stats(world, vm).faults[CORE_FAULT_GPU], ARRAY_LEN(errors));
	assert_int_equal(lose_context(world, vm, 719).points, 1);
}

/* Nothing more is sent into a dying context: what was sent fails, what is queued stays. */
static void test_the_queue_of_a_lost_context(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL);
	uint64_t generation = world_warm(world, vm), running, queued[2];
	struct core_store store;
	struct core_action sent;

	running = world_submit(world, vm, 1);
	queued[0] = world_submit(world, vm, 1);
	queued[1] = world_submit(world, vm, 1);
	sent = world_expect_send(world, running);
	world_lost(world, &sent, 999);
	world_expect(world, CORE_ACTION_KILL_WORKER);
	store = world_store_fault(world, CORE_FAULT_GPU);
	assert_int_equal(store.points, 0);
	world_expect_answer(world, running, VGPU_CODE_CUDA);
	world_expect_nothing(world);
	world_dead(world, vm, generation);
	world_start_worker(world, vm);
	for (int i = 0; i < 2; i++) {
		sent = world_expect_send(world, queued[i]);
		world_done(world, &sent, VGPU_CODE_OK, 0);
		world_expect_answer(world, queued[i], VGPU_CODE_OK);
	}
	assert_int_equal(world_stats(world, vm).faults[CORE_FAULT_DEATH], 0);
}

static void hardware_fault(struct world *world, uint32_t gpu)
{
	core_gpu_hardware_fault(world->core, world->now_ns, gpu);
	world_look(world);
}

/* The core takes back the points of @since_ns and later. */
static struct core_store expect_forgiven(struct world *world, int64_t since_ns, int64_t points)
{
	struct core_store store = world_expect(world, CORE_ACTION_STORE).store;

	assert_int_equal(store.record, CORE_RECORD_FORGIVEN);
	assert_true(store.at_ns == since_ns);
	assert_int_equal(store.points, points);
	world_stored(world, &store, true);
	return store;
}

/* 719 and Xid 48, in either order: the GPU did it, though the error could be the job's. */
static void test_a_fault_beside_a_hardware_error(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL), other = world_add_vm(world, NULL);

	die(world, vm, 1);
	world_pass(world, CORE_HARDWARE_BEFORE_S * S);
	assert_int_equal(lose_context(world, vm, 719).points, 1);
	die(world, other, 1);
	world_pass(world, MS);
	hardware_fault(world, 0);
	for (int i = 0; i < 2; i++)
		assert_false(expect_forgiven(world, world->now_ns - CORE_HARDWARE_BEFORE_S * S, 1)
		                     .quarantine);
	world_expect_nothing(world);
	assert_int_equal(world_stats(world, vm).fault_score, 1);
	assert_int_equal(world_stats(world, other).fault_score, 0);
	/* And for some seconds after it, whatever happens. */
	assert_int_equal(lose_context(world, vm, 719).points, 0);
	assert_int_equal(die(world, vm, 1).points, 0);
	world_pass(world, CORE_HARDWARE_AFTER_S * S);
	assert_int_equal(lose_context(world, vm, 719).points, 1);
}

/* A hang while the GPU is not fit for work costs no points, and no limit is shortened. */
static void test_a_hang_on_a_faulty_gpu(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL);

	core_gpu_set_faulty(world->core, world->now_ns, 0, true);
	world_look(world);
	assert_int_equal(hang(world, vm, 30 * S).points, 0);
	assert_int_equal(hang(world, vm, 30 * S).points, 0);
	assert_int_equal(world_stats(world, vm).fault_score, 0);
	assert_int_equal(world_stats(world, vm).faults[CORE_FAULT_TIMEOUT], 2);
	core_gpu_set_faulty(world->core, world->now_ns, 0, false);
	assert_int_equal(die(world, vm, 1).points, 0);
	world_pass(world, CORE_HARDWARE_AFTER_S * S);
	assert_int_equal(hang(world, vm, 30 * S).points, 3);
}

/* What came just before the GPU was found to be faulty is forgiven as well. */
static void test_a_gpu_that_becomes_faulty(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL);

	die(world, vm, 3);
	world_pass(world, S);
	core_gpu_set_faulty(world->core, world->now_ns, 0, true);
	world_look(world);
	expect_forgiven(world, world->now_ns - CORE_HARDWARE_BEFORE_S * S, 3);
	core_gpu_set_faulty(world->core, world->now_ns, 0, true);
	world_look(world);
	world_expect_nothing(world);
}

/* Another GPU's trouble, or an operator's drain, excuses nobody. */
static void test_what_is_no_excuse(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL);
	uint64_t generation, hanging;

	die(world, vm, 1);
	hardware_fault(world, 1);
	core_gpu_set_faulty(world->core, world->now_ns, 1, true);
	world_look(world);
	world_expect_nothing(world);
	assert_int_equal(die(world, vm, 1).points, 1);
	generation = world_warm(world, vm);
	hanging = world_submit(world, vm, 1);
	world_expect_send(world, hanging);
	core_gpu_set_draining(world->core, world->now_ns, 0, true);
	world_look(world);
	world_pass(world, 30 * S);
	world_expect(world, CORE_ACTION_KILL_WORKER);
	assert_int_equal(world_store_fault(world, CORE_FAULT_TIMEOUT).points, 3);
	world_expect_answer(world, hanging, VGPU_CODE_TIMEOUT);
	world_dead(world, vm, generation);
	world_expect(world, CORE_ACTION_GPU_DRAINED);
}

/* Nor does the trouble of the GPU that a VM is on now excuse what it did on another. */
static void test_what_was_done_on_another_gpu(void **state)
{
	struct world *world = *state;
	struct vm_settings settings = vm_settings_default;
	uint32_t vm = world_add_vm(world, NULL);

	die(world, vm, 1);
	settings.pool = 1;
	core_vm_set(world->core, world->now_ns, vm, &settings, false);
	world_look(world);
	assert_int_equal(world_stats(world, vm).gpu, 1);
	hardware_fault(world, 1);
	world_expect_nothing(world);
	assert_int_equal(world_stats(world, vm).fault_score, 1);
	world_pass(world, CORE_HARDWARE_AFTER_S * S);
	die(world, vm, 1);
	hardware_fault(world, 1);
	expect_forgiven(world, world->now_ns - CORE_HARDWARE_BEFORE_S * S + 1, 1);
	assert_int_equal(world_stats(world, vm).fault_score, 1);
}

/* A quarantine that such a fault has brought stays: an operator is told. */
static void test_a_quarantine_by_the_hardware(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL), by_hand = world_add_vm(world, NULL);

	die(world, vm, 8);
	die(world, by_hand, 1);
	core_vm_set(world->core, world->now_ns, by_hand, &vm_settings_default, true);
	world_look(world);
	world_pass(world, 60 * S);
	assert_true(lose_context(world, vm, 719).quarantine);
	hardware_fault(world, 0);
	assert_true(
		expect_forgiven(world, world->now_ns - CORE_HARDWARE_BEFORE_S * S, 1).quarantine);
	world_expect_nothing(world);
	assert_int_equal(world_stats(world, vm).fault_score, 8);
	assert_refused(world, vm);
}

/* Forgiven while it is still being stored: the registry hears of both, in that order. */
static void test_forgiven_on_its_way(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL);
	uint64_t blamed;
	struct core_store store = die_once(world, vm, &blamed);

	hardware_fault(world, 0);
	world_expect_nothing(world);
	assert_int_equal(world_stats(world, vm).fault_score, 0);
	restore(world, vm, NULL, 0);
	assert_int_equal(world_stats(world, vm).fault_score, 0);
	world_stored(world, &store, true);
	expect_forgiven(world, world->now_ns - CORE_HARDWARE_BEFORE_S * S, 1);
	world_expect_answer(world, blamed, VGPU_CODE_CUDA);
	world_expect_nothing(world);
}

/* So it is with a quarantine, which then holds although it may be the hardware's doing. */
static void test_a_quarantine_forgiven_on_its_way(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL);
	uint64_t blamed;
	struct core_store store;

	die(world, vm, 8);
	world_pass(world, 60 * S);
	store = die_once(world, vm, &blamed);
	assert_true(store.quarantine);
	hardware_fault(world, 0);
	world_stored(world, &store, true);
	assert_true(
		expect_forgiven(world, world->now_ns - CORE_HARDWARE_BEFORE_S * S, 1).quarantine);
	world_expect_answer(world, blamed, VGPU_CODE_CUDA);
	assert_refused(world, vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_OPEN(test_points_are_forgotten),
		TEST_OPEN(test_timeouts_count_three),
		TEST_OPEN(test_quarantine_by_an_operator),
		TEST_OPEN(test_every_fault_is_stored_first),
		TEST_OPEN(test_a_timeout_is_stored_first),
		TEST_OPEN(test_quarantine_is_stored_first),
		TEST_OPEN(test_a_fault_that_cannot_be_stored),
		TEST_OPEN(test_quarantine_that_cannot_be_stored),
		TEST_OPEN(test_many_faults_that_cannot_be_stored),
		TEST_OPEN(test_an_operator_quarantines_meanwhile),
		TEST_OPEN(test_removal_waits_for_the_store),
		TEST_OPEN(test_points_of_before),
		TEST_OPEN(test_points_that_are_cleared),
		TEST_OPEN(test_points_on_their_way),
		TEST_OPEN(test_a_short_limit_of_before),
		TEST_OPEN(test_whose_doing_an_exception_is),
		TEST_OPEN(test_a_context_lost_to_the_hardware),
		TEST_OPEN(test_the_queue_of_a_lost_context),
		TEST_OPEN(test_a_fault_beside_a_hardware_error),
		TEST_OPEN(test_a_hang_on_a_faulty_gpu),
		TEST_OPEN(test_a_gpu_that_becomes_faulty),
		TEST_TWO_GPUS(test_what_is_no_excuse),
		TEST_TWO_GPUS(test_what_was_done_on_another_gpu),
		TEST_OPEN(test_a_quarantine_by_the_hardware),
		TEST_OPEN(test_forgiven_on_its_way),
		TEST_OPEN(test_a_quarantine_forgiven_on_its_way),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
