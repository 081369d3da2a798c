/* SPDX-License-Identifier: MIT */
/*
 * See request.h. The two message kinds differ only in where their words stand,
 * so one walk over a small table of offsets decodes both.
 */
#include "proto/request.h"

#include <string.h>

#include "vgpu/wire.h"

_Static_assert(VGPU_REQUEST_RESERVED + 8 == VGPU_HEADER_BYTES, "a request header is 32 bytes");
_Static_assert(VGPU_RESPONSE_RESERVED + 8 == VGPU_HEADER_BYTES, "a response header is 32 bytes");

/* Where the parts lie whose checks do not depend on the kind of message. */
struct layout {
	uint8_t word_count;
	uint8_t data_offset;
	uint8_t data_length;
	uint8_t reserved;
};

static const struct layout request_layout = {VGPU_REQUEST_PARAM_COUNT, VGPU_REQUEST_DATA_OFFSET,
                                             VGPU_REQUEST_DATA_LENGTH, VGPU_REQUEST_RESERVED};
static const struct layout response_layout = {VGPU_RESPONSE_RESULT_COUNT, VGPU_RESPONSE_DATA_OFFSET,
                                              VGPU_RESPONSE_DATA_LENGTH, VGPU_RESPONSE_RESERVED};

struct body {
	uint32_t word_count;
	const uint8_t *words;
	const uint8_t *data;
	uint32_t data_bytes;
};

static enum vgpu_code fail(const char **why, const char *text, enum vgpu_code code)
{
	if (why)
		*why = text;
	return code;
}

static enum vgpu_code body_decode(struct body *out, const struct layout *layout,
                                  const uint8_t *bytes, size_t length, const char **why)
{
	uint64_t data_offset, data_end, words_end;

	if (length < VGPU_HEADER_BYTES)
		return fail(why, "shorter than its header", VGPU_CODE_INVALID_LENGTH);
	if (length > VGPU_MESSAGE_BYTES)
		return fail(why, "longer than 1024 bytes", VGPU_CODE_TOO_LARGE);
	if (vgpu_get_le32(bytes) >> 16 != VGPU_PROTOCOL_VERSION >> 16)
		return fail(why, "protocol version is not 1.x", VGPU_CODE_INVALID_REQUEST);
	if (vgpu_get_le64(bytes + layout->reserved) != 0)
		return fail(why, "reserved words are not 0", VGPU_CODE_INVALID_REQUEST);

	out->word_count = vgpu_get_le32(bytes + layout->word_count);
	words_end = VGPU_HEADER_BYTES + UINT64_C(4) * out->word_count;
	if (words_end > length)
		return fail(why, "more words counted than sent", VGPU_CODE_INVALID_REQUEST);
	out->words = bytes + VGPU_HEADER_BYTES;

	data_offset = vgpu_get_le32(bytes + layout->data_offset);
	out->data_bytes = vgpu_get_le32(bytes + layout->data_length);
	out->data = NULL;
	if (out->data_bytes == 0)
		return VGPU_CODE_OK;
	data_end = data_offset + out->data_bytes;
	if (data_offset < words_end)
		return fail(why, "data overlaps what stands before it", VGPU_CODE_INVALID_REQUEST);
	if (data_end > length)
		return fail(why, "data ends outside the message", VGPU_CODE_INVALID_REQUEST);
	out->data = bytes + data_offset;
	return VGPU_CODE_OK;
}

enum vgpu_code request_decode(struct request_view *out, const void *bytes, size_t length,
                              const char **why)
{
	struct body body;
	enum vgpu_code code;

	code = body_decode(&body, &request_layout, bytes, length, why);
	if (code != VGPU_CODE_OK)
		return code;
	*out = (struct request_view){
		.opcode = vgpu_get_le32((const uint8_t *)bytes + VGPU_REQUEST_OPCODE),
		.flags = vgpu_get_le32((const uint8_t *)bytes + VGPU_REQUEST_FLAGS),
		.param_count = body.word_count,
		.params = body.words,
		.data = body.data,
		.data_bytes = body.data_bytes,
	};
	return VGPU_CODE_OK;
}

