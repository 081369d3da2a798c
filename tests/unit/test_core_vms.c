/* SPDX-License-Identifier: MIT */
/*
 * VMs come, move between GPUs and go; GPUs are drained; and everything ends.
 */
#include "core_world.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/util.h"

/* ---- Removal -------------------------------------------------------------------- */

static void test_removal(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL);
	uint64_t generation = world_warm(world, vm), running, queued, late;
	struct core_action sent;
	struct core_stats stats;

	running = world_submit(world, vm, 1);
	queued = world_submit(world, vm, 1);
	sent = world_expect_send(world, running);
	core_vm_remove(world->core, world->now_ns, vm);
	world_look(world);
	world_expect_answer(world, queued, VGPU_CODE_CANCELLED);
	late = world_submit(world, vm, 1);
	world_expect_answer(world, late, VGPU_CODE_UNAVAILABLE);
	world_expect_nothing(world);
	world_done(world, &sent, VGPU_CODE_OK, 0);
	world_expect_answer(world, running, VGPU_CODE_OK);
	world_expect(world, CORE_ACTION_STOP_WORKER);
	world_expect_nothing(world);
	world_dead(world, vm, generation);
	assert_ptr_equal(world_expect(world, CORE_ACTION_VM_GONE).owner, world);
	world_expect_nothing(world);
	core_stats(world->core, &stats);
	assert_int_equal(stats.vms + stats.workers + stats.jobs, 0);
}

/* In every state of its worker, a VM under removal goes, without a fault. */
static void test_removal_in_each_state(void **state)
{
	struct world *world = *state;
	static const enum core_worker_state states[] = {
		CORE_WORKER_NONE,     CORE_WORKER_STARTING, CORE_WORKER_READY,
		CORE_WORKER_STOPPING, CORE_WORKER_KILLED,
	};

	for (size_t i = 0; i < ARRAY_LEN(states); i++) {
		uint32_t vm = world_add_vm(world, NULL);
		uint64_t generation = 0;

		if (states[i] == CORE_WORKER_STARTING) {
			world_submit(world, vm, 1);
			generation = world_expect(world, CORE_ACTION_START_WORKER).generation;
		} else if (states[i] != CORE_WORKER_NONE) {
			generation = world_warm(world, vm);
		}
		if (states[i] == CORE_WORKER_STOPPING || states[i] == CORE_WORKER_KILLED) {
			world_pass(world, world->config.worker_idle_ns);
			world_expect(world, CORE_ACTION_STOP_WORKER);
		}
		if (states[i] == CORE_WORKER_KILLED) {
			world_pass(world, world->config.worker_stop_timeout_ns);
			world_expect(world, CORE_ACTION_KILL_WORKER);
		}
		assert_int_equal(world_stats(world, vm).worker, states[i]);
		core_vm_remove(world->core, world->now_ns, vm);
		world_look(world);
		if (states[i] == CORE_WORKER_STARTING) {
			world_expect(world, CORE_ACTION_ANSWER);
			world_expect(world, CORE_ACTION_KILL_WORKER);
		} else if (states[i] == CORE_WORKER_READY) {
			world_expect(world, CORE_ACTION_STOP_WORKER);
		}
		if (generation) {
			world_expect_nothing(world);
			world_dead(world, vm, generation);
		}
		world_expect(world, CORE_ACTION_VM_GONE);
		world_expect_nothing(world);
	}
}

/* The limit holds for a VM under removal too. */
static void test_removal_with_a_hang(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL);
	uint64_t generation = world_warm(world, vm), hanging;

	hanging = world_submit(world, vm, 1);
	world_expect_send(world, hanging);
	core_vm_remove(world->core, world->now_ns, vm);
	world_look(world);
	world_expect_nothing(world);
	world_pass(world, world->config.job_timeout_ns);
	world_expect(world, CORE_ACTION_KILL_WORKER);
	world_store_fault(world, CORE_FAULT_TIMEOUT);
	world_expect_answer(world, hanging, VGPU_CODE_TIMEOUT);
	world_dead(world, vm, generation);
	world_expect(world, CORE_ACTION_VM_GONE);
}

