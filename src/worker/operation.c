/* SPDX-License-Identifier: MIT */
/*
 * See operation.h. A request has been decoded before it comes here, so that its
 * counts are known to be true; here they are compared with what the operation
 * takes.
 */
#include "worker/operation.h"

#include "base/util.h"
#include "worker/residue.h"

static const struct operation operations[OPERATION_COUNT] = {
	{
		.opcode = VGPU_OP_NOP,
		.id = OPERATION_NOP,
		.name = "nop",
	},
	{
		.opcode = VGPU_OP_CUDA_KERNEL,
		.id = OPERATION_ADD,
		.name = "add",
		.param_count = 2,
		.result_count = 1,
		.first_max = UINT32_MAX,
	},
	{
		.opcode = VGPU_OP_GET_DEVICE_INFO,
		.id = OPERATION_DEVICE_INFO,
		.name = "device-info",
		.result_count = VGPU_INFO_COUNT,
	},
	{
		.opcode = VGPU_OP_SPIN,
		.id = OPERATION_SPIN,
		.name = "spin",
		.needs_test_ops = true,
		.param_count = 1,
		.first_max = VGPU_SPIN_MAX_US,
	},
	{
		.opcode = VGPU_OP_FAULT,
		.id = OPERATION_FAULT,
		.name = "fault",
		.needs_test_ops = true,
	},
	{
		.opcode = VGPU_OP_HANG,
		.id = OPERATION_HANG,
		.name = "hang",
		.needs_test_ops = true,
	},
	{
		.opcode = VGPU_OP_SGEMM,
		.id = OPERATION_SGEMM,
		.name = "sgemm",
		.param_count = 2,
		.result_count = VGPU_SGEMM_RESULTS,
		.first_min = 1,
		.first_max = VGPU_SGEMM_MAX_N,
	},
	{
		.opcode = VGPU_OP_RESIDUE,
		.id = OPERATION_RESIDUE,
		.name = "residue",
		.needs_test_ops = true,
		.param_count = 2,
		.result_count = RESIDUE_RESULTS,
		.first_max = 1,
	},
};

static const struct operation *by_opcode(uint32_t opcode)
{
	for (size_t i = 0; i < ARRAY_LEN(operations); i++) {
		if (operations[i].opcode == opcode)
			return &operations[i];
	}
	return NULL;
}

enum vgpu_code operation_find(const struct operation **out, const struct request_view *request,
                              bool test_ops)
{
	const struct operation *operation = by_opcode(request->opcode);
	uint32_t first;

	if (!operation || (operation->needs_test_ops && !test_ops))
		return VGPU_CODE_UNSUPPORTED;
	if (request->param_count != operation->param_count)
		return VGPU_CODE_INVALID_REQUEST;
	if (operation->param_count) {
		first = request_param(request, 0);
		if (first < operation->first_min || first > operation->first_max)
			return VGPU_CODE_INVALID_REQUEST;
	}
	*out = operation;
	return VGPU_CODE_OK;
}
