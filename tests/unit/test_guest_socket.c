/* SPDX-License-Identifier: MIT */
/*
 * The socket transport against the other end of a socket pair: HELLO first, messages in
 * pieces, what an old and a new mediator say, and connections that end or talk nonsense.
 */
#include "guest/socket_transport.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "guest/handle.h"
#include "proto/request.h"
#include "test_guest_env.h"
#include "vgpu/wire.h"

struct pair {
	int peer;
	int own; /* the other end, which the transport closes */
	struct fake_env env;
	struct vgpu *vgpu;
};

static void receive(struct pair *pair, struct vgpu_socket_header *header, uint8_t *payload)
{
	uint8_t bytes[VGPU_SOCKET_HEADER_BYTES];

	assert_int_equal(recv(pair->peer, bytes, sizeof(bytes), MSG_WAITALL), sizeof(bytes));
	assert_int_equal(vgpu_socket_header_decode(header, bytes), 0);
	if (header->payload_bytes)
		assert_int_equal(recv(pair->peer, payload, header->payload_bytes, MSG_WAITALL),
		                 header->payload_bytes);
}

static size_t frame(uint8_t *to, uint32_t type, uint32_t id, const void *payload, size_t bytes)
{
	const struct vgpu_socket_header header = {
		.type = type, .request_id = id, .payload_bytes = (uint16_t)bytes};

	vgpu_socket_header_encode(to, &header);
	if (bytes)
		memcpy(to + VGPU_SOCKET_HEADER_BYTES, payload, bytes);
	return VGPU_SOCKET_HEADER_BYTES + bytes;
}

static void say(struct pair *pair, const void *bytes, size_t length)
{
	assert_int_equal(send(pair->peer, bytes, length, MSG_NOSIGNAL), length);
}

static void say_frame(struct pair *pair, uint32_t type, uint32_t id, const void *payload,
                      size_t bytes)
{
	uint8_t message[VGPU_SOCKET_HEADER_BYTES + VGPU_MESSAGE_BYTES];

	say(pair, message, frame(message, type, id, payload, bytes));
}

static void say_response(struct pair *pair, uint32_t id, uint32_t result)
{
	uint8_t payload[VGPU_MESSAGE_BYTES];
	size_t bytes = response_encode(payload, VGPU_CODE_OK, 0, &result, 1, NULL, 0);

	say_frame(pair, VGPU_MSG_RESPONSE, id, payload, bytes);
}

/* Opens both ends and checks the HELLO. */
static void open_pair(struct pair *pair)
{
	struct guest_env env = fake_env(&pair->env);
	uint8_t payload[VGPU_MESSAGE_BYTES];
	struct vgpu_socket_header header;
	struct transport *transport;
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	pair->peer = fds[0];
	pair->own = fds[1];
	pair->env = (struct fake_env){.step_ns = 1000};
	assert_int_equal(socket_transport_new(&transport, fds[1], "pair", &env), 0);
	assert_int_equal(handle_new(&pair->vgpu, transport, &env), 0);
	receive(pair, &header, payload);
	assert_int_equal(header.type, VGPU_MSG_HELLO);
	assert_int_equal(header.payload_bytes, VGPU_HELLO_DEVICE_BYTES);
	assert_int_equal(vgpu_get_le32(payload), VGPU_HELLO_VERSION);
	assert_int_equal(vgpu_get_le32(payload + 4), VGPU_FEATURE_BUSY);
}

static void close_pair(struct pair *pair)
{
	vgpu_close(pair->vgpu);
	close(pair->peer);
}

static const struct vgpu_request nop = {.opcode = VGPU_OP_NOP};

/* Submits, and sees it arrive. */
static uint32_t submit(struct pair *pair)
{
	uint8_t payload[VGPU_MESSAGE_BYTES];
	struct vgpu_socket_header header;
	struct request_view request;
	uint32_t id;

	assert_int_equal(vgpu_submit(pair->vgpu, &nop, 0, &id), 0);
	receive(pair, &header, payload);
	assert_int_equal(header.type, VGPU_MSG_REQUEST);
	assert_int_equal(header.request_id, id);
	assert_int_equal(request_decode(&request, payload, header.payload_bytes, NULL), 0);
	return id;
}

