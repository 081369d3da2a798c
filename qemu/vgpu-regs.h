/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The device without QEMU: BAR0's bytes, and what the connection to the
 * mediator does to them.
 *
 * Everything that the contract says about registers, doorbells and messages is
 * here, as a state machine that does no I/O, reads no clock and needs only libc.
 * So it runs in unit tests and under a fuzzer exactly as it runs in QEMU, where
 * vgpu-stub.c moves the bytes. C99, since it compiles into old QEMUs too.
 *
 * A mediator that does not know HELLO either ignores it, or drops the
 * connection. When the mediator drops two connections in a row without having
 * sent one message, HELLO is left out of the next one; then it is tried again,
 * unless the one without HELLO was answered and was not ended by the mediator.
 */
#ifndef VGPU_REGS_H
#define VGPU_REGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vgpu/protocol.h"

#define VGPU_REGS_DEVICE_VERSION 0x00010000u /* major << 16 | minor, told in HELLO */

/* Delay before a new attempt to connect: doubles from the first to the second. */
#define VGPU_REGS_RETRY_MIN_MS 50
#define VGPU_REGS_RETRY_MAX_MS 1000

/* PONGs that surely find room while the mediator does not read; a PING beyond stays unanswered. */
#define VGPU_REGS_PONGS_MIN 16

#define VGPU_REGS_REQUEST_BYTES (VGPU_SOCKET_HEADER_BYTES + VGPU_MESSAGE_BYTES)

/* PONGs are queued only up to here: HELLO, a request and the PONGs. */
#define VGPU_REGS_OUT_PONG_BYTES                                                        \
	(VGPU_SOCKET_HEADER_BYTES + VGPU_HELLO_DEVICE_BYTES + VGPU_REGS_REQUEST_BYTES + \
	 VGPU_REGS_PONGS_MIN * VGPU_SOCKET_HEADER_BYTES)

/* Most bytes that ever wait to be sent: a request fits behind whatever PONGs wait. */
#define VGPU_REGS_OUT_BYTES (VGPU_REGS_OUT_PONG_BYTES + VGPU_REGS_REQUEST_BYTES)

/* Conditions that vgpu_regs_receive() returns. */
enum vgpu_regs_condition {
	VGPU_REGS_E_PROTOCOL = 1, /* the stream cannot be followed: close it */
};

/* Why a connection ended. */
enum vgpu_regs_end {
	VGPU_REGS_END_PEER,     /* the mediator closed it, or the socket failed */
	VGPU_REGS_END_PROTOCOL, /* vgpu_regs_receive() returned VGPU_REGS_E_PROTOCOL */
};

/* What the device's properties say. */
struct vgpu_regs_config {
	uint32_t vm_id;
	char pool_id;     /* 'A' or 'B' */
	uint8_t priority; /* enum vgpu_priority */
};

struct vgpu_regs;

/*
 * Makes a device at its reset values, not connected. Returns 0 and a device that
 * the caller frees, or -ENOMEM.
 */
int vgpu_regs_new(struct vgpu_regs **out, const struct vgpu_regs_config *config);
void vgpu_regs_free(struct vgpu_regs *regs); /* NULL is fine */

/*
 * Reset values everywhere. A connection is over for the device: the caller closes
 * it, and attempts a new one after vgpu_regs_retry_ms(), which is 0.
 */
void vgpu_regs_reset(struct vgpu_regs *regs);

/*
 * An access of the guest to BAR0. @offset is any byte offset and @bytes 1..8; what
 * lies outside of the BAR reads 0 and is not written. The value is little-endian
 * in the sense that its lowest byte is the one at @offset. @now_us is the time that
 * a request which ends here gets as its TIMESTAMP. After a write there may be
 * something to send.
 */
uint64_t vgpu_regs_read(struct vgpu_regs *regs, uint64_t offset, unsigned bytes);
void vgpu_regs_write(struct vgpu_regs *regs, uint64_t offset, unsigned bytes, uint64_t value,
                     uint64_t now_us);

/* A connection was made: the first bytes are ready to be sent. Not while connected. */
void vgpu_regs_connected(struct vgpu_regs *regs);

/* An attempt to connect failed. Makes the next delay longer. Not while connected. */
void vgpu_regs_connect_failed(struct vgpu_regs *regs);

/*
 * The connection ended, other than by vgpu_regs_reset(). A running request ends with
 * VGPU_CODE_UNAVAILABLE; nothing of the old connection is sent or received any more.
 */
void vgpu_regs_disconnected(struct vgpu_regs *regs, enum vgpu_regs_end why, uint64_t now_us);

/* How long to wait before the next attempt to connect, in ms. */
uint32_t vgpu_regs_retry_ms(const struct vgpu_regs *regs);

/*
 * Bytes that came from the mediator, cut anywhere. Returns 0, or
 * VGPU_REGS_E_PROTOCOL: the caller closes the connection and says so with
 * vgpu_regs_disconnected(). There may be something to send afterwards. Only while
 * connected.
 */
int vgpu_regs_receive(struct vgpu_regs *regs, const uint8_t *bytes, size_t count, uint64_t now_us);

/*
 * What waits to be sent: returns the number of bytes, at most VGPU_REGS_OUT_BYTES, and
 * their place, which is valid until the next call that changes @regs. Whoever sent
 * some of them says how many with vgpu_regs_sent().
 */
size_t vgpu_regs_pending(const struct vgpu_regs *regs, const uint8_t **out);
void vgpu_regs_sent(struct vgpu_regs *regs, size_t count);

#endif
