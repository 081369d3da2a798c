/* SPDX-License-Identifier: MIT */
/*
 * Packets between mediator and worker: round trip, and nothing but whole packets
 * of a known type decodes.
 */
#include "proto/worker_msg.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"

static const struct worker_msg done = {
	.type = WORKER_MSG_DONE,
	.job = UINT64_C(0x1122334455667788),
	.code = VGPU_CODE_CUDA,
	.detail = 700,
	.command = WORKER_MSG_NO_COMMAND,
	.gpu_time_ns = UINT64_C(5000000000),
	.payload_bytes = 3,
	.payload = (const uint8_t *)"xyz",
};

static void test_round_trip(void **state UNUSED)
{
	uint8_t bytes[WORKER_MSG_MAX_BYTES];
	struct worker_msg msg;
	size_t length = worker_msg_encode(bytes, &done);

	assert_int_equal(length, WORKER_MSG_HEADER_BYTES + 3);
	assert_int_equal(worker_msg_decode(&msg, bytes, length), 0);
	assert_int_equal(msg.type, done.type);
	assert_true(msg.job == done.job && msg.gpu_time_ns == done.gpu_time_ns);
	assert_int_equal(msg.code, done.code);
	assert_int_equal(msg.detail, 700);
	assert_int_equal(msg.command, WORKER_MSG_NO_COMMAND);
	assert_memory_equal(msg.payload, "xyz", 3);
}

static void test_only_whole_known_packets_decode(void **state UNUSED)
{
	uint8_t bytes[WORKER_MSG_MAX_BYTES + 1] = {0};
	struct worker_msg msg;
	size_t length = worker_msg_encode(bytes, &done);

	for (size_t cut = 0; cut < length; cut++)
		assert_int_equal(worker_msg_decode(&msg, bytes, cut), -EBADMSG);
	assert_int_equal(worker_msg_decode(&msg, bytes, length + 1), -EBADMSG);
	assert_int_equal(worker_msg_decode(&msg, bytes, sizeof(bytes)), -EBADMSG);
	bytes[0] = 0x7f;
	assert_int_equal(worker_msg_decode(&msg, bytes, length), -EBADMSG);
}

static void test_device_name_is_always_terminated(void **state UNUSED)
{
	struct worker_device device = {.backend = 1, .capability = 0x90000, .used_mib = 5};
	uint8_t bytes[WORKER_DEVICE_BYTES];
	struct worker_device decoded;

	memset(device.name, 'n', sizeof(device.name));
	worker_device_encode(bytes, &device);
	memset(bytes + WORKER_DEVICE_BYTES - 4, 'n', 4);
	assert_int_equal(worker_device_decode(&decoded, bytes, sizeof(bytes)), 0);
	assert_int_equal(decoded.name[sizeof(decoded.name) - 1], 0);
	assert_int_equal(decoded.capability, 0x90000);
	assert_int_equal(decoded.used_mib, 5);
	assert_int_equal(worker_device_decode(&decoded, bytes, sizeof(bytes) - 1), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_only_whole_known_packets_decode),
		cmocka_unit_test(test_device_name_is_always_terminated),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