/* Numbers are used again, generations are not: what an old worker says harms nobody. */
static void test_stale_events(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL), again;
	uint64_t old = world_warm(world, vm), cookie, generation;
	struct core_action first, sent;
	struct core_stats stats;

	cookie = world_submit(world, vm, 1);
	first = world_expect_send(world, cookie);
	world_dead(world, vm, old);
	world_store_fault(world, CORE_FAULT_DEATH);
	world_expect_answer(world, cookie, VGPU_CODE_CUDA);
	core_vm_remove(world->core, world->now_ns, vm);
	world_look(world);
	world_expect(world, CORE_ACTION_VM_GONE);
	again = world_add_vm(world, NULL);
	assert_int_equal(again, vm);
	cookie = world_submit(world, again, 1);
	generation = world_expect(world, CORE_ACTION_START_WORKER).generation;
	assert_true(generation > old);
	world_ready(world, again, old);
	world_dead(world, again, old);
	world_expect_nothing(world);
	world_ready(world, again, generation);
	sent = world_expect_send(world, cookie);
	assert_int_equal(world_done(world, &first, VGPU_CODE_OK, 0), -ESTALE);
	first.generation = generation; /* the right worker, a job it does not have */
	assert_int_equal(world_done(world, &first, VGPU_CODE_OK, 0), -ESTALE);
	first.vm = 4711;
	assert_int_equal(world_done(world, &first, VGPU_CODE_OK, 0), -ESTALE);
	world_ready(world, again, generation); /* twice */
	world_ready(world, 4711, generation);
	world_dead(world, 4711, generation);
	world_expect_nothing(world);
	assert_int_equal(world_done(world, &sent, VGPU_CODE_OK, 0), 0);
	world_expect_answer(world, cookie, VGPU_CODE_OK);
	assert_int_equal(world_done(world, &sent, VGPU_CODE_OK, 0), -ESTALE);
	world_expect_nothing(world);
	core_stats(world->core, &stats);
	assert_int_equal(stats.stale_events, 9);
}

/* A worker can name its own jobs only. */
static void test_a_job_of_another_vm(void **state)
{
	struct world *world = *state;
	uint32_t honest = world_add_vm(world, NULL), liar = world_add_vm(world, NULL);
	struct core_action sent, claimed;
	uint64_t cookie, generation;

	world_warm(world, honest);
	generation = world_warm(world, liar);
	cookie = world_submit(world, honest, 1);
	sent = world_expect_send(world, cookie);
	claimed = sent;
	claimed.vm = liar;
	claimed.generation = generation;
	assert_int_equal(world_done(world, &claimed, VGPU_CODE_OK, 0), -ESTALE);
	world_expect_nothing(world);
	world_done(world, &sent, VGPU_CODE_OK, 0);
	world_expect_answer(world, cookie, VGPU_CODE_OK);
}

/* ---- GPUs -------------------------------------------------------------------------- */

static void two_gpus(struct world *world)
{
	world->config.gpu_count = 2;
	world->config.pools[0].gpu_mask = 1;
	world->config.pools[1].gpu_mask = 2;
	world_open(world);
}

static void test_what_a_vm_may_claim(void **state UNUSED)
{
	struct vm_settings settings = vm_settings_default;

	assert_int_equal(core_claim(&settings), 200);
	settings.priority = VGPU_PRIORITY_LOW;
	assert_int_equal(core_claim(&settings), 100);
	settings.weight_hundredths = 10000;
	settings.priority = VGPU_PRIORITY_HIGH;
	assert_int_equal(core_claim(&settings), 40000);
}

