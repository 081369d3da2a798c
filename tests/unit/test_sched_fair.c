/* SPDX-License-Identifier: MIT */
/*
 * The fair scheduler: against the naive one, action by action, on random events; and
 * the rules one by one on scripts small enough to follow by hand.
 */
#include "core/sched.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/util.h"
#include "sched_naive.h"

#define MS NS_PER_MS
#define US NS_PER_US

static const struct sched_config config_default = {
	.quantum_ns = 4 * MS,
	.slice_ns = 2150 * US,
	.handover_ns = 150 * US,
	.overlap_after_ns = 50 * MS,
	.wake_lead_ns = 200 * MS,
	.anticipation_ns = 150 * US,
	.overlap_max = 32,
	.boost_percent = 50,
};

/* ---- Two schedulers in lockstep ------------------------------------------- */

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

	pair->config = config_default;
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
		to_ns += (int64_t)random_below(pair, steps_ns[random_below(pair, 5)]);
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
		struct pair pair = {.random = seed * UINT64_C(0x9e3779b97f4a7c15)};

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
	assert_true(waits > 1000);
	assert_true(beside > 100000);
	assert_true(refused > 100000);
}

/* ---- Scripts --------------------------------------------------------------- */

struct script {
	struct sched *sched;
	struct sched_config config;
	int64_t now_ns;
	struct script_vm {
		struct script *script;
		struct sched_vm *vm;
	} vms[8];
};

static int64_t since_now_ns(const void *owner)
{
	return ((const struct script_vm *)owner)->script->now_ns;
}

static void script_start(struct script *script, int32_t overlap_max, int vms)
{
	memset(script, 0, sizeof(*script));
	script->config = config_default;
	script->config.overlap_max = overlap_max;
	assert_int_equal(sched_fair.create(&script->sched, &script->config, since_now_ns, 0), 0);
	for (int i = 0; i < vms; i++) {
		struct script_vm *vm = &script->vms[i];

		vm->script = script;
		assert_int_equal(
			sched_fair.vm_add(script->sched, 0, &vm->vm, (uint32_t)i, 100, 1, 0, vm),
			0);
		sched_fair.vm_enable(script->sched, 0, vm->vm, true);
	}
}

static void at(struct script *script, int64_t now_ns)
{
	script->now_ns = now_ns;
}

static void script_queue(struct script *script, int vm, int count)
{
	for (int i = 0; i < count; i++)
		sched_fair.job_queued(script->sched, script->now_ns, script->vms[vm].vm);
}

static void script_done(struct script *script, int vm)
{
	sched_fair.job_done(script->sched, script->now_ns, script->vms[vm].vm);
}

/* The VM whose job is sent now, or -1. */
static int script_next(struct script *script)
{
	struct script_vm *vm = sched_fair.next(script->sched, script->now_ns);
	const char *wrong = vm ? NULL : sched_fair.check(script->sched);

	if (wrong)
		fail_msg("%s", wrong);
	return vm ? (int)(vm - script->vms) : -1;
}

static void script_end(struct script *script)
{
	while (script_next(script) >= 0)
		;
	sched_fair.destroy(script->sched);
}

static int64_t script_charged(struct script *script, int vm)
{
	return sched_fair.charged_ns(script->sched, script->now_ns, script->vms[vm].vm);
}

/* Runs backlogged VMs one job after another until @until_ns; jobs take @job_ns[vm]. */
static void script_run(struct script *script, const int64_t *job_ns, int vms, int64_t until_ns)
{
	for (int i = 0; i < vms; i++)
		script_queue(script, i, 8);
	while (script->now_ns < until_ns) {
		int first = script_next(script);

		assert_true(first >= 0);
		while (script_next(script) >= 0)
			;
		for (struct sched_vm_stats stats = {.in_flight = 1}; stats.in_flight;) {
			at(script, script->now_ns + job_ns[first]);
			script_queue(script, first, 1);
			script_done(script, first);
			sched_fair.vm_stats(script->sched, script->vms[first].vm, &stats);
		}
	}
}

