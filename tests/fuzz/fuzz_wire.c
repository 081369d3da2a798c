/* SPDX-License-Identifier: MIT */
/*
 * Every decoder of bytes that come from somebody else, one per input.
 *
 * The first byte chooses the decoder, the rest is what it gets, in a block of exactly
 * that size. What is accepted must lie inside the block, be in range, and come out the
 * same when it is encoded and decoded again; what is refused must leave no trace and
 * say why. A violated expectation aborts.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "proto/request.h"
#include "proto/worker_msg.h"
#include "settings/settings.h"
#include "vgpu/wire.h"

#define REQUIRE(condition)        \
	do {                      \
		if (!(condition)) \
			abort();  \
	} while (0)

enum { UNTOUCHED = 0x5a };

static bool lies_inside(const uint8_t *part, size_t part_bytes, const uint8_t *whole, size_t bytes)
{
	return part >= whole && part_bytes <= bytes && part <= whole + bytes - part_bytes;
}

/* ---- Socket header ---------------------------------------------------------------- */

static void try_socket_header(const uint8_t *bytes, size_t length)
{
	uint8_t again[VGPU_SOCKET_HEADER_BYTES];
	struct vgpu_socket_header header;
	int r;

	if (length < VGPU_SOCKET_HEADER_BYTES)
		return;
	r = vgpu_socket_header_decode(&header, bytes);
	REQUIRE(r == 0 || r == VGPU_CODE_INVALID_REQUEST || r == VGPU_CODE_TOO_LARGE);
	if (r != 0)
		return;
	REQUIRE(header.payload_bytes <= VGPU_MESSAGE_BYTES);
	vgpu_socket_header_encode(again, &header);
	REQUIRE(memcmp(again, bytes, sizeof(again)) == 0);
}

/* ---- Requests and responses ---------------------------------------------------------- */

static void require_parts(const uint8_t *bytes, size_t length, const uint8_t *words,
                          uint32_t word_count, const uint8_t *data, uint32_t data_bytes)
{
	const uint8_t *words_end = words + 4 * (size_t)word_count;

	REQUIRE(length >= VGPU_HEADER_BYTES && length <= VGPU_MESSAGE_BYTES);
	REQUIRE(words == bytes + VGPU_HEADER_BYTES);
	REQUIRE(lies_inside(words, 4 * (size_t)word_count, bytes, length));
	REQUIRE((data == NULL) == (data_bytes == 0));
	if (data)
		REQUIRE(lies_inside(data, data_bytes, bytes, length) && data >= words_end);
}

static bool same_bytes(const uint8_t *a, const uint8_t *b, size_t bytes)
{
	return bytes == 0 || memcmp(a, b, bytes) == 0;
}

static void try_request(const uint8_t *bytes, size_t length)
{
	struct request_view view, second;
	uint8_t again[VGPU_MESSAGE_BYTES];
	uint32_t words[VGPU_MESSAGE_BYTES / 4];
	const char *why = NULL;
	size_t encoded;

	memset(&view, UNTOUCHED, sizeof(view));
	second = view;
	if (request_decode(&view, bytes, length, &why) != VGPU_CODE_OK) {
		REQUIRE(why && memcmp(&view, &second, sizeof(view)) == 0);
		REQUIRE(request_decode(&view, bytes, length, NULL) != VGPU_CODE_OK);
		return;
	}
	require_parts(bytes, length, view.params, view.param_count, view.data, view.data_bytes);
	for (uint32_t i = 0; i < view.param_count; i++)
		words[i] = request_param(&view, i);
	encoded = request_encode(again, view.opcode, view.flags, words, view.param_count, view.data,
	                         view.data_bytes);
	REQUIRE(encoded >= VGPU_HEADER_BYTES && encoded <= length);
	REQUIRE(request_decode(&second, again, encoded, &why) == VGPU_CODE_OK);
	REQUIRE(second.opcode == view.opcode && second.flags == view.flags);
	REQUIRE(second.param_count == view.param_count && second.data_bytes == view.data_bytes);
	REQUIRE(same_bytes(second.params, view.params, 4 * (size_t)view.param_count));
	REQUIRE(same_bytes(second.data, view.data, view.data_bytes));
}

