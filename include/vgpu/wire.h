/* SPDX-License-Identifier: MIT */
/*
 * Reading and writing the little-endian fields of vgpu/protocol.h.
 *
 * Inline and free of dependencies, because QEMU's device, the guest library and
 * the mediator all use exactly this encoder and this decoder. The functions
 * touch only the bytes that they are given; callers check lengths first.
 */
#ifndef VGPU_WIRE_H
#define VGPU_WIRE_H

#include <stdint.h>

#include "vgpu/protocol.h"

static inline uint16_t vgpu_get_le16(const void *from)
{
	const uint8_t *p = (const uint8_t *)from;

	return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t vgpu_get_le32(const void *from)
{
	const uint8_t *p = (const uint8_t *)from;

	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t vgpu_get_le64(const void *from)
{
	const uint8_t *p = (const uint8_t *)from;

	return (uint64_t)vgpu_get_le32(p) | (uint64_t)vgpu_get_le32(p + 4) << 32;
}

static inline void vgpu_put_le16(void *to, uint16_t value)
{
	uint8_t *p = (uint8_t *)to;

	p[0] = (uint8_t)value;
	p[1] = (uint8_t)(value >> 8);
}

static inline void vgpu_put_le32(void *to, uint32_t value)
{
	uint8_t *p = (uint8_t *)to;

	p[0] = (uint8_t)value;
	p[1] = (uint8_t)(value >> 8);
	p[2] = (uint8_t)(value >> 16);
	p[3] = (uint8_t)(value >> 24);
}

static inline void vgpu_put_le64(void *to, uint64_t value)
{
	uint8_t *p = (uint8_t *)to;

	vgpu_put_le32(p, (uint32_t)value);
	vgpu_put_le32(p + 4, (uint32_t)(value >> 32));
}

/* A decoded socket header. */
struct vgpu_socket_header {
	uint32_t type; /* enum vgpu_message_type; unknown values are kept */
	uint32_t vm_id;
	uint32_t request_id;
	uint8_t pool_id;
	uint8_t priority;
	uint16_t payload_bytes;
};

/* Writes VGPU_SOCKET_HEADER_BYTES bytes at @to. */
static inline void vgpu_socket_header_encode(void *to, const struct vgpu_socket_header *header)
{
	uint8_t *p = (uint8_t *)to;

	vgpu_put_le32(p + VGPU_SOCKET_FIELD_MAGIC, VGPU_SOCKET_MAGIC);
	vgpu_put_le32(p + VGPU_SOCKET_FIELD_TYPE, header->type);
	vgpu_put_le32(p + VGPU_SOCKET_FIELD_VM_ID, header->vm_id);
	vgpu_put_le32(p + VGPU_SOCKET_FIELD_REQUEST_ID, header->request_id);
	p[VGPU_SOCKET_FIELD_POOL_ID] = header->pool_id;
	p[VGPU_SOCKET_FIELD_PRIORITY] = header->priority;
	vgpu_put_le16(p + VGPU_SOCKET_FIELD_PAYLOAD_LEN, header->payload_bytes);
}

/*
 * Reads VGPU_SOCKET_HEADER_BYTES bytes at @from. Returns 0, or VGPU_CODE_INVALID_REQUEST
 * for a wrong magic, or VGPU_CODE_TOO_LARGE for a payload over VGPU_MESSAGE_BYTES: after
 * either the stream cannot be followed any further and the connection has to end.
 */
static inline int vgpu_socket_header_decode(struct vgpu_socket_header *header, const void *from)
{
	const uint8_t *p = (const uint8_t *)from;

	header->type = vgpu_get_le32(p + VGPU_SOCKET_FIELD_TYPE);
	header->vm_id = vgpu_get_le32(p + VGPU_SOCKET_FIELD_VM_ID);
	header->request_id = vgpu_get_le32(p + VGPU_SOCKET_FIELD_REQUEST_ID);
	header->pool_id = p[VGPU_SOCKET_FIELD_POOL_ID];
	header->priority = p[VGPU_SOCKET_FIELD_PRIORITY];
	header->payload_bytes = vgpu_get_le16(p + VGPU_SOCKET_FIELD_PAYLOAD_LEN);
	if (vgpu_get_le32(p + VGPU_SOCKET_FIELD_MAGIC) != VGPU_SOCKET_MAGIC)
		return VGPU_CODE_INVALID_REQUEST;
	if (header->payload_bytes > VGPU_MESSAGE_BYTES)
		return VGPU_CODE_TOO_LARGE;
	return 0;
}

#endif
