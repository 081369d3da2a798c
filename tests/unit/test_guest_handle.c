/* SPDX-License-Identifier: MIT */
/*
 * The handle over a transport that answers as told: when a refusal is tried again, how
 * long the sleeps are, what is never retried, who gets which answer, and the counts.
 */
#include "guest/handle.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/units.h"
#include "proto/request.h"
#include "test_guest_env.h"

#define MS NS_PER_MS

/* Answers the requests in order, or as .order says, with the scripted answers. */
struct fake {
	struct transport transport;
	struct fake_env env;
	struct answer script[16];
	uint32_t submitted;
	uint32_t waited;
	uint32_t available; /* scripted answers that may be given */
	uint32_t order[16]; /* answer i belongs to this submission */
	uint32_t ids[16];
	uint32_t limit;
	int64_t takes_ns; /* until an answer */
	int ended;
	bool keeps_abandoned;
	bool freed;
};

static struct fake *fake_of(struct transport *transport)
{
	return CONTAINER_OF(transport, struct fake, transport);
}

static int fake_submit(struct transport *transport, uint32_t id, const uint8_t *bytes,
                       uint32_t length, int64_t deadline_ns UNUSED)
{
	struct fake *fake = fake_of(transport);
	struct request_view request;

	assert_int_equal(request_decode(&request, bytes, length, NULL), VGPU_CODE_OK);
	if (fake->ended)
		return fake->ended;
	fake->ids[fake->submitted++ % 16] = id;
	return 0;
}

static int fake_wait(struct transport *transport, struct answer *out, int64_t deadline_ns)
{
	struct fake *fake = fake_of(transport);
	uint32_t i = fake->waited;

	if (fake->ended)
		return fake->ended;
	if (i >= fake->available || fake->order[i] >= fake->submitted ||
	    fake->takes_ns > deadline_ns - fake->env.now_ns) {
		fake->env.now_ns = max_i64(fake->env.now_ns, deadline_ns);
		return VGPU_E_TIMED_OUT;
	}
	fake->env.now_ns += fake->takes_ns;
	*out = fake->script[i];
	if (out->id == 0)
		out->id = fake->ids[fake->order[i]];
	fake->waited++;
	return 0;
}

static bool fake_abandon(struct transport *transport, uint32_t id UNUSED)
{
	return fake_of(transport)->keeps_abandoned;
}

static uint32_t fake_limit(const struct transport *transport)
{
	return CONTAINER_OF(transport, const struct fake, transport)->limit;
}

static int fake_get_info(struct transport *transport UNUSED, struct vgpu_info *out)
{
	out->vm_id = 7;
	return 0;
}

static void fake_free(struct transport *transport)
{
	fake_of(transport)->freed = true;
}

static const struct transport_ops fake_ops = {fake_submit, fake_wait,     fake_abandon,
                                              fake_limit,  fake_get_info, fake_free};

static struct vgpu *open_fake(struct fake *fake)
{
	struct guest_env env = fake_env(&fake->env);
	struct vgpu *vgpu;

	fake->transport.ops = &fake_ops;
	fake->limit = fake->limit ? fake->limit : 16;
	for (uint32_t i = 0; i < 16; i++)
		fake->order[i] = i;
	assert_int_equal(handle_new(&vgpu, &fake->transport, &env), 0);
	return vgpu;
}

static void script(struct fake *fake, uint32_t status, const uint32_t *results, uint32_t count)
{
	struct answer *answer = &fake->script[fake->available++];

	answer->length =
		(uint32_t)response_encode(answer->bytes, status, 11, results, count, NULL, 0);
}

static void script_busy(struct fake *fake, uint32_t retry_after_us)
{
	struct answer *answer = &fake->script[fake->available++];

	answer->code = VGPU_CODE_RATE_LIMITED;
	answer->reason = VGPU_BUSY_DEPTH;
	answer->retry_after_us = retry_after_us;
}

static const struct vgpu_request nop = {.opcode = VGPU_OP_NOP};

