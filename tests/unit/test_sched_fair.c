/* SPDX-License-Identifier: MIT */
/*
 * The fair scheduler's rules one by one, on scripts small enough to follow by hand.
 */
#include "core/schedule/sched.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/units.h"
#include "base/util.h"

#define MS NS_PER_MS
#define US NS_PER_US

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
	script->config = sched_config_default;
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
		assert_int_equal(script_next(&script), 0); /* shorter than 250 us: four */
	assert_int_equal(script_next(&script), -1);
	for (int i = 0; i < 4; i++)
		script_done(&script, 0);
	/* Long jobs, one after the other, bring the mean up. */
	while (script_next(&script) >= 0)
		;
	for (int i = 0; i < 4; i++)
		script_done(&script, 0);
	script_queue(&script, 0, 1);
	assert_int_equal(script_next(&script), 0);
	at(&script, script.now_ns + 3 * MS);
	script_done(&script, 0);
	script_queue(&script, 0, 10);
	assert_int_equal(script_next(&script), 0);
	assert_int_equal(script_next(&script), 0);
	assert_int_equal(script_next(&script), -1); /* longer than 250 us: two */
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
	/* opened, and an eighth more than the turn that it had, and twice the hand-over */
	assert_true(look_ns == 100 * US + 112500 + 300 * US);
	at(&script, look_ns - 1);
	assert_int_equal(script_next(&script), -1);
	at(&script, look_ns);
	assert_int_equal(script_next(&script), 1);
	assert_int_equal(script_next(&script), -1);
	script_done(&script, 1);
	script_done(&script, 0);
	script_end(&script);
}

