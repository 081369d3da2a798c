/* SPDX-License-Identifier: MIT */
/*
 * Jobs that need no GPU: they take no turn and cost nothing, and stand in the queue of
 * their VM like any other.
 */
#include "core_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/util.h"

static void test_they_pass_a_long_job_of_another_vm(void **state)
{
	struct world *world = *state;
	uint32_t busy, light;
	struct core_action sent;
	uint64_t cookie, long_one;

	busy = world_add_vm(world, NULL);
	light = world_add_vm(world, NULL);
	world_warm(world, busy);
	world_warm(world, light);
	long_one = world_submit(world, busy, 1);
	world_expect_send(world, long_one);
	world_pass(world, 10 * MS);
	cookie = world_submit_without_gpu(world, light, 1);
	sent = world_expect_send(world, cookie);
	world_pass(world, MS / 50);
	world_done(world, &sent, VGPU_CODE_OK, 0);
	world_expect_answer(world, cookie, VGPU_CODE_OK);
	world_expect_nothing(world);
}

static void test_they_are_charged_nothing(void **state)
{
	struct world *world = *state;
	struct core_vm_stats before, after;
	struct sched_stats gpu;
	struct core_action sent;
	uint64_t cookie;
	uint32_t vm = world_add_vm(world, NULL);

	world_warm(world, vm);
	before = world_stats(world, vm);
	for (int i = 0; i < 10; i++) {
		cookie = world_submit_without_gpu(world, vm, 1);
		sent = world_expect_send(world, cookie);
		assert_int_equal(world_stats(world, vm).in_flight, 1);
		world_pass(world, 3 * MS);
		world_done(world, &sent, VGPU_CODE_OK, 0);
		world_expect_answer(world, cookie, VGPU_CODE_OK);
	}
	after = world_stats(world, vm);
	assert_int_equal(after.charged_ns, before.charged_ns);
	assert_int_equal(after.outcomes[CORE_OUTCOME_DONE],
	                 before.outcomes[CORE_OUTCOME_DONE] + 10);
	core_gpu_stats(world->core, 0, &gpu);
	assert_int_equal(gpu.open, 0);
}

/* What comes behind one that is on the GPU waits for it, and the turn goes on behind that. */
static void test_the_order_of_a_vm_is_kept(void **state)
{
	struct world *world = *state;
	uint64_t first, second, third, last;
	struct core_action sent;
	uint32_t vm = world_add_vm(world, NULL);

	world_warm(world, vm);
	first = world_submit(world, vm, 1);
	sent = world_expect_send(world, first);
	second = world_submit_without_gpu(world, vm, 1);
	third = world_submit(world, vm, 1);
	last = world_submit_without_gpu(world, vm, 1);
	world_expect_nothing(world);
	world_pass(world, MS);
	world_done(world, &sent, VGPU_CODE_OK, 0);
	world_expect_answer(world, first, VGPU_CODE_OK);
	world_expect_send(world, second);
	sent = world_expect_send(world, third);
	world_expect_nothing(world);
	world_done(world, &sent, VGPU_CODE_OK, 0);
	world_expect_answer(world, third, VGPU_CODE_OK);
	world_expect_send(world, last);
	world_expect_nothing(world);
}

/* Its answer is what the next job of a turn waits for, whoever else wants one. */
static void test_a_turn_goes_on_behind_one(void **state)
{
	struct world *world = *state;
	uint64_t first, second, third, other;
	struct core_action sent;
	uint32_t vm, neighbour;

	world->config.policy = &sched_fair;
	world->config.sched.overlap_max = 1;
	world_open(world);
	vm = world_add_vm(world, NULL);
	neighbour = world_add_vm(world, NULL);
	world_warm(world, vm);
	world_warm(world, neighbour);
	first = world_submit(world, vm, 1);
	sent = world_expect_send(world, first);
	second = world_submit_without_gpu(world, vm, 1);
	third = world_submit(world, vm, 1);
	other = world_submit(world, neighbour, 1);
	world_pass(world, 3 * MS);
	world_done(world, &sent, VGPU_CODE_OK, 0);
	world_expect_answer(world, first, VGPU_CODE_OK);
	world_expect_send(world, second);
	sent = world_expect_send(world, third);
	world_expect_nothing(world);
	world_pass(world, MS / 10);
	world_done(world, &sent, VGPU_CODE_OK, 0);
	world_expect_answer(world, third, VGPU_CODE_OK);
	world_pass(world, MS);
	world_expect_send(world, other);
}

