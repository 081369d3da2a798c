/* SPDX-License-Identifier: MIT */
/*
 * The device's registers as a transport: one request at a time through BAR0.
 *
 * How the registers are reached is a table of its own, so that the protocol over
 * them can be tested without a device.
 */
#ifndef GUEST_MMIO_H
#define GUEST_MMIO_H

#include <stdint.h>

#include "guest/env.h"
#include "guest/transport.h"

struct bar_ops {
	uint32_t (*read32)(void *context, uint32_t offset);
	void (*write32)(void *context, uint32_t offset, uint32_t value);
	/* The lock that keeps other processes from the device: 0, -EWOULDBLOCK while one
	 * has it, or another negative errno. */
	int (*try_lock)(void *context);
	void (*unlock)(void *context);
	void (*free)(void *context);
};

/*
 * A transport over the registers behind @ops. It owns @context from here on, also when
 * the result is not 0. @name is what vgpu_info.name shows. Returns 0; VGPU_E_NO_DEVICE
 * when the registers read as all ones (memory space off, device gone);
 * VGPU_E_PROTOCOL when they are those of another major version; or -ENOMEM.
 */
int mmio_new(struct transport **out, const struct bar_ops *ops, void *context, const char *name,
             const struct guest_env *env);

#endif
