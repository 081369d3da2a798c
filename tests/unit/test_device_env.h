/* SPDX-License-Identifier: MIT */
/*
 * What tests of the device's register file share: a device as its guest and its mediator
 * have it, and messages written by hand.
 */
#ifndef TEST_DEVICE_ENV_H
#define TEST_DEVICE_ENV_H

#include "vgpu-regs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "vgpu/wire.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define NOW_US       0x123456789abcull

static const struct vgpu_regs_config config_b = {
	.vm_id = 200, .pool_id = 'B', .priority = VGPU_PRIORITY_HIGH};

static inline int setup(void **state)
{
	struct vgpu_regs *regs;

	if (vgpu_regs_new(&regs, &config_b))
		return -1;
	*state = regs;
	return 0;
}

static inline int teardown(void **state)
{
	vgpu_regs_free(*state);
	return 0;
}

static inline uint32_t get(struct vgpu_regs *regs, uint32_t offset)
{
	return (uint32_t)vgpu_regs_read(regs, offset, 4);
}

static inline void set(struct vgpu_regs *regs, uint32_t offset, uint32_t value)
{
	vgpu_regs_write(regs, offset, 4, value, NOW_US);
}

static inline size_t pending(const struct vgpu_regs *regs)
{
	const uint8_t *out;

	return vgpu_regs_pending(regs, &out);
}

static inline void send_all(struct vgpu_regs *regs)
{
	vgpu_regs_sent(regs, pending(regs));
}

/* Connects, with HELLO sent. */
static inline void connect_up(struct vgpu_regs *regs)
{
	vgpu_regs_connected(regs);
	send_all(regs);
}

/* Submits @length bytes with @id; they are sent. */
static inline void submit(struct vgpu_regs *regs, uint32_t id, uint32_t length)
{
	set(regs, VGPU_REG_REQUEST_LEN, length);
	set(regs, VGPU_REG_REQUEST_ID, id);
	set(regs, VGPU_REG_DOORBELL, 1);
	send_all(regs);
}

static inline size_t message(uint8_t *to, uint32_t type, uint32_t id, const void *payload,
                             uint16_t bytes)
{
	const struct vgpu_socket_header header = {
		.type = type, .request_id = id, .payload_bytes = bytes};

	vgpu_socket_header_encode(to, &header);
	if (bytes)
		memcpy(to + VGPU_SOCKET_HEADER_BYTES, payload, bytes);
	return VGPU_SOCKET_HEADER_BYTES + (size_t)bytes;
}

static inline int deliver(struct vgpu_regs *regs, uint32_t type, uint32_t id, const void *payload,
                          uint16_t bytes)
{
	uint8_t stream[VGPU_SOCKET_HEADER_BYTES + VGPU_MESSAGE_BYTES];

	return vgpu_regs_receive(regs, stream, message(stream, type, id, payload, bytes), NOW_US);
}

/* A response with @status and two results; returns its length. */
static inline uint16_t response(uint8_t *to, uint32_t status, uint32_t result0, uint32_t result1)
{
	memset(to, 0, VGPU_HEADER_BYTES);
	vgpu_put_le32(to + VGPU_RESPONSE_VERSION, VGPU_PROTOCOL_VERSION);
	vgpu_put_le32(to + VGPU_RESPONSE_STATUS, status);
	vgpu_put_le32(to + VGPU_RESPONSE_RESULT_COUNT, 2);
	vgpu_put_le32(to + VGPU_HEADER_BYTES, result0);
	vgpu_put_le32(to + VGPU_HEADER_BYTES + 4, result1);
	return VGPU_HEADER_BYTES + 8;
}

static inline void assert_ended(struct vgpu_regs *regs, uint32_t code)
{
	assert_int_equal(get(regs, VGPU_REG_STATUS), code ? VGPU_STATUS_ERROR : VGPU_STATUS_DONE);
	assert_int_equal(get(regs, VGPU_REG_ERROR_CODE), code);
	assert_int_equal(get(regs, VGPU_REG_IRQ_STATUS), VGPU_IRQ_COMPLETION);
	assert_int_equal(get(regs, VGPU_REG_TIMESTAMP_LO), (uint32_t)NOW_US);
	assert_int_equal(get(regs, VGPU_REG_TIMESTAMP_HI), NOW_US >> 32);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

#endif
