/* SPDX-License-Identifier: MIT */
/*
 * A core with a clock of its own, for tests that bring events one by one and look at
 * every action that comes out.
 *
 * After each event the core's invariants are checked and its actions are kept in their
 * order; a test takes them with the expect functions and says when there are no more.
 * Payloads are the addresses of the submission's cookie, so that mixed-up ones are seen.
 */
#ifndef TESTS_CORE_WORLD_H
#define TESTS_CORE_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/units.h"
#include "core/core.h"

#define MS NS_PER_MS
#define S  NS_PER_SEC

enum {
	WORLD_ACTIONS = 4096,   /* kept at once */
	WORLD_JOBS = 4096,      /* submitted in all */
	WORLD_DEATH_STATUS = 9, /* of workers that die: killed by signal 9 */
};

struct world {
	struct core_config config;
	struct core *core;
	int64_t now_ns;
	struct core_action actions[WORLD_ACTIONS]; /* not taken yet */
	unsigned int first;
	unsigned int count;
	uint64_t submitted;               /* the next cookie, from 1 */
	char payloads[WORLD_JOBS];        /* the payload of cookie n is &payloads[n] */
	unsigned int answers[WORLD_JOBS]; /* how many went out, by cookie */
};

/*
 * A world with the defaults: round robin, one GPU. Tests change @world->config before
 * world_open(). The caller frees it with world_free(), which brings what is left to its
 * end and checks that each job was answered exactly once.
 */
struct world *world_new(void);
void world_open(struct world *world);
void world_free(struct world *world);

/* Fixtures of cmocka: a world with the defaults, one that the test opens, and one in which
 * each pool has a GPU of its own. */
#define TEST_OPEN(test)   cmocka_unit_test_setup_teardown(test, world_setup, world_teardown)
#define TEST_CLOSED(test) cmocka_unit_test_setup_teardown(test, world_setup_closed, world_teardown)
#define TEST_TWO_GPUS(test) \
	cmocka_unit_test_setup_teardown(test, world_setup_two_gpus, world_teardown)

int world_setup(void **state);
int world_setup_closed(void **state);
int world_setup_two_gpus(void **state);
int world_teardown(void **state);

/* After an event that the test has brought itself. */
void world_look(struct world *world);

/* Lets time pass, with a tick at each deadline, and one at the end. */
void world_pass(struct world *world, int64_t ns);

uint32_t world_add_vm(struct world *world, const struct vm_settings *settings);
/* Returns the job's cookie. */
uint64_t world_submit(struct world *world, uint32_t vm, uint64_t client);
uint64_t world_submit_without_gpu(struct world *world, uint32_t vm, uint64_t client);
void world_ready(struct world *world, uint32_t vm, uint64_t generation);
void world_dead(struct world *world, uint32_t vm, uint64_t generation);
/* Returns what core_job_done() does. */
int world_done(struct world *world, const struct core_action *sent, enum vgpu_code code,
               uint32_t detail);

/* The job has failed with that CUresult, and the worker's context with it. */
void world_lost(struct world *world, const struct core_action *sent, uint32_t detail);
/* What came of a STORE. */
void world_stored(struct world *world, const struct core_store *store, bool stored);

/* The next action, which must be of that type. */
struct core_action world_expect(struct world *world, enum core_action_type type);
void world_expect_nothing(struct world *world);
/* An answer to @cookie, and nothing in its payload that is another's. */
struct core_action world_expect_answer(struct world *world, uint64_t cookie, enum vgpu_code code);
struct core_action world_expect_send(struct world *world, uint64_t cookie);

/* The STORE of a fault that has just happened, and not more than one. */
struct core_store world_expect_fault(struct world *world, enum core_fault fault);
/* The same, and it is stored. */
struct core_store world_store_fault(struct world *world, enum core_fault fault);

/* START_WORKER is expected, and the worker becomes ready. Returns its generation. */
uint64_t world_start_worker(struct world *world, uint32_t vm);
/* Submits a job, which is sent at once, and ends it well: the worker is there and idle after it. */
uint64_t world_warm(struct world *world, uint32_t vm);

struct core_vm_stats world_stats(struct world *world, uint32_t vm);

#endif
