/* SPDX-License-Identifier: MIT */
/*
 * The time that a job may take: whose limit it is, what counts towards it among other
 * VMs on the same GPU, and that no worker escapes it.
 */
#include "core_world.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/util.h"

static void test_a_job_over_its_limit(void **state)
{
	struct world *world = *state;
	struct vm_settings settings = vm_settings_default;
	uint64_t generation, hanging, queued;
	struct core_action sent;
	struct core_store store;
	uint32_t vm;

	settings.job_timeout_ms = 500;
	vm = world_add_vm(world, &settings);
	generation = world_warm(world, vm);
	hanging = world_submit(world, vm, 1);
	queued = world_submit(world, vm, 1);
	sent = world_expect_send(world, hanging);
	world_pass(world, 500 * MS - 1);
	world_expect_nothing(world);
	world_pass(world, 1);
	world_expect(world, CORE_ACTION_KILL_WORKER);
	store = world_store_fault(world, CORE_FAULT_TIMEOUT);
	assert_int_equal(store.points, 3);
	assert_int_equal(store.detail, 500);
	world_expect_answer(world, hanging, VGPU_CODE_TIMEOUT);
	world_expect_nothing(world);
	/* An answer from the dead. */
	assert_int_equal(world_done(world, &sent, VGPU_CODE_OK, 0), -ESTALE);
	world_expect_nothing(world);
	world_dead(world, vm, generation);
	world_start_worker(world, vm);
	world_expect_send(world, queued);
	assert_int_equal(world_stats(world, vm).outcomes[CORE_OUTCOME_TIMEOUT], 1);
	assert_int_equal(world_stats(world, vm).faults[CORE_FAULT_TIMEOUT], 1);
}

/* The VM's limit before the pool's, the pool's before the mediator's. */
static void test_whose_limit(void **state)
{
	struct world *world = *state;
	struct vm_settings settings = vm_settings_default;
	static const int64_t limits_ms[] = {500, 2000, 7000};

	world->config.job_timeout_ns = 7000 * MS;
	world->config.pools[1].job_timeout_ns = 2000 * MS;
	world_open(world);
	for (int i = 0; i < 3; i++) {
		uint64_t cookie;
		uint32_t vm;

		settings.job_timeout_ms = i == 0 ? 500 : 0;
		settings.pool = i < 2;
		vm = world_add_vm(world, &settings);
		cookie = world_submit(world, vm, 1);
		world_start_worker(world, vm);
		world_expect_send(world, cookie);
		world_pass(world, limits_ms[i] * MS - 1);
		world_expect_nothing(world);
		world_pass(world, 1);
		world_expect(world, CORE_ACTION_KILL_WORKER);
		world_store_fault(world, CORE_FAULT_TIMEOUT);
		world_expect_answer(world, cookie, VGPU_CODE_TIMEOUT);
		world_dead(world, vm, world_stats(world, vm).worker ? (uint64_t)i + 1 : 0);
	}
}

/* Starts a hanging job, whose worker must be killed after exactly that long. */
static void hang(struct world *world, uint32_t vm, int64_t limit_ns)
{
	uint64_t cookie = world_submit(world, vm, 1);
	uint64_t generation = world_start_worker(world, vm);

	world_expect_send(world, cookie);
	world_pass(world, limit_ns - 1);
	world_expect_nothing(world);
	world_pass(world, 1);
	world_expect(world, CORE_ACTION_KILL_WORKER);
	world_store_fault(world, CORE_FAULT_TIMEOUT);
	world_expect_answer(world, cookie, VGPU_CODE_TIMEOUT);
	world_dead(world, vm, generation);
}

/* After a timeout the limit is a tenth, but a second at least, until a job succeeds. */
static void test_a_short_limit_after_a_timeout(void **state)
{
	struct world *world = *state;
	struct vm_settings settings = vm_settings_default;
	struct core_action sent;
	struct core_store store;
	uint64_t cookie, generation;
	uint32_t vm;

	world->config.quarantine_threshold = 100;
	core_config_set(world->core, world->now_ns, &world->config);
	vm = world_add_vm(world, NULL);
	hang(world, vm, 30 * S);
	hang(world, vm, 3 * S);
	hang(world, vm, 3 * S);
	cookie = world_submit(world, vm, 1);
	generation = world_start_worker(world, vm);
	sent = world_expect_send(world, cookie);
	world_pass(world, 2 * S);
	world_done(world, &sent, VGPU_CODE_OK, 0);
	store = world_expect(world, CORE_ACTION_STORE).store;
	assert_int_equal(store.record, CORE_RECORD_RECOVERED);
	world_expect_answer(world, cookie, VGPU_CODE_OK);
	world_stored(world, &store, true);
	world_pass(world, world->config.worker_idle_ns);
	world_expect(world, CORE_ACTION_STOP_WORKER);
	world_dead(world, vm, generation);
	hang(world, vm, 30 * S);
	/* A tenth of these would be too little. */
	settings.job_timeout_ms = 4000;
	core_vm_set(world->core, world->now_ns, vm, &settings, false);
	hang(world, vm, S);
	settings.job_timeout_ms = 700;
	core_vm_set(world->core, world->now_ns, vm, &settings, false);
	hang(world, vm, 700 * MS);
}