static void test_vms_spread_by_weight(void **state)
{
	struct world *world = *state;
	struct vm_settings heavy = vm_settings_default;

	world->config.gpu_count = 3;
	world->config.pools[0].gpu_mask = 7;
	world_open(world);
	heavy.weight_hundredths = 300;
	assert_int_equal(world_stats(world, world_add_vm(world, &heavy)).gpu, 0);
	for (int i = 0; i < 6; i++)
		assert_int_equal(world_stats(world, world_add_vm(world, NULL)).gpu, 1 + i % 2);
	assert_int_equal(world_stats(world, world_add_vm(world, NULL)).gpu, 0);
}

/* Another pool: the worker ends after what it has, and the queue goes on on the other GPU. */
static void test_a_vm_moves(void **state)
{
	struct world *world = *state;
	struct vm_settings settings = vm_settings_default;
	uint64_t generation, running, queued[2];
	struct core_action sent, start;
	uint32_t vm;

	two_gpus(world);
	vm = world_add_vm(world, &settings);
	generation = world_warm(world, vm);
	running = world_submit(world, vm, 1);
	queued[0] = world_submit(world, vm, 1);
	queued[1] = world_submit(world, vm, 1);
	sent = world_expect_send(world, running);
	settings.pool = 1;
	core_vm_set(world->core, world->now_ns, vm, &settings, false);
	world_look(world);
	world_expect_nothing(world);
	assert_int_equal(world_stats(world, vm).gpu, 0);
	world_done(world, &sent, VGPU_CODE_OK, 0);
	world_expect_answer(world, running, VGPU_CODE_OK);
	assert_int_equal(world_expect(world, CORE_ACTION_STOP_WORKER).generation, generation);
	world_expect_nothing(world);
	world_dead(world, vm, generation);
	start = world_expect(world, CORE_ACTION_START_WORKER);
	assert_int_equal(start.gpu, 1);
	assert_int_equal(world_stats(world, vm).gpu, 1);
	world_ready(world, vm, start.generation);
	for (int i = 0; i < 2; i++) {
		sent = world_expect_send(world, queued[i]);
		world_done(world, &sent, VGPU_CODE_OK, 0);
		world_expect_answer(world, queued[i], VGPU_CODE_OK);
	}
	assert_int_equal(world_stats(world, vm).faults[CORE_FAULT_DEATH], 0);
}

/* A pool whose GPU changes takes its VMs along, those without a worker at once. */
static void test_a_pool_moves(void **state)
{
	struct world *world = *state;
	uint32_t resting, working;
	uint64_t generation;

	two_gpus(world);
	resting = world_add_vm(world, NULL);
	working = world_add_vm(world, NULL);
	generation = world_warm(world, working);
	world->config.pools[0].gpu_mask = 2;
	core_config_set(world->core, world->now_ns, &world->config);
	world_look(world);
	assert_int_equal(world_stats(world, resting).gpu, 1);
	world_expect(world, CORE_ACTION_STOP_WORKER);
	world_dead(world, working, generation);
	assert_int_equal(world_stats(world, working).gpu, 1);
	world_expect_nothing(world);
}

static struct sched_policy forgetful;
static int adds_left;

static int add_while_there_is_memory(struct sched *sched, int64_t now_ns, struct sched_vm **out,
                                     uint32_t id, int32_t phi, uint32_t priority, int64_t lag,
                                     void *owner)
{
	return adds_left-- > 0
	               ? sched_fair.vm_add(sched, now_ns, out, id, phi, priority, lag, owner)
	               : -ENOMEM;
}