static void test_exclusive_turns_share_time_by_weight(void **state UNUSED)
{
	static const int64_t job_ns[] = {1 * MS, 5 * MS, 20 * MS, 50 * MS};
	struct script script;

	script_start(&script, 1, 4);
	for (int i = 0; i < 4; i++)
		sched_fair.vm_set_phi(script.sched, 0, script.vms[i].vm, 100 << i, 1);
	script_run(&script, job_ns, 4, 20000 * MS);
	for (int i = 0; i < 4; i++) {
		int64_t share_ppm = script_charged(&script, i) * 1000 / (script.now_ns / 1000);

		assert_in_range(share_ppm, (1 << i) * 1000000 / 15 * 98 / 100,
		                (1 << i) * 1000000 / 15 * 102 / 100);
	}
	script_end(&script);
}

static void test_priority_breaks_ties_then_wait_then_id(void **state UNUSED)
{
	struct script script;

	script_start(&script, 1, 5);
	sched_fair.vm_set_phi(script.sched, 0, script.vms[3].vm, 100, 2);
	script_queue(&script, 4, 1);
	at(&script, 1);
	script_queue(&script, 2, 1);
	script_queue(&script, 1, 1);
	script_queue(&script, 3, 1);
	assert_int_equal(script_next(&script), 3);
	assert_int_equal(script_next(&script), -1);
	script_done(&script, 3);
	assert_int_equal(script_next(&script), 4);
	script_done(&script, 4);
	assert_int_equal(script_next(&script), 1);
	script_done(&script, 1);
	assert_int_equal(script_next(&script), 2);
	script_done(&script, 2);
	script_end(&script);
}

