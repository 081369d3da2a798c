/* SPDX-License-Identifier: MIT */
/*
 * See mmio.h.
 *
 * Every access is an exit from the guest to its device model and costs microseconds, with
 * an emulated CPU tens of them. So only the bytes that a message has are moved, in words
 * of 32 bits, and STATUS is polled without pause only at first: then the pauses grow
 * with the time already waited, up to 1 ms.
 *
 * The device stays BUSY with a request that nobody waits for any more. The lock is given
 * back all the same, and whoever submits next, here or in another process, first waits
 * for BUSY to end.
 */
#include "guest/mmio.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/units.h"
#include "base/util.h"
#include "vgpu/wire.h"

#define SPIN_NS       (200 * NS_PER_US)
#define PAUSE_MIN_NS  (20 * NS_PER_US)
#define PAUSE_MAX_NS  NS_PER_MS
#define ALL_ONES      UINT32_MAX /* what a bus reads where nothing answers */
#define PAUSE_DIVISOR 4          /* a pause is at most a quarter of the wait before it */

struct mmio {
	struct transport transport;
	const struct bar_ops *bar;
	void *context;
	struct guest_env env;
	uint32_t capabilities;
	bool running; /* a request of ours is in the device, and we hold the lock */
	uint32_t id;
	int64_t submitted_ns;
	char name[VGPU_NAME_BYTES];
};

static struct mmio *mmio_of(struct transport *transport)
{
	return CONTAINER_OF(transport, struct mmio, transport);
}

static uint32_t read32(struct mmio *mmio, uint32_t offset)
{
	return mmio->bar->read32(mmio->context, offset);
}

static void write32(struct mmio *mmio, uint32_t offset, uint32_t value)
{
	mmio->bar->write32(mmio->context, offset, value);
}

/* Lets time pass in a wait that began at @since_ns. Returns whether @deadline_ns is past. */
static bool pause_until(struct mmio *mmio, int64_t since_ns, int64_t deadline_ns)
{
	int64_t now_ns = guest_env_now_ns(&mmio->env);
	int64_t pause_ns;

	if (now_ns >= deadline_ns)
		return true;
	if (now_ns - since_ns >= SPIN_NS) {
		pause_ns = max_i64(PAUSE_MIN_NS, (now_ns - since_ns) / PAUSE_DIVISOR);
		pause_ns = min_i64(pause_ns, PAUSE_MAX_NS);
		guest_env_sleep_ns(&mmio->env, min_i64(pause_ns, deadline_ns - now_ns));
	}
	return false;
}

/* Locks the device and waits until it is free of earlier requests. */
static int acquire(struct mmio *mmio, int64_t deadline_ns)
{
	int64_t since_ns = guest_env_now_ns(&mmio->env);
	uint32_t status;
	int r;

	while ((r = mmio->bar->try_lock(mmio->context)) != 0) {
		if (r != -EWOULDBLOCK)
			return r;
		if (pause_until(mmio, since_ns, deadline_ns))
			return VGPU_E_BUSY;
	}
	while ((status = read32(mmio, VGPU_REG_STATUS)) == VGPU_STATUS_BUSY) {
		if (pause_until(mmio, since_ns, deadline_ns)) {
			mmio->bar->unlock(mmio->context);
			return VGPU_E_BUSY;
		}
	}
	if (status == ALL_ONES) {
		mmio->bar->unlock(mmio->context);
		return VGPU_E_NO_DEVICE;
	}
	return 0;
}

static int mmio_submit(struct transport *transport, uint32_t id, const uint8_t *bytes,
                       uint32_t length, int64_t deadline_ns)
{
	struct mmio *mmio = mmio_of(transport);
	uint8_t last[4] = {0};
	uint32_t at;
	int r;

	r = acquire(mmio, deadline_ns);
	if (r != 0)
		return r;
	for (at = 0; at + 4 <= length; at += 4)
		write32(mmio, VGPU_REG_REQUEST + at, vgpu_get_le32(bytes + at));
	if (at < length) {
		memcpy(last, bytes + at, length - at);
		write32(mmio, VGPU_REG_REQUEST + at, vgpu_get_le32(last));
	}
	write32(mmio, VGPU_REG_REQUEST_LEN, length);
	write32(mmio, VGPU_REG_REQUEST_ID, id);
	write32(mmio, VGPU_REG_DOORBELL, 1);
	mmio->running = true;
	mmio->id = id;
	mmio->submitted_ns = guest_env_now_ns(&mmio->env);
	return 0;
}

static void release(struct mmio *mmio)
{
	mmio->running = false;
	mmio->bar->unlock(mmio->context);
}

static bool extended(const struct mmio *mmio)
{
	return mmio->capabilities & VGPU_CAP_EXTENDED_REGISTERS;
}

static int read_response(struct mmio *mmio, struct answer *out)
{
	uint8_t word[4];
	uint32_t length = read32(mmio, VGPU_REG_RESPONSE_LEN);

	if (length > VGPU_MESSAGE_BYTES)
		return VGPU_E_PROTOCOL;
	for (uint32_t at = 0; at < length; at += 4) {
		vgpu_put_le32(word, read32(mmio, VGPU_REG_RESPONSE + at));
		memcpy(out->bytes + at, word, min_u64(4, length - at));
	}
	out->length = length;
	return 0;
}

