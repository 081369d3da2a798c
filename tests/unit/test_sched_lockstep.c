/* SPDX-License-Identifier: MIT */
/*
 * The fair scheduler against the naive one, action by action, on random events: both
 * get the same calls and must send the same jobs, ask for the same deadlines and show
 * the same tags.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/units.h"
#include "base/util.h"
#include "core/schedule/sched.h"
#include "sched_naive.h"

#define MS NS_PER_MS
#define US NS_PER_US

enum { VMS = 12, SIDES = 2, FIFO = 64 };

struct owner {
	bool exists;
	struct sched_vm *vm[SIDES];
	int64_t since_ns[FIFO]; /* of the queued jobs, oldest first */
	uint32_t queued;
	uint32_t in_flight;
};

struct pair {
	struct sched *sched[SIDES];
	struct owner owners[VMS];
	struct sched_config config;
	uint64_t random;
	uint64_t stretch; /* of steps: with long ones, turns take seconds */
	int64_t now_ns;
	uint64_t sent;
	uint64_t waits;   /* looks at a turn that waits for its next job */
	uint64_t beside;  /* looks at several open turns */
	uint64_t refused; /* looks at a ready VM beside open turns */
};

static const struct sched_policy *const sides[SIDES] = {&sched_fair, &sched_naive};

static uint64_t random_below(struct pair *pair, uint64_t bound)
{
	pair->random ^= pair->random << 13;
	pair->random ^= pair->random >> 7;
	pair->random ^= pair->random << 17;
	return (pair->random >> 11) % bound;
}

static int64_t oldest_since_ns(const void *context)
{
	const struct owner *owner = context;

	assert_true(owner->queued > 0);
	return owner->since_ns[0];
}

#define BOTH(pair, side) for (int side = 0; side < SIDES; side++)

#define SAME(a, b, field)                                                              \
	do {                                                                           \
		if ((a).field != (b).field)                                            \
			fail_msg("%s: %lld, naive %lld", #field, (long long)(a).field, \
			         (long long)(b).field);                                \
	} while (0)

static void assert_same_vm(struct pair *pair, struct owner *owner)
{
	struct sched_vm_stats stats[SIDES];

	BOTH(pair, side)
	sides[side]->vm_stats(pair->sched[side], owner->vm[side], &stats[side]);
	pair->waits += stats[0].open && stats[0].in_flight == 0;
	SAME(stats[0], stats[1], charged_ns);
	SAME(stats[0], stats[1], turns);
	SAME(stats[0], stats[1], queued);
	SAME(stats[0], stats[1], in_flight);
	SAME(stats[0], stats[1], ready);
	SAME(stats[0], stats[1], open);
	SAME(stats[0], stats[1], start_tag);
	SAME(stats[0], stats[1], finish_tag);
	SAME(stats[0], stats[1], key);
	SAME(stats[0], stats[1], estimate_turn_ns);
	SAME(stats[0], stats[1], estimate_job_ns);
	SAME(stats[0], stats[1], boost_ppm);
}

static void assert_same(struct pair *pair)
{
	struct sched_stats stats[SIDES];
	const char *wrong = sched_fair.check(pair->sched[0]);

	if (wrong)
		fail_msg("%s", wrong);
	BOTH(pair, side)
	sides[side]->stats(pair->sched[side], &stats[side]);
	pair->beside += stats[0].open > 1;
	pair->refused += stats[0].ready && stats[0].open;
	SAME(stats[0], stats[1], busy_ns);
	SAME(stats[0], stats[1], idle_ns);
	SAME(stats[0], stats[1], turns);
	SAME(stats[0], stats[1], context_switches);
	SAME(stats[0], stats[1], open);
	SAME(stats[0], stats[1], ready);
	SAME(stats[0], stats[1], virtual_time);
	assert_true(sched_fair.deadline(pair->sched[0]) == sched_naive.deadline(pair->sched[1]));
	for (int i = 0; i < VMS; i++)
		if (pair->owners[i].exists)
			assert_same_vm(pair, &pair->owners[i]);
}

/* Pulls until nothing is left, as the core does after every event. */
static void pull(struct pair *pair)
{
	for (;;) {
		struct owner *owner[SIDES];

		BOTH(pair, side)
		owner[side] = sides[side]->next(pair->sched[side], pair->now_ns);
		assert_ptr_equal(owner[0], owner[1]);
		if (!owner[0])
			break;
		assert_true(owner[0]->queued > 0);
		owner[0]->queued--;
		memmove(owner[0]->since_ns, owner[0]->since_ns + 1,
		        sizeof(owner[0]->since_ns[0]) * owner[0]->queued);
		owner[0]->in_flight++;
		pair->sent++;
	}
	assert_same(pair);
}

static int32_t random_phi(struct pair *pair)
{
	return (int32_t)(100 + random_below(pair, random_below(pair, 2) ? 9900 : 300))
	       << random_below(pair, 3);
}

static void add(struct pair *pair, struct owner *owner, uint32_t id)
{
	int32_t phi = random_phi(pair);
	uint32_t priority = (uint32_t)random_below(pair, 3);
	int64_t lag = random_below(pair, 4) ? 0 : (int64_t)random_below(pair, 1000000000);

	*owner = (struct owner){.exists = true};
	BOTH(pair, side)
	{
		assert_int_equal(sides[side]->vm_add(pair->sched[side], pair->now_ns,
		                                     &owner->vm[side], id, phi, priority, lag,
		                                     owner),
		                 0);
		sides[side]->vm_enable(pair->sched[side], pair->now_ns, owner->vm[side], true);
	}
}