static void test_a_worker_has_at_most_four_of_them(void **state)
{
	struct world *world = *state;
	uint64_t cookies[CORE_WITHOUT_GPU_MAX + 1], behind;
	struct core_action sent[CORE_WITHOUT_GPU_MAX];
	uint32_t vm = world_add_vm(world, NULL);

	world_warm(world, vm);
	for (size_t i = 0; i < ARRAY_LEN(cookies); i++)
		cookies[i] = world_submit_without_gpu(world, vm, 1);
	behind = world_submit(world, vm, 1);
	for (size_t i = 0; i < ARRAY_LEN(sent); i++)
		sent[i] = world_expect_send(world, cookies[i]);
	world_expect_nothing(world);
	world_done(world, &sent[0], VGPU_CODE_OK, 0);
	world_expect_answer(world, cookies[0], VGPU_CODE_OK);
	world_expect_send(world, cookies[CORE_WITHOUT_GPU_MAX]);
	world_expect_send(world, behind);
	world_expect_nothing(world);
}

static void test_behind_a_hang_they_go_to_a_fresh_worker(void **state)
{
	struct world *world = *state;
	struct vm_settings settings = vm_settings_default;
	uint64_t generation, hanging, queued;
	uint32_t vm;

	settings.job_timeout_ms = 500;
	vm = world_add_vm(world, &settings);
	generation = world_warm(world, vm);
	hanging = world_submit(world, vm, 1);
	queued = world_submit_without_gpu(world, vm, 1);
	world_expect_send(world, hanging);
	world_pass(world, 500 * MS);
	world_expect(world, CORE_ACTION_KILL_WORKER);
	world_store_fault(world, CORE_FAULT_TIMEOUT);
	world_expect_answer(world, hanging, VGPU_CODE_TIMEOUT);
	world_dead(world, vm, generation);
	world_start_worker(world, vm);
	world_expect_send(world, queued);
	world_expect_nothing(world);
}

/* A worker that does not even answer these is killed like any other. */
static void test_they_have_a_limit(void **state)
{
	struct world *world = *state;
	struct vm_settings settings = vm_settings_default;
	uint64_t cookie;
	uint32_t vm;

	settings.job_timeout_ms = 500;
	vm = world_add_vm(world, &settings);
	world_warm(world, vm);
	cookie = world_submit_without_gpu(world, vm, 1);
	world_expect_send(world, cookie);
	world_pass(world, 500 * MS - 1);
	world_expect_nothing(world);
	world_pass(world, 1);
	world_expect(world, CORE_ACTION_KILL_WORKER);
	world_store_fault(world, CORE_FAULT_TIMEOUT);
	world_expect_answer(world, cookie, VGPU_CODE_TIMEOUT);
}

/* That one is answered says nothing about what the VM does on the GPU. */
static void test_they_do_not_end_a_short_limit(void **state)
{
	struct world *world = *state;
	uint64_t generation, cookie;
	struct core_action sent;
	uint32_t vm = world_add_vm(world, NULL);

	generation = world_warm(world, vm);
	cookie = world_submit(world, vm, 1);
	world_expect_send(world, cookie);
	world_pass(world, 30 * S);
	world_expect(world, CORE_ACTION_KILL_WORKER);
	world_store_fault(world, CORE_FAULT_TIMEOUT);
	world_expect_answer(world, cookie, VGPU_CODE_TIMEOUT);
	world_dead(world, vm, generation);
	cookie = world_submit_without_gpu(world, vm, 1);
	world_start_worker(world, vm);
	sent = world_expect_send(world, cookie);
	world_done(world, &sent, VGPU_CODE_OK, 0);
	world_expect_answer(world, cookie, VGPU_CODE_OK);
	world_expect_nothing(world);
	cookie = world_submit(world, vm, 1);
	world_expect_send(world, cookie);
	world_pass(world, 3 * S);
	world_expect(world, CORE_ACTION_KILL_WORKER);
	world_store_fault(world, CORE_FAULT_TIMEOUT);
	world_expect_answer(world, cookie, VGPU_CODE_TIMEOUT);
}

