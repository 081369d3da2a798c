/* SPDX-License-Identifier: MIT */
/*
 * What the core does not let through: refusals with their reasons and when to come
 * again, exact to the last one.
 */
#include "core_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/util.h"

/* A job that must be refused, at once and without leaving a trace in the queue. */
static struct core_answer refused(struct world *world, uint32_t vm, enum vgpu_code code,
                                  enum core_refusal why)
{
	struct core_vm_stats before = world_stats(world, vm), after;
	struct core_action answer = world_expect_answer(world, world_submit(world, vm, 1), code);

	after = world_stats(world, vm);
	world_expect_nothing(world);
	assert_int_equal(after.depth, before.depth);
	assert_int_equal(after.submitted, before.submitted + 1);
	for (int i = 0; i < CORE_REFUSAL_COUNT; i++)
		assert_int_equal(after.refusals[i], before.refusals[i] + (i == (int)why));
	return answer.answer;
}

/* A job that must be let in; its end is not waited for. */
static void accepted(struct world *world, uint32_t vm)
{
	uint32_t depth = world_stats(world, vm).depth;

	world_submit(world, vm, 1);
	assert_int_equal(world_stats(world, vm).depth, depth + 1);
}

static void answer_all(struct world *world, uint32_t vm)
{
	while (world_stats(world, vm).in_flight) {
		struct core_action action = world_expect(world, CORE_ACTION_SEND_JOB);

		world_done(world, &action, VGPU_CODE_OK, 0);
		world_expect(world, CORE_ACTION_ANSWER);
	}
	world_expect_nothing(world);
}

/* ---- Limits ------------------------------------------------------------------- */

static void test_malformed(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL);
	const struct core_submission submission = {
		.client = 3,
		.cookie = ++world->submitted,
		.malformed = VGPU_CODE_INVALID_LENGTH,
		.payload = &world->payloads[1],
	};

	assert_int_equal(core_job_submitted(world->core, world->now_ns, vm, &submission), 0);
	world_look(world);
	assert_int_equal(world_expect_answer(world, 1, VGPU_CODE_INVALID_LENGTH).client, 3);
	world_expect_nothing(world); /* no worker is started for that */
	assert_int_equal(world_stats(world, vm).refusals[CORE_REFUSAL_INVALID], 1);
	assert_int_equal(world_stats(world, vm).faults[CORE_FAULT_GPU], 0);
}

static void test_rate(void **state)
{
	struct world *world = *state;
	struct vm_settings settings = vm_settings_default;
	struct core_answer answer;
	uint32_t vm;

	settings.rate_thousandths = 3000;
	settings.burst_jobs = 2;
	vm = world_add_vm(world, &settings);
	world_warm(world, vm);
	world_pass(world, 10 * S);
	accepted(world, vm);
	accepted(world, vm);
	answer_all(world, vm);
	for (int i = 0; i < 5; i++) {
		answer = refused(world, vm, VGPU_CODE_RATE_LIMITED, CORE_REFUSAL_RATE);
		assert_int_equal(answer.detail, VGPU_BUSY_RATE);
		/* A third of a second, rounded up to what the answer can say. */
		assert_int_equal(answer.retry_after_us, 333334);
		world_pass(world, 333333333);
		answer = refused(world, vm, VGPU_CODE_RATE_LIMITED, CORE_REFUSAL_RATE);
		assert_int_equal(answer.retry_after_us, 1);
		world_pass(world, 1);
		accepted(world, vm);
		answer_all(world, vm);
	}
}