static void test_call(void **state UNUSED)
{
	const uint32_t results[] = {300, 5};
	struct vgpu_response response;
	struct fake fake = {0};
	struct vgpu *vgpu = open_fake(&fake);
	struct vgpu_stats stats;

	script(&fake, VGPU_CODE_OK, results, 2);
	assert_int_equal(vgpu_call(vgpu, &nop, &response), 0);
	assert_int_equal(response.result_count, 2);
	assert_int_equal(response.results[0], 300);
	assert_int_equal(response.exec_time_us, 11);
	vgpu_get_stats(vgpu, &stats);
	assert_int_equal(stats.submitted, 1);
	assert_int_equal(stats.done, 1);
	vgpu_close(vgpu);
	assert_true(fake.freed);
	vgpu_close(NULL);
}

/* The schedule at both ends of the dice: never below d/2, never above d. */
static void test_retry_schedule(void **state UNUSED)
{
	static const int64_t longest_ms[] = {200, 400, 1000, 2500, 5000};
	const uint32_t dice[] = {0, UINT32_MAX};
	struct vgpu_response response;
	struct vgpu_stats stats;

	for (size_t d = 0; d < ARRAY_LEN(dice); d++) {
		struct fake fake = {.env.random = dice[d]};
		struct vgpu *vgpu = open_fake(&fake);

		for (int i = 0; i < 7; i++)
			script_busy(&fake, 0);
		assert_int_equal(vgpu_call(vgpu, &nop, &response), VGPU_CODE_RATE_LIMITED);
		assert_int_equal(response.reason, VGPU_BUSY_DEPTH);
		assert_int_equal(fake.submitted, 6);
		assert_int_equal(fake.env.sleeps, 5);
		for (int i = 0; i < 5; i++)
			assert_int_equal(fake.env.slept_ns[i],
			                 longest_ms[i] * MS / (dice[d] ? 1 : 2));
		vgpu_get_stats(vgpu, &stats);
		assert_int_equal(stats.retries, 5);
		assert_int_equal(stats.rate_limited, 6);
		assert_int_equal(stats.retry_wait_us, dice[d] ? 9100000 : 4550000);
		vgpu_close(vgpu);
	}
}

static void test_hint_is_a_lower_bound(void **state UNUSED)
{
	const uint32_t old_refusal[] = {VGPU_BUSY_RATE, 3000001};
	struct fake fake = {.env.random = UINT32_MAX};
	struct vgpu *vgpu = open_fake(&fake);
	struct vgpu_response response;

	script_busy(&fake, 7000000);
	/* From a mediator that did not say HELLO, the hint is in the response. */
	script(&fake, VGPU_CODE_RATE_LIMITED, old_refusal, 2);
	script_busy(&fake, 100);
	script(&fake, VGPU_CODE_OK, NULL, 0);
	assert_int_equal(vgpu_call(vgpu, &nop, &response), 0);
	assert_int_equal(fake.env.sleeps, 3);
	assert_int_equal(fake.env.slept_ns[0], 7000 * MS);
	assert_int_equal(fake.env.slept_ns[1], INT64_C(3000001) * NS_PER_US);
	assert_int_equal(fake.env.slept_ns[2], 1000 * MS);
	vgpu_close(vgpu);
}

static void test_no_retry(void **state UNUSED)
{
	static const uint32_t codes[] = {VGPU_CODE_QUARANTINED, VGPU_CODE_QUEUE_FULL,
	                                 VGPU_CODE_CUDA, VGPU_CODE_TIMEOUT, 0x77};
	struct vgpu_response response;
	struct vgpu_stats stats;

	for (size_t i = 0; i < ARRAY_LEN(codes); i++) {
		struct fake fake = {0};
		struct vgpu *vgpu = open_fake(&fake);

		fake.script[fake.available++].code = codes[i];
		script(&fake, VGPU_CODE_OK, NULL, 0);
		assert_int_equal(vgpu_call(vgpu, &nop, &response), codes[i]);
		assert_int_equal(response.code, codes[i]);
		assert_int_equal(fake.submitted, 1);
		assert_int_equal(fake.env.sleeps, 0);
		vgpu_get_stats(vgpu, &stats);
		assert_int_equal(stats.quarantined, codes[i] == VGPU_CODE_QUARANTINED);
		assert_int_equal(stats.failed, codes[i] != VGPU_CODE_QUARANTINED);
		vgpu_close(vgpu);
	}
}

