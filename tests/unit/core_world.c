/* SPDX-License-Identifier: MIT */
/* See core_world.h. */
#include "core_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "round_robin.h"

enum { WORLD_TICKS = 100000 }; /* in one world_pass(): more is a deadline that never ends */

struct world *world_new(void)
{
	struct world *world = calloc(1, sizeof(*world));

	assert_non_null(world);
	core_config_default(&world->config);
	world->config.policy = &sched_round_robin;
	world->now_ns = 1000 * S;
	return world;
}

void world_open(struct world *world)
{
	assert_int_equal(core_new(&world->core, &world->config, world->now_ns), 0);
}

int world_setup_closed(void **state)
{
	*state = world_new();
	return 0;
}

int world_setup(void **state)
{
	world_setup_closed(state);
	world_open(*state);
	return 0;
}

int world_setup_two_gpus(void **state)
{
	struct world *world = world_new();

	world->config.gpu_count = 2;
	world->config.pools[1].gpu_mask = 2;
	world_open(world);
	*state = world;
	return 0;
}

int world_teardown(void **state)
{
	world_free(*state);
	return 0;
}

static void note_answer(struct world *world, const struct core_action *action)
{
	assert_in_range(action->cookie, 1, world->submitted);
	assert_ptr_equal(action->payload, &world->payloads[action->cookie]);
	assert_int_equal(++world->answers[action->cookie], 1);
}

static void drain(struct world *world)
{
	struct core_action action;

	while (core_next_action(world->core, &action)) {
		if (action.type == CORE_ACTION_ANSWER)
			note_answer(world, &action);
		assert_true(world->count < WORLD_ACTIONS);
		world->actions[(world->first + world->count++) % WORLD_ACTIONS] = action;
	}
}

void world_look(struct world *world)
{
	const char *wrong = core_check(world->core);

	if (wrong)
		fail_msg("%s", wrong);
	drain(world);
}

void world_free(struct world *world)
{
	if (!world)
		return;
	/* Nothing but answers is expected of a core after this. */
	core_abandon(world->core);
	drain(world);
	for (uint64_t cookie = 1; cookie <= world->submitted; cookie++)
		assert_int_equal(world->answers[cookie], 1);
	core_free(world->core);
	free(world);
}

void world_pass(struct world *world, int64_t ns)
{
	int64_t until_ns = world->now_ns + ns;

	for (int tick = 0; core_deadline_ns(world->core) <= until_ns; tick++) {
		assert_true(tick < WORLD_TICKS);
		if (core_deadline_ns(world->core) > world->now_ns)
			world->now_ns = core_deadline_ns(world->core);
		core_tick(world->core, world->now_ns);
		world_look(world);
	}
	world->now_ns = until_ns;
	core_tick(world->core, world->now_ns);
	world_look(world);
}

uint32_t world_add_vm(struct world *world, const struct vm_settings *settings)
{
	uint32_t vm = UINT32_MAX;

	assert_int_equal(core_vm_add(world->core, world->now_ns, &vm,
	                             settings ? settings : &vm_settings_default, false, world),
	                 0);
	world_look(world);
	return vm;
}

static uint64_t submit(struct world *world, uint32_t vm, uint64_t client, bool without_gpu)
{
	const struct core_submission submission = {
		.client = client,
		.cookie = ++world->submitted,
		.opcode = without_gpu ? VGPU_OP_NOP : VGPU_OP_CUDA_KERNEL,
		.bytes = 40,
		.without_gpu = without_gpu,
		.payload = &world->payloads[world->submitted],
	};

	assert_true(world->submitted < WORLD_JOBS);
	assert_int_equal(core_job_submitted(world->core, world->now_ns, vm, &submission), 0);
	world_look(world);
	return submission.cookie;
}

uint64_t world_submit(struct world *world, uint32_t vm, uint64_t client)
{
	return submit(world, vm, client, false);
}

uint64_t world_submit_without_gpu(struct world *world, uint32_t vm, uint64_t client)
{
	return submit(world, vm, client, true);
}