static void test_pieces(void **state UNUSED)
{
	uint8_t bytes[2 * (VGPU_SOCKET_HEADER_BYTES + VGPU_MESSAGE_BYTES)];
	uint8_t payload[VGPU_MESSAGE_BYTES];
	struct vgpu_response response;
	struct pair pair;
	uint32_t a, b;
	const uint32_t result = 5;
	size_t length, n;

	open_pair(&pair);
	a = submit(&pair);
	b = submit(&pair);
	n = response_encode(payload, VGPU_CODE_OK, 0, &result, 1, NULL, 0);
	length = frame(bytes, VGPU_MSG_RESPONSE, b, payload, n);
	length += frame(bytes + length, VGPU_MSG_RESPONSE, a, payload, n);
	for (size_t i = 0; i < length; i++) {
		assert_int_equal(vgpu_wait(pair.vgpu, a, 0, &response), VGPU_E_TIMED_OUT);
		say(&pair, bytes + i, 1);
	}
	assert_int_equal(vgpu_wait(pair.vgpu, a, 0, &response), 0);
	assert_int_equal(vgpu_wait(pair.vgpu, b, 0, &response), 0);
	assert_int_equal(response.results[0], 5);
	close_pair(&pair);
}

static void test_refusals(void **state UNUSED)
{
	uint8_t busy[VGPU_BUSY_BYTES];
	struct vgpu_response response;
	struct pair pair;
	uint32_t id;

	open_pair(&pair);
	vgpu_put_le32(busy, VGPU_BUSY_DEPTH);
	vgpu_put_le32(busy + 4, 250);
	say_frame(&pair, VGPU_MSG_BUSY, submit(&pair), busy, sizeof(busy));
	assert_int_equal(vgpu_wait_any(pair.vgpu, 0, &id, &response), VGPU_CODE_RATE_LIMITED);
	assert_int_equal(response.reason, VGPU_BUSY_DEPTH);
	assert_int_equal(response.retry_after_us, 250);
	say_frame(&pair, VGPU_MSG_BUSY, submit(&pair), NULL, 0);
	assert_int_equal(vgpu_wait_any(pair.vgpu, 0, &id, &response), VGPU_CODE_RATE_LIMITED);
	assert_int_equal(response.retry_after_us, 0);
	say_frame(&pair, VGPU_MSG_QUARANTINED, submit(&pair), NULL, 0);
	assert_int_equal(vgpu_wait_any(pair.vgpu, 0, &id, &response), VGPU_CODE_QUARANTINED);
	close_pair(&pair);
}

static void test_hello_ping_unknown(void **state UNUSED)
{
	const uint32_t words[] = {1, VGPU_FEATURE_BUSY, 0, 2, 0, 0};
	uint8_t hello[VGPU_HELLO_MEDIATOR_BYTES], payload[VGPU_MESSAGE_BYTES];
	struct vgpu_socket_header header;
	struct vgpu_response response;
	struct vgpu_info info;
	struct pair pair;
	uint32_t id, other;

	open_pair(&pair);
	assert_int_equal(vgpu_get_info(pair.vgpu, &info), 0);
	assert_int_equal(info.link, VGPU_LINK_CONNECTED);
	assert_int_equal(info.outstanding_max, VGPU_OUTSTANDING_MAX);
	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		vgpu_put_le32(hello + 4 * i, words[i]);
	id = submit(&pair);
	say_frame(&pair, VGPU_MSG_HELLO, 0, hello, sizeof(hello));
	say_frame(&pair, VGPU_MSG_PING, 99, NULL, 0);
	say_frame(&pair, 0x4242, id, "what", 4);
	say_frame(&pair, VGPU_MSG_COMPLETE, id, "what", 4);
	say_response(&pair, id, 1);
	assert_int_equal(vgpu_wait(pair.vgpu, id, 1000000, &response), 0);
	receive(&pair, &header, payload);
	assert_int_equal(header.type, VGPU_MSG_PONG);
	assert_int_equal(header.request_id, 99);

	assert_int_equal(vgpu_get_info(pair.vgpu, &info), 0);
	assert_int_equal(info.link, VGPU_LINK_CONNECTED | VGPU_LINK_EXTENDED);
	assert_int_equal(info.outstanding_max, 2);
	submit(&pair);
	submit(&pair);
	assert_int_equal(vgpu_submit(pair.vgpu, &nop, 0, &other), VGPU_E_BUSY);
	close_pair(&pair);
}

