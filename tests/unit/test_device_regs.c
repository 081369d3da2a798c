/* SPDX-License-Identifier: MIT */
/*
 * The device's register file and connection, without QEMU: every register's reset
 * value and access, the doorbell's answers, what each message of the mediator does,
 * and what a stream cut or broken anywhere does. Bytes that go over the wire are
 * compared with bytes written by hand.
 */
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

static int setup(void **state)
{
	struct vgpu_regs *regs;

	if (vgpu_regs_new(&regs, &config_b))
		return -1;
	*state = regs;
	return 0;
}

static int teardown(void **state)
{
	vgpu_regs_free(*state);
	return 0;
}

/* ---- Helpers ------------------------------------------------------------ */

static uint32_t get(struct vgpu_regs *regs, uint32_t offset)
{
	return (uint32_t)vgpu_regs_read(regs, offset, 4);
}

static void set(struct vgpu_regs *regs, uint32_t offset, uint32_t value)
{
	vgpu_regs_write(regs, offset, 4, value, NOW_US);
}

static size_t pending(const struct vgpu_regs *regs)
{
	const uint8_t *out;

	return vgpu_regs_pending(regs, &out);
}

static void send_all(struct vgpu_regs *regs)
{
	vgpu_regs_sent(regs, pending(regs));
}

/* Connects, with HELLO sent. */
static void connect_up(struct vgpu_regs *regs)
{
	vgpu_regs_connected(regs);
	send_all(regs);
}

/* Submits @length bytes with @id; they are sent. */
static void submit(struct vgpu_regs *regs, uint32_t id, uint32_t length)
{
	set(regs, VGPU_REG_REQUEST_LEN, length);
	set(regs, VGPU_REG_REQUEST_ID, id);
	set(regs, VGPU_REG_DOORBELL, 1);
	send_all(regs);
}

static size_t message(uint8_t *to, uint32_t type, uint32_t id, const void *payload, uint16_t bytes)
{
	const struct vgpu_socket_header header = {
		.type = type, .request_id = id, .payload_bytes = bytes};

	vgpu_socket_header_encode(to, &header);
	if (bytes)
		memcpy(to + VGPU_SOCKET_HEADER_BYTES, payload, bytes);
	return VGPU_SOCKET_HEADER_BYTES + (size_t)bytes;
}

static int deliver(struct vgpu_regs *regs, uint32_t type, uint32_t id, const void *payload,
                   uint16_t bytes)
{
	uint8_t stream[VGPU_SOCKET_HEADER_BYTES + VGPU_MESSAGE_BYTES];

	return vgpu_regs_receive(regs, stream, message(stream, type, id, payload, bytes), NOW_US);
}

/* A response with @status and two results; returns its length. */
static uint16_t response(uint8_t *to, uint32_t status, uint32_t result0, uint32_t result1)
{
	memset(to, 0, VGPU_HEADER_BYTES);
	vgpu_put_le32(to + VGPU_RESPONSE_VERSION, VGPU_PROTOCOL_VERSION);
	vgpu_put_le32(to + VGPU_RESPONSE_STATUS, status);
	vgpu_put_le32(to + VGPU_RESPONSE_RESULT_COUNT, 2);
	vgpu_put_le32(to + VGPU_HEADER_BYTES, result0);
	vgpu_put_le32(to + VGPU_HEADER_BYTES + 4, result1);
	return VGPU_HEADER_BYTES + 8;
}

static void assert_ended(struct vgpu_regs *regs, uint32_t code)
{
	assert_int_equal(get(regs, VGPU_REG_STATUS), code ? VGPU_STATUS_ERROR : VGPU_STATUS_DONE);
	assert_int_equal(get(regs, VGPU_REG_ERROR_CODE), code);
	assert_int_equal(get(regs, VGPU_REG_IRQ_STATUS), VGPU_IRQ_COMPLETION);
	assert_int_equal(get(regs, VGPU_REG_TIMESTAMP_LO), (uint32_t)NOW_US);
	assert_int_equal(get(regs, VGPU_REG_TIMESTAMP_HI), NOW_US >> 32);
}

/* ---- Registers ---------------------------------------------------------- */

/* Every register below the buffers and above them; @writable is what sticks of all ones. */
static const struct {
	uint32_t offset, reset, writable;
} registers[] = {
	{VGPU_REG_DOORBELL, 0, 0},
	{VGPU_REG_STATUS, VGPU_STATUS_IDLE, 0},
	{VGPU_REG_POOL_ID, 'B', 0},
	{VGPU_REG_PRIORITY, 2, 0},
	{VGPU_REG_VM_ID, 200, 0},
	{VGPU_REG_ERROR_CODE, 0, 0},
	{VGPU_REG_REQUEST_LEN, 0, 0xffffffff},
	{VGPU_REG_RESPONSE_LEN, 0, 0},
	{VGPU_REG_PROTOCOL_VER, 0x00010000, 0},
	{VGPU_REG_CAPABILITIES, 0x11, 0},
	{VGPU_REG_IRQ_CTRL, 0, 1},
	{VGPU_REG_IRQ_STATUS, 0, 0},
	{VGPU_REG_REQUEST_ID, 0, 0xffffffff},
	{VGPU_REG_TIMESTAMP_LO, 0, 0},
	{VGPU_REG_TIMESTAMP_HI, 0, 0},
	{VGPU_REG_SCRATCH, 0, 0xffffffff},
	{VGPU_REG_LINK, 0, 0},
	{VGPU_REG_BUSY_REASON, 0, 0},
	{VGPU_REG_RETRY_AFTER_US, 0, 0},
	{VGPU_REG_ERROR_DETAIL, 0, 0},
	{VGPU_REG_CHANNELS, 0, 0},
	{VGPU_REG_WINDOW_KIB, 0, 0},
};

