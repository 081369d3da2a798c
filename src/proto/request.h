/* SPDX-License-Identifier: MIT */
/*
 * Requests and responses of the first protocol: one decoder that validates
 * everything, one encoder, for guest, mediator and worker.
 *
 * A decoded view points into the bytes that it was decoded from and owns
 * nothing. After a successful decode every count, offset and length in it has
 * been checked against the size of the message, in 64 bits.
 */
#ifndef PROTO_REQUEST_H
#define PROTO_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vgpu/protocol.h"

struct request_view {
	uint32_t opcode;
	uint32_t flags;
	uint32_t param_count;
	const uint8_t *params; /* param_count little-endian words */
	const uint8_t *data;   /* data_bytes bytes; NULL when there are none */
	uint32_t data_bytes;
};

struct response_view {
	uint32_t status; /* as sent: may be a code that this version does not know */
	uint32_t result_count;
	const uint8_t *results; /* result_count little-endian words */
	const uint8_t *data;
	uint32_t data_bytes;
	uint32_t exec_time_us;
};

/*
 * Whether jobs of the operation (enum vgpu_opcode, known or not) run on the GPU. The others are
 * sent to the worker without a turn, so that none of them may ever wait for the GPU.
 */
bool opcode_needs_gpu(uint32_t opcode);

/*
 * Returns VGPU_CODE_OK, or the code to answer with: VGPU_CODE_INVALID_LENGTH for a
 * message without a whole header, VGPU_CODE_TOO_LARGE for one over
 * VGPU_MESSAGE_BYTES, VGPU_CODE_INVALID_REQUEST for a wrong major version, reserved
 * words that are not 0, parameters or data that do not lie inside the message, and
 * data that overlaps header or parameters. *@why, when @why is not NULL, is then a
 * constant English text for the log.
 */
enum vgpu_code request_decode(struct request_view *out, const void *bytes, size_t length,
                              const char **why);

/* The same for a response. */
enum vgpu_code response_decode(struct response_view *out, const void *bytes, size_t length,
                               const char **why);

/* Word @index of a decoded request; @index must be below param_count. */
uint32_t request_param(const struct request_view *request, uint32_t index);

/* Word @index of a decoded response; @index must be below result_count. */
uint32_t response_result(const struct response_view *response, uint32_t index);

/*
 * Write a whole message to @to, which has room for VGPU_MESSAGE_BYTES. Data follows
 * the words directly. Return the message's length, or 0 if it does not fit.
 */
size_t request_encode(void *to, uint32_t opcode, uint32_t flags, const uint32_t *params,
                      uint32_t param_count, const void *data, uint32_t data_bytes);
size_t response_encode(void *to, uint32_t status, uint32_t exec_time_us, const uint32_t *results,
                       uint32_t result_count, const void *data, uint32_t data_bytes);

/* "rate limited" and the like, in the words of the contract; never NULL. */
const char *code_name(uint32_t code);

#endif