/* Everything that was said before the end is still heard. */
static void test_closed(void **state UNUSED)
{
	struct vgpu_response response;
	struct vgpu_info info;
	struct pair pair;
	uint32_t a, b, id;

	open_pair(&pair);
	a = submit(&pair);
	b = submit(&pair);
	say_response(&pair, a, 1);
	say(&pair, "VG", 2);
	shutdown(pair.peer, SHUT_RDWR);
	assert_int_equal(vgpu_wait(pair.vgpu, b, 1000000, &response), VGPU_E_CLOSED);
	assert_int_equal(vgpu_wait(pair.vgpu, a, 1000000, &response), 0);
	assert_int_equal(vgpu_submit(pair.vgpu, &nop, 0, &id), VGPU_E_CLOSED);
	assert_int_equal(vgpu_get_info(pair.vgpu, &info), 0);
	assert_int_equal(info.link, 0);
	close_pair(&pair);
}

static void test_garbage(void **state UNUSED)
{
	static const uint8_t zeros[64];
	uint8_t message[VGPU_SOCKET_HEADER_BYTES];
	struct vgpu_response response;
	struct pair pair;
	uint32_t id;

	open_pair(&pair);
	id = submit(&pair);
	say(&pair, zeros, sizeof(zeros));
	assert_int_equal(vgpu_wait(pair.vgpu, id, 1000000, &response), VGPU_E_PROTOCOL);
	assert_int_equal(vgpu_submit(pair.vgpu, &nop, 0, &id), VGPU_E_PROTOCOL);
	close_pair(&pair);

	open_pair(&pair);
	id = submit(&pair);
	frame(message, VGPU_MSG_RESPONSE, id, NULL, 0);
	vgpu_put_le16(message + VGPU_SOCKET_FIELD_PAYLOAD_LEN, VGPU_MESSAGE_BYTES + 1);
	say(&pair, message, sizeof(message));
	assert_int_equal(vgpu_wait(pair.vgpu, id, 1000000, &response), VGPU_E_PROTOCOL);
	close_pair(&pair);
}

/* A peer that reads nothing gets all requests in the end, and cannot block us. */
static void test_peer_does_not_read(void **state UNUSED)
{
	static const uint8_t data[900];
	const struct vgpu_request large = {.data = data, .data_bytes = sizeof(data)};
	uint8_t payload[VGPU_MESSAGE_BYTES];
	struct vgpu_socket_header header;
	struct vgpu_response response;
	struct pair pair;
	uint32_t first, last, id;

	open_pair(&pair);
	assert_int_equal(vgpu_submit(pair.vgpu, &large, 0, &first), 0);
	for (int i = 1; i < VGPU_OUTSTANDING_MAX; i++)
		assert_int_equal(vgpu_submit(pair.vgpu, &large, 0, &last), 0);
	assert_int_equal(vgpu_submit(pair.vgpu, &large, 0, &id), VGPU_E_BUSY);
	for (int i = 0; i < VGPU_OUTSTANDING_MAX; i++) {
		/* Every look for an answer sends on. */
		vgpu_wait_any(pair.vgpu, 0, &id, &response);
		receive(&pair, &header, payload);
		assert_int_equal(header.payload_bytes, VGPU_HEADER_BYTES + sizeof(data));
	}
	assert_int_equal(header.request_id, last);
	close_pair(&pair);
}

/* A flood of anything but answers does not outlast a timeout: some of it stays unread. */
static void test_flood(void **state UNUSED)
{
	static const uint8_t payload[VGPU_MESSAGE_BYTES];
	uint8_t ping[VGPU_SOCKET_HEADER_BYTES + VGPU_MESSAGE_BYTES];
	struct vgpu_response response;
	struct pair pair;
	int unread = 0;
	uint32_t id;

	open_pair(&pair);
	id = submit(&pair);
	pair.env.step_ns = INT64_C(1000000);
	frame(ping, VGPU_MSG_PING, 1, payload, sizeof(payload));
	while (send(pair.peer, ping, sizeof(ping), MSG_DONTWAIT) == sizeof(ping))
		;
	assert_int_equal(vgpu_wait(pair.vgpu, id, 1000, &response), VGPU_E_TIMED_OUT);
	assert_int_equal(ioctl(pair.own, FIONREAD, &unread), 0);
	assert_true(unread > 0);
	close_pair(&pair);
}

static void test_connect_fails(void **state UNUSED)
{
	struct guest_env env = guest_env_system();
	struct transport *transport;
	char path[200];

	assert_int_equal(socket_transport_connect(&transport, "/nonexistent/x.sock", &env),
	                 -ENOENT);
	memset(path, 'x', sizeof(path));
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(socket_transport_connect(&transport, path, &env), -ENAMETOOLONG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_hello_ping_unknown),
		cmocka_unit_test(test_closed),
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_peer_does_not_read),
		cmocka_unit_test(test_flood),
		cmocka_unit_test(test_connect_fails),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