static void test_vm_that_goes_over_to_long_jobs_is_not_taken_for_quick(void **state UNUSED)
{
	struct script script;

	script_start(&script, 32, 2);
	for (int i = 0; i < 20; i++) {
		script_queue(&script, 1, 1);
		assert_int_equal(script_next(&script), 1);
		at(&script, script.now_ns + 100 * US);
		script_done(&script, 1);
		at(&script, script.now_ns + MS);
	}
	script_queue(&script, 1, 1);
	assert_int_equal(script_next(&script), 1);
	at(&script, script.now_ns + 400 * MS);
	script_done(&script, 1);
	/* Its mean turn is 50 ms, its last one 400. */
	script_queue(&script, 0, 1);
	assert_int_equal(script_next(&script), 0);
	script_queue(&script, 1, 1);
	at(&script, script.now_ns + 449 * MS);
	assert_int_equal(script_next(&script), -1);
	at(&script, script.now_ns + 2 * MS);
	assert_int_equal(script_next(&script), 1);
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

/*
 * What a VM is owed is GPU time: less weight does not divide it, nor more multiply it.
 * VM 1 waits with 100 ms jobs while VM 2, whose tag goes fast, takes virtual time along.
 */
static void test_weight_change_keeps_what_is_owed(void **state UNUSED)
{
	struct sched_vm_stats stats;
	struct sched_stats all;
	struct script script;
	int64_t owed_ns, charged_ns;

	script_start(&script, 32, 3);
	for (int i = 0; i < 2; i++)
		sched_fair.vm_set_phi(script.sched, 0, script.vms[i].vm, 4000, 1);
	script_queue(&script, 0, 1);
	assert_int_equal(script_next(&script), 0);
	at(&script, 300 * MS);
	script_done(&script, 0);
	script_queue(&script, 1, 2);
	assert_int_equal(script_next(&script), 1);
	script_queue(&script, 0, 1);
	at(&script, 400 * MS);
	script_done(&script, 1);
	assert_int_equal(script_next(&script), 0); /* for long; VM 1 is kept out */
	for (int i = 0; i < 2; i++) {
		script_queue(&script, 2, 1);
		at(&script, (475 + i * 15) * MS);
		assert_int_equal(script_next(&script), 2);
		at(&script, script.now_ns + 12 * MS);
		script_done(&script, 2);
	}
	while (script_next(&script) < 0)
		at(&script, sched_fair.deadline(script.sched));
	charged_ns = script_charged(&script, 1);
	sched_fair.vm_set_phi(script.sched, script.now_ns, script.vms[1].vm, 100, 1);
	at(&script, script.now_ns + MS);
	sched_fair.stats(script.sched, &all);
	sched_fair.vm_stats(script.sched, script.vms[1].vm, &stats);
	assert_true(stats.open);
	charged_ns = script_charged(&script, 1) - charged_ns;
	owed_ns = (all.virtual_time - stats.start_tag) * 4000 / 256 - charged_ns;
	assert_in_range(owed_ns, 50 * MS, 100 * MS);
	script_done(&script, 1);
	sched_fair.vm_stats(script.sched, script.vms[1].vm, &stats);
	assert_in_range((all.virtual_time - stats.finish_tag) * 100 / 256, owed_ns - MS,
	                owed_ns + MS);
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

/* One job of VM 0, of 100 us, comes @pause_ns after its last answer and is sent at once. */
static void script_job_after(struct script *script, int64_t pause_ns)
{
	at(script, script->now_ns + pause_ns);
	script_queue(script, 0, 1);
	assert_int_equal(script_next(script), 0);
	at(script, script->now_ns + 100 * US);
	script_done(script, 0);
	assert_int_equal(script_next(script), -1);
}

static void test_who_comes_late_twice_is_waited_for_no_more(void **state UNUSED)
{
	struct script script;

	script_start(&script, 1, 2);
	for (int i = 0; i < 10; i++)
		script_job_after(&script, 60 * US);
	script_job_after(&script, 10 * MS);
	script_job_after(&script, 10 * MS);
	script_queue(&script, 1, 1);
	assert_int_equal(script_next(&script), 1);
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

/* Nothing happens for a second: the scheduler itself asks to be asked again. */
static void test_hang_is_thinned_in_time(void **state UNUSED)
{
	struct script script;

	script_start(&script, 32, 2);
	script.config.overlap_after_ns = 10000 * MS;
	sched_fair.configure(script.sched, 0, &script.config);
	script_queue(&script, 1, 1);
	assert_int_equal(script_next(&script), 1);
	script_queue(&script, 1, 8);
	script_queue(&script, 0, 1);
	at(&script, 100 * MS);
	script_done(&script, 1);
	assert_int_equal(script_next(&script), 0); /* and hangs */
	assert_int_equal(script_next(&script), -1);
	while (script_next(&script) < 0) {
		assert_true(sched_fair.deadline(script.sched) != SCHED_NEVER);
		at(&script, sched_fair.deadline(script.sched));
	}
	assert_in_range(script.now_ns, 1100 * MS, 1101 * MS);
	script_end(&script);
}

/* A wait as a new turn is a turn: it needs a place as any other. */
static void test_waiting_needs_a_place(void **state UNUSED)
{
	struct sched_stats stats;
	struct script script;

	script_start(&script, 32, 3);
	script_queue(&script, 2, 1);
	assert_int_equal(script_next(&script), 2);
	at(&script, 64 * MS);
	script_done(&script, 2);
	/* VM 0 comes back at once, with jobs over the quantum, and is always the next. */
	sched_fair.vm_set_phi(script.sched, script.now_ns, script.vms[0].vm, 40000, 1);
	for (int i = 0; i < 3; i++) {
		script_queue(&script, 0, 1);
		assert_int_equal(script_next(&script), 0);
		at(&script, script.now_ns + 5 * MS);
		script_done(&script, 0);
		at(&script, script.now_ns + 60 * US);
	}
	script_queue(&script, 0, 1);
	assert_int_equal(script_next(&script), 0);
	script_queue(&script, 1, 8);
	at(&script, script.now_ns + 200 * MS);
	assert_int_equal(script_next(&script), 1); /* beside it */
	script_queue(&script, 2, 1);
	script.config.overlap_max = 1;
	sched_fair.configure(script.sched, script.now_ns, &script.config);
	at(&script, script.now_ns + 5 * MS);
	script_done(&script, 0);
	sched_fair.stats(script.sched, &stats);
	assert_int_equal(stats.open, 1);
	assert_null(sched_fair.check(script.sched));
	script_end(&script);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exclusive_turns_share_time_by_weight),
		cmocka_unit_test(test_priority_breaks_ties_then_wait_then_id),
		cmocka_unit_test(test_launch_ahead_once_job_length_is_known),
		cmocka_unit_test(test_overrun_turn_gets_no_more),
		cmocka_unit_test(test_sleeping_earns_nothing),
		cmocka_unit_test(test_woken_vm_is_admitted_beside_a_long_job),
		cmocka_unit_test(test_vm_that_goes_over_to_long_jobs_is_not_taken_for_quick),
		cmocka_unit_test(test_exclusive_mode_admits_nobody),
		cmocka_unit_test(test_killed_vm_pays_until_reaped),
		cmocka_unit_test(test_weight_change_keeps_the_worth_of_tags),
		cmocka_unit_test(test_weight_change_keeps_what_is_owed),
		cmocka_unit_test(test_move_takes_the_lag_along),
		cmocka_unit_test(test_waits_for_a_vm_that_comes_back_at_once),
		cmocka_unit_test(test_who_comes_late_twice_is_waited_for_no_more),
		cmocka_unit_test(test_drained_vm_gets_no_turn),
		cmocka_unit_test(test_hang_is_thinned),
		cmocka_unit_test(test_hang_is_thinned_in_time),
		cmocka_unit_test(test_waiting_needs_a_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