void world_ready(struct world *world, uint32_t vm, uint64_t generation)
{
	core_worker_ready(world->core, world->now_ns, vm, generation);
	world_look(world);
}

void world_dead(struct world *world, uint32_t vm, uint64_t generation)
{
	core_worker_dead(world->core, world->now_ns, vm, generation, WORLD_DEATH_STATUS);
	world_look(world);
}

static int bring_result(struct world *world, const struct core_action *sent, enum vgpu_code code,
                        uint32_t detail, bool context_lost)
{
	const struct core_result result = {
		.code = code,
		.detail = detail,
		.command = UINT32_MAX,
		.gpu_time_ns = (uint64_t)MS,
		.context_lost = context_lost,
	};
	int r = core_job_done(world->core, world->now_ns, sent->vm, sent->generation, sent->job,
	                      &result);

	world_look(world);
	return r;
}

int world_done(struct world *world, const struct core_action *sent, enum vgpu_code code,
               uint32_t detail)
{
	return bring_result(world, sent, code, detail, false);
}

void world_lost(struct world *world, const struct core_action *sent, uint32_t detail)
{
	assert_int_equal(bring_result(world, sent, VGPU_CODE_CUDA, detail, true), 0);
}

struct core_action world_expect(struct world *world, enum core_action_type type)
{
	struct core_action action;

	if (world->count == 0)
		fail_msg("no action where one of type %d is expected", (int)type);
	action = world->actions[world->first];
	world->first = (world->first + 1) % WORLD_ACTIONS;
	world->count--;
	assert_int_equal(action.type, type);
	return action;
}

void world_expect_nothing(struct world *world)
{
	if (world->count)
		fail_msg("an action of type %d that is not expected",
		         (int)world->actions[world->first].type);
}

struct core_action world_expect_answer(struct world *world, uint64_t cookie, enum vgpu_code code)
{
	struct core_action action = world_expect(world, CORE_ACTION_ANSWER);

	assert_int_equal(action.cookie, cookie);
	assert_int_equal(action.answer.code, code);
	return action;
}

void world_stored(struct world *world, const struct core_store *store, bool stored)
{
	core_store_done(world->core, world->now_ns, store->ticket, stored);
	world_look(world);
}

struct core_store world_expect_fault(struct world *world, enum core_fault fault)
{
	struct core_store store = world_expect(world, CORE_ACTION_STORE).store;

	assert_int_equal(store.record, CORE_RECORD_FAULT);
	assert_int_equal(store.fault, fault);
	assert_true(store.at_ns <= world->now_ns);
	assert_int_equal(store.count, 1);
	return store;
}

struct core_store world_store_fault(struct world *world, enum core_fault fault)
{
	struct core_store store = world_expect_fault(world, fault);

	world_stored(world, &store, true);
	return store;
}

struct core_action world_expect_send(struct world *world, uint64_t cookie)
{
	struct core_action action = world_expect(world, CORE_ACTION_SEND_JOB);

	assert_ptr_equal(action.payload, &world->payloads[cookie]);
	return action;
}

uint64_t world_start_worker(struct world *world, uint32_t vm)
{
	struct core_action action = world_expect(world, CORE_ACTION_START_WORKER);

	assert_int_equal(action.vm, vm);
	assert_ptr_equal(action.owner, world);
	world_ready(world, vm, action.generation);
	return action.generation;
}

uint64_t world_warm(struct world *world, uint32_t vm)
{
	uint64_t cookie = world_submit(world, vm, 1);
	uint64_t generation = world_start_worker(world, vm);
	struct core_action sent = world_expect_send(world, cookie);

	world->now_ns += MS;
	assert_int_equal(world_done(world, &sent, VGPU_CODE_OK, 0), 0);
	world_expect_answer(world, cookie, VGPU_CODE_OK);
	world_expect_nothing(world);
	return generation;
}

struct core_vm_stats world_stats(struct world *world, uint32_t vm)
{
	struct core_vm_stats stats;

	core_vm_stats(world->core, world->now_ns, vm, &stats);
	return stats;
}