static void try_response(const uint8_t *bytes, size_t length)
{
	struct response_view view, second;
	uint8_t again[VGPU_MESSAGE_BYTES];
	uint32_t words[VGPU_MESSAGE_BYTES / 4];
	const char *why = NULL;
	size_t encoded;

	memset(&view, UNTOUCHED, sizeof(view));
	second = view;
	if (response_decode(&view, bytes, length, &why) != VGPU_CODE_OK) {
		REQUIRE(why && memcmp(&view, &second, sizeof(view)) == 0);
		return;
	}
	require_parts(bytes, length, view.results, view.result_count, view.data, view.data_bytes);
	REQUIRE(code_name(view.status));
	for (uint32_t i = 0; i < view.result_count; i++)
		words[i] = response_result(&view, i);
	encoded = response_encode(again, view.status, view.exec_time_us, words, view.result_count,
	                          view.data, view.data_bytes);
	REQUIRE(encoded >= VGPU_HEADER_BYTES && encoded <= length);
	REQUIRE(response_decode(&second, again, encoded, &why) == VGPU_CODE_OK);
	REQUIRE(second.status == view.status && second.exec_time_us == view.exec_time_us);
	REQUIRE(second.result_count == view.result_count && second.data_bytes == view.data_bytes);
	REQUIRE(same_bytes(second.results, view.results, 4 * (size_t)view.result_count));
	REQUIRE(same_bytes(second.data, view.data, view.data_bytes));
}

/* An encoder asked for anything at all: it fits, or it says 0 and writes nothing. */
static void try_encode(const uint8_t *bytes, size_t length)
{
	static const uint32_t words[VGPU_MESSAGE_BYTES / 4];
	uint8_t to[VGPU_MESSAGE_BYTES];
	uint32_t word_count, data_bytes;
	struct request_view view;
	size_t encoded;

	if (length < 8)
		return;
	word_count = vgpu_get_le32(bytes);
	data_bytes = vgpu_get_le32(bytes + 4);
	memset(to, UNTOUCHED, sizeof(to));
	/* More than there is may only be claimed where it cannot fit. */
	if (data_bytes > length && data_bytes <= VGPU_MESSAGE_BYTES)
		data_bytes = (uint32_t)length;
	encoded = request_encode(to, 1, 2, words, word_count, bytes, data_bytes);
	if (encoded == 0) {
		REQUIRE(VGPU_HEADER_BYTES + UINT64_C(4) * word_count + data_bytes >
		        VGPU_MESSAGE_BYTES);
		for (size_t i = 0; i < sizeof(to); i++)
			REQUIRE(to[i] == UNTOUCHED);
		return;
	}
	REQUIRE(encoded == VGPU_HEADER_BYTES + 4 * (size_t)word_count + data_bytes);
	REQUIRE(request_decode(&view, to, encoded, NULL) == VGPU_CODE_OK);
	REQUIRE(same_bytes(view.data, bytes, data_bytes));
}

/* ---- Packets of a worker ------------------------------------------------------------ */

static void try_worker_msg(const uint8_t *bytes, size_t length)
{
	uint8_t again[WORKER_MSG_MAX_BYTES];
	struct worker_msg msg, before;

	memset(&msg, UNTOUCHED, sizeof(msg));
	before = msg;
	if (worker_msg_decode(&msg, bytes, length) < 0) {
		REQUIRE(memcmp(&msg, &before, sizeof(msg)) == 0);
		return;
	}
	REQUIRE(length == WORKER_MSG_HEADER_BYTES + (size_t)msg.payload_bytes);
	REQUIRE(msg.payload_bytes <= WORKER_MSG_PAYLOAD_BYTES);
	REQUIRE((msg.payload == NULL) == (msg.payload_bytes == 0));
	if (msg.payload)
		REQUIRE(lies_inside(msg.payload, msg.payload_bytes, bytes, length));
	REQUIRE(worker_msg_encode(again, &msg) == length);
	REQUIRE(memcmp(again, bytes, length) == 0);
}