static void test_retries_are_settable(void **state UNUSED)
{
	struct fake fake = {0};
	struct vgpu *vgpu = open_fake(&fake);
	struct vgpu_response response;

	for (int i = 0; i < 8; i++)
		script_busy(&fake, 0);
	assert_int_equal(vgpu_set_retries(vgpu, VGPU_RETRIES_MAX + 1), -EINVAL);
	assert_int_equal(vgpu_set_retries(vgpu, 0), 0);
	assert_int_equal(vgpu_call(vgpu, &nop, &response), VGPU_CODE_RATE_LIMITED);
	assert_int_equal(fake.submitted, 1);
	assert_int_equal(vgpu_retry_delay_us(vgpu, 1, 0), -1);
	assert_int_equal(vgpu_set_retries(vgpu, 2), 0);
	assert_int_equal(vgpu_call(vgpu, &nop, &response), VGPU_CODE_RATE_LIMITED);
	assert_int_equal(fake.submitted, 4);
	assert_int_equal(vgpu_retry_delay_us(vgpu, 2, 500000), 500000);
	assert_int_equal(vgpu_retry_delay_us(vgpu, 3, 0), -1);
	vgpu_close(vgpu);
}

/* A sleep that would outlast the timeout is not begun, and a hint is never cut. */
static void test_retry_ends_with_the_timeout(void **state UNUSED)
{
	struct fake fake = {0};
	struct vgpu *vgpu = open_fake(&fake);
	struct vgpu_response response;

	script_busy(&fake, 0);
	script_busy(&fake, 2000000);
	script(&fake, VGPU_CODE_OK, NULL, 0);
	assert_int_equal(vgpu_set_timeout(vgpu, 0), -EINVAL);
	assert_int_equal(vgpu_set_timeout(vgpu, -2), -EINVAL);
	assert_int_equal(vgpu_set_timeout(vgpu, 1000000), 0);
	assert_int_equal(vgpu_call(vgpu, &nop, &response), VGPU_CODE_RATE_LIMITED);
	assert_int_equal(response.retry_after_us, 2000000);
	assert_int_equal(fake.env.sleeps, 1);
	assert_true(fake.env.now_ns <= 1000 * MS);
	vgpu_close(vgpu);
}

static void test_timeout_drops_the_late_answer(void **state UNUSED)
{
	const uint32_t first[] = {1}, second[] = {2};
	struct fake fake = {.takes_ns = 2000 * MS, .keeps_abandoned = true};
	struct vgpu *vgpu = open_fake(&fake);
	struct vgpu_response response;
	struct vgpu_stats stats;

	script(&fake, VGPU_CODE_OK, first, 1);
	script(&fake, VGPU_CODE_OK, second, 1);
	vgpu_set_timeout(vgpu, 1000000);
	assert_int_equal(vgpu_call(vgpu, &nop, &response), VGPU_E_TIMED_OUT);
	assert_int_equal(fake.env.now_ns, 1000 * MS);
	fake.takes_ns = 0;
	assert_int_equal(vgpu_call(vgpu, &nop, &response), 0);
	assert_int_equal(response.results[0], 2);
	vgpu_get_stats(vgpu, &stats);
	assert_int_equal(stats.timeouts, 1);
	assert_int_equal(stats.dropped, 1);
	assert_int_equal(stats.done, 1);
	vgpu_close(vgpu);
}

static void test_answers_out_of_order(void **state UNUSED)
{
	struct fake fake = {0};
	struct vgpu *vgpu = open_fake(&fake);
	struct vgpu_response response;
	uint32_t ids[4], id;

	for (uint32_t i = 0; i < 4; i++) {
		assert_int_equal(vgpu_submit(vgpu, &nop, 0, &ids[i]), 0);
		assert_int_not_equal(ids[i], 0);
		fake.order[i] = 3 - i;
		script(&fake, VGPU_CODE_OK, &fake.order[i], 1);
	}
	assert_int_equal(vgpu_wait(vgpu, ids[1], 0, &response), 0);
	assert_int_equal(response.results[0], 1);
	assert_int_equal(vgpu_wait(vgpu, ids[1], 0, &response), VGPU_E_NO_REQUEST);
	assert_int_equal(vgpu_wait(vgpu, ids[2], 0, &response), 0);
	assert_int_equal(response.results[0], 2);
	assert_int_equal(vgpu_wait_any(vgpu, 0, &id, &response), 0);
	assert_int_equal(id, ids[3]);
	assert_int_equal(response.results[0], 3);
	assert_int_equal(vgpu_wait_any(vgpu, 0, &id, &response), 0);
	assert_int_equal(id, ids[0]);
	assert_int_equal(vgpu_wait_any(vgpu, 0, &id, &response), VGPU_E_NO_REQUEST);
	assert_int_equal(id, 0);
	vgpu_close(vgpu);
}