static void test_depth(void **state)
{
	struct world *world = *state;
	struct vm_settings settings = vm_settings_default;
	struct core_action sent;
	uint32_t vm;

	settings.queue_depth = 3;
	vm = world_add_vm(world, &settings);
	world_warm(world, vm);
	for (int i = 0; i < 3; i++)
		accepted(world, vm);
	sent = world_expect(world, CORE_ACTION_SEND_JOB);
	for (int i = 0; i < 4; i++) {
		struct core_answer answer =
			refused(world, vm, VGPU_CODE_RATE_LIMITED, CORE_REFUSAL_DEPTH);

		assert_int_equal(answer.detail, VGPU_BUSY_DEPTH);
		assert_true(answer.retry_after_us > 0);
	}
	/* One answered, one let in. */
	world_done(world, &sent, VGPU_CODE_OK, 0);
	world_expect(world, CORE_ACTION_ANSWER);
	world_expect(world, CORE_ACTION_SEND_JOB);
	accepted(world, vm);
	refused(world, vm, VGPU_CODE_RATE_LIMITED, CORE_REFUSAL_DEPTH);
}

/* A refusal by one limit takes nothing from another. */
static void test_a_refusal_costs_nothing(void **state)
{
	struct world *world = *state;
	struct vm_settings settings = vm_settings_default;
	struct core_action sent;
	uint32_t vm;

	settings.queue_depth = 1;
	settings.rate_thousandths = 1;
	settings.burst_jobs = 3;
	vm = world_add_vm(world, &settings);
	world_warm(world, vm);
	accepted(world, vm);
	sent = world_expect(world, CORE_ACTION_SEND_JOB);
	for (int i = 0; i < 10; i++)
		refused(world, vm, VGPU_CODE_RATE_LIMITED, CORE_REFUSAL_DEPTH);
	world_done(world, &sent, VGPU_CODE_OK, 0);
	world_expect(world, CORE_ACTION_ANSWER);
	accepted(world, vm);
	answer_all(world, vm);
	refused(world, vm, VGPU_CODE_RATE_LIMITED, CORE_REFUSAL_RATE);
}

static void test_gpu_seconds(void **state)
{
	struct world *world = *state;
	struct vm_settings settings = vm_settings_default;
	struct core_answer answer;
	struct core_action sent;
	uint64_t waiting;
	uint32_t vm;

	vm = world_add_vm(world, &settings);
	world_warm(world, vm);
	/* What was used before the limit is forgiven, and nothing is saved from then. */
	settings.gpu_thousandths = 100;
	core_vm_set(world->core, world->now_ns, vm, &settings, false);
	world_look(world);
	accepted(world, vm);
	waiting = world_submit(world, vm, 1);
	sent = world_expect(world, CORE_ACTION_SEND_JOB);
	world_pass(world, S);
	/* One second used, a tenth of one paid for: nine seconds of pause. */
	answer = refused(world, vm, VGPU_CODE_RATE_LIMITED, CORE_REFUSAL_GPU_SECONDS);
	assert_int_equal(answer.detail, VGPU_BUSY_RATE);
	assert_int_equal(answer.retry_after_us, 9000000);
	world_done(world, &sent, VGPU_CODE_OK, 0);
	world_expect(world, CORE_ACTION_ANSWER);
	/* What was let in before waits too, for exactly that long. */
	world_pass(world, 9 * S - 1);
	world_expect_nothing(world);
	answer = refused(world, vm, VGPU_CODE_RATE_LIMITED, CORE_REFUSAL_GPU_SECONDS);
	assert_int_equal(answer.retry_after_us, 1);
	world_pass(world, 1);
	world_expect_send(world, waiting);
	accepted(world, vm);
}

/* Without the limit, the debt is gone at once. */
static void test_gpu_seconds_taken_away(void **state)
{
	struct world *world = *state;
	struct vm_settings settings = vm_settings_default;
	struct core_action sent;
	uint64_t waiting;
	uint32_t vm;

	settings.gpu_thousandths = 1;
	vm = world_add_vm(world, &settings);
	world_warm(world, vm);
	world_pass(world, 10 * S);
	world_submit(world, vm, 1);
	waiting = world_submit(world, vm, 1);
	sent = world_expect(world, CORE_ACTION_SEND_JOB);
	world_pass(world, 10 * S);
	world_done(world, &sent, VGPU_CODE_OK, 0);
	world_expect(world, CORE_ACTION_ANSWER);
	world_pass(world, 3600 * S);
	world_expect_nothing(world);
	core_vm_set(world->core, world->now_ns, vm, &vm_settings_default, false);
	world_look(world);
	world_expect_send(world, waiting);
	accepted(world, vm);
}