static void test_without_one_the_jobs_behind_it_are_offered(void **state)
{
	struct world *world = *state;
	uint64_t first, cancelled, behind;
	struct core_action sent;
	uint32_t vm = world_add_vm(world, NULL);

	world_warm(world, vm);
	first = world_submit(world, vm, 1);
	sent = world_expect_send(world, first);
	cancelled = world_submit_without_gpu(world, vm, 2);
	behind = world_submit(world, vm, 1);
	core_client_gone(world->core, world->now_ns, vm, 2);
	world_look(world);
	world_expect_answer(world, cancelled, VGPU_CODE_CANCELLED);
	assert_int_equal(world_stats(world, vm).sched.queued, 1);
	world_done(world, &sent, VGPU_CODE_OK, 0);
	world_expect_answer(world, first, VGPU_CODE_OK);
	world_expect_send(world, behind);
	world_expect_nothing(world);
}

/* They start a worker where there is none, and wait while the VM may not use its own. */
static void test_they_need_a_worker(void **state)
{
	struct world *world = *state;
	uint64_t first, second;
	struct core_action sent;
	uint32_t vm = world_add_vm(world, NULL);

	first = world_submit_without_gpu(world, vm, 1);
	second = world_submit(world, vm, 1);
	assert_int_equal(world_stats(world, vm).sched.queued, 0);
	world_start_worker(world, vm);
	sent = world_expect_send(world, first);
	world_expect_send(world, second);
	world_lost(world, &sent, 700);
	world_expect(world, CORE_ACTION_KILL_WORKER);
	world_expect(world, CORE_ACTION_STORE);
	world_expect_answer(world, second, VGPU_CODE_CONTEXT_LOST);
	world_submit_without_gpu(world, vm, 1);
	world_expect_nothing(world);
}

/* Whose place is wanted gets none, either. */
static void test_they_do_not_keep_a_place(void **state)
{
	struct world *world = *state;
	struct core_action sent[CORE_WITHOUT_GPU_MAX];
	uint64_t cookies[CORE_WITHOUT_GPU_MAX + 1];
	uint32_t vm, other;

	world->config.max_workers = 1;
	world_open(world);
	vm = world_add_vm(world, NULL);
	other = world_add_vm(world, NULL);
	world_warm(world, vm);
	for (size_t i = 0; i < ARRAY_LEN(cookies); i++)
		cookies[i] = world_submit_without_gpu(world, vm, 1);
	for (size_t i = 0; i < ARRAY_LEN(sent); i++)
		sent[i] = world_expect_send(world, cookies[i]);
	world_submit(world, other, 1);
	world_pass(world, world->config.worker_patience_ns);
	world_expect_nothing(world);
	for (size_t i = 0; i < ARRAY_LEN(sent); i++) {
		world_done(world, &sent[i], VGPU_CODE_OK, 0);
		world_expect_answer(world, cookies[i], VGPU_CODE_OK);
	}
	world_expect(world, CORE_ACTION_STOP_WORKER);
	world_expect_nothing(world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_OPEN(test_they_pass_a_long_job_of_another_vm),
		TEST_OPEN(test_they_are_charged_nothing),
		TEST_OPEN(test_the_order_of_a_vm_is_kept),
		TEST_CLOSED(test_a_turn_goes_on_behind_one),
		TEST_OPEN(test_a_worker_has_at_most_four_of_them),
		TEST_OPEN(test_behind_a_hang_they_go_to_a_fresh_worker),
		TEST_OPEN(test_they_have_a_limit),
		TEST_OPEN(test_they_do_not_end_a_short_limit),
		TEST_OPEN(test_without_one_the_jobs_behind_it_are_offered),
		TEST_OPEN(test_they_need_a_worker),
		TEST_CLOSED(test_they_do_not_keep_a_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
