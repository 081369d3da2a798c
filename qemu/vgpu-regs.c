/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * BAR0 as an array of bytes, and the messages that change it.
 *
 * The registers are kept as the guest sees them, so that any width and any
 * alignment is a loop over bytes; two registers have side effects, and both are
 * decided by the whole access. Nothing here trusts either side: the guest can
 * write anything anywhere, and what the mediator sends is bounded by one message
 * on the way in and by VGPU_REGS_OUT_BYTES on the way out.
 *
 * A response counts only if a request is outstanding, was sent completely, and has
 * that id. An answer that the device no longer waits for cannot be told from a
 * later one by its id alone, since the guest may use one id for all its requests;
 * so a request that is given up always takes its connection with it.
 */
#include "vgpu-regs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vgpu/wire.h"

struct vgpu_regs {
	struct vgpu_regs_config config;
	uint8_t bar[VGPU_REG_END];

	/* The connection. */
	bool connected;
	bool heard;               /* a whole message came on this connection */
	unsigned dropped_unheard; /* connections in a row that the mediator ended without a word */
	uint32_t retry_ms;

	uint32_t request_id; /* of the outstanding request, when STATUS is BUSY */
	size_t request_end;  /* just past the request in @out; 0 when none of it waits */

	uint8_t in[VGPU_SOCKET_HEADER_BYTES + VGPU_MESSAGE_BYTES];
	size_t in_bytes;
	uint8_t out[VGPU_REGS_OUT_BYTES];
	size_t out_bytes;
};

static uint32_t reg_get(const struct vgpu_regs *regs, uint32_t offset)
{
	return vgpu_get_le32(regs->bar + offset);
}

static void reg_set(struct vgpu_regs *regs, uint32_t offset, uint32_t value)
{
	vgpu_put_le32(regs->bar + offset, value);
}

/* Ends a request, or refuses it. STATUS comes last: it says that the rest is there. */
static void request_end(struct vgpu_regs *regs, uint32_t code, uint64_t now_us)
{
	reg_set(regs, VGPU_REG_ERROR_CODE, code);
	reg_set(regs, VGPU_REG_TIMESTAMP_LO, (uint32_t)now_us);
	reg_set(regs, VGPU_REG_TIMESTAMP_HI, (uint32_t)(now_us >> 32));
	reg_set(regs, VGPU_REG_IRQ_STATUS, VGPU_IRQ_COMPLETION);
	reg_set(regs, VGPU_REG_STATUS, code ? VGPU_STATUS_ERROR : VGPU_STATUS_DONE);
}

static void out_append(struct vgpu_regs *regs, uint32_t type, uint32_t request_id,
                       const uint8_t *payload, size_t payload_bytes)
{
	const struct vgpu_socket_header header = {
		.type = type,
		.vm_id = regs->config.vm_id,
		.request_id = request_id,
		.pool_id = (uint8_t)regs->config.pool_id,
		.priority = regs->config.priority,
		.payload_bytes = (uint16_t)payload_bytes,
	};

	vgpu_socket_header_encode(regs->out + regs->out_bytes, &header);
	regs->out_bytes += VGPU_SOCKET_HEADER_BYTES;
	if (payload_bytes)
		memcpy(regs->out + regs->out_bytes, payload, payload_bytes);
	regs->out_bytes += payload_bytes;
}

static void doorbell(struct vgpu_regs *regs, uint64_t now_us)
{
	uint32_t length = reg_get(regs, VGPU_REG_REQUEST_LEN);
	uint32_t code = VGPU_CODE_OK;

	if (reg_get(regs, VGPU_REG_STATUS) == VGPU_STATUS_BUSY)
		return;

	reg_set(regs, VGPU_REG_RESPONSE_LEN, 0);
	reg_set(regs, VGPU_REG_ERROR_CODE, 0);
	reg_set(regs, VGPU_REG_BUSY_REASON, 0);
	reg_set(regs, VGPU_REG_RETRY_AFTER_US, 0);
	reg_set(regs, VGPU_REG_ERROR_DETAIL, 0);

	if (!length)
		code = VGPU_CODE_INVALID_LENGTH;
	else if (length > VGPU_MESSAGE_BYTES)
		code = VGPU_CODE_TOO_LARGE;
	else if (!regs->connected)
		code = VGPU_CODE_UNAVAILABLE;
	if (code) {
		request_end(regs, code, now_us);
		return;
	}

	regs->request_id = reg_get(regs, VGPU_REG_REQUEST_ID);
	out_append(regs, VGPU_MSG_REQUEST, regs->request_id, regs->bar + VGPU_REG_REQUEST, length);
	regs->request_end = regs->out_bytes;
	reg_set(regs, VGPU_REG_STATUS, VGPU_STATUS_BUSY);
}