/* A VM does not leave its debt behind with the GPU, not even what a hang was charged last. */
static void test_gpu_seconds_move_along(void **state)
{
	struct world *world = *state;
	struct vm_settings settings = vm_settings_default;
	uint64_t generation;
	uint32_t vm;

	settings.gpu_thousandths = 100;
	settings.job_timeout_ms = 1000;
	vm = world_add_vm(world, &settings);
	generation = world_warm(world, vm);
	world_pass(world, 60 * S);
	world_submit(world, vm, 1);
	world_expect(world, CORE_ACTION_SEND_JOB);
	world_pass(world, S);
	world_expect(world, CORE_ACTION_KILL_WORKER);
	world_store_fault(world, CORE_FAULT_TIMEOUT);
	world_expect(world, CORE_ACTION_ANSWER);
	/* Five more seconds until it is gone; by then its place is on another GPU. */
	world_pass(world, 4 * S);
	settings.pool = 1;
	core_vm_set(world->core, world->now_ns, vm, &settings, false);
	world_pass(world, S);
	world_dead(world, vm, generation);
	assert_int_equal(world_stats(world, vm).gpu, 1);
	/* Six seconds used; saved was a tenth of one, and five tenths are paid since the kill. */
	assert_int_equal(
		refused(world, vm, VGPU_CODE_RATE_LIMITED, CORE_REFUSAL_GPU_SECONDS).retry_after_us,
		10 * (6000000 - 100000 - 500000));
}

static void test_pool_disabled(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL);
	uint64_t running, queued;
	struct core_action sent;

	world_warm(world, vm);
	running = world_submit(world, vm, 1);
	queued = world_submit(world, vm, 1);
	sent = world_expect_send(world, running);
	world->config.pools[0].enabled = false;
	core_config_set(world->core, world->now_ns, &world->config);
	world_look(world);
	refused(world, vm, VGPU_CODE_INVALID_POOL, CORE_REFUSAL_POOL_DISABLED);
	/* What was accepted is done. */
	world_done(world, &sent, VGPU_CODE_OK, 0);
	world_expect_answer(world, running, VGPU_CODE_OK);
	world_expect_send(world, queued);
	world->config.pools[0].enabled = true;
	core_config_set(world->core, world->now_ns, &world->config);
	world_look(world);
	accepted(world, vm);
}

/* The mediator's own bounds: they are told, so that the peer is not read from. */
static void test_room(void **state)
{
	struct world *world = *state;
	uint32_t vm, other;

	world->config.max_queue_per_vm = 5;
	world->config.max_queued_bytes_per_vm = 3 * VGPU_MESSAGE_BYTES;
	core_config_set(world->core, world->now_ns, &world->config);
	vm = world_add_vm(world, NULL);
	other = world_add_vm(world, NULL);
	for (int i = 0; i < 5; i++) {
		assert_true(core_vm_has_room(world->core, vm));
		accepted(world, vm);
	}
	assert_false(core_vm_has_room(world->core, vm));
	assert_true(core_vm_has_room(world->core, other));
	world->config.max_queue_per_vm = 100;
	core_config_set(world->core, world->now_ns, &world->config);
	/* Of 3072 bytes 1024 must be free for whatever comes. */
	while (core_vm_has_room(world->core, vm))
		accepted(world, vm);
	assert_int_equal(world_stats(world, vm).depth, 2048 / 40 + 1);
	core_client_gone(world->core, world->now_ns, vm, 1);
	world_look(world);
	assert_true(core_vm_has_room(world->core, vm));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_OPEN(test_malformed),
		TEST_OPEN(test_rate),
		TEST_OPEN(test_depth),
		TEST_OPEN(test_a_refusal_costs_nothing),
		TEST_OPEN(test_gpu_seconds),
		TEST_OPEN(test_gpu_seconds_taken_away),
		TEST_TWO_GPUS(test_gpu_seconds_move_along),
		TEST_OPEN(test_pool_disabled),
		TEST_OPEN(test_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