static void assert_reset_values(struct vgpu_regs *regs)
{
	uint32_t offset;
	size_t i;

	assert_int_equal(get(regs, VGPU_REG_MMIO_READS), 0);
	assert_int_equal(get(regs, VGPU_REG_MMIO_WRITES), 0);
	for (i = 0; i < COUNT(registers); i++)
		assert_int_equal(get(regs, registers[i].offset), registers[i].reset);
	for (offset = VGPU_REG_REQUEST; offset < VGPU_REG_LINK; offset += 8)
		assert_int_equal(vgpu_regs_read(regs, offset, 8), 0);
}

static void test_reset_values(void **state)
{
	assert_reset_values(*state);
}

static void test_access(void **state)
{
	struct vgpu_regs *regs = *state;
	size_t i;

	for (i = 0; i < COUNT(registers); i++) {
		set(regs, registers[i].offset, 0xffffffff);
		assert_int_equal(get(regs, registers[i].offset),
		                 registers[i].reset | registers[i].writable);
	}
}

static void test_reserved(void **state)
{
	struct vgpu_regs *regs = *state;
	uint32_t offset;

	connect_up(regs);
	for (offset = VGPU_REG_END; offset < VGPU_BAR0_BYTES; offset += 8) {
		vgpu_regs_write(regs, offset, 8, UINT64_MAX, NOW_US);
		assert_int_equal(vgpu_regs_read(regs, offset, 8), 0);
	}
	/* Over the end of what is there, and of the BAR; and where no sum may wrap. */
	vgpu_regs_write(regs, VGPU_REG_END - 1, 8, UINT64_MAX, NOW_US);
	assert_int_equal(vgpu_regs_read(regs, VGPU_REG_END - 1, 8), 0);
	vgpu_regs_write(regs, VGPU_BAR0_BYTES - 1, 8, UINT64_MAX, NOW_US);
	assert_int_equal(vgpu_regs_read(regs, VGPU_BAR0_BYTES - 1, 8), 0);
	vgpu_regs_write(regs, UINT64_MAX - 3, 8, UINT64_MAX, NOW_US);
	assert_int_equal(vgpu_regs_read(regs, UINT64_MAX - 3, 8), 0);
	assert_int_equal(get(regs, VGPU_REG_DOORBELL), 0);
}

static void test_mmio_counters(void **state)
{
	struct vgpu_regs *regs = *state;

	get(regs, VGPU_REG_STATUS);
	vgpu_regs_read(regs, 0xff8, 8);
	set(regs, VGPU_REG_SCRATCH, 1);
	assert_int_equal(get(regs, VGPU_REG_MMIO_READS), 2);
	assert_int_equal(get(regs, VGPU_REG_MMIO_WRITES), 1);
	assert_int_equal(get(regs, VGPU_REG_MMIO_READS), 4);
}

static void test_widths(void **state)
{
	static const unsigned widths[] = {1, 2, 4, 8};
	struct vgpu_regs *regs = *state;
	const uint64_t value = 0x8877665544332211ull;
	uint64_t expected;
	uint32_t at;
	size_t i;

	for (i = 0; i < COUNT(widths); i++) {
		for (at = VGPU_REG_REQUEST + 8; at < VGPU_REG_REQUEST + 16; at++) {
			vgpu_regs_write(regs, at - 1, 8, UINT64_MAX, NOW_US);
			vgpu_regs_write(regs, at + 7, 2, 0xffff, NOW_US);
			vgpu_regs_write(regs, at, widths[i], value, NOW_US);
			expected = widths[i] == 8 ? value : value & ((1ull << 8 * widths[i]) - 1);
			assert_int_equal(vgpu_regs_read(regs, at, widths[i]), expected);
			/* The neighbours are as they were. */
			assert_int_equal(vgpu_regs_read(regs, at - 1, 1), 0xff);
			assert_int_equal(vgpu_regs_read(regs, at + widths[i], 1), 0xff);
		}
	}
	/* The first and the last bytes of the buffer do not spill over its ends. */
	vgpu_regs_write(regs, VGPU_REG_REQUEST - 4, 8, UINT64_MAX, NOW_US);
	assert_int_equal(get(regs, VGPU_REG_REQUEST), 0xffffffff);
	assert_int_equal(get(regs, VGPU_REG_SCRATCH), 0xffffffff);
	vgpu_regs_write(regs, VGPU_REG_RESPONSE - 4, 8, UINT64_MAX, NOW_US);
	assert_int_equal(get(regs, VGPU_REG_RESPONSE), 0);
	/* Narrow and misaligned writes to registers. */
	set(regs, VGPU_REG_SCRATCH, 0x11223344);
	vgpu_regs_write(regs, VGPU_REG_SCRATCH + 1, 2, 0xaabb, NOW_US);
	assert_int_equal(get(regs, VGPU_REG_SCRATCH), 0x11aabb44);
	assert_int_equal(vgpu_regs_read(regs, VGPU_REG_POOL_ID, 8), 0x0000000200000042ull);
}