/* ---- Accesses of the guest ---------------------------------------------- */

/* What the guest can write and read back; @mask is repeated for every 32 bits. */
static const struct {
	uint32_t first, bytes, mask;
} writable[] = {
	{VGPU_REG_REQUEST, VGPU_MESSAGE_BYTES, 0xFFFFFFFF},
	{VGPU_REG_REQUEST_LEN, 4, 0xFFFFFFFF},
	{VGPU_REG_REQUEST_ID, 4, 0xFFFFFFFF},
	{VGPU_REG_IRQ_CTRL, 4, VGPU_IRQ_COMPLETION},
	{VGPU_REG_SCRATCH, 4, 0xFFFFFFFF},
};

static void byte_write(struct vgpu_regs *regs, uint64_t offset, uint8_t value)
{
	size_t i;

	if (offset >= VGPU_REG_IRQ_STATUS && offset < VGPU_REG_IRQ_STATUS + 4) {
		regs->bar[offset] &= (uint8_t)~value;
		return;
	}
	for (i = 0; i < sizeof(writable) / sizeof(writable[0]); i++) {
		if (offset >= writable[i].first && offset - writable[i].first < writable[i].bytes) {
			regs->bar[offset] = value & (uint8_t)(writable[i].mask >> offset % 4 * 8);
			return;
		}
	}
}

uint64_t vgpu_regs_read(struct vgpu_regs *regs, uint64_t offset, unsigned bytes)
{
	uint64_t value = 0;
	unsigned i;

	for (i = 0; i < bytes; i++) {
		if (offset < VGPU_REG_END && i < VGPU_REG_END - offset)
			value |= (uint64_t)regs->bar[offset + i] << 8 * i;
	}
	reg_set(regs, VGPU_REG_MMIO_READS, reg_get(regs, VGPU_REG_MMIO_READS) + 1);
	return value;
}

void vgpu_regs_write(struct vgpu_regs *regs, uint64_t offset, unsigned bytes, uint64_t value,
                     uint64_t now_us)
{
	unsigned i;

	reg_set(regs, VGPU_REG_MMIO_WRITES, reg_get(regs, VGPU_REG_MMIO_WRITES) + 1);
	for (i = 0; i < bytes; i++) {
		if (offset < VGPU_REG_END && i < VGPU_REG_END - offset)
			byte_write(regs, offset + i, (uint8_t)(value >> 8 * i));
	}
	if (offset == VGPU_REG_DOORBELL && (uint32_t)value == 1)
		doorbell(regs, now_us);
}

/* ---- The connection ----------------------------------------------------- */

static void connection_clear(struct vgpu_regs *regs)
{
	regs->connected = false;
	regs->heard = false;
	regs->request_end = 0;
	regs->in_bytes = 0;
	regs->out_bytes = 0;
	reg_set(regs, VGPU_REG_LINK, 0);
}

void vgpu_regs_connected(struct vgpu_regs *regs)
{
	uint8_t hello[VGPU_HELLO_DEVICE_BYTES];

	connection_clear(regs);
	regs->connected = true;
	reg_set(regs, VGPU_REG_LINK, VGPU_LINK_CONNECTED);

	if (regs->dropped_unheard % 3 == 2)
		return;
	vgpu_put_le32(hello + VGPU_HELLO_FIELD_VERSION, VGPU_HELLO_VERSION);
	vgpu_put_le32(hello + VGPU_HELLO_FIELD_FEATURES, VGPU_FEATURE_BUSY);
	vgpu_put_le32(hello + VGPU_HELLO_FIELD_MAX_CHANNELS, 0);
	vgpu_put_le32(hello + VGPU_HELLO_FIELD_DEVICE_VERSION, VGPU_REGS_DEVICE_VERSION);
	out_append(regs, VGPU_MSG_HELLO, 0, hello, sizeof(hello));
}