enum vgpu_code response_decode(struct response_view *out, const void *bytes, size_t length,
                               const char **why)
{
	struct body body;
	enum vgpu_code code;

	code = body_decode(&body, &response_layout, bytes, length, why);
	if (code != VGPU_CODE_OK)
		return code;
	*out = (struct response_view){
		.status = vgpu_get_le32((const uint8_t *)bytes + VGPU_RESPONSE_STATUS),
		.result_count = body.word_count,
		.results = body.words,
		.data = body.data,
		.data_bytes = body.data_bytes,
		.exec_time_us = vgpu_get_le32((const uint8_t *)bytes + VGPU_RESPONSE_EXEC_TIME_US),
	};
	return VGPU_CODE_OK;
}

uint32_t request_param(const struct request_view *request, uint32_t index)
{
	return vgpu_get_le32(request->params + 4 * (size_t)index);
}

uint32_t response_result(const struct response_view *response, uint32_t index)
{
	return vgpu_get_le32(response->results + 4 * (size_t)index);
}

static size_t body_encode(uint8_t *to, const struct layout *layout, const uint32_t *words,
                          uint32_t word_count, const void *data, uint32_t data_bytes)
{
	uint64_t data_offset = VGPU_HEADER_BYTES + UINT64_C(4) * word_count;

	if (data_offset + data_bytes > VGPU_MESSAGE_BYTES)
		return 0;
	memset(to, 0, VGPU_HEADER_BYTES);
	vgpu_put_le32(to, VGPU_PROTOCOL_VERSION);
	vgpu_put_le32(to + layout->word_count, word_count);
	vgpu_put_le32(to + layout->data_offset, data_bytes ? (uint32_t)data_offset : 0);
	vgpu_put_le32(to + layout->data_length, data_bytes);
	for (uint32_t i = 0; i < word_count; i++)
		vgpu_put_le32(to + VGPU_HEADER_BYTES + 4 * (size_t)i, words[i]);
	if (data_bytes)
		memcpy(to + data_offset, data, data_bytes);
	return (size_t)(data_offset + data_bytes);
}

size_t request_encode(void *to, uint32_t opcode, uint32_t flags, const uint32_t *params,
                      uint32_t param_count, const void *data, uint32_t data_bytes)
{
	size_t length = body_encode(to, &request_layout, params, param_count, data, data_bytes);

	if (length) {
		vgpu_put_le32((uint8_t *)to + VGPU_REQUEST_OPCODE, opcode);
		vgpu_put_le32((uint8_t *)to + VGPU_REQUEST_FLAGS, flags);
	}
	return length;
}

size_t response_encode(void *to, uint32_t status, uint32_t exec_time_us, const uint32_t *results,
                       uint32_t result_count, const void *data, uint32_t data_bytes)
{
	size_t length = body_encode(to, &response_layout, results, result_count, data, data_bytes);

	if (length) {
		vgpu_put_le32((uint8_t *)to + VGPU_RESPONSE_STATUS, status);
		vgpu_put_le32((uint8_t *)to + VGPU_RESPONSE_EXEC_TIME_US, exec_time_us);
	}
	return length;
}

bool opcode_needs_gpu(uint32_t opcode)
{
	return opcode != VGPU_OP_NOP && opcode != VGPU_OP_GET_DEVICE_INFO;
}

const char *code_name(uint32_t code)
{
	static const char *const names[VGPU_CODE_COUNT] = {
		[VGPU_CODE_OK] = "done",
		[VGPU_CODE_INVALID_REQUEST] = "invalid request",
		[VGPU_CODE_TOO_LARGE] = "request too large",
		[VGPU_CODE_UNAVAILABLE] = "mediator unavailable",
		[VGPU_CODE_TIMEOUT] = "timeout",
		[VGPU_CODE_CUDA] = "CUDA error",
		[VGPU_CODE_INVALID_POOL] = "invalid pool",
		[VGPU_CODE_QUEUE_FULL] = "queue full",
		[VGPU_CODE_UNSUPPORTED] = "unsupported operation",
		[VGPU_CODE_INVALID_LENGTH] = "invalid length",
		[VGPU_CODE_RATE_LIMITED] = "rate limited",
		[VGPU_CODE_QUARANTINED] = "VM quarantined",
		[VGPU_CODE_CONTEXT_LOST] = "context lost",
		[VGPU_CODE_MEMORY_QUOTA] = "memory quota exceeded",
		[VGPU_CODE_CANCELLED] = "cancelled",
	};

	return code < VGPU_CODE_COUNT ? names[code] : "unknown code";
}