static void test_irq_status(void **state)
{
	struct vgpu_regs *regs = *state;

	set(regs, VGPU_REG_DOORBELL, 1);
	assert_int_equal(get(regs, VGPU_REG_IRQ_STATUS), 1);
	set(regs, VGPU_REG_IRQ_STATUS, 0);
	vgpu_regs_write(regs, VGPU_REG_IRQ_STATUS + 1, 1, 0xff, NOW_US);
	assert_int_equal(get(regs, VGPU_REG_IRQ_STATUS), 1);
	vgpu_regs_write(regs, VGPU_REG_IRQ_STATUS, 1, 1, NOW_US);
	assert_int_equal(get(regs, VGPU_REG_IRQ_STATUS), 0);
	/* Acknowledging is all it does. */
	assert_int_equal(get(regs, VGPU_REG_STATUS), VGPU_STATUS_ERROR);
	assert_int_equal(get(regs, VGPU_REG_ERROR_CODE), VGPU_CODE_INVALID_LENGTH);
}

/* ---- Doorbell ----------------------------------------------------------- */

static void test_doorbell_refusals(void **state)
{
	static const struct {
		uint32_t length, code;
	} rows[] = {
		{0, VGPU_CODE_INVALID_LENGTH},     {1025, VGPU_CODE_TOO_LARGE},
		{0xffffffff, VGPU_CODE_TOO_LARGE}, {1, VGPU_CODE_UNAVAILABLE},
		{1024, VGPU_CODE_UNAVAILABLE},
	};
	struct vgpu_regs *regs = *state;
	size_t i;

	for (i = 0; i < COUNT(rows); i++) {
		set(regs, VGPU_REG_IRQ_STATUS, 1);
		set(regs, VGPU_REG_REQUEST_LEN, rows[i].length);
		set(regs, VGPU_REG_DOORBELL, 1);
		assert_ended(regs, rows[i].code);
		assert_int_equal(pending(regs), 0);
	}
	/* The length is looked at first, with a mediator too. */
	connect_up(regs);
	for (i = 0; i < 3; i++) {
		set(regs, VGPU_REG_REQUEST_LEN, rows[i].length);
		set(regs, VGPU_REG_DOORBELL, 1);
		assert_ended(regs, rows[i].code);
		assert_int_equal(pending(regs), 0);
	}
}

static void test_doorbell_values(void **state)
{
	static const struct {
		uint32_t offset;
		unsigned bytes;
		uint64_t value;
		int rings;
	} rows[] = {
		{0, 4, 1, 1},
		{0, 1, 1, 1},
		{0, 2, 1, 1},
		{0, 8, 1, 1},
		{0, 8, 0xffffffff00000001, 1},
		{0, 4, 0, 0},
		{0, 4, 2, 0},
		{0, 4, 0x101, 0},
		{0, 2, 0x101, 0},
		{0, 8, 0x100000000, 0},
		{1, 1, 1, 0},
		{4, 4, 1, 0},
		{0, 4, 0xffffffff, 0},
	};
	struct vgpu_regs *regs = *state;
	size_t i;

	for (i = 0; i < COUNT(rows); i++) {
		vgpu_regs_reset(regs);
		vgpu_regs_write(regs, rows[i].offset, rows[i].bytes, rows[i].value, NOW_US);
		assert_int_equal(get(regs, VGPU_REG_STATUS),
		                 rows[i].rings ? VGPU_STATUS_ERROR : VGPU_STATUS_IDLE);
		assert_int_equal(get(regs, VGPU_REG_DOORBELL), 0);
	}
}

