/* SPDX-License-Identifier: MIT */
/*
 * The limits against a second opinion: jobs per second as a bucket of tokens, GPU time
 * as a plain account, both to the nanosecond; and what a limit that changes leaves.
 */
#include "core/limit/limit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/units.h"
#include "base/util.h"

static uint64_t random_below(uint64_t *state, uint64_t bound)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return (*state >> 11) % bound;
}

static struct vm_settings rate(int64_t thousandths, int64_t burst)
{
	return (struct vm_settings){.rate_thousandths = thousandths, .burst_jobs = burst};
}

static struct vm_settings gpu(int64_t thousandths)
{
	return (struct vm_settings){.gpu_thousandths = thousandths};
}

/* ---- Jobs per second -------------------------------------------------------- */

static void test_no_limit(void **state UNUSED)
{
	const struct vm_settings settings = rate(0, 0);
	struct limit_rate limit = {0};
	int64_t retry_ns = -1;

	for (int i = 0; i < 1000; i++)
		assert_true(limit_rate_take(&limit, &settings, 5, &retry_ns));
	assert_int_equal(retry_ns, -1);
}

/* A burst at once, then one per interval, neither earlier nor later. */
static void test_burst_and_interval(void **state UNUSED)
{
	static const struct {
		int64_t thousandths, burst, at_once, interval_ns;
	} cases[] = {
		{1000, 0, 1, NS_PER_SEC},
		{1000, 1, 1, NS_PER_SEC},
		{10000, 0, 10, NS_PER_SEC / 10},
		{10000, 1, 1, NS_PER_SEC / 10},
		{10000, 25, 25, NS_PER_SEC / 10},
		{1, 0, 1, 1000 * NS_PER_SEC},
		{1, 1000000, 1000000, 1000 * NS_PER_SEC},
		{500, 0, 1, 2 * NS_PER_SEC},
		{3000, 0, 3, 333333334}, /* rounded up: never faster than allowed */
		{1000000000, 0, 1000000, 1000},
		{1999, 0, 1, 500250126},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const struct vm_settings settings = rate(cases[i].thousandths, cases[i].burst);
		int64_t now_ns = 7 * NS_PER_SEC, retry_ns;
		struct limit_rate limit = {0};

		for (int64_t job = 0; job < cases[i].at_once; job++)
			assert_true(limit_rate_take(&limit, &settings, now_ns, &retry_ns));
		for (int job = 0; job < 3; job++) {
			assert_false(limit_rate_take(&limit, &settings, now_ns, &retry_ns));
			assert_int_equal(retry_ns, cases[i].interval_ns);
			now_ns += retry_ns - 1;
			assert_false(limit_rate_take(&limit, &settings, now_ns, &retry_ns));
			assert_int_equal(retry_ns, 1);
			now_ns++;
			assert_true(limit_rate_take(&limit, &settings, now_ns, &retry_ns));
		}
	}
}

/* The same limit as a bucket that holds burst * interval and is refilled by time. */
static void test_as_a_bucket(void **state UNUSED)
{
	uint64_t random = 42;

	for (int round = 0; round < 60; round++) {
		const struct vm_settings settings = rate(1 + (int64_t)random_below(&random, 50000),
		                                         (int64_t)random_below(&random, 8));
		int64_t interval_ns = (1000 * NS_PER_SEC + settings.rate_thousandths - 1) /
		                      settings.rate_thousandths;
		int64_t burst = settings.burst_jobs ? settings.burst_jobs
		                                    : max_i64(settings.rate_thousandths / 1000, 1);
		int64_t level_ns = burst * interval_ns, now_ns = NS_PER_SEC, retry_ns = 0;
		struct limit_rate limit = {0};

		for (int job = 0; job < 400; job++) {
			int64_t pause_ns =
				(int64_t)random_below(&random, (uint64_t)interval_ns * 2);

			if (random_below(&random, 3) == 0)
				pause_ns = 0;
			if (random_below(&random, 50) == 0)
				pause_ns *= 20;
			now_ns += pause_ns;
			level_ns = min_i64(level_ns + pause_ns, burst * interval_ns);
			if (level_ns >= interval_ns) {
				assert_true(limit_rate_take(&limit, &settings, now_ns, &retry_ns));
				level_ns -= interval_ns;
			} else {
				assert_false(limit_rate_take(&limit, &settings, now_ns, &retry_ns));
				assert_int_equal(retry_ns, interval_ns - level_ns);
			}
		}
	}
}

/* Whoever gets a higher limit does not wait for what the lower one demanded. */
static void test_a_raised_limit(void **state UNUSED)
{
	const struct vm_settings low = rate(1, 0), high = rate(100000, 5);
	struct limit_rate limit = {0};
	int64_t retry_ns;

	assert_true(limit_rate_take(&limit, &low, 0, &retry_ns));
	assert_false(limit_rate_take(&limit, &low, NS_PER_SEC, &retry_ns));
	assert_int_equal(retry_ns, 999 * NS_PER_SEC);
	assert_false(limit_rate_take(&limit, &high, NS_PER_SEC, &retry_ns));
	assert_int_equal(retry_ns, 10 * NS_PER_MS);
	assert_true(limit_rate_take(&limit, &high, NS_PER_SEC + retry_ns, &retry_ns));
}

static void test_a_lowered_limit(void **state UNUSED)
{
	const struct vm_settings high = rate(100000, 10), low = rate(1000, 0);
	struct limit_rate limit = {0};
	int64_t retry_ns;

	for (int job = 0; job < 10; job++)
		assert_true(limit_rate_take(&limit, &high, 0, &retry_ns));
	assert_false(limit_rate_take(&limit, &low, 0, &retry_ns));
	assert_int_equal(retry_ns, 100 * NS_PER_MS);
	assert_true(limit_rate_take(&limit, &low, 100 * NS_PER_MS, &retry_ns));
	assert_false(limit_rate_take(&limit, &low, 100 * NS_PER_MS, &retry_ns));
	assert_int_equal(retry_ns, NS_PER_SEC);
}

