/* SPDX-License-Identifier: MIT */
/*
 * The operations that a worker knows: one row each with everything about it that
 * does not depend on the backend. Backends hold their handlers in arrays indexed
 * by enum operation_id; what needs no GPU has none.
 */
#ifndef WORKER_OPERATION_H
#define WORKER_OPERATION_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/request.h"
#include "vgpu/sgemm.h"

enum {
	OPERATION_PARAMS = 2,                   /* most parameters of any operation */
	OPERATION_RESULTS = VGPU_SGEMM_RESULTS, /* most results of any operation */
};

_Static_assert((int)VGPU_INFO_COUNT <= (int)OPERATION_RESULTS, "device info fits");

enum operation_id {
	OPERATION_NOP,
	OPERATION_ADD,
	OPERATION_DEVICE_INFO,
	OPERATION_SPIN,
	OPERATION_FAULT,
	OPERATION_HANG,
	OPERATION_SGEMM,
	OPERATION_RESIDUE,
	OPERATION_COUNT,
};

struct operation {
	uint32_t opcode; /* enum vgpu_opcode */
	enum operation_id id;
	const char *name;
	bool needs_test_ops;
	uint32_t param_count;
	uint32_t result_count;
	/* Inclusive bounds of the first parameter, as unsigned. */
	uint32_t first_min, first_max;
};

/*
 * Finds the row for a decoded request and checks it. Returns VGPU_CODE_OK with *@out
 * set, VGPU_CODE_UNSUPPORTED for an unknown operation or a test operation while
 * @test_ops is false, VGPU_CODE_INVALID_REQUEST for a wrong number of parameters or one
 * out of range.
 */
enum vgpu_code operation_find(const struct operation **out, const struct request_view *request,
                              bool test_ops);

#endif