static void test_request_bytes(void **state)
{
	/* magic, type 1, vm_id 200, request_id, 'B', 2, length 5 */
	static const uint8_t expected[] = {0x55, 0x50, 0x47, 0x56, 1, 0, 0, 0, 200, 0, 0, 0, 0x44,
	                                   0x33, 0x22, 0x11, 'B',  2, 5, 0, 1, 2,   3, 4, 5};
	struct vgpu_regs *regs = *state;
	const uint8_t *out;

	connect_up(regs);
	vgpu_regs_write(regs, VGPU_REG_REQUEST, 8, 0x0807060504030201ull, NOW_US);
	set(regs, VGPU_REG_REQUEST_LEN, 5);
	set(regs, VGPU_REG_REQUEST_ID, 0x11223344);
	set(regs, VGPU_REG_DOORBELL, 1);
	assert_int_equal(vgpu_regs_pending(regs, &out), sizeof(expected));
	assert_memory_equal(out, expected, sizeof(expected));
	assert_int_equal(get(regs, VGPU_REG_STATUS), VGPU_STATUS_BUSY);
	assert_int_equal(get(regs, VGPU_REG_IRQ_STATUS), 0);

	/* It is a snapshot: what the guest writes now is for the next one. */
	set(regs, VGPU_REG_REQUEST, 0);
	set(regs, VGPU_REG_REQUEST_ID, 9);
	set(regs, VGPU_REG_REQUEST_LEN, 0);
	assert_int_equal(vgpu_regs_pending(regs, &out), sizeof(expected));
	assert_memory_equal(out, expected, sizeof(expected));
}

static void test_doorbell_while_busy(void **state)
{
	struct vgpu_regs *regs = *state;
	uint8_t payload[64];
	uint16_t bytes = response(payload, 0, 300, 0);

	connect_up(regs);
	submit(regs, 5, 40);
	set(regs, VGPU_REG_REQUEST_ID, 6);
	set(regs, VGPU_REG_DOORBELL, 1);
	set(regs, VGPU_REG_REQUEST_LEN, 0);
	set(regs, VGPU_REG_DOORBELL, 1);
	assert_int_equal(get(regs, VGPU_REG_STATUS), VGPU_STATUS_BUSY);
	assert_int_equal(get(regs, VGPU_REG_ERROR_CODE), 0);
	assert_int_equal(pending(regs), 0);

	assert_int_equal(deliver(regs, VGPU_MSG_RESPONSE, 6, payload, bytes), 0);
	assert_int_equal(get(regs, VGPU_REG_STATUS), VGPU_STATUS_BUSY);
	assert_int_equal(deliver(regs, VGPU_MSG_RESPONSE, 5, payload, bytes), 0);
	assert_ended(regs, VGPU_CODE_OK);
}

static void test_doorbell_clears(void **state)
{
	struct vgpu_regs *regs = *state;
	const uint8_t busy[] = {2, 0, 0, 0, 99, 0, 0, 0};
	uint8_t payload[64];
	uint16_t bytes = response(payload, VGPU_CODE_CUDA, 700, 0);
	int round;

	connect_up(regs);
	for (round = 0; round < 2; round++) {
		submit(regs, 1, 4);
		deliver(regs, VGPU_MSG_RESPONSE, 1, payload, bytes);
		assert_int_equal(get(regs, VGPU_REG_ERROR_DETAIL), 700);
		submit(regs, 2, 4);
		assert_int_equal(get(regs, VGPU_REG_ERROR_DETAIL), 0);
		assert_int_equal(get(regs, VGPU_REG_ERROR_CODE), 0);
		assert_int_equal(get(regs, VGPU_REG_RESPONSE_LEN), 0);
		deliver(regs, VGPU_MSG_BUSY, 2, busy, sizeof(busy));
		assert_int_equal(get(regs, VGPU_REG_BUSY_REASON), 2);
		submit(regs, 3, 0); /* refused at once */
		assert_ended(regs, VGPU_CODE_INVALID_LENGTH);
		assert_int_equal(get(regs, VGPU_REG_BUSY_REASON), 0);
		assert_int_equal(get(regs, VGPU_REG_RETRY_AFTER_US), 0);
	}
}

/* ---- Answers ------------------------------------------------------------ */

static void test_response(void **state)
{
	struct vgpu_regs *regs = *state;
	uint8_t payload[VGPU_MESSAGE_BYTES];
	uint16_t bytes = response(payload, 0, 300, 17);
	size_t i;

	connect_up(regs);
	submit(regs, 7, 40);
	assert_int_equal(deliver(regs, VGPU_MSG_RESPONSE, 7, payload, bytes), 0);
	assert_ended(regs, VGPU_CODE_OK);
	assert_int_equal(get(regs, VGPU_REG_RESPONSE_LEN), bytes);
	assert_int_equal(get(regs, VGPU_REG_RESPONSE + VGPU_HEADER_BYTES), 300);

	/* The largest, read in the middle of nowhere. */
	for (i = VGPU_HEADER_BYTES; i < sizeof(payload); i++)
		payload[i] = (uint8_t)(i * 7);
	submit(regs, 7, 40);
	assert_int_equal(deliver(regs, VGPU_MSG_RESPONSE, 7, payload, sizeof(payload)), 0);
	assert_int_equal(get(regs, VGPU_REG_RESPONSE_LEN), sizeof(payload));
	for (i = 0; i < sizeof(payload); i++)
		assert_int_equal(vgpu_regs_read(regs, VGPU_REG_RESPONSE + i, 1), payload[i]);
	assert_int_equal(get(regs, VGPU_REG_LINK), VGPU_LINK_CONNECTED);
}