/* Without memory for a move the VM stays and is served; the next time it moves. */
static void test_no_memory_to_move(void **state)
{
	struct world *world = *state;
	struct vm_settings settings = vm_settings_default;
	uint64_t generation;
	uint32_t vm;

	forgetful = sched_fair;
	forgetful.vm_add = add_while_there_is_memory;
	world->config.policy = &forgetful;
	two_gpus(world);
	for (int memory = 0; memory < 3; memory++) {
		settings.pool = 0;
		adds_left = 1;
		vm = world_add_vm(world, &settings);
		generation = world_warm(world, vm);
		world_submit(world, vm, 9);
		world_expect(world, CORE_ACTION_SEND_JOB);
		world_dead(world, vm, generation);
		world_store_fault(world, CORE_FAULT_DEATH);
		world_expect(world, CORE_ACTION_ANSWER);
		settings.pool = 1;
		adds_left = memory;
		core_vm_set(world->core, world->now_ns, vm, &settings, false);
		world_look(world);
		assert_int_equal(world_stats(world, vm).gpu, memory ? 1 : 0);
		generation = world_warm(world, vm);
		adds_left = 2;
		world_pass(world, world->config.worker_idle_ns);
		world_expect(world, CORE_ACTION_STOP_WORKER);
		world_dead(world, vm, generation);
		assert_int_equal(world_stats(world, vm).gpu, 1);
		world_expect_nothing(world);
	}
}

static void test_drain(void **state)
{
	struct world *world = *state;
	struct vm_settings other_pool = vm_settings_default;
	uint64_t generation, running, queued, late;
	struct core_action sent, answer;
	uint32_t vm, other;

	two_gpus(world);
	other_pool.pool = 1;
	vm = world_add_vm(world, NULL);
	other = world_add_vm(world, &other_pool);
	generation = world_warm(world, vm);
	running = world_submit(world, vm, 1);
	queued = world_submit(world, vm, 1);
	sent = world_expect_send(world, running);
	core_gpu_set_draining(world->core, world->now_ns, 0, true);
	world_look(world);
	answer = world_expect_answer(world, queued, VGPU_CODE_RATE_LIMITED);
	assert_int_equal(answer.answer.detail, VGPU_BUSY_GPU_RESET);
	assert_true(answer.answer.retry_after_us > 0);
	late = world_submit(world, vm, 1);
	answer = world_expect_answer(world, late, VGPU_CODE_RATE_LIMITED);
	assert_int_equal(answer.answer.detail, VGPU_BUSY_GPU_RESET);
	world_expect_nothing(world);
	world_warm(world, other); /* the other GPU does not notice */
	world_done(world, &sent, VGPU_CODE_OK, 0);
	world_expect_answer(world, running, VGPU_CODE_OK);
	world_expect(world, CORE_ACTION_STOP_WORKER);
	world_expect_nothing(world);
	world_dead(world, vm, generation);
	assert_int_equal(world_expect(world, CORE_ACTION_GPU_DRAINED).gpu, 0);
	world_pass(world, 60 * S);
	world_expect_nothing(world);
	core_gpu_set_draining(world->core, world->now_ns, 0, false);
	world_look(world);
	world_expect_nothing(world);
	world_warm(world, vm);
}

/* Workers that nothing ends are not waited for: a reset may be what ends them. */
static void test_drain_with_stuck_workers(void **state)
{
	struct world *world = *state;
	uint64_t generations[2];
	uint32_t vms[2];

	two_gpus(world);
	for (int i = 0; i < 2; i++) {
		vms[i] = world_add_vm(world, NULL);
		generations[i] = world_warm(world, vms[i]);
	}
	core_gpu_set_draining(world->core, world->now_ns, 0, true);
	world_look(world);
	for (int i = 0; i < 2; i++)
		world_expect(world, CORE_ACTION_STOP_WORKER);
	world_pass(world, world->config.worker_stop_timeout_ns);
	for (int i = 0; i < 2; i++)
		world_expect(world, CORE_ACTION_KILL_WORKER);
	world_pass(world, world->config.worker_kill_timeout_ns);
	for (int i = 0; i < 2; i++)
		world_expect(world, CORE_ACTION_WORKER_STUCK);
	world_expect(world, CORE_ACTION_GPU_DRAINED);
	world_expect_nothing(world);
	world_dead(world, vms[0], generations[0]);
	world_expect_nothing(world);
	world_dead(world, vms[1], generations[1]);
	world_expect(world, CORE_ACTION_WORKER_FREED);
	world_expect_nothing(world);
	core_gpu_set_draining(world->core, world->now_ns, 0, false);
	world_look(world);
	world_warm(world, vms[0]);
}

