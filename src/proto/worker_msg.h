/* SPDX-License-Identifier: MIT */
/*
 * Messages between the mediator and one worker: packets on a SOCK_SEQPACKET pair,
 * so that a packet is a message and nothing has to be reassembled.
 *
 * Every packet has the same fixed header of WORKER_MSG_HEADER_BYTES little-endian
 * bytes and at most WORKER_MSG_PAYLOAD_BYTES after it. The mediator does not trust
 * a worker: a packet that does not decode ends that worker.
 *
 *   type              from      carries
 *   JOB               mediator  job, opcode; payload: a request of the contract
 *   READY             worker    payload: struct worker_device, encoded
 *   START_FAILED      worker    code, detail; payload: English text
 *   DONE              worker    job, code, detail, command, gpu_time_ns; payload: a response
 *   LOST              worker    the same, of a job that has failed because the device
 *                               context is gone: this worker can run nothing any more
 *   HOLDS             worker    detail: MiB of GPU memory that its jobs have allocated,
 *                               whenever that changes
 *
 * Jobs are executed in the order of their arrival; several may be sent ahead, and
 * each is answered by one DONE or LOST.
 */
#ifndef PROTO_WORKER_MSG_H
#define PROTO_WORKER_MSG_H

#include <stddef.h>
#include <stdint.h>

#include "vgpu/protocol.h"

enum worker_msg_type {
	WORKER_MSG_JOB = 0x01,
	WORKER_MSG_READY = 0x81,
	WORKER_MSG_START_FAILED = 0x82,
	WORKER_MSG_DONE = 0x83,
	WORKER_MSG_LOST = 0x84,
	WORKER_MSG_HOLDS = 0x85,
};

enum {
	WORKER_MSG_HEADER_BYTES = 40,
	WORKER_MSG_PAYLOAD_BYTES = VGPU_MESSAGE_BYTES,
	WORKER_MSG_MAX_BYTES = WORKER_MSG_HEADER_BYTES + WORKER_MSG_PAYLOAD_BYTES,
	WORKER_DEVICE_NAME_BYTES = 96, /* with its end */
	WORKER_HOLDS_MIB_MAX = 256,    /* all that operations ever allocate */
};

/* No command of the job is to blame. */
#define WORKER_MSG_NO_COMMAND UINT32_MAX

struct worker_msg {
	enum worker_msg_type type;
	uint64_t job;         /* the mediator's name for it, echoed */
	uint32_t opcode;      /* JOB */
	uint32_t code;        /* enum vgpu_code */
	uint32_t detail;      /* CUresult or errno; HOLDS: MiB */
	uint32_t command;     /* index of the failing command or WORKER_MSG_NO_COMMAND */
	uint64_t gpu_time_ns; /* as the worker measured; for statistics only */
	uint32_t payload_bytes;
	const uint8_t *payload; /* points into the packet; NULL when empty */
};

/* What a ready worker says of its device. */
struct worker_device {
	uint32_t backend;    /* 0 cpu, 1 cuda */
	uint32_t capability; /* major << 16 | minor */
	uint32_t multiprocessors;
	uint32_t total_mib;
	uint32_t used_mib;
	char name[WORKER_DEVICE_NAME_BYTES];
};

enum { WORKER_DEVICE_BYTES = 20 + WORKER_DEVICE_NAME_BYTES };

/* Writes a packet to @to (WORKER_MSG_MAX_BYTES); returns its length. @msg must be in bounds. */
size_t worker_msg_encode(void *to, const struct worker_msg *msg);

/* Returns 0, or -EBADMSG for anything but exactly one well-formed packet. */
int worker_msg_decode(struct worker_msg *out, const void *bytes, size_t length);

/* WORKER_DEVICE_BYTES bytes each way; the decoded name is always terminated. */
void worker_device_encode(void *to, const struct worker_device *device);
int worker_device_decode(struct worker_device *out, const void *bytes, size_t length);

#endif
