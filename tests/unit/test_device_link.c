/* SPDX-License-Identifier: MIT */
/*
 * The device's connection, without QEMU: what a stream does that is cut or broken
 * anywhere, HELLO, an end, and how long the device waits before it tries again.
 */
#include "test_device_env.h"

/* ---- The stream --------------------------------------------------------- */

static void test_stream_cut_anywhere(void **state)
{
	struct vgpu_regs *regs = *state;
	const uint8_t hello[VGPU_HELLO_MEDIATOR_BYTES] = {1, 0, 0, 0, 1};
	uint8_t stream[512], payload[64];
	size_t bytes = 0, chunk, at;

	bytes += message(stream + bytes, VGPU_MSG_HELLO, 0, hello, sizeof(hello));
	bytes += message(stream + bytes, 0x77, 3, "unknown", 7);
	bytes += message(stream + bytes, VGPU_MSG_PONG, 0, NULL, 0);
	bytes += message(stream + bytes, VGPU_MSG_RESPONSE, 4, payload,
	                 response(payload, 0, 300, 0));
	bytes += message(stream + bytes, VGPU_MSG_PING, 9, NULL, 0);

	for (chunk = 1; chunk <= bytes; chunk++) {
		vgpu_regs_reset(regs);
		connect_up(regs);
		submit(regs, 4, 40);
		for (at = 0; at < bytes; at += chunk) {
			assert_int_equal(vgpu_regs_receive(regs, stream + at,
			                                   bytes - at < chunk ? bytes - at : chunk,
			                                   NOW_US),
			                 0);
		}
		assert_ended(regs, VGPU_CODE_OK);
		assert_int_equal(get(regs, VGPU_REG_LINK),
		                 VGPU_LINK_CONNECTED | VGPU_LINK_EXTENDED);
		assert_int_equal(pending(regs), VGPU_SOCKET_HEADER_BYTES);
	}
}

static void test_garbage(void **state)
{
	static const struct {
		uint32_t magic, type;
		uint16_t payload_bytes;
	} rows[] = {
		{0x56475054, VGPU_MSG_RESPONSE, 40},
		{0, 0, 0},
		{VGPU_SOCKET_MAGIC, VGPU_MSG_RESPONSE, 1025},
		{VGPU_SOCKET_MAGIC, 0x77, 65535},
		{VGPU_SOCKET_MAGIC, VGPU_MSG_RESPONSE, 31},
		{VGPU_SOCKET_MAGIC, VGPU_MSG_RESPONSE, 0},
		{VGPU_SOCKET_MAGIC, VGPU_MSG_HELLO, 23},
	};
	struct vgpu_regs *regs = *state;
	uint8_t stream[64];
	size_t i;

	for (i = 0; i < COUNT(rows); i++) {
		vgpu_regs_reset(regs);
		connect_up(regs);
		submit(regs, 1, 4);
		memset(stream, 0, sizeof(stream));
		message(stream, rows[i].type, 1, NULL, 0);
		vgpu_put_le32(stream, rows[i].magic);
		vgpu_put_le16(stream + VGPU_SOCKET_FIELD_PAYLOAD_LEN, rows[i].payload_bytes);
		assert_int_equal(vgpu_regs_receive(regs, stream, sizeof(stream), NOW_US),
		                 VGPU_REGS_E_PROTOCOL);
		vgpu_regs_disconnected(regs, VGPU_REGS_END_PROTOCOL, NOW_US);
		assert_ended(regs, VGPU_CODE_UNAVAILABLE);
		assert_int_equal(get(regs, VGPU_REG_LINK), 0);
		assert_int_not_equal(vgpu_regs_retry_ms(regs), 0);
	}
}