static void test_response_status(void **state)
{
	static const struct {
		uint32_t status, code, detail, reason;
	} rows[] = {
		{0x01, 0x01, 0, 0}, {0x04, 0x04, 0, 0},  {0x05, 0x05, 11, 0},
		{0x07, 0x07, 0, 0}, {0x0A, 0x0A, 0, 11}, {0x0B, 0x0B, 0, 0},
		{0x0E, 0x0E, 0, 0}, {0x0F, 0x05, 0, 0},  {0xffffffff, 0x05, 0, 0},
	};
	struct vgpu_regs *regs = *state;
	uint8_t payload[64];
	uint16_t bytes;
	size_t i;

	connect_up(regs);
	for (i = 0; i < COUNT(rows); i++) {
		bytes = response(payload, rows[i].status, 11, 22);
		submit(regs, 7, 40);
		assert_int_equal(deliver(regs, VGPU_MSG_RESPONSE, 7, payload, bytes), 0);
		assert_ended(regs, rows[i].code);
		assert_int_equal(get(regs, VGPU_REG_RESPONSE_LEN), bytes);
		assert_int_equal(get(regs, VGPU_REG_RESPONSE + VGPU_RESPONSE_STATUS),
		                 rows[i].status);
		assert_int_equal(get(regs, VGPU_REG_ERROR_DETAIL), rows[i].detail);
		assert_int_equal(get(regs, VGPU_REG_BUSY_REASON), rows[i].reason);
		assert_int_equal(get(regs, VGPU_REG_RETRY_AFTER_US), rows[i].reason ? 22 : 0);
	}
}

/* A count of results that the payload does not hold is not believed. */
static void test_response_lying_count(void **state)
{
	struct vgpu_regs *regs = *state;
	uint8_t payload[64];
	uint16_t bytes = response(payload, VGPU_CODE_CUDA, 11, 22);

	/* The first leaves its results where the second has none. */
	connect_up(regs);
	submit(regs, 1, 4);
	assert_int_equal(deliver(regs, VGPU_MSG_RESPONSE, 1, payload, bytes), 0);
	assert_int_equal(get(regs, VGPU_REG_ERROR_DETAIL), 11);
	vgpu_put_le32(payload + VGPU_RESPONSE_RESULT_COUNT, 0x40000001);
	submit(regs, 1, 4);
	assert_int_equal(deliver(regs, VGPU_MSG_RESPONSE, 1, payload, VGPU_HEADER_BYTES), 0);
	assert_ended(regs, VGPU_CODE_CUDA);
	assert_int_equal(get(regs, VGPU_REG_ERROR_DETAIL), 0);
}

static void test_busy_and_quarantined(void **state)
{
	const uint8_t busy[] = {1, 0, 0, 0, 0x40, 0x42, 0x0f, 0};
	struct vgpu_regs *regs = *state;

	connect_up(regs);
	submit(regs, 1, 4);
	assert_int_equal(deliver(regs, VGPU_MSG_BUSY, 2, busy, sizeof(busy)), 0);
	assert_int_equal(get(regs, VGPU_REG_STATUS), VGPU_STATUS_BUSY);
	assert_int_equal(deliver(regs, VGPU_MSG_BUSY, 1, busy, sizeof(busy)), 0);
	assert_ended(regs, VGPU_CODE_RATE_LIMITED);
	assert_int_equal(get(regs, VGPU_REG_BUSY_REASON), VGPU_BUSY_RATE);
	assert_int_equal(get(regs, VGPU_REG_RETRY_AFTER_US), 1000000);
	assert_int_equal(get(regs, VGPU_REG_RESPONSE_LEN), 0);

	/* Without a payload there is no reason to show. */
	submit(regs, 2, 4);
	assert_int_equal(deliver(regs, VGPU_MSG_BUSY, 2, NULL, 0), 0);
	assert_ended(regs, VGPU_CODE_RATE_LIMITED);
	assert_int_equal(get(regs, VGPU_REG_BUSY_REASON), 0);

	submit(regs, 3, 4);
	assert_int_equal(deliver(regs, VGPU_MSG_QUARANTINED, 4, NULL, 0), 0);
	assert_int_equal(get(regs, VGPU_REG_STATUS), VGPU_STATUS_BUSY);
	assert_int_equal(deliver(regs, VGPU_MSG_QUARANTINED, 3, NULL, 0), 0);
	assert_ended(regs, VGPU_CODE_QUARANTINED);
}

/* Nothing that comes when nothing is awaited changes a register. */
static void test_unawaited(void **state)
{
	struct vgpu_regs *regs = *state;
	uint8_t first[64], second[64];
	uint16_t bytes = response(first, 0, 300, 0);

	connect_up(regs);
	assert_int_equal(deliver(regs, VGPU_MSG_RESPONSE, 0, first, bytes), 0);
	assert_int_equal(deliver(regs, VGPU_MSG_QUARANTINED, 0, NULL, 0), 0);
	assert_int_equal(get(regs, VGPU_REG_STATUS), VGPU_STATUS_IDLE);
	assert_int_equal(get(regs, VGPU_REG_RESPONSE_LEN), 0);

	/* A second answer to the same request. */
	submit(regs, 1, 4);
	deliver(regs, VGPU_MSG_RESPONSE, 1, first, bytes);
	response(second, VGPU_CODE_CUDA, 1, 2);
	assert_int_equal(deliver(regs, VGPU_MSG_RESPONSE, 1, second, bytes), 0);
	assert_int_equal(deliver(regs, VGPU_MSG_BUSY, 1, NULL, 0), 0);
	assert_ended(regs, VGPU_CODE_OK);
	assert_int_equal(get(regs, VGPU_REG_RESPONSE + VGPU_HEADER_BYTES), 300);
}