static void test_drain_of_an_unused_gpu(void **state)
{
	struct world *world = *state;

	two_gpus(world);
	core_gpu_set_draining(world->core, world->now_ns, 1, true);
	world_look(world);
	assert_int_equal(world_expect(world, CORE_ACTION_GPU_DRAINED).gpu, 1);
	core_gpu_set_draining(world->core, world->now_ns, 1, true);
	world_look(world);
	world_expect_nothing(world);
}

/* Whoever comes goes to a GPU that works, if its pool has one. */
static void test_drained_gpus_are_avoided(void **state)
{
	struct world *world = *state;
	struct vm_settings settings = vm_settings_default;
	struct core_action answer;
	uint64_t cookie;
	uint32_t vm;

	world->config.max_workers = 1;
	world->config.gpu_count = 2;
	world->config.pools[0].gpu_mask = 3;
	world->config.pools[1].gpu_mask = 1;
	world_open(world);
	core_gpu_set_draining(world->core, world->now_ns, 0, true);
	world_look(world);
	world_expect(world, CORE_ACTION_GPU_DRAINED);
	for (int i = 0; i < 3; i++) {
		vm = world_add_vm(world, NULL);
		assert_int_equal(world_stats(world, vm).gpu, 1);
	}
	world_submit(world, world_add_vm(world, NULL), 1);
	world_expect(world, CORE_ACTION_START_WORKER);
	/* One that must go there takes its queue along, and that is told at once. */
	cookie = world_submit(world, vm, 1);
	settings.pool = 1;
	core_vm_set(world->core, world->now_ns, vm, &settings, false);
	world_look(world);
	answer = world_expect_answer(world, cookie, VGPU_CODE_RATE_LIMITED);
	assert_int_equal(answer.answer.detail, VGPU_BUSY_GPU_RESET);
	world_expect_nothing(world);
}

/* Where one GPU of two is drained, the VM works on the other until it comes back. */
static void test_a_vm_of_a_drained_gpu_is_the_guest_of_another(void **state)
{
	struct world *world = *state;
	uint64_t generation, running, queued, waiting;
	struct core_action sent, start;
	uint32_t vm, other;

	world->config.gpu_count = 2;
	world->config.pools[0].gpu_mask = 3;
	world_open(world);
	vm = world_add_vm(world, NULL);
	other = world_add_vm(world, NULL);
	assert_int_equal(world_stats(world, other).gpu, 1);
	generation = world_warm(world, vm);
	running = world_submit(world, vm, 1);
	sent = world_expect_send(world, running);
	queued = world_submit(world, vm, 1);
	/* What runs may end there; until then the VM cannot go. */
	core_gpu_set_draining(world->core, world->now_ns, 0, true);
	world_look(world);
	world_expect_answer(world, queued, VGPU_CODE_RATE_LIMITED);
	world_expect_nothing(world);
	world_done(world, &sent, VGPU_CODE_OK, 0);
	world_expect_answer(world, running, VGPU_CODE_OK);
	world_expect(world, CORE_ACTION_STOP_WORKER);
	world_dead(world, vm, generation);
	world_expect(world, CORE_ACTION_GPU_DRAINED);
	assert_int_equal(world_stats(world, vm).gpu, 1);
	generation = world_warm(world, vm);
	/* Where both are drained it stays, and is refused as any other. */
	core_gpu_set_draining(world->core, world->now_ns, 1, true);
	world_look(world);
	world_expect(world, CORE_ACTION_STOP_WORKER);
	world_dead(world, vm, generation);
	world_expect(world, CORE_ACTION_GPU_DRAINED);
	assert_int_equal(world_stats(world, vm).gpu, 1);
	world_expect_answer(world, world_submit(world, vm, 1), VGPU_CODE_RATE_LIMITED);
	core_gpu_set_draining(world->core, world->now_ns, 1, false);
	world_look(world);
	generation = world_warm(world, vm);
	/* Its home works again: it goes there with its queue, once its job has ended. */
	running = world_submit(world, vm, 1);
	sent = world_expect_send(world, running);
	core_gpu_set_draining(world->core, world->now_ns, 0, false);
	waiting = world_submit(world, vm, 1);
	world_expect_nothing(world);
	world_done(world, &sent, VGPU_CODE_OK, 0);
	world_expect_answer(world, running, VGPU_CODE_OK);
	world_expect(world, CORE_ACTION_STOP_WORKER);
	world_dead(world, vm, generation);
	start = world_expect(world, CORE_ACTION_START_WORKER);
	assert_int_equal(start.gpu, 0);
	world_ready(world, vm, start.generation);
	world_expect_send(world, waiting);
	assert_int_equal(world_stats(world, other).gpu, 1);
}