/* Neighbours cannot time out an honest job: its limit is charged time, however long that takes. */
static void test_an_honest_job_among_others(void **state)
{
	struct world *world = *state;
	struct vm_settings settings = vm_settings_default;
	struct core_action sent[8];
	uint64_t cookies[8];
	uint32_t vms[8];

	world->config.policy = &sched_fair;
	world->config.sched.overlap_max = 32;
	world_open(world);
	settings.job_timeout_ms = 4000;
	for (size_t i = 0; i < ARRAY_LEN(vms); i++) {
		vms[i] = world_add_vm(world, i ? NULL : &settings);
		world_warm(world, vms[i]);
	}
	for (size_t i = 0; i < ARRAY_LEN(vms); i++)
		cookies[i] = world_submit(world, vms[i], 1);
	world_pass(world, 2 * S);
	for (size_t i = 0; i < ARRAY_LEN(vms); i++)
		sent[i] = world_expect_send(world, cookies[i]);
	world_pass(world, 18 * S);
	/* Twenty seconds by the clock, two and a half charged; then the others end at once. */
	assert_true(world_stats(world, vms[0]).sched.charged_ns < 4 * S);
	for (size_t i = 1; i < ARRAY_LEN(vms); i++) {
		world_done(world, &sent[i], VGPU_CODE_OK, 0);
		world_expect_answer(world, cookies[i], VGPU_CODE_OK);
	}
	world_pass(world, S);
	world_expect_nothing(world);
	world_done(world, &sent[0], VGPU_CODE_OK, 0);
	world_expect_answer(world, cookies[0], VGPU_CODE_OK);
}

/* How long a hang with a limit of 200 ms lasts beside a VM with short jobs and pauses. */
static int64_t hang_beside(struct world *world, int64_t job_ns, int64_t pause_ns)
{
	struct vm_settings settings = vm_settings_default;
	uint32_t hung, light;
	int64_t began_ns;
	uint64_t hanging;

	settings.job_timeout_ms = 200;
	hung = world_add_vm(world, &settings);
	light = world_add_vm(world, NULL);
	world_warm(world, hung);
	world_warm(world, light);
	hanging = world_submit(world, hung, 1);
	world_expect_send(world, hanging);
	began_ns = world->now_ns;
	while (world->now_ns - began_ns < 2 * S) {
		uint64_t cookie = world_submit(world, light, 1);
		struct core_action sent;

		while (world->count == 0)
			world_pass(world, 10 * NS_PER_US);
		if (world->actions[world->first].type == CORE_ACTION_KILL_WORKER)
			break;
		sent = world_expect_send(world, cookie);
		world_pass(world, job_ns);
		if (world->count)
			break;
		world_done(world, &sent, VGPU_CODE_OK, 0);
		world_expect_answer(world, cookie, VGPU_CODE_OK);
		world_pass(world, pause_ns);
	}
	assert_int_equal(world_expect(world, CORE_ACTION_KILL_WORKER).vm, hung);
	world_store_fault(world, CORE_FAULT_TIMEOUT);
	if (world->actions[world->first].type == CORE_ACTION_SEND_JOB)
		assert_int_equal(world_expect(world, CORE_ACTION_SEND_JOB).vm, light);
	world_expect_answer(world, hanging, VGPU_CODE_TIMEOUT);
	return world->now_ns - began_ns;
}

/*
 * Short jobs are charged to their VM alone, though the hardware has turned to the hang
 * as well: that must not put its end off. For two VMs it takes at most twice as long.
 */
static void test_a_hang_beside_short_jobs(void **state)
{
	struct world *world = *state;

	world->config.policy = &sched_fair;
	world_open(world);
	assert_in_range(hang_beside(world, 140 * NS_PER_US, 10 * NS_PER_US), 200 * MS, 401 * MS);
}

/* A turn that is only kept for the next job takes nothing from anybody. */
static void test_a_hang_beside_pauses(void **state)
{
	struct world *world = *state;

	world->config.policy = &sched_fair;
	world_open(world);
	assert_in_range(hang_beside(world, 20 * NS_PER_US, 140 * NS_PER_US), 200 * MS, 240 * MS);
}

/* A worker that answers the second job and never the first does not escape the limit. */
static void test_answers_out_of_order(void **state)
{
	struct world *world = *state;
	uint64_t cookies[64];
	bool second_sent = false;
	struct core_action sent;
	size_t next = 1;
	int64_t began_ns;
	uint32_t vm;

	world->config.policy = &sched_fair;
	world->config.sched.overlap_max = 1;
	world->config.sched.quantum_ns = S;
	world->config.job_timeout_ns = S;
	world_open(world);
	vm = world_add_vm(world, NULL);
	world_warm(world, vm);
	for (size_t i = 0; i < ARRAY_LEN(cookies); i++)
		cookies[i] = world_submit(world, vm, 1);
	began_ns = world->now_ns;
	world_expect_send(world, cookies[0]);
	while (world->now_ns - began_ns < 5 * S) {
		if (world->count) {
			sent = world_expect_send(world, cookies[next]);
			second_sent = true;
		}
		world_pass(world, 100 * MS);
		if (world->count)
			break;
		if (second_sent) {
			world_done(world, &sent, VGPU_CODE_OK, 0);
			world_expect_answer(world, cookies[next++], VGPU_CODE_OK);
			second_sent = false;
		}
	}
	assert_int_equal(world->now_ns - began_ns, S);
	assert_true(next > 3);
	world_expect(world, CORE_ACTION_KILL_WORKER);
	world_store_fault(world, CORE_FAULT_TIMEOUT);
	if (second_sent)
		world_expect_answer(world, cookies[next], VGPU_CODE_CONTEXT_LOST);
	world_expect_answer(world, cookies[0], VGPU_CODE_TIMEOUT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_OPEN(test_a_job_over_its_limit),
		TEST_CLOSED(test_whose_limit),
		TEST_OPEN(test_a_short_limit_after_a_timeout),
		TEST_CLOSED(test_an_honest_job_among_others),
		TEST_CLOSED(test_a_hang_beside_short_jobs),
		TEST_CLOSED(test_a_hang_beside_pauses),
		TEST_CLOSED(test_answers_out_of_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