/* An answer cannot come before its question has left: it belongs to an earlier one. */
static void test_answer_before_request(void **state)
{
	struct vgpu_regs *regs = *state;
	uint8_t payload[64];
	uint16_t bytes = response(payload, 0, 300, 0);

	connect_up(regs);
	set(regs, VGPU_REG_REQUEST_LEN, 40);
	set(regs, VGPU_REG_DOORBELL, 1);
	assert_int_equal(deliver(regs, VGPU_MSG_RESPONSE, 0, payload, bytes), 0);
	vgpu_regs_sent(regs, pending(regs) - 1);
	assert_int_equal(deliver(regs, VGPU_MSG_RESPONSE, 0, payload, bytes), 0);
	assert_int_equal(get(regs, VGPU_REG_STATUS), VGPU_STATUS_BUSY);
	vgpu_regs_sent(regs, 1);
	assert_int_equal(deliver(regs, VGPU_MSG_RESPONSE, 0, payload, bytes), 0);
	assert_ended(regs, VGPU_CODE_OK);
}

/* ---- The stream --------------------------------------------------------- */

static void test_stream_cut_anywhere(void **state)
{
	struct vgpu_regs *regs = *state;
	const uint8_t hello[VGPU_HELLO_MEDIATOR_BYTES] = {1, 0, 0, 0, 1};
	uint8_t stream[512], payload[64];
	size_t bytes = 0, chunk, at;

	bytes += message(stream + bytes, VGPU_MSG_HELLO, 0, hello, sizeof(hello));
	bytes += message(stream + bytes, 0x77, 3, "unknown", 7);
	bytes += message(stream + bytes, VGPU_MSG_PONG, 0, NULL, 0);
	bytes += message(stream + bytes, VGPU_MSG_RESPONSE, 4, payload,
	                 response(payload, 0, 300, 0));
	bytes += message(stream + bytes, VGPU_MSG_PING, 9, NULL, 0);

	for (chunk = 1; chunk <= bytes; chunk++) {
		vgpu_regs_reset(regs);
		connect_up(regs);
		submit(regs, 4, 40);
		for (at = 0; at < bytes; at += chunk) {
			assert_int_equal(vgpu_regs_receive(regs, stream + at,
			                                   bytes - at < chunk ? bytes - at : chunk,
			                                   NOW_US),
			                 0);
		}
		assert_ended(regs, VGPU_CODE_OK);
		assert_int_equal(get(regs, VGPU_REG_LINK),
		                 VGPU_LINK_CONNECTED | VGPU_LINK_EXTENDED);
		assert_int_equal(pending(regs), VGPU_SOCKET_HEADER_BYTES);
	}
}

static void test_garbage(void **state)
{
	static const struct {
		uint32_t magic, type;
		uint16_t payload_bytes;
	} rows[] = {
		{0x56475054, VGPU_MSG_RESPONSE, 40},
		{0, 0, 0},
		{VGPU_SOCKET_MAGIC, VGPU_MSG_RESPONSE, 1025},
		{VGPU_SOCKET_MAGIC, 0x77, 65535},
		{VGPU_SOCKET_MAGIC, VGPU_MSG_RESPONSE, 31},
		{VGPU_SOCKET_MAGIC, VGPU_MSG_RESPONSE, 0},
		{VGPU_SOCKET_MAGIC, VGPU_MSG_HELLO, 23},
	};
	struct vgpu_regs *regs = *state;
	uint8_t stream[64];
	size_t i;

	for (i = 0; i < COUNT(rows); i++) {
		vgpu_regs_reset(regs);
		connect_up(regs);
		submit(regs, 1, 4);
		memset(stream, 0, sizeof(stream));
		message(stream, rows[i].type, 1, NULL, 0);
		vgpu_put_le32(stream, rows[i].magic);
		vgpu_put_le16(stream + VGPU_SOCKET_FIELD_PAYLOAD_LEN, rows[i].payload_bytes);
		assert_int_equal(vgpu_regs_receive(regs, stream, sizeof(stream), NOW_US),
		                 VGPU_REGS_E_PROTOCOL);
		vgpu_regs_disconnected(regs, VGPU_REGS_END_PROTOCOL, NOW_US);
		assert_ended(regs, VGPU_CODE_UNAVAILABLE);
		assert_int_equal(get(regs, VGPU_REG_LINK), 0);
		assert_int_not_equal(vgpu_regs_retry_ms(regs), 0);
	}
}

