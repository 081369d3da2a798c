/* SPDX-License-Identifier: MIT */
/*
 * See worker_msg.h. Offsets are named once here; encode and decode are their only
 * users.
 */
#include "proto/worker_msg.h"

#include <errno.h>
#include <string.h>

#include "vgpu/wire.h"

enum {
	AT_TYPE = 0,
	AT_OPCODE = 4,
	AT_JOB = 8,
	AT_CODE = 16,
	AT_DETAIL = 20,
	AT_COMMAND = 24,
	AT_PAYLOAD_BYTES = 28,
	AT_GPU_TIME_NS = 32,
	AT_END = 40,
};

_Static_assert((int)AT_END == (int)WORKER_MSG_HEADER_BYTES, "the header has no gap");

size_t worker_msg_encode(void *to, const struct worker_msg *msg)
{
	uint8_t *p = to;

	vgpu_put_le32(p + AT_TYPE, msg->type);
	vgpu_put_le32(p + AT_OPCODE, msg->opcode);
	vgpu_put_le64(p + AT_JOB, msg->job);
	vgpu_put_le32(p + AT_CODE, msg->code);
	vgpu_put_le32(p + AT_DETAIL, msg->detail);
	vgpu_put_le32(p + AT_COMMAND, msg->command);
	vgpu_put_le32(p + AT_PAYLOAD_BYTES, msg->payload_bytes);
	vgpu_put_le64(p + AT_GPU_TIME_NS, msg->gpu_time_ns);
	if (msg->payload_bytes)
		memcpy(p + WORKER_MSG_HEADER_BYTES, msg->payload, msg->payload_bytes);
	return WORKER_MSG_HEADER_BYTES + (size_t)msg->payload_bytes;
}

int worker_msg_decode(struct worker_msg *out, const void *bytes, size_t length)
{
	const uint8_t *p = bytes;
	uint32_t payload_bytes;

	if (length < WORKER_MSG_HEADER_BYTES || length > WORKER_MSG_MAX_BYTES)
		return -EBADMSG;
	payload_bytes = vgpu_get_le32(p + AT_PAYLOAD_BYTES);
	if (payload_bytes != length - WORKER_MSG_HEADER_BYTES)
		return -EBADMSG;
	switch (vgpu_get_le32(p + AT_TYPE)) {
	case WORKER_MSG_JOB:
	case WORKER_MSG_READY:
	case WORKER_MSG_START_FAILED:
	case WORKER_MSG_DONE:
	case WORKER_MSG_LOST:
	case WORKER_MSG_HOLDS:
		break;
	default:
		return -EBADMSG;
	}
	*out = (struct worker_msg){
		.type = (enum worker_msg_type)vgpu_get_le32(p + AT_TYPE),
		.opcode = vgpu_get_le32(p + AT_OPCODE),
		.job = vgpu_get_le64(p + AT_JOB),
		.code = vgpu_get_le32(p + AT_CODE),
		.detail = vgpu_get_le32(p + AT_DETAIL),
		.command = vgpu_get_le32(p + AT_COMMAND),
		.gpu_time_ns = vgpu_get_le64(p + AT_GPU_TIME_NS),
		.payload_bytes = payload_bytes,
		.payload = payload_bytes ? p + WORKER_MSG_HEADER_BYTES : NULL,
	};
	return 0;
}

void worker_device_encode(void *to, const struct worker_device *device)
{
	uint8_t *p = to;
	size_t name_bytes = strnlen(device->name, WORKER_DEVICE_NAME_BYTES - 1);

	memset(p, 0, WORKER_DEVICE_BYTES);
	vgpu_put_le32(p, device->backend);
	vgpu_put_le32(p + 4, device->capability);
	vgpu_put_le32(p + 8, device->multiprocessors);
	vgpu_put_le32(p + 12, device->total_mib);
	vgpu_put_le32(p + 16, device->used_mib);
	memcpy(p + 20, device->name, name_bytes);
}

int worker_device_decode(struct worker_device *out, const void *bytes, size_t length)
{
	const uint8_t *p = bytes;

	if (length != WORKER_DEVICE_BYTES)
		return -EBADMSG;
	out->backend = vgpu_get_le32(p);
	out->capability = vgpu_get_le32(p + 4);
	out->multiprocessors = vgpu_get_le32(p + 8);
	out->total_mib = vgpu_get_le32(p + 12);
	out->used_mib = vgpu_get_le32(p + 16);
	memcpy(out->name, p + 20, WORKER_DEVICE_NAME_BYTES);
	out->name[WORKER_DEVICE_NAME_BYTES - 1] = '\0';
	return 0;
}
