/* SPDX-License-Identifier: MIT */
/*
 * The device's register file, without QEMU: every register's reset value and access, the
 * doorbell's answers, and what each message of the mediator does to a request. Bytes that
 * go over the wire are compared with bytes written by hand.
 */
#include "test_device_env.h"

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

/* What sticks of ones written to the byte at @offset. */
static uint8_t writable_bits(uint64_t offset)
{
	size_t i;

	if (offset >= VGPU_REG_REQUEST && offset < VGPU_REG_RESPONSE)
		return 0xff;
	for (i = 0; i < COUNT(registers); i++) {
		if (offset >= registers[i].offset && offset < registers[i].offset + 4)
			return (uint8_t)(registers[i].writable >> offset % 4 * 8);
	}
	return 0;
}

static int is_counter(uint64_t offset)
{
	return offset >= VGPU_REG_MMIO_READS && offset < VGPU_REG_END;
}

/* Any place, width and value, against a second account of what each byte keeps. */
static void test_every_access(void **state)
{
	enum { LAST = VGPU_BAR0_BYTES + 8 };
	static uint8_t expected[LAST + 16];
	struct vgpu_regs *regs = *state;
	uint64_t value, seen, at;
	unsigned bytes, i;

	for (at = 0; at < LAST + 8; at++)
		expected[at] = (uint8_t)vgpu_regs_read(regs, at, 1);
	for (bytes = 1; bytes <= 8; bytes++) {
		for (at = 0; at < LAST; at++) {
			/* Its lowest byte is never 1, so that no doorbell rings. */
			value = (at * 8 + bytes) * 0x9e3779b97f4a7c15ull & ~1ull;
			vgpu_regs_write(regs, at, bytes, value, NOW_US);
			for (i = 0; i < bytes; i++)
				if (writable_bits(at + i))
					expected[at + i] =
						(uint8_t)(value >> 8 * i) & writable_bits(at + i);
			seen = vgpu_regs_read(regs, at, 8);
			for (i = 0; i < 8; i++)
				if (!is_counter(at + i))
					assert_int_equal((uint8_t)(seen >> 8 * i),
					                 expected[at + i]);
		}
	}
	for (at = 0; at < LAST; at++)
		if (!is_counter(at))
			assert_int_equal(vgpu_regs_read(regs, at, 1), expected[at]);
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

/* ---- Reset -------------------------------------------------------------- */

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(reset_values),
		TEST(access),
		TEST(every_access),
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
		TEST(reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