static void test_ping(void **state)
{
	/* magic, type 4, vm_id 200, the ping's id, 'B', 2, length 0 */
	static const uint8_t expected[] = {0x55, 0x50, 0x47, 0x56, 4, 0, 0,   0, 200, 0,
	                                   0,    0,    9,    0,    0, 0, 'B', 2, 0,   0};
	struct vgpu_regs *regs = *state;
	const uint8_t *out;
	int i;

	connect_up(regs);
	assert_int_equal(deliver(regs, VGPU_MSG_PING, 9, "x", 1), 0);
	assert_int_equal(vgpu_regs_pending(regs, &out), sizeof(expected));
	assert_memory_equal(out, expected, sizeof(expected));

	/* A mediator that pings and never reads fills no memory, and takes no request's room. */
	for (i = 0; i < 1000; i++)
		assert_int_equal(deliver(regs, VGPU_MSG_PING, 9, NULL, 0), 0);
	assert_in_range(pending(regs), VGPU_REGS_PONGS_MIN * VGPU_SOCKET_HEADER_BYTES,
	                VGPU_REGS_OUT_PONG_BYTES);
	set(regs, VGPU_REG_REQUEST_LEN, VGPU_MESSAGE_BYTES);
	set(regs, VGPU_REG_DOORBELL, 1);
	assert_int_equal(get(regs, VGPU_REG_STATUS), VGPU_STATUS_BUSY);
	assert_in_range(pending(regs), VGPU_REGS_REQUEST_BYTES, VGPU_REGS_OUT_BYTES);
}

/* ---- The connection ----------------------------------------------------- */

static void test_hello_is_first(void **state)
{
	/* magic, type 7, vm_id 200, 0, 'B', 2, length 16; version 1, BUSY, 0 channels */
	static const uint8_t expected[] = {0x55, 0x50, 0x47, 0x56, 7, 0,   0, 0,  200, 0, 0,
	                                   0,    0,    0,    0,    0, 'B', 2, 16, 0,   1, 0,
	                                   0,    0,    1,    0,    0, 0,   0, 0,  0,   0};
	struct vgpu_regs *regs = *state;
	const uint8_t *out;

	assert_int_equal(pending(regs), 0);
	vgpu_regs_connected(regs);
	assert_int_equal(get(regs, VGPU_REG_LINK), VGPU_LINK_CONNECTED);
	set(regs, VGPU_REG_REQUEST_LEN, 4);
	set(regs, VGPU_REG_DOORBELL, 1);
	assert_int_equal(vgpu_regs_pending(regs, &out), sizeof(expected) + 4 + 24);
	assert_memory_equal(out, expected, sizeof(expected));
	assert_int_equal(vgpu_get_le32(out + sizeof(expected)), VGPU_REGS_DEVICE_VERSION);
	assert_int_equal(out[sizeof(expected) + 4 + VGPU_SOCKET_FIELD_TYPE], VGPU_MSG_REQUEST);
}

/* Connects, and returns whether there was a HELLO; optionally the mediator speaks, and ends it. */
static int greeted(struct vgpu_regs *regs, int speaks, int ends)
{
	int hello;

	vgpu_regs_connected(regs);
	hello = pending(regs) != 0;
	send_all(regs);
	if (speaks)
		assert_int_equal(deliver(regs, VGPU_MSG_PONG, 0, NULL, 0), 0);
	if (ends)
		vgpu_regs_disconnected(regs, VGPU_REGS_END_PEER, NOW_US);
	return hello;
}

static void test_mediator_that_drops_on_hello(void **state)
{
	struct vgpu_regs *regs = *state;

	/* Two silent ends, then one without; after that it may be another mediator. */
	assert_true(greeted(regs, 0, 1));
	assert_true(greeted(regs, 0, 1));
	assert_false(greeted(regs, 0, 1));
	assert_true(greeted(regs, 0, 1));
	assert_true(greeted(regs, 0, 1));
	/* Once it works without HELLO, our own reset does not bring HELLO back... */
	assert_false(greeted(regs, 1, 0));
	vgpu_regs_reset(regs);
	assert_false(greeted(regs, 1, 1));
	/* ...but the mediator's own end does: it may come back newer. */
	assert_true(greeted(regs, 1, 1));
	/* One silent end among others is an accident. */
	assert_true(greeted(regs, 0, 1));
	assert_true(greeted(regs, 1, 1));
	assert_true(greeted(regs, 0, 1));
	assert_true(greeted(regs, 0, 0));
}