static void test_launch_ahead_once_job_length_is_known(void **state UNUSED)
{
	struct script script;

	script_start(&script, 32, 2);
	script_queue(&script, 0, 10);
	assert_int_equal(script_next(&script), 0);
	assert_int_equal(script_next(&script), -1); /* unknown: one at a time */
	at(&script, 50 * US);
	script_done(&script, 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(script_next(&script), 0); /* shorter than 100 us: four */
	assert_int_equal(script_next(&script), -1);
	for (int i = 0; i < 4; i++)
		script_done(&script, 0);
	/* Answers that cost nothing pull the mean down; a long job brings it up again. */
	while (script_next(&script) >= 0)
		;
	at(&script, script.now_ns + 2 * MS);
	script_done(&script, 0);
	for (int i = 0; i < 3; i++)
		script_done(&script, 0);
	script_queue(&script, 0, 10);
	assert_int_equal(script_next(&script), 0);
	assert_int_equal(script_next(&script), 0);
	assert_int_equal(script_next(&script), -1); /* longer than 100 us: two */
	script_done(&script, 0);
	script_done(&script, 0);
	script_end(&script);
}

static void test_overrun_turn_gets_no_more(void **state UNUSED)
{
	struct script script;

	script_start(&script, 1, 2);
	script_queue(&script, 0, 10);
	assert_int_equal(script_next(&script), 0);
	at(&script, 3 * MS);
	script_queue(&script, 1, 1);
	assert_int_equal(script_next(&script), -1);
	at(&script, 5 * MS); /* past the quantum, one job still out */
	script_done(&script, 0);
	assert_int_equal(script_next(&script), 1);
	assert_int_equal(script_next(&script), -1);
	script_done(&script, 1);
	script_end(&script);
}

static void test_sleeping_earns_nothing(void **state UNUSED)
{
	struct script script;

	/* VM 1 sleeps for 10 s, then both are backlogged: from there on they share equally. */
	script_start(&script, 1, 2);
	script_run(&script, (int64_t[]){10 * MS}, 1, 10000 * MS);
	int64_t before = script_charged(&script, 0);

	script_run(&script, (int64_t[]){10 * MS, 10 * MS}, 2, 20000 * MS);
	assert_in_range(script_charged(&script, 0) - before, 4900 * MS, 5100 * MS);
	assert_in_range(script_charged(&script, 1), 4900 * MS, 5100 * MS);
	script_end(&script);
}

static void test_woken_vm_is_admitted_beside_a_long_job(void **state UNUSED)
{
	struct script script;
	int64_t look_ns;

	script_start(&script, 32, 3);
	/* VM 1 has had a short turn, so its patience is short. */
	script_queue(&script, 1, 1);
	assert_int_equal(script_next(&script), 1);
	at(&script, 100 * US);
	script_done(&script, 1);
	script_queue(&script, 0, 1);
	assert_int_equal(script_next(&script), 0);
	at(&script, 200 * US);
	script_queue(&script, 1, 1);
	assert_int_equal(script_next(&script), -1);
	look_ns = sched_fair.deadline(script.sched);
	assert_true(look_ns == 100 * US + 100 * US + 300 * US); /* opened + e + 2h */
	at(&script, look_ns - 1);
	assert_int_equal(script_next(&script), -1);
	at(&script, look_ns);
	assert_int_equal(script_next(&script), 1);
	assert_int_equal(script_next(&script), -1);
	script_done(&script, 1);
	script_done(&script, 0);
	script_end(&script);
}

static void test_exclusive_mode_admits_nobody(void **state UNUSED)
{
	struct script script;

	script_start(&script, 1, 2);
	script_queue(&script, 0, 1);
	assert_int_equal(script_next(&script), 0);
	script_queue(&script, 1, 1);
	at(&script, 20000 * MS);
	assert_int_equal(script_next(&script), -1);
	assert_true(sched_fair.deadline(script.sched) == SCHED_NEVER);
	script_done(&script, 0);
	assert_int_equal(script_next(&script), 1);
	script_done(&script, 1);
	script_end(&script);
}

static void test_killed_vm_pays_until_reaped(void **state UNUSED)
{
	struct sched_vm_stats stats;
	struct script script;

	script_start(&script, 1, 2);
	script_queue(&script, 0, 3);
	script_queue(&script, 1, 1);
	assert_int_equal(script_next(&script), 0);
	at(&script, 30000 * MS);
	sched_fair.vm_enable(script.sched, script.now_ns, script.vms[0].vm, false);
	assert_int_equal(script_next(&script), -1); /* the GPU is not free yet */
	at(&script, 30100 * MS);
	assert_true(script_charged(&script, 0) == 30100 * MS);
	sched_fair.vm_reaped(script.sched, script.now_ns, script.vms[0].vm);
	assert_int_equal(script_next(&script), 1);
	at(&script, 30200 * MS);
	assert_true(script_charged(&script, 0) == 30100 * MS);
	assert_true(script_charged(&script, 1) == 100 * MS);
	sched_fair.vm_stats(script.sched, script.vms[0].vm, &stats);
	assert_false(stats.ready || stats.open);
	assert_int_equal(stats.queued, 2);
	script_done(&script, 1);
	sched_fair.vm_enable(script.sched, script.now_ns, script.vms[0].vm, true);
	assert_int_equal(script_next(&script), 0);
	script_done(&script, 0);
	script_end(&script);
}

static void test_weight_change_keeps_the_worth_of_tags(void **state UNUSED)
{
	struct sched_vm_stats before, after;
	struct sched_stats stats;
	struct script script;

	script_start(&script, 1, 2);
	script_queue(&script, 0, 2);
	script_queue(&script, 1, 2);
	assert_int_equal(script_next(&script), 0);
	sched_fair.vm_set_phi(script.sched, 0, script.vms[0].vm, 400, 1);
	at(&script, 50 * MS);
	sched_fair.vm_stats(script.sched, script.vms[0].vm, &before);
	script_done(&script, 0); /* charged by the old weight: the turn was open */
	sched_fair.stats(script.sched, &stats);
	sched_fair.vm_stats(script.sched, script.vms[0].vm, &after);
	assert_true(stats.virtual_time == 0);
	assert_true(after.finish_tag == 256 * 50 * MS / 400);
	sched_fair.vm_set_phi(script.sched, script.now_ns, script.vms[0].vm, 100, 1);
	sched_fair.vm_stats(script.sched, script.vms[0].vm, &after);
	assert_true(after.finish_tag == 256 * 50 * MS / 100);
	assert_true(after.start_tag == after.finish_tag);
	assert_int_equal(script_next(&script), 1);
	script_done(&script, 1);
	script_end(&script);
}

static void test_move_takes_the_lag_along(void **state UNUSED)
{
	struct script from, to;
	struct sched_vm_stats stats;
	int64_t lag;

	script_start(&from, 1, 2);
	script_start(&to, 1, 1);
	script_queue(&from, 0, 1);
	script_queue(&from, 1, 1);
	assert_int_equal(script_next(&from), 0);
	at(&from, 80 * MS);
	script_done(&from, 0);
	lag = sched_fair.vm_remove(from.sched, from.now_ns, from.vms[0].vm);
	assert_true(lag == 256 * 80 * MS / 100);
	script_run(&to, (int64_t[]){10 * MS}, 1, 100 * MS);
	assert_int_equal(
		sched_fair.vm_add(to.sched, to.now_ns, &to.vms[1].vm, 1, 100, 1, lag, &to.vms[1]),
		0);
	sched_fair.vm_stats(to.sched, to.vms[1].vm, &stats);
	assert_true(stats.finish_tag > lag);
	assert_true(stats.charged_ns == 0);
	script_end(&from);
	script_end(&to);
}

static void test_waits_for_a_vm_that_comes_back_at_once(void **state UNUSED)
{
	struct sched_vm_stats stats;
	struct script script;

	script_start(&script, 1, 2);
	for (int i = 0; i < 3; i++) { /* twice back within 60 us: known to do so */
		script_queue(&script, 0, 1);
		assert_int_equal(script_next(&script), 0);
		at(&script, script.now_ns + 100 * US);
		script_done(&script, 0);
		if (i < 2)
			at(&script, script.now_ns + 60 * US);
	}
	script_queue(&script, 1, 1);
	assert_int_equal(script_next(&script), -1); /* a permitted wait */
	assert_true(sched_fair.deadline(script.sched) == script.now_ns + 150 * US);
	at(&script, script.now_ns + 60 * US);
	script_queue(&script, 0, 1);
	assert_int_equal(script_next(&script), 0);
	at(&script, script.now_ns + 100 * US);
	script_done(&script, 0);
	assert_int_equal(script_next(&script), -1);
	at(&script, script.now_ns + 150 * US);
	assert_int_equal(script_next(&script), 1); /* it did not come: on with the next */
	sched_fair.vm_stats(script.sched, script.vms[0].vm, &stats);
	assert_false(stats.open);
	script_done(&script, 1);
	script_end(&script);
}

static void test_drained_vm_gets_no_turn(void **state UNUSED)
{
	struct script script;

	script_start(&script, 32, 2);
	script_queue(&script, 0, 5);
	assert_int_equal(script_next(&script), 0);
	sched_fair.vm_enable(script.sched, 0, script.vms[0].vm, false);
	at(&script, 1 * MS);
	script_done(&script, 0);
	assert_int_equal(script_next(&script), -1);
	sched_fair.vm_enable(script.sched, script.now_ns, script.vms[0].vm, true);
	assert_int_equal(script_next(&script), 0);
	script_done(&script, 0);
	script_end(&script);
}

static void test_hang_is_thinned(void **state UNUSED)
{
	struct script script;
	int64_t short_ns = 0;

	/* VM 0 hangs; VMs 1 and 2 with 20 ms jobs go on beside it. */
	script_start(&script, 32, 3);
	script_queue(&script, 0, 1);
	assert_int_equal(script_next(&script), 0);
	at(&script, 2000 * MS);
	script_queue(&script, 1, 4);
	script_queue(&script, 2, 4);
	assert_int_equal(script_next(&script), 1);
	assert_int_equal(script_next(&script), 2);
	assert_int_equal(script_next(&script), -1);
	at(&script, 3500 * MS);
	for (int i = 0; i < 3; i++)
		short_ns += i ? script_charged(&script, i) : 0;
	assert_in_range(short_ns, 990 * MS, 1010 * MS);
	script_end(&script);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lockstep_with_naive),
		cmocka_unit_test(test_exclusive_turns_share_time_by_weight),
		cmocka_unit_test(test_priority_breaks_ties_then_wait_then_id),
		cmocka_unit_test(test_launch_ahead_once_job_length_is_known),
		cmocka_unit_test(test_overrun_turn_gets_no_more),
		cmocka_unit_test(test_sleeping_earns_nothing),
		cmocka_unit_test(test_woken_vm_is_admitted_beside_a_long_job),
		cmocka_unit_test(test_exclusive_mode_admits_nobody),
		cmocka_unit_test(test_killed_vm_pays_until_reaped),
		cmocka_unit_test(test_weight_change_keeps_the_worth_of_tags),
		cmocka_unit_test(test_move_takes_the_lag_along),
		cmocka_unit_test(test_waits_for_a_vm_that_comes_back_at_once),
		cmocka_unit_test(test_drained_vm_gets_no_turn),
		cmocka_unit_test(test_hang_is_thinned),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