static void try_worker_device(const uint8_t *bytes, size_t length)
{
	struct worker_device device, second;
	uint8_t again[WORKER_DEVICE_BYTES];

	if (worker_device_decode(&device, bytes, length) < 0) {
		REQUIRE(length != WORKER_DEVICE_BYTES);
		return;
	}
	REQUIRE(memchr(device.name, '\0', sizeof(device.name)));
	worker_device_encode(again, &device);
	REQUIRE(worker_device_decode(&second, again, sizeof(again)) == 0);
	REQUIRE(memcmp(again, bytes, 20 + strlen(device.name)) == 0);
	REQUIRE(strcmp(second.name, device.name) == 0);
}

/* ---- Settings --------------------------------------------------------------------------- */

static void require_setting(const struct setting_field *field, int64_t stored)
{
	struct vm_settings settings = vm_settings_default;
	const struct decimal *number = &field->number;
	int64_t second = UNTOUCHED;
	char text[64];

	REQUIRE((stored == 0 && number->zero_allowed) ||
	        (stored >= number->min && stored <= number->max));
	decimal_format(text, sizeof(text), number, stored);
	REQUIRE(decimal_parse(&second, number, text) == 0);
	REQUIRE(second == stored);
	REQUIRE(decimal_from_double(&second, number, decimal_to_double(number, stored)) == 0);
	REQUIRE(second == stored);
	setting_put(&settings, field, stored);
	REQUIRE(setting_get(&settings, field) == stored);
}

static void try_setting(const uint8_t *bytes, size_t length)
{
	char *text = malloc(length + 1);

	if (!text)
		return;
	memcpy(text, bytes, length);
	text[length] = '\0';
	for (size_t i = 0; i < SETTING_COUNT; i++) {
		const struct setting_field *field = &setting_fields[i];
		int64_t stored = UNTOUCHED;

		if (decimal_parse(&stored, &field->number, text) != 0) {
			REQUIRE(stored == UNTOUCHED);
			continue;
		}
		require_setting(field, stored);
		REQUIRE(fabs(strtod(text, NULL) * (double)field->number.scale - (double)stored) <
		        1e-3);
	}
	free(text);
}

static void try_setting_double(const uint8_t *bytes, size_t length)
{
	double value;

	if (length < sizeof(value))
		return;
	memcpy(&value, bytes, sizeof(value));
	for (size_t i = 0; i < SETTING_COUNT; i++) {
		const struct setting_field *field = &setting_fields[i];
		int64_t stored = UNTOUCHED;

		if (decimal_from_double(&stored, &field->number, value) != 0) {
			REQUIRE(stored == UNTOUCHED);
			continue;
		}
		require_setting(field, stored);
		REQUIRE(fabs(value * (double)field->number.scale - (double)stored) < 1e-3);
	}
}

static void (*const decoders[])(const uint8_t *bytes, size_t length) = {
	try_socket_header, try_request, try_response,       try_worker_msg,
	try_worker_device, try_setting, try_setting_double, try_encode,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *exact;

	if (size == 0)
		return 0;
	/* A block of its own, so that a sanitizer sees a byte read beyond it. */
	exact = malloc(size > 1 ? size - 1 : 1);
	if (!exact)
		return 0;
	memcpy(exact, data + 1, size - 1);
	decoders[data[0] % ARRAY_LEN(decoders)](exact, size - 1);
	free(exact);
	return 0;
}