/* ---- GPU seconds per second --------------------------------------------------- */

static void test_no_budget(void **state UNUSED)
{
	const struct vm_settings settings = gpu(0);
	struct limit_budget budget = {0};

	assert_int_equal(limit_budget_debt_ns(&budget, &settings, NS_PER_SEC, NS_PER_SEC), 0);
	assert_int_equal(limit_budget_debt_ns(&budget, &settings, NS_PER_SEC, 90 * NS_PER_SEC), 0);
}

/* With the limit its debt goes. */
static void test_a_budget_taken_away(void **state UNUSED)
{
	const struct vm_settings none = gpu(0), limited = gpu(1);
	struct limit_budget budget = {0};

	assert_int_equal(limit_budget_debt_ns(&budget, &limited, 0, NS_PER_SEC), 1000 * NS_PER_SEC);
	assert_int_equal(limit_budget_debt_ns(&budget, &none, 0, 2 * NS_PER_SEC), 0);
	assert_int_equal(limit_budget_debt_ns(&budget, &limited, 0, 2 * NS_PER_SEC), 0);
}

/* One long job is paid for by a pause: 10 s at a quarter of a GPU take 40 s less what was saved. */
static void test_a_long_job(void **state UNUSED)
{
	const struct vm_settings settings = gpu(250);
	struct limit_budget budget = {0};
	int64_t now_ns = 0, debt_ns;

	assert_int_equal(limit_budget_debt_ns(&budget, &settings, now_ns, 0), 0);
	now_ns = 10 * NS_PER_SEC;
	/* Saved: one second's worth, 250 ms; owed: 9750 ms. */
	debt_ns = limit_budget_debt_ns(&budget, &settings, now_ns, 10 * NS_PER_SEC);
	assert_int_equal(debt_ns, 39 * NS_PER_SEC);
	now_ns += debt_ns - 1;
	assert_int_equal(limit_budget_debt_ns(&budget, &settings, now_ns, 10 * NS_PER_SEC), 1);
	now_ns++;
	assert_int_equal(limit_budget_debt_ns(&budget, &settings, now_ns, 10 * NS_PER_SEC), 0);
	/* Nothing is saved yet: the next charge is debt at once. */
	debt_ns = limit_budget_debt_ns(&budget, &settings, now_ns, 10 * NS_PER_SEC + NS_PER_MS);
	assert_int_equal(debt_ns, 4 * NS_PER_MS);
}

/* A whole GPU is never in debt; however long a VM rests, one second's worth is saved. */
static void test_bounds_of_saving(void **state UNUSED)
{
	const struct vm_settings whole = gpu(1000), half = gpu(500);
	struct limit_budget budget = {0};
	int64_t now_ns = 0;

	for (int i = 1; i <= 100; i++) {
		now_ns = i * NS_PER_SEC;
		assert_int_equal(limit_budget_debt_ns(&budget, &whole, now_ns, now_ns), 0);
	}
	budget = (struct limit_budget){0};
	assert_int_equal(limit_budget_debt_ns(&budget, &half, INT64_MAX / 2, 0), 0);
	now_ns = INT64_MAX / 2;
	assert_int_equal(limit_budget_debt_ns(&budget, &half, now_ns, 500 * NS_PER_MS), 0);
	assert_int_equal(limit_budget_debt_ns(&budget, &half, now_ns, 500 * NS_PER_MS + 1), 2);
}

/* Asking often changes nothing: the account is exact. */
static void test_as_an_account(void **state UNUSED)
{
	uint64_t random = 99;

	for (int round = 0; round < 40; round++) {
		const struct vm_settings settings = gpu(1 + (int64_t)random_below(&random, 1000));
		int64_t rate_thousandths = settings.gpu_thousandths;
		int64_t now_ns = 0, charged_ns = 0, account = 0;
		struct limit_budget budget = {0};

		for (int step = 0; step < 300; step++) {
			int64_t pause_ns = (int64_t)random_below(&random, 100 * NS_PER_MS);
			int64_t used_ns = (int64_t)random_below(&random, (uint64_t)pause_ns + 1);
			int64_t debt_ns;

			now_ns += pause_ns;
			charged_ns += used_ns;
			/* In thousandths of a nanosecond. */
			account = min_i64(account + pause_ns * rate_thousandths,
			                  rate_thousandths * NS_PER_SEC) -
			          used_ns * 1000;
			debt_ns = limit_budget_debt_ns(&budget, &settings, now_ns, charged_ns);
			if (account >= 0)
				assert_int_equal(debt_ns, 0);
			else
				assert_int_equal(debt_ns, (-account + rate_thousandths - 1) /
				                                  rate_thousandths);
			assert_int_equal(
				limit_budget_debt_ns(&budget, &settings, now_ns, charged_ns),
				debt_ns);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_limit),
		cmocka_unit_test(test_burst_and_interval),
		cmocka_unit_test(test_as_a_bucket),
		cmocka_unit_test(test_a_raised_limit),
		cmocka_unit_test(test_a_lowered_limit),
		cmocka_unit_test(test_no_budget),
		cmocka_unit_test(test_a_budget_taken_away),
		cmocka_unit_test(test_a_long_job),
		cmocka_unit_test(test_bounds_of_saving),
		cmocka_unit_test(test_as_an_account),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