static void test_ping(void **state)
{
	/* magic, type 4, vm_id 200, the ping's id, 'B', 2, length 0 */
	static const uint8_t expected[] = {0x55, 0x50, 0x47, 0x56, 4, 0, 0,   0, 200, 0,
	                                   0,    0,    9,    0,    0, 0, 'B', 2, 0,   0};
	struct vgpu_regs *regs = *state;
	const uint8_t *out;
	int i;

	connect_up(regs);
	assert_int_equal(deliver(regs, VGPU_MSG_PING, 9, "x", 1), 0);
	assert_int_equal(vgpu_regs_pending(regs, &out), sizeof(expected));
	assert_memory_equal(out, expected, sizeof(expected));

	/* A mediator that pings and never reads fills no memory, and takes no request's room. */
	for (i = 0; i < 1000; i++)
		assert_int_equal(deliver(regs, VGPU_MSG_PING, 9, NULL, 0), 0);
	assert_in_range(pending(regs), VGPU_REGS_PONGS_MIN * VGPU_SOCKET_HEADER_BYTES,
	                VGPU_REGS_OUT_PONG_BYTES);
	set(regs, VGPU_REG_REQUEST_LEN, VGPU_MESSAGE_BYTES);
	set(regs, VGPU_REG_DOORBELL, 1);
	assert_int_equal(get(regs, VGPU_REG_STATUS), VGPU_STATUS_BUSY);
	assert_in_range(pending(regs), VGPU_REGS_REQUEST_BYTES, VGPU_REGS_OUT_BYTES);
}

/* ---- The connection ----------------------------------------------------- */

static void test_hello_is_first(void **state)
{
	/* magic, type 7, vm_id 200, 0, 'B', 2, length 16; version 1, BUSY, 0 channels */
	static const uint8_t expected[] = {0x55, 0x50, 0x47, 0x56, 7, 0,   0, 0,  200, 0, 0,
	                                   0,    0,    0,    0,    0, 'B', 2, 16, 0,   1, 0,
	                                   0,    0,    1,    0,    0, 0,   0, 0,  0,   0};
	struct vgpu_regs *regs = *state;
	const uint8_t *out;

	assert_int_equal(pending(regs), 0);
	vgpu_regs_connected(regs);
	assert_int_equal(get(regs, VGPU_REG_LINK), VGPU_LINK_CONNECTED);
	set(regs, VGPU_REG_REQUEST_LEN, 4);
	set(regs, VGPU_REG_DOORBELL, 1);
	assert_int_equal(vgpu_regs_pending(regs, &out), sizeof(expected) + 4 + 24);
	assert_memory_equal(out, expected, sizeof(expected));
	assert_int_equal(vgpu_get_le32(out + sizeof(expected)), VGPU_REGS_DEVICE_VERSION);
	assert_int_equal(out[sizeof(expected) + 4 + VGPU_SOCKET_FIELD_TYPE], VGPU_MSG_REQUEST);
}

/* Connects, and returns whether there was a HELLO; optionally the mediator speaks, and ends it. */
static int greeted(struct vgpu_regs *regs, int speaks, int ends)
{
	int hello;

	vgpu_regs_connected(regs);
	hello = pending(regs) != 0;
	send_all(regs);
	if (speaks)
		assert_int_equal(deliver(regs, VGPU_MSG_PONG, 0, NULL, 0), 0);
	if (ends)
		vgpu_regs_disconnected(regs, VGPU_REGS_END_PEER, NOW_US);
	return hello;
}

static void test_mediator_that_drops_on_hello(void **state)
{
	struct vgpu_regs *regs = *state;

	/* Two silent ends, then one without; after that it may be another mediator. */
	assert_true(greeted(regs, 0, 1));
	assert_true(greeted(regs, 0, 1));
	assert_false(greeted(regs, 0, 1));
	assert_true(greeted(regs, 0, 1));
	assert_true(greeted(regs, 0, 1));
	/* Once it works without HELLO, our own reset does not bring HELLO back... */
	assert_false(greeted(regs, 1, 0));
	vgpu_regs_reset(regs);
	assert_false(greeted(regs, 1, 1));
	/* ...but the mediator's own end does: it may come back newer. */
	assert_true(greeted(regs, 1, 1));
	/* One silent end among others is an accident. */
	assert_true(greeted(regs, 0, 1));
	assert_true(greeted(regs, 1, 1));
	assert_true(greeted(regs, 0, 1));
	assert_true(greeted(regs, 0, 0));
}

/* A mediator that ignores HELLO: everything is as in the Phase 2 contract. */
static void test_mediator_that_ignores_hello(void **state)
{
	struct vgpu_regs *regs = *state;
	uint8_t payload[64];
	uint16_t bytes = response(payload, 0, 300, 0);
	uint32_t id;

	connect_up(regs);
	for (id = 0; id < 3; id++) {
		submit(regs, id, 40);
		assert_int_equal(deliver(regs, VGPU_MSG_RESPONSE, id, payload, bytes), 0);
		assert_ended(regs, VGPU_CODE_OK);
		assert_int_equal(get(regs, VGPU_REG_LINK), VGPU_LINK_CONNECTED);
	}
}

