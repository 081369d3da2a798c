/* SPDX-License-Identifier: MIT */
/*
 * What carries a request to the mediator and its answer back: the registers of a device
 * (mmio.h), a socket (socket_transport.h), or a test.
 *
 * A transport moves bytes and knows no retry, no statistics and no meaning of a
 * request; the handle (handle.h) above it does, and is the same for all.
 */
#ifndef GUEST_TRANSPORT_H
#define GUEST_TRANSPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "vgpu/vgpu.h"

/* What came back for one request. */
struct answer {
	uint32_t id;
	uint32_t code; /* enum vgpu_code that came beside or instead of a response, or 0 */
	uint32_t reason;
	uint32_t retry_after_us;
	uint32_t detail;
	uint32_t length; /* of the response, 0 if there is none */
	uint8_t bytes[VGPU_MESSAGE_BYTES];
};

struct transport;

/*
 * Deadlines are moments of the transport's struct guest_env, GUEST_NEVER for none; one
 * that has passed means: try once, do not wait. Functions that return int return 0, a
 * negative errno or an enum vgpu_error.
 */
struct transport_ops {
	/* Sends @length bytes (1..VGPU_MESSAGE_BYTES). VGPU_E_BUSY: no place until @deadline_ns.
	 * The handle keeps to limit() and to ids that are not under way. */
	int (*submit)(struct transport *transport, uint32_t id, const uint8_t *bytes,
	              uint32_t length, int64_t deadline_ns);
	/* The next answer, to whichever request; called only while one is under way.
	 * VGPU_E_TIMED_OUT: none until @deadline_ns. Everything else ended the transport's
	 * requests. */
	int (*wait)(struct transport *transport, struct answer *out, int64_t deadline_ns);
	/* Nobody wants the answer to @id. Returns whether it may still come out of wait(). */
	bool (*abandon)(struct transport *transport, uint32_t id);
	/* How many requests may be under way, 1..VGPU_OUTSTANDING_MAX. May change. */
	uint32_t (*limit)(const struct transport *transport);
	int (*get_info)(struct transport *transport, struct vgpu_info *out);
	void (*free)(struct transport *transport);
};

/* The first member of every transport. */
struct transport {
	const struct transport_ops *ops;
};

#endif