static void drop(struct pair *pair, struct owner *owner, uint32_t count)
{
	owner->queued -= count;
	BOTH(pair, side)
	sides[side]->jobs_dropped(pair->sched[side], pair->now_ns, owner->vm[side], count);
}

static void reap(struct pair *pair, struct owner *owner)
{
	owner->in_flight = 0;
	BOTH(pair, side)
	sides[side]->vm_reaped(pair->sched[side], pair->now_ns, owner->vm[side]);
}

static void enable(struct pair *pair, struct owner *owner, bool enabled)
{
	BOTH(pair, side)
	sides[side]->vm_enable(pair->sched[side], pair->now_ns, owner->vm[side], enabled);
}

static void remove_vm(struct pair *pair, struct owner *owner)
{
	int64_t lag[SIDES];

	if (owner->queued)
		drop(pair, owner, owner->queued);
	if (owner->in_flight)
		reap(pair, owner);
	BOTH(pair, side)
	lag[side] = sides[side]->vm_remove(pair->sched[side], pair->now_ns, owner->vm[side]);
	assert_true(lag[0] == lag[1]);
	owner->exists = false;
}

static void queue(struct pair *pair, struct owner *owner)
{
	if (owner->queued == FIFO)
		return;
	owner->since_ns[owner->queued++] = pair->now_ns;
	BOTH(pair, side)
	sides[side]->job_queued(pair->sched[side], pair->now_ns, owner->vm[side]);
}

static void random_config(struct pair *pair)
{
	static const int32_t overlaps[] = {1, 2, 3, 32};

	pair->config = sched_config_default;
	pair->config.overlap_max = overlaps[random_below(pair, ARRAY_LEN(overlaps))];
	pair->config.boost_percent = (int32_t)random_below(pair, 101);
	pair->config.overlap_after_ns = (int64_t)random_below(pair, 100) * MS;
	pair->config.wake_lead_ns = (int64_t)random_below(pair, 400) * MS;
	pair->config.anticipation_ns = (int64_t)random_below(pair, 3) * 150 * US;
	pair->config.slice_ns = (int64_t)(1000 + random_below(pair, 2000)) * US;
}

static void random_event(struct pair *pair)
{
	uint32_t id = (uint32_t)random_below(pair, VMS);
	struct owner *owner = &pair->owners[id];
	uint64_t what = random_below(pair, 1000);

	if (!owner->exists) {
		if (what < 200)
			add(pair, owner, id);
	} else if (what < 480) {
		queue(pair, owner);
	} else if (what < 960) {
		for (int i = 0; i < VMS && !(owner->exists && owner->in_flight); i++)
			owner = &pair->owners[(id + (uint32_t)i) % VMS];
		if (!owner->exists || owner->in_flight == 0)
			return;
		owner->in_flight--;
		BOTH(pair, side)
		sides[side]->job_done(pair->sched[side], pair->now_ns, owner->vm[side]);
	} else if (what < 970) {
		enable(pair, owner, random_below(pair, 2));
	} else if (what < 980) {
		int32_t phi = random_phi(pair);

		BOTH(pair, side)
		sides[side]->vm_set_phi(pair->sched[side], pair->now_ns, owner->vm[side], phi,
		                        what % 3);
	} else if (what < 986) {
		drop(pair, owner, (uint32_t)random_below(pair, owner->queued + 1));
	} else if (what < 992) {
		reap(pair, owner);
	} else if (what < 994) {
		remove_vm(pair, owner);
	} else if (what < 996) {
		random_config(pair);
		BOTH(pair, side)
		sides[side]->configure(pair->sched[side], pair->now_ns, &pair->config);
	} else {
		for (int i = 0; i < VMS; i++)
			if (pair->owners[i].exists)
				enable(pair, &pair->owners[i], true);
	}
}

/* Mostly short steps, some long ones, often exactly the next deadline. */
static void random_step(struct pair *pair)
{
	static const uint64_t steps_ns[] = {1, 40 * 1000, 300 * 1000, 5000 * 1000,
	                                    200 * 1000 * 1000};
	int64_t deadline_ns = sched_fair.deadline(pair->sched[0]);
	int64_t to_ns = pair->now_ns;

	if (random_below(pair, 3))
		to_ns += (int64_t)random_below(pair,
		                               steps_ns[random_below(pair, 5)] * pair->stretch);
	if (deadline_ns <= to_ns + (int64_t)random_below(pair, 500) * US) {
		pair->now_ns = max_i64(pair->now_ns, deadline_ns);
		pull(pair);
	}
	pair->now_ns = max_i64(pair->now_ns, to_ns);
}

static void test_lockstep_with_naive(void **state UNUSED)
{
	uint64_t sent = 0, waits = 0, beside = 0, refused = 0;

	for (uint64_t seed = 1; seed <= 200; seed++) {
		struct pair pair = {
			.random = seed * UINT64_C(0x9e3779b97f4a7c15),
			.stretch = seed % 4 ? 1 : 40,
		};

		random_config(&pair);
		BOTH(&pair, side)
		assert_int_equal(
			sides[side]->create(&pair.sched[side], &pair.config, oldest_since_ns, 0),
			0);
		for (int i = 0; i < 2000; i++) {
			random_step(&pair);
			random_event(&pair);
			pull(&pair);
		}
		BOTH(&pair, side)
		sides[side]->destroy(pair.sched[side]);
		sent += pair.sent;
		waits += pair.waits;
		beside += pair.beside;
		refused += pair.refused;
	}
	assert_true(sent > 100000);
	assert_true(waits > 500);
	assert_true(beside > 50000);
	assert_true(refused > 100000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lockstep_with_naive),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