static void test_wait_may_be_repeated(void **state UNUSED)
{
	struct fake fake = {0};
	struct vgpu *vgpu = open_fake(&fake);
	struct vgpu_response response;
	uint32_t id;

	assert_int_equal(vgpu_submit(vgpu, &nop, 0, &id), 0);
	assert_int_equal(vgpu_wait(vgpu, id, 500, &response), VGPU_E_TIMED_OUT);
	script(&fake, VGPU_CODE_CANCELLED, NULL, 0);
	assert_int_equal(vgpu_wait(vgpu, id, 500, &response), VGPU_CODE_CANCELLED);
	assert_int_equal(vgpu_abandon(vgpu, id), VGPU_E_NO_REQUEST);
	vgpu_close(vgpu);
}

/* Places are bounded, an answer makes room, and an early answer is not lost by it. */
static void test_limit(void **state UNUSED)
{
	struct fake fake = {.limit = 2};
	struct vgpu *vgpu = open_fake(&fake);
	struct vgpu_response response;
	uint32_t a, b, c;

	assert_int_equal(vgpu_submit(vgpu, &nop, 0, &a), 0);
	assert_int_equal(vgpu_submit(vgpu, &nop, 0, &b), 0);
	assert_int_equal(vgpu_submit(vgpu, &nop, 0, &c), VGPU_E_BUSY);
	script(&fake, VGPU_CODE_OK, NULL, 0);
	assert_int_equal(vgpu_submit(vgpu, &nop, 0, &c), 0);
	assert_int_equal(vgpu_wait(vgpu, a, 0, &response), 0);
	vgpu_close(vgpu);
}

static void test_stray_answers(void **state UNUSED)
{
	struct fake fake = {.env.step_ns = 1};
	struct vgpu *vgpu = open_fake(&fake);
	struct vgpu_response response;
	struct vgpu_stats stats;
	uint32_t id;

	assert_int_equal(vgpu_submit(vgpu, &nop, 0, &id), 0);
	script(&fake, VGPU_CODE_OK, NULL, 0);
	fake.script[0].id = id + 1;
	fake.order[1] = 0;
	script(&fake, VGPU_CODE_OK, NULL, 0);
	fake.order[2] = 0;
	script(&fake, VGPU_CODE_OK, NULL, 0);
	assert_int_equal(vgpu_wait(vgpu, id, 1000, &response), 0);
	/* The second answer to the same request finds nobody. */
	assert_int_equal(vgpu_submit(vgpu, &nop, 0, &id), 0);
	assert_int_equal(vgpu_wait(vgpu, id, 1000, &response), VGPU_E_TIMED_OUT);
	vgpu_get_stats(vgpu, &stats);
	assert_int_equal(stats.dropped, 2);
	/* A peer that invents answers without end does not outlast a timeout. */
	for (uint32_t i = fake.available; i < 8; i++) {
		script(&fake, VGPU_CODE_OK, NULL, 0);
		fake.script[i].id = id + 1;
		fake.order[i] = 0;
	}
	assert_int_equal(vgpu_wait(vgpu, id, 0, &response), VGPU_E_TIMED_OUT);
	assert_int_equal(fake.waited, 4);
	vgpu_close(vgpu);
}

/* However often a place is used: the ids of all requests go round, and leave 0 out. */
static void test_no_request_has_id_0(void **state UNUSED)
{
	struct fake fake = {0};
	struct vgpu *vgpu = open_fake(&fake);
	uint32_t id = 0;

	for (uint32_t i = 0; i < UINT32_MAX / VGPU_OUTSTANDING_MAX + 3; i++) {
		if (vgpu_submit(vgpu, &nop, 0, &id) != 0 || id == 0 || vgpu_abandon(vgpu, id) != 0)
			fail_msg("request %u with id %u", i, id);
	}
	vgpu_close(vgpu);
}

