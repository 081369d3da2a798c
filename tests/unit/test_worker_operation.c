/* SPDX-License-Identifier: MIT */
/*
 * Which requests the worker takes: known operations with the right number of
 * parameters in range, and operations for tests only when they are allowed.
 */
#include "worker/operation.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/util.h"

static enum vgpu_code find(uint32_t opcode, uint32_t param_count, uint32_t first, bool test_ops)
{
	const uint32_t params[] = {first, 0, 0};
	const struct operation *operation = NULL;
	uint8_t bytes[VGPU_MESSAGE_BYTES];
	struct request_view request;
	enum vgpu_code code;
	size_t length = request_encode(bytes, opcode, 0, params, param_count, NULL, 0);

	assert_int_equal(request_decode(&request, bytes, length, NULL), VGPU_CODE_OK);
	code = operation_find(&operation, &request, test_ops);
	assert_true((code == VGPU_CODE_OK) == (operation != NULL));
	if (operation)
		assert_int_equal(operation->opcode, opcode);
	return code;
}

static void test_table(void **state UNUSED)
{
	static const struct {
		uint32_t opcode, params, min, max;
		bool test_op;
	} rows[] = {
		{VGPU_OP_NOP, 0, 0, 0, false},
		{VGPU_OP_CUDA_KERNEL, 2, 0, UINT32_MAX, false},
		{VGPU_OP_GET_DEVICE_INFO, 0, 0, 0, false},
		{VGPU_OP_SGEMM, 2, 1, VGPU_SGEMM_MAX_N, false},
		{VGPU_OP_SPIN, 1, 0, 600000000, true},
		{VGPU_OP_FAULT, 0, 0, 0, true},
		{VGPU_OP_HANG, 0, 0, 0, true},
		{VGPU_OP_RESIDUE, 2, 0, 1, true},
	};

	assert_int_equal(ARRAY_LEN(rows), OPERATION_COUNT);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		const uint32_t opcode = rows[i].opcode, params = rows[i].params;

		assert_int_equal(find(opcode, params, rows[i].min, false),
		                 rows[i].test_op ? VGPU_CODE_UNSUPPORTED : VGPU_CODE_OK);
		assert_int_equal(find(opcode, params, rows[i].min, true), VGPU_CODE_OK);
		assert_int_equal(find(opcode, params, rows[i].max, true), VGPU_CODE_OK);
		assert_int_equal(find(opcode, params + 1, rows[i].min, true),
		                 VGPU_CODE_INVALID_REQUEST);
		if (params == 0)
			continue;
		assert_int_equal(find(opcode, params - 1, rows[i].min, true),
		                 VGPU_CODE_INVALID_REQUEST);
		if (rows[i].min > 0)
			assert_int_equal(find(opcode, params, rows[i].min - 1, true),
			                 VGPU_CODE_INVALID_REQUEST);
		if (rows[i].max < UINT32_MAX)
			assert_int_equal(find(opcode, params, rows[i].max + 1, true),
			                 VGPU_CODE_INVALID_REQUEST);
	}
}

static void test_unknown_operations(void **state UNUSED)
{
	static const uint32_t unknown[] = {VGPU_OP_MEMORY_ALLOC,
	                                   VGPU_OP_MEMORY_FREE,
	                                   VGPU_OP_MEMORY_COPY,
	                                   VGPU_OP_SYNCHRONIZE,
	                                   0x0100,
	                                   0x7fff,
	                                   UINT32_MAX};

	for (size_t i = 0; i < ARRAY_LEN(unknown); i++)
		assert_int_equal(find(unknown[i], 0, 0, true), VGPU_CODE_UNSUPPORTED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_unknown_operations),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