void vgpu_regs_connect_failed(struct vgpu_regs *regs)
{
	if (!regs->retry_ms)
		regs->retry_ms = VGPU_REGS_RETRY_MIN_MS;
	else if (regs->retry_ms < VGPU_REGS_RETRY_MAX_MS / 2)
		regs->retry_ms *= 2;
	else
		regs->retry_ms = VGPU_REGS_RETRY_MAX_MS;
}

void vgpu_regs_disconnected(struct vgpu_regs *regs, enum vgpu_regs_end why, uint64_t now_us)
{
	if (regs->heard)
		regs->dropped_unheard = 0;
	else if (why == VGPU_REGS_END_PEER)
		regs->dropped_unheard++;
	/* Only a mediator that answered sensibly is worth an early new attempt. */
	if (regs->heard && why == VGPU_REGS_END_PEER)
		regs->retry_ms = 0;
	vgpu_regs_connect_failed(regs);

	connection_clear(regs);
	if (reg_get(regs, VGPU_REG_STATUS) == VGPU_STATUS_BUSY)
		request_end(regs, VGPU_CODE_UNAVAILABLE, now_us);
}

uint32_t vgpu_regs_retry_ms(const struct vgpu_regs *regs)
{
	return regs->retry_ms;
}

/* ---- Messages of the mediator ------------------------------------------- */

static bool is_awaited(const struct vgpu_regs *regs, const struct vgpu_socket_header *header)
{
	return reg_get(regs, VGPU_REG_STATUS) == VGPU_STATUS_BUSY && !regs->request_end &&
	       header->request_id == regs->request_id;
}

static void take_ping(struct vgpu_regs *regs, const struct vgpu_socket_header *header,
                      const uint8_t *payload, uint64_t now_us)
{
	if (regs->out_bytes + VGPU_SOCKET_HEADER_BYTES <= VGPU_REGS_OUT_PONG_BYTES)
		out_append(regs, VGPU_MSG_PONG, header->request_id, NULL, 0);
}

static void take_hello(struct vgpu_regs *regs, const struct vgpu_socket_header *header,
                       const uint8_t *payload, uint64_t now_us)
{
	reg_set(regs, VGPU_REG_LINK, VGPU_LINK_CONNECTED | VGPU_LINK_EXTENDED);
}

static void take_response(struct vgpu_regs *regs, const struct vgpu_socket_header *header,
                          const uint8_t *payload, uint64_t now_us)
{
	uint32_t status = vgpu_get_le32(payload + VGPU_RESPONSE_STATUS);
	uint32_t count = vgpu_get_le32(payload + VGPU_RESPONSE_RESULT_COUNT);
	const uint8_t *results = payload + VGPU_HEADER_BYTES;

	if (!is_awaited(regs, header))
		return;

	if (count > (header->payload_bytes - VGPU_HEADER_BYTES) / 4u)
		count = 0;
	if (status == VGPU_CODE_CUDA && count >= 1)
		reg_set(regs, VGPU_REG_ERROR_DETAIL, vgpu_get_le32(results));
	if (status == VGPU_CODE_RATE_LIMITED && count >= 2) {
		reg_set(regs, VGPU_REG_BUSY_REASON, vgpu_get_le32(results));
		reg_set(regs, VGPU_REG_RETRY_AFTER_US, vgpu_get_le32(results + 4));
	}
	memcpy(regs->bar + VGPU_REG_RESPONSE, payload, header->payload_bytes);
	reg_set(regs, VGPU_REG_RESPONSE_LEN, header->payload_bytes);
	request_end(regs, status < VGPU_CODE_COUNT ? status : VGPU_CODE_CUDA, now_us);
}

static void take_busy(struct vgpu_regs *regs, const struct vgpu_socket_header *header,
                      const uint8_t *payload, uint64_t now_us)
{
	if (!is_awaited(regs, header))
		return;
	if (header->payload_bytes >= VGPU_BUSY_BYTES) {
		reg_set(regs, VGPU_REG_BUSY_REASON,
		        vgpu_get_le32(payload + VGPU_BUSY_FIELD_REASON));
		reg_set(regs, VGPU_REG_RETRY_AFTER_US,
		        vgpu_get_le32(payload + VGPU_BUSY_FIELD_RETRY_AFTER_US));
	}
	request_end(regs, VGPU_CODE_RATE_LIMITED, now_us);
}

static void take_quarantined(struct vgpu_regs *regs, const struct vgpu_socket_header *header,
                             const uint8_t *payload, uint64_t now_us)
{
	if (is_awaited(regs, header))
		request_end(regs, VGPU_CODE_QUARANTINED, now_us);
}