static void test_garbage_and_end(void **state UNUSED)
{
	struct fake fake = {0};
	struct vgpu *vgpu = open_fake(&fake);
	struct vgpu_response response;
	uint32_t a, b;

	script(&fake, VGPU_CODE_OK, NULL, 0);
	fake.script[0].bytes[VGPU_RESPONSE_RESULT_COUNT] = 200;
	script(&fake, 0x12345678, NULL, 0);
	fake.available++; /* neither a code nor a response */
	for (int i = 0; i < 3; i++)
		assert_int_equal(vgpu_call(vgpu, &nop, &response), VGPU_E_PROTOCOL);

	assert_int_equal(vgpu_submit(vgpu, &nop, 0, &a), 0);
	assert_int_equal(vgpu_submit(vgpu, &nop, 0, &b), 0);
	fake.ended = VGPU_E_CLOSED;
	assert_int_equal(vgpu_wait(vgpu, a, 0, &response), VGPU_E_CLOSED);
	assert_int_equal(vgpu_wait(vgpu, b, 0, &response), VGPU_E_NO_REQUEST);
	assert_int_equal(vgpu_call(vgpu, &nop, &response), VGPU_E_CLOSED);
	vgpu_close(vgpu);
}

static void test_too_large(void **state UNUSED)
{
	static const uint8_t data[VGPU_DATA_MAX + 1];
	const struct vgpu_request large = {.data = data, .data_bytes = sizeof(data)};
	struct fake fake = {0};
	struct vgpu *vgpu = open_fake(&fake);
	struct vgpu_response response;

	assert_int_equal(vgpu_call(vgpu, &large, &response), -EMSGSIZE);
	assert_int_equal(fake.submitted, 0);
	vgpu_close(vgpu);
}

/* An old device says "CUDA error" beside whatever the response says. */
static void test_answer_joins_both_places(void **state UNUSED)
{
	const uint32_t refusal[] = {VGPU_BUSY_RATE, 1234}, failure[] = {700, 3};
	struct vgpu_response response;
	struct answer answer = {.code = VGPU_CODE_CUDA};

	answer.length = (uint32_t)response_encode(answer.bytes, VGPU_CODE_RATE_LIMITED, 0, refusal,
	                                          2, NULL, 0);
	assert_int_equal(handle_read_answer(&response, &answer), 0);
	assert_int_equal(response.code, VGPU_CODE_RATE_LIMITED);
	assert_int_equal(response.reason, VGPU_BUSY_RATE);
	assert_int_equal(response.retry_after_us, 1234);

	answer.length =
		(uint32_t)response_encode(answer.bytes, VGPU_CODE_CUDA, 0, failure, 2, NULL, 0);
	assert_int_equal(handle_read_answer(&response, &answer), 0);
	assert_int_equal(response.code, VGPU_CODE_CUDA);
	assert_int_equal(response.detail, 700);
	answer.detail = 719;
	assert_int_equal(handle_read_answer(&response, &answer), 0);
	assert_int_equal(response.detail, 719);
}

static void test_strerror(void **state UNUSED)
{
	assert_string_equal(vgpu_strerror(0), "done");
	assert_string_equal(vgpu_strerror(VGPU_CODE_RATE_LIMITED), "rate limited");
	assert_string_equal(vgpu_strerror(VGPU_E_TIMED_OUT), "no answer in time");
	assert_string_equal(vgpu_strerror(VGPU_E_NO_REQUEST), "no such request outstanding");
	assert_string_equal(vgpu_strerror(VGPU_E_NO_REQUEST + 1), "unknown error");
	assert_string_equal(vgpu_strerror(-ENOENT), strerror(ENOENT));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_call),
		cmocka_unit_test(test_retry_schedule),
		cmocka_unit_test(test_hint_is_a_lower_bound),
		cmocka_unit_test(test_no_retry),
		cmocka_unit_test(test_retries_are_settable),
		cmocka_unit_test(test_retry_ends_with_the_timeout),
		cmocka_unit_test(test_timeout_drops_the_late_answer),
		cmocka_unit_test(test_answers_out_of_order),
		cmocka_unit_test(test_wait_may_be_repeated),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_stray_answers),
		cmocka_unit_test(test_no_request_has_id_0),
		cmocka_unit_test(test_garbage_and_end),
		cmocka_unit_test(test_too_large),
		cmocka_unit_test(test_answer_joins_both_places),
		cmocka_unit_test(test_strerror),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