static int read_error(struct mmio *mmio, struct answer *out)
{
	out->code = read32(mmio, VGPU_REG_ERROR_CODE);
	if (out->code == VGPU_CODE_OK || out->code >= VGPU_E_TIMED_OUT)
		return VGPU_E_PROTOCOL;
	if (extended(mmio) && out->code == VGPU_CODE_RATE_LIMITED) {
		out->reason = read32(mmio, VGPU_REG_BUSY_REASON);
		out->retry_after_us = read32(mmio, VGPU_REG_RETRY_AFTER_US);
	}
	if (extended(mmio) && out->code == VGPU_CODE_CUDA)
		out->detail = read32(mmio, VGPU_REG_ERROR_DETAIL);
	/* An old device leaves the response before in the buffer when it fails by itself. */
	if (extended(mmio) || out->code == VGPU_CODE_CUDA)
		return read_response(mmio, out);
	return 0;
}

static int mmio_wait(struct transport *transport, struct answer *out, int64_t deadline_ns)
{
	struct mmio *mmio = mmio_of(transport);
	uint32_t status;
	int r;

	while ((status = read32(mmio, VGPU_REG_STATUS)) == VGPU_STATUS_BUSY) {
		if (pause_until(mmio, mmio->submitted_ns, deadline_ns))
			return VGPU_E_TIMED_OUT;
	}
	*out = (struct answer){.id = mmio->id};
	if (status == VGPU_STATUS_DONE)
		r = read_response(mmio, out);
	else if (status == VGPU_STATUS_ERROR)
		r = read_error(mmio, out);
	else if (status == VGPU_STATUS_IDLE)
		r = VGPU_E_CLOSED; /* only a reset makes it so */
	else
		r = status == ALL_ONES ? VGPU_E_NO_DEVICE : VGPU_E_PROTOCOL;
	release(mmio);
	return r;
}

static bool mmio_abandon(struct transport *transport, uint32_t id UNUSED)
{
	release(mmio_of(transport));
	return false;
}

static uint32_t mmio_limit(const struct transport *transport UNUSED)
{
	return 1;
}

static int mmio_get_info(struct transport *transport, struct vgpu_info *out)
{
	static const struct {
		uint16_t offset;
		bool is_extended;
		size_t field;
	} rows[] = {
		{VGPU_REG_POOL_ID, false, offsetof(struct vgpu_info, pool_id)},
		{VGPU_REG_PRIORITY, false, offsetof(struct vgpu_info, priority)},
		{VGPU_REG_VM_ID, false, offsetof(struct vgpu_info, vm_id)},
		{VGPU_REG_PROTOCOL_VER, false, offsetof(struct vgpu_info, protocol_version)},
		{VGPU_REG_CAPABILITIES, false, offsetof(struct vgpu_info, capabilities)},
		{VGPU_REG_STATUS, false, offsetof(struct vgpu_info, status)},
		{VGPU_REG_LINK, true, offsetof(struct vgpu_info, link)},
		{VGPU_REG_CHANNELS, true, offsetof(struct vgpu_info, channels)},
		{VGPU_REG_WINDOW_KIB, true, offsetof(struct vgpu_info, window_kib)},
		{VGPU_REG_MMIO_READS, true, offsetof(struct vgpu_info, mmio_reads)},
		{VGPU_REG_MMIO_WRITES, true, offsetof(struct vgpu_info, mmio_writes)},
	};
	struct mmio *mmio = mmio_of(transport);
	uint32_t value;

	if (read32(mmio, VGPU_REG_PROTOCOL_VER) == ALL_ONES)
		return VGPU_E_NO_DEVICE;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		if (rows[i].is_extended && !extended(mmio))
			continue;
		value = read32(mmio, rows[i].offset);
		memcpy((char *)out + rows[i].field, &value, sizeof(value));
	}
	out->is_device = true;
	out->outstanding_max = 1;
	snprintf(out->name, sizeof(out->name), "%s", mmio->name);
	return 0;
}

static void mmio_free(struct transport *transport)
{
	struct mmio *mmio = mmio_of(transport);

	if (mmio->running)
		release(mmio);
	mmio->bar->free(mmio->context);
	free(mmio);
}

static const struct transport_ops mmio_ops = {
	.submit = mmio_submit,
	.wait = mmio_wait,
	.abandon = mmio_abandon,
	.limit = mmio_limit,
	.get_info = mmio_get_info,
	.free = mmio_free,
};

int mmio_new(struct transport **out, const struct bar_ops *ops, void *context, const char *name,
             const struct guest_env *env)
{
	uint32_t version = ops->read32(context, VGPU_REG_PROTOCOL_VER);
	struct mmio *mmio;

	if (version == ALL_ONES || version >> 16 != VGPU_PROTOCOL_VERSION >> 16) {
		ops->free(context);
		return version == ALL_ONES ? VGPU_E_NO_DEVICE : VGPU_E_PROTOCOL;
	}
	mmio = calloc(1, sizeof(*mmio));
	if (!mmio) {
		ops->free(context);
		return -ENOMEM;
	}
	mmio->transport.ops = &mmio_ops;
	mmio->bar = ops;
	mmio->context = context;
	mmio->env = *env;
	mmio->capabilities = ops->read32(context, VGPU_REG_CAPABILITIES);
	snprintf(mmio->name, sizeof(mmio->name), "%s", name);
	*out = &mmio->transport;
	return 0;
}