/* Without a worker it goes at once, and nothing that waits is refused. */
static void test_a_queue_leaves_a_drained_gpu(void **state)
{
	struct world *world = *state;
	uint32_t vm, other;

	world->config.gpu_count = 2;
	world->config.max_workers = 1;
	world->config.pools[0].gpu_mask = 3;
	world_open(world);
	vm = world_add_vm(world, NULL);
	other = world_add_vm(world, NULL);
	world_submit(world, other, 1);
	world_expect(world, CORE_ACTION_START_WORKER);
	world_submit(world, vm, 1);
	core_gpu_set_draining(world->core, world->now_ns, 0, true);
	world_look(world);
	world_expect(world, CORE_ACTION_GPU_DRAINED);
	world_expect_nothing(world);
	assert_int_equal(world_stats(world, vm).gpu, 1);
	assert_int_equal(world_stats(world, vm).depth, 1);
}

/* ---- Operators ----------------------------------------------------------------------------- */

static uint64_t job_of(const struct core_action *sent)
{
	return sent->job;
}

static void test_cancel(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL);
	uint64_t generation = world_warm(world, vm), running, queued, rest;
	struct core_action sent;

	running = world_submit(world, vm, 1);
	queued = world_submit(world, vm, 1);
	rest = world_submit(world, vm, 1);
	sent = world_expect_send(world, running);
	assert_int_equal(core_job_cancel(world->core, world->now_ns, 123456), -ENOENT);
	assert_int_equal(core_job_cancel(world->core, world->now_ns, job_of(&sent) + 1), 0);
	world_look(world);
	world_expect_answer(world, queued, VGPU_CODE_CANCELLED);
	world_expect_nothing(world);
	assert_int_equal(core_job_cancel(world->core, world->now_ns, job_of(&sent)), 0);
	world_look(world);
	world_expect_answer(world, running, VGPU_CODE_CANCELLED);
	world_expect(world, CORE_ACTION_KILL_WORKER);
	world_expect_nothing(world);
	assert_int_equal(core_job_cancel(world->core, world->now_ns, job_of(&sent)), -ENOENT);
	world_dead(world, vm, generation);
	world_start_worker(world, vm);
	world_expect_send(world, rest);
	assert_int_equal(world_stats(world, vm).fault_score, 0);
}

/* ---- The end ----------------------------------------------------------------------------------
 */