/* A mediator that ignores HELLO: everything is as in the Phase 2 contract. */
static void test_mediator_that_ignores_hello(void **state)
{
	struct vgpu_regs *regs = *state;
	uint8_t payload[64];
	uint16_t bytes = response(payload, 0, 300, 0);
	uint32_t id;

	connect_up(regs);
	for (id = 0; id < 3; id++) {
		submit(regs, id, 40);
		assert_int_equal(deliver(regs, VGPU_MSG_RESPONSE, id, payload, bytes), 0);
		assert_ended(regs, VGPU_CODE_OK);
		assert_int_equal(get(regs, VGPU_REG_LINK), VGPU_LINK_CONNECTED);
	}
}

static void test_disconnect(void **state)
{
	struct vgpu_regs *regs = *state;
	uint8_t payload[64], half[10] = {0x55, 0x50, 0x47, 0x56};

	/* Idle stays idle, done stays done. */
	connect_up(regs);
	vgpu_regs_disconnected(regs, VGPU_REGS_END_PEER, NOW_US);
	assert_int_equal(get(regs, VGPU_REG_STATUS), VGPU_STATUS_IDLE);
	assert_int_equal(get(regs, VGPU_REG_LINK), 0);
	connect_up(regs);
	submit(regs, 1, 4);
	deliver(regs, VGPU_MSG_RESPONSE, 1, payload, response(payload, 0, 1, 2));
	vgpu_regs_disconnected(regs, VGPU_REGS_END_PEER, NOW_US);
	assert_ended(regs, VGPU_CODE_OK);

	/* Busy ends; half a message and unsent bytes do not reach the next connection. */
	connect_up(regs);
	set(regs, VGPU_REG_DOORBELL, 1);
	assert_int_equal(vgpu_regs_receive(regs, half, sizeof(half), NOW_US), 0);
	vgpu_regs_disconnected(regs, VGPU_REGS_END_PEER, NOW_US);
	assert_ended(regs, VGPU_CODE_UNAVAILABLE);
	assert_int_equal(pending(regs), 0);
	connect_up(regs);
	assert_int_equal(deliver(regs, VGPU_MSG_RESPONSE, 1, payload, 40), 0);
	assert_ended(regs, VGPU_CODE_UNAVAILABLE);
}

static void test_backoff(void **state)
{
	struct vgpu_regs *regs = *state;
	uint32_t expected = VGPU_REGS_RETRY_MIN_MS;
	int i;

	assert_int_equal(vgpu_regs_retry_ms(regs), 0);
	for (i = 0; i < 20; i++) {
		vgpu_regs_connect_failed(regs);
		assert_int_equal(vgpu_regs_retry_ms(regs), expected);
		expected = expected * 2 < VGPU_REGS_RETRY_MAX_MS ? expected * 2
		                                                 : VGPU_REGS_RETRY_MAX_MS;
	}
	/* Who connects and drops us is not asked more often; who spoke is. */
	greeted(regs, 0, 1);
	assert_int_equal(vgpu_regs_retry_ms(regs), VGPU_REGS_RETRY_MAX_MS);
	greeted(regs, 1, 0);
	vgpu_regs_disconnected(regs, VGPU_REGS_END_PROTOCOL, NOW_US);
	assert_int_equal(vgpu_regs_retry_ms(regs), VGPU_REGS_RETRY_MAX_MS);
	greeted(regs, 1, 1);
	assert_int_equal(vgpu_regs_retry_ms(regs), VGPU_REGS_RETRY_MIN_MS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(stream_cut_anywhere),
		TEST(garbage),
		TEST(ping),
		TEST(hello_is_first),
		TEST(mediator_that_drops_on_hello),
		TEST(mediator_that_ignores_hello),
		TEST(disconnect),
		TEST(backoff),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
