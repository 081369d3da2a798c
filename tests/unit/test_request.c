/* SPDX-License-Identifier: MIT */
/*
 * Requests and responses: what is encoded decodes to the same, and every lying
 * count, offset and length is refused with its own code.
 */
#include "proto/request.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "vgpu/wire.h"

static void test_round_trip(void **state UNUSED)
{
	const uint32_t params[] = {100, 0xffffff38u};
	uint8_t bytes[VGPU_MESSAGE_BYTES];
	struct request_view request;
	struct response_view response;
	size_t length;

	length = request_encode(bytes, VGPU_OP_CUDA_KERNEL, 7, params, 2, "abc", 3);
	assert_int_equal(length, 32 + 8 + 3);
	assert_int_equal(request_decode(&request, bytes, length, NULL), VGPU_CODE_OK);
	assert_int_equal(request.opcode, VGPU_OP_CUDA_KERNEL);
	assert_int_equal(request.flags, 7);
	assert_int_equal(request.param_count, 2);
	assert_int_equal(request_param(&request, 1), 0xffffff38u);
	assert_int_equal(request.data_bytes, 3);
	assert_memory_equal(request.data, "abc", 3);

	length = response_encode(bytes, VGPU_CODE_CUDA, 1234, params, 2, NULL, 0);
	assert_int_equal(length, 40);
	assert_int_equal(response_decode(&response, bytes, length, NULL), VGPU_CODE_OK);
	assert_int_equal(response.status, VGPU_CODE_CUDA);
	assert_int_equal(response.exec_time_us, 1234);
	assert_int_equal(response_result(&response, 0), 100);
	assert_null(response.data);
}

/* The bytes of the contract, written by hand: not what our own encoder thinks. */
static void test_contract_bytes(void **state UNUSED)
{
	const uint8_t add[40] = {0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2,   0, 0, 0, 0,   0, 0, 0,
	                         0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 200, 0, 0, 0};
	const uint32_t params[] = {100, 200};
	uint8_t encoded[VGPU_MESSAGE_BYTES];
	struct request_view request;

	assert_int_equal(request_decode(&request, add, sizeof(add), NULL), VGPU_CODE_OK);
	assert_int_equal(request.opcode, 1);
	assert_int_equal(request_param(&request, 0), 100);
	assert_int_equal(request_param(&request, 1), 200);
	assert_int_equal(request_encode(encoded, 1, 0, params, 2, NULL, 0), sizeof(add));
	assert_memory_equal(encoded, add, sizeof(add));
}

struct lie {
	size_t at;
	uint32_t value;
	size_t length;
	enum vgpu_code code;
};

static void test_lies_are_refused(void **state UNUSED)
{
	static const struct lie lies[] = {
		{0, VGPU_PROTOCOL_VERSION, 31, VGPU_CODE_INVALID_LENGTH},
		{0, VGPU_PROTOCOL_VERSION, 0, VGPU_CODE_INVALID_LENGTH},
		{0, VGPU_PROTOCOL_VERSION, 1025, VGPU_CODE_TOO_LARGE},
		{VGPU_REQUEST_VERSION, 0x00020000, 40, VGPU_CODE_INVALID_REQUEST},
		{VGPU_REQUEST_PARAM_COUNT, 3, 40, VGPU_CODE_INVALID_REQUEST},
		{VGPU_REQUEST_PARAM_COUNT, 0x40000002, 40, VGPU_CODE_INVALID_REQUEST},
		{VGPU_REQUEST_DATA_LENGTH, 1, 40, VGPU_CODE_INVALID_REQUEST},
		{VGPU_REQUEST_DATA_LENGTH, UINT32_MAX, 44, VGPU_CODE_INVALID_REQUEST},
		{VGPU_REQUEST_RESERVED, 1, 40, VGPU_CODE_INVALID_REQUEST},
		{VGPU_REQUEST_RESERVED + 4, 1, 40, VGPU_CODE_INVALID_REQUEST},
	};
	const uint32_t params[] = {1, 2};

	for (size_t i = 0; i < ARRAY_LEN(lies); i++) {
		uint8_t bytes[VGPU_MESSAGE_BYTES + 1] = {0};
		struct request_view request;
		const char *why = NULL;

		request_encode(bytes, VGPU_OP_CUDA_KERNEL, 0, params, 2, NULL, 0);
		vgpu_put_le32(bytes + lies[i].at, lies[i].value);
		assert_int_equal(request_decode(&request, bytes, lies[i].length, &why),
		                 lies[i].code);
		assert_non_null(why);
	}
}

static void test_data_must_not_overlap_or_leave(void **state UNUSED)
{
	static const struct {
		uint32_t offset, length;
		enum vgpu_code code;
	} cases[] = {
		{40, 4, VGPU_CODE_OK},
		{39, 4, VGPU_CODE_INVALID_REQUEST},
		{41, 4, VGPU_CODE_INVALID_REQUEST},
		{UINT32_MAX, 4, VGPU_CODE_INVALID_REQUEST},
		{44, 0, VGPU_CODE_OK},
		{UINT32_MAX, 0, VGPU_CODE_OK},
	};
	const uint32_t params[] = {1, 2};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		uint8_t bytes[VGPU_MESSAGE_BYTES];
		struct request_view request;

		request_encode(bytes, VGPU_OP_CUDA_KERNEL, 0, params, 2, "data", 4);
		vgpu_put_le32(bytes + VGPU_REQUEST_DATA_OFFSET, cases[i].offset);
		vgpu_put_le32(bytes + VGPU_REQUEST_DATA_LENGTH, cases[i].length);
		assert_int_equal(request_decode(&request, bytes, 44, NULL), cases[i].code);
	}
}

static void test_encode_refuses_what_does_not_fit(void **state UNUSED)
{
	uint8_t bytes[VGPU_MESSAGE_BYTES], data[VGPU_MESSAGE_BYTES] = {0};

	assert_int_equal(request_encode(bytes, 0, 0, NULL, 0, data, 992), 1024);
	assert_int_equal(request_encode(bytes, 0, 0, NULL, 0, data, 993), 0);
}

static void test_every_code_has_a_name(void **state UNUSED)
{
	for (uint32_t code = 0; code < VGPU_CODE_COUNT; code++)
		assert_string_not_equal(code_name(code), "unknown code");
	assert_string_equal(code_name(VGPU_CODE_COUNT), "unknown code");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_contract_bytes),
		cmocka_unit_test(test_lies_are_refused),
		cmocka_unit_test(test_data_must_not_overlap_or_leave),
		cmocka_unit_test(test_encode_refuses_what_does_not_fit),
		cmocka_unit_test(test_every_code_has_a_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