/* Types that are not listed are skipped, as the contract asks. */
static const struct {
	uint32_t type;
	uint16_t payload_bytes_min; /* less is a broken stream */
	void (*take)(struct vgpu_regs *regs, const struct vgpu_socket_header *header,
	             const uint8_t *payload, uint64_t now_us);
} messages[] = {
	{VGPU_MSG_RESPONSE, VGPU_HEADER_BYTES, take_response},
	{VGPU_MSG_PING, 0, take_ping},
	{VGPU_MSG_BUSY, 0, take_busy},
	{VGPU_MSG_QUARANTINED, 0, take_quarantined},
	{VGPU_MSG_HELLO, VGPU_HELLO_MEDIATOR_BYTES, take_hello},
};

static int message_take(struct vgpu_regs *regs, const struct vgpu_socket_header *header,
                        const uint8_t *payload, uint64_t now_us)
{
	size_t i;

	for (i = 0; i < sizeof(messages) / sizeof(messages[0]); i++) {
		if (messages[i].type != header->type)
			continue;
		if (header->payload_bytes < messages[i].payload_bytes_min)
			return VGPU_REGS_E_PROTOCOL;
		messages[i].take(regs, header, payload, now_us);
		break;
	}
	regs->heard = true;
	return 0;
}

int vgpu_regs_receive(struct vgpu_regs *regs, const uint8_t *bytes, size_t count, uint64_t now_us)
{
	struct vgpu_socket_header header;
	size_t wanted, part;
	int r;

	while (count) {
		/* First a header, then what it announces. */
		wanted = VGPU_SOCKET_HEADER_BYTES;
		if (regs->in_bytes >= VGPU_SOCKET_HEADER_BYTES)
			wanted += vgpu_get_le16(regs->in + VGPU_SOCKET_FIELD_PAYLOAD_LEN);
		part = wanted - regs->in_bytes < count ? wanted - regs->in_bytes : count;
		memcpy(regs->in + regs->in_bytes, bytes, part);
		regs->in_bytes += part;
		bytes += part;
		count -= part;

		if (regs->in_bytes < VGPU_SOCKET_HEADER_BYTES)
			break;
		if (vgpu_socket_header_decode(&header, regs->in))
			return VGPU_REGS_E_PROTOCOL;
		if (regs->in_bytes < VGPU_SOCKET_HEADER_BYTES + (size_t)header.payload_bytes)
			continue;
		regs->in_bytes = 0;
		r = message_take(regs, &header, regs->in + VGPU_SOCKET_HEADER_BYTES, now_us);
		if (r)
			return r;
	}
	return 0;
}

size_t vgpu_regs_pending(const struct vgpu_regs *regs, const uint8_t **out)
{
	*out = regs->out;
	return regs->out_bytes;
}

void vgpu_regs_sent(struct vgpu_regs *regs, size_t count)
{
	regs->out_bytes -= count;
	memmove(regs->out, regs->out + count, regs->out_bytes);
	regs->request_end = regs->request_end > count ? regs->request_end - count : 0;
}

/* ---- Life --------------------------------------------------------------- */

void vgpu_regs_reset(struct vgpu_regs *regs)
{
	connection_clear(regs);
	regs->retry_ms = 0;

	memset(regs->bar, 0, sizeof(regs->bar));
	reg_set(regs, VGPU_REG_POOL_ID, (uint8_t)regs->config.pool_id);
	reg_set(regs, VGPU_REG_PRIORITY, regs->config.priority);
	reg_set(regs, VGPU_REG_VM_ID, regs->config.vm_id);
	reg_set(regs, VGPU_REG_PROTOCOL_VER, VGPU_PROTOCOL_VERSION);
	reg_set(regs, VGPU_REG_CAPABILITIES,
	        VGPU_CAP_REQUEST_RESPONSE | VGPU_CAP_EXTENDED_REGISTERS);
}

int vgpu_regs_new(struct vgpu_regs **out, const struct vgpu_regs_config *config)
{
	struct vgpu_regs *regs = calloc(1, sizeof(*regs));

	if (!regs)
		return -ENOMEM;
	regs->config = *config;
	vgpu_regs_reset(regs);
	*out = regs;
	return 0;
}

void vgpu_regs_free(struct vgpu_regs *regs)
{
	free(regs);
}