static void test_shutdown(void **state)
{
	struct world *world = *state;
	uint32_t idle = world_add_vm(world, NULL), busy = world_add_vm(world, NULL);
	uint32_t starting = world_add_vm(world, NULL);
	uint64_t idle_generation = world_warm(world, idle);
	uint64_t busy_generation = world_warm(world, busy);
	uint64_t running, queued, waiting, late, starting_generation;
	struct core_action sent;
	struct core_stats stats;

	running = world_submit(world, busy, 1);
	queued = world_submit(world, busy, 1);
	sent = world_expect_send(world, running);
	waiting = world_submit(world, starting, 1);
	starting_generation = world_expect(world, CORE_ACTION_START_WORKER).generation;
	core_shutdown(world->core, world->now_ns);
	world_look(world);
	world_expect(world, CORE_ACTION_STOP_WORKER);
	world_expect_answer(world, queued, VGPU_CODE_UNAVAILABLE);
	world_expect_answer(world, waiting, VGPU_CODE_UNAVAILABLE);
	world_expect(world, CORE_ACTION_KILL_WORKER);
	world_expect_nothing(world);
	late = world_submit(world, idle, 1);
	world_expect_answer(world, late, VGPU_CODE_UNAVAILABLE);
	world_dead(world, idle, idle_generation);
	world_dead(world, starting, starting_generation);
	world_expect_nothing(world);
	world_done(world, &sent, VGPU_CODE_OK, 0);
	world_expect_answer(world, running, VGPU_CODE_OK);
	world_expect(world, CORE_ACTION_STOP_WORKER);
	world_dead(world, busy, busy_generation);
	world_pass(world, 3600 * S);
	world_expect_nothing(world);
	core_stats(world->core, &stats);
	assert_int_equal(stats.jobs + stats.workers, 0);
	assert_int_equal(core_deadline_ns(world->core), SCHED_NEVER);
}

/* Every job has its answer, wherever it is, even one that waits for its quarantine. */
static void test_abandon(void **state)
{
	struct world *world = *state;
	uint32_t vm = world_add_vm(world, NULL), held = world_add_vm(world, NULL);
	uint64_t running, queued, blamed, cookie;

	world->config.quarantine_threshold = 1;
	core_config_set(world->core, world->now_ns, &world->config);
	blamed = world_submit(world, held, 1);
	cookie = world_start_worker(world, held);
	world_expect_send(world, blamed);
	world_dead(world, held, cookie);
	world_expect(world, CORE_ACTION_STORE);
	world_warm(world, vm);
	running = world_submit(world, vm, 1);
	queued = world_submit(world, vm, 1);
	world_expect_send(world, running);
	/* What the teardown does to every test, with one job of each kind. */
	core_abandon(world->core);
	for (struct core_action action; core_next_action(world->core, &action);) {
		assert_int_equal(action.type, CORE_ACTION_ANSWER);
		assert_int_equal(++world->answers[action.cookie], 1);
		assert_int_equal(action.answer.code,
		                 action.cookie == blamed ? VGPU_CODE_CUDA : VGPU_CODE_UNAVAILABLE);
	}
	assert_int_equal(world->answers[blamed] + world->answers[running] + world->answers[queued],
	                 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_OPEN(test_removal),
		TEST_OPEN(test_removal_in_each_state),
		TEST_OPEN(test_removal_with_a_hang),
		TEST_OPEN(test_stale_events),
		TEST_OPEN(test_a_job_of_another_vm),
		cmocka_unit_test(test_what_a_vm_may_claim),
		TEST_CLOSED(test_vms_spread_by_weight),
		TEST_CLOSED(test_a_vm_moves),
		TEST_CLOSED(test_a_pool_moves),
		TEST_CLOSED(test_no_memory_to_move),
		TEST_CLOSED(test_drain),
		TEST_CLOSED(test_drain_with_stuck_workers),
		TEST_CLOSED(test_drain_of_an_unused_gpu),
		TEST_CLOSED(test_drained_gpus_are_avoided),
		TEST_CLOSED(test_a_vm_of_a_drained_gpu_is_the_guest_of_another),
		TEST_CLOSED(test_a_queue_leaves_a_drained_gpu),
		TEST_OPEN(test_cancel),
		TEST_OPEN(test_shutdown),
		TEST_OPEN(test_abandon),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