static void test_disconnect(void **state)
{
	struct vgpu_regs *regs = *state;
	uint8_t payload[64], half[10] = {0x55, 0x50, 0x47, 0x56};

	/* Idle stays idle, done stays done. */
	connect_up(regs);
	vgpu_regs_disconnected(regs, VGPU_REGS_END_PEER, NOW_US);
	assert_int_equal(get(regs, VGPU_REG_STATUS), VGPU_STATUS_IDLE);
	assert_int_equal(get(regs, VGPU_REG_LINK), 0);
	connect_up(regs);
	submit(regs, 1, 4);
	deliver(regs, VGPU_MSG_RESPONSE, 1, payload, response(payload, 0, 1, 2));
	vgpu_regs_disconnected(regs, VGPU_REGS_END_PEER, NOW_US);
	assert_ended(regs, VGPU_CODE_OK);

	/* Busy ends; half a message and unsent bytes do not reach the next connection. */
	connect_up(regs);
	set(regs, VGPU_REG_DOORBELL, 1);
	assert_int_equal(vgpu_regs_receive(regs, half, sizeof(half), NOW_US), 0);
	vgpu_regs_disconnected(regs, VGPU_REGS_END_PEER, NOW_US);
	assert_ended(regs, VGPU_CODE_UNAVAILABLE);
	assert_int_equal(pending(regs), 0);
	connect_up(regs);
	assert_int_equal(deliver(regs, VGPU_MSG_RESPONSE, 1, payload, 40), 0);
	assert_ended(regs, VGPU_CODE_UNAVAILABLE);
}

static void test_reset(void **state)
{
	struct vgpu_regs *regs = *state;
	uint8_t payload[64];
	uint16_t bytes = response(payload, 0, 300, 0);
	uint32_t offset;

	connect_up(regs);
	deliver(regs, VGPU_MSG_PING, 0, NULL, 0);
	submit(regs, 1, 40);
	deliver(regs, VGPU_MSG_RESPONSE, 1, payload, bytes);
	for (offset = 4; offset < VGPU_REG_RESPONSE; offset += 4)
		set(regs, offset, 0xffffffff);
	submit(regs, 1, 40);
	vgpu_regs_connect_failed(regs);
	vgpu_regs_reset(regs);
	assert_reset_values(regs);
	assert_int_equal(pending(regs), 0);
	assert_int_equal(vgpu_regs_retry_ms(regs), 0);

	/* The old answer, should anybody repeat it, is nobody's. */
	connect_up(regs);
	assert_int_equal(deliver(regs, VGPU_MSG_RESPONSE, 1, payload, bytes), 0);
	assert_int_equal(get(regs, VGPU_REG_STATUS), VGPU_STATUS_IDLE);
	assert_int_equal(get(regs, VGPU_REG_RESPONSE_LEN), 0);
}

static void test_backoff(void **state)
{
	struct vgpu_regs *regs = *state;
	uint32_t expected = VGPU_REGS_RETRY_MIN_MS;
	int i;

	assert_int_equal(vgpu_regs_retry_ms(regs), 0);
	for (i = 0; i < 20; i++) {
		vgpu_regs_connect_failed(regs);
		assert_int_equal(vgpu_regs_retry_ms(regs), expected);
		expected = expected * 2 < VGPU_REGS_RETRY_MAX_MS ? expected * 2
		                                                 : VGPU_REGS_RETRY_MAX_MS;
	}
	/* Who connects and drops us is not asked more often; who spoke is. */
	greeted(regs, 0, 1);
	assert_int_equal(vgpu_regs_retry_ms(regs), VGPU_REGS_RETRY_MAX_MS);
	greeted(regs, 1, 0);
	vgpu_regs_disconnected(regs, VGPU_REGS_END_PROTOCOL, NOW_US);
	assert_int_equal(vgpu_regs_retry_ms(regs), VGPU_REGS_RETRY_MAX_MS);
	greeted(regs, 1, 1);
	assert_int_equal(vgpu_regs_retry_ms(regs), VGPU_REGS_RETRY_MIN_MS);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(reset_values),
		TEST(access),
		TEST(reserved),
		TEST(mmio_counters),
		TEST(widths),
		TEST(irq_status),
		TEST(doorbell_refusals),
		TEST(doorbell_values),
		TEST(request_bytes),
		TEST(doorbell_while_busy),
		TEST(doorbell_clears),
		TEST(response),
		TEST(response_status),
		TEST(response_lying_count),
		TEST(busy_and_quarantined),
		TEST(unawaited),
		TEST(answer_before_request),
		TEST(stream_cut_anywhere),
		TEST(garbage),
		TEST(ping),
		TEST(hello_is_first),
		TEST(mediator_that_drops_on_hello),
		TEST(mediator_that_ignores_hello),
		TEST(disconnect),
		TEST(reset),
		TEST(backoff),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
