/* SPDX-License-Identifier: MIT */
/*
 * A hostile guest and a hostile mediator play on one device.
 *
 * The input is a list of events: accesses to BAR0, bytes and whole messages from the
 * mediator, connections that come and go, resets, sends that take only a part. After
 * every event the things hold that the guest and QEMU rely on; a violated one aborts.
 *
 * The target keeps a second opinion on the outstanding request: the id that the guest
 * had set, and how much of the stream was sent since. A request may end only with an
 * answer to that id after it was sent, with the connection, or by a reset.
 */
#include "vgpu-regs.h"

#include <stdlib.h>
#include <string.h>

#include "vgpu/wire.h"

#define REQUIRE(condition)        \
	do {                      \
		if (!(condition)) \
			abort();  \
	} while (0)

#define EVENTS_MAX 4096

struct input {
	const uint8_t *data;
	size_t bytes;
};

struct world {
	struct vgpu_regs *regs;
	bool connected;
	bool in_step; /* the mediator has sent nothing but whole messages */
	uint64_t now_us;
	/* The outstanding request, as seen from outside. */
	bool busy;
	uint32_t id;
	size_t unsent_bytes;
};

/* Takes up to 8 bytes as a number; missing ones are 0. */
static uint64_t take(struct input *in, unsigned bytes)
{
	uint64_t value = 0;
	unsigned i;

	for (i = 0; i < bytes && in->bytes; i++, in->data++, in->bytes--)
		value |= (uint64_t)*in->data << 8 * i;
	return value;
}

/* Looks without being counted as an access that matters: reads have no side effects. */
static uint32_t look(struct world *world, uint32_t offset)
{
	return (uint32_t)vgpu_regs_read(world->regs, offset, 4);
}

static size_t pending(const struct world *world)
{
	const uint8_t *out;

	return vgpu_regs_pending(world->regs, &out);
}

static void check(struct world *world)
{
	uint32_t status = look(world, VGPU_REG_STATUS);
	uint32_t code = look(world, VGPU_REG_ERROR_CODE);

	REQUIRE(status <= VGPU_STATUS_ERROR);
	REQUIRE(code < VGPU_CODE_COUNT);
	REQUIRE((status == VGPU_STATUS_ERROR) == (code != VGPU_CODE_OK));
	REQUIRE(look(world, VGPU_REG_RESPONSE_LEN) <= VGPU_MESSAGE_BYTES);
	REQUIRE(look(world, VGPU_REG_POOL_ID) == 'A' && look(world, VGPU_REG_VM_ID) == 7);
	REQUIRE(look(world, VGPU_REG_DOORBELL) == 0);
	REQUIRE(look(world, VGPU_REG_CAPABILITIES) == 0x11);
	REQUIRE(look(world, VGPU_REG_END) == 0);
	REQUIRE(look(world, VGPU_REG_END - 1) >> 8 == 0);
	REQUIRE((look(world, VGPU_REG_LINK) & VGPU_LINK_CONNECTED) == world->connected);
	REQUIRE(pending(world) <= VGPU_REGS_OUT_BYTES);
	REQUIRE(world->connected || !pending(world));
	REQUIRE(world->connected || status != VGPU_STATUS_BUSY);
	REQUIRE(vgpu_regs_retry_ms(world->regs) <= VGPU_REGS_RETRY_MAX_MS);
	REQUIRE((status == VGPU_STATUS_BUSY) == world->busy);
}

static void disconnected(struct world *world, enum vgpu_regs_end why)
{
	vgpu_regs_disconnected(world->regs, why, world->now_us);
	REQUIRE(!world->busy || look(world, VGPU_REG_ERROR_CODE) == VGPU_CODE_UNAVAILABLE);
	world->connected = false;
	world->busy = false;
}

static void event_access(struct world *world, struct input *in)
{
	static const unsigned widths[] = {1, 2, 4, 8};
	unsigned bytes = widths[take(in, 1) % 4];
	uint64_t offset = take(in, 2) % VGPU_BAR0_BYTES, value = take(in, bytes);
	uint32_t status = look(world, VGPU_REG_STATUS);
	size_t before = pending(world);

	vgpu_regs_read(world->regs, offset, bytes);
	vgpu_regs_write(world->regs, offset, bytes, value, world->now_us);
	if (status != VGPU_STATUS_BUSY && look(world, VGPU_REG_STATUS) == VGPU_STATUS_BUSY) {
		REQUIRE(offset == 0 && (uint32_t)value == 1);
		REQUIRE(pending(world) - before ==
		        VGPU_SOCKET_HEADER_BYTES + look(world, VGPU_REG_REQUEST_LEN));
		world->busy = true;
		world->id = look(world, VGPU_REG_REQUEST_ID);
		world->unsent_bytes = pending(world);
	} else {
		REQUIRE(pending(world) == before);
	}
}

/* Rings with a sensible length, which random accesses seldom do. */
static void event_submit(struct world *world, struct input *in)
{
	uint8_t ring[] = {2, 0, 0, 1, 0, 0, 0};
	struct input access = {ring, sizeof(ring)};

	vgpu_regs_write(world->regs, VGPU_REG_REQUEST_LEN, 4, take(in, 2) % 1030, world->now_us);
	vgpu_regs_write(world->regs, VGPU_REG_REQUEST_ID, 4, take(in, 1) % 3, world->now_us);
	event_access(world, &access);
}

static void receive(struct world *world, const uint8_t *bytes, size_t count)
{
	if (!world->connected)
		return;
	if (vgpu_regs_receive(world->regs, bytes, count, world->now_us)) {
		disconnected(world, VGPU_REGS_END_PROTOCOL);
	} else if (world->busy && look(world, VGPU_REG_STATUS) != VGPU_STATUS_BUSY) {
		REQUIRE(!world->unsent_bytes);
		world->busy = false;
	}
}

static void event_bytes(struct world *world, struct input *in)
{
	size_t count = take(in, 1);

	if (count > in->bytes)
		count = in->bytes;
	receive(world, in->data, count);
	world->in_step = world->in_step && !count;
	in->data += count;
	in->bytes -= count;
}

/* A well-formed frame with any content, cut in two. */
static void event_message(struct world *world, struct input *in)
{
	uint8_t frame[VGPU_SOCKET_HEADER_BYTES + VGPU_MESSAGE_BYTES] = {0};
	struct vgpu_socket_header header = {.type = (uint32_t)take(in, 1) % 16};
	size_t i, total, cut;
	bool was_busy = world->busy;

	header.request_id = (uint32_t)take(in, 1) % 3;
	header.payload_bytes = (uint16_t)(take(in, 2) % 1100);
	cut = take(in, 1);
	vgpu_socket_header_encode(frame, &header);
	total = VGPU_SOCKET_HEADER_BYTES + header.payload_bytes;
	if (total > sizeof(frame))
		total = sizeof(frame);
	for (i = VGPU_SOCKET_HEADER_BYTES; i < total && i < VGPU_SOCKET_HEADER_BYTES + 44u; i++)
		frame[i] = (uint8_t)take(in, 1);
	if (cut > total)
		cut = total;
	receive(world, frame, cut);
	receive(world, frame + cut, total - cut);
	if (was_busy && !world->busy && world->connected) {
		REQUIRE(look(world, VGPU_REG_IRQ_STATUS) == 1);
		REQUIRE(!world->in_step || header.request_id == world->id);
	}
}

static void event_sent(struct world *world, struct input *in)
{
	size_t count = take(in, 2) % (pending(world) + 1);

	vgpu_regs_sent(world->regs, count);
	world->unsent_bytes -= count < world->unsent_bytes ? count : world->unsent_bytes;
}

static void event_sent_all(struct world *world, struct input *in)
{
	(void)in;
	vgpu_regs_sent(world->regs, pending(world));
	world->unsent_bytes = 0;
}

static void event_connect(struct world *world, struct input *in)
{
	if (world->connected) {
		disconnected(world, VGPU_REGS_END_PEER);
	} else if (take(in, 1) % 4 == 0) {
		vgpu_regs_connect_failed(world->regs);
		REQUIRE(vgpu_regs_retry_ms(world->regs) >= VGPU_REGS_RETRY_MIN_MS);
	} else {
		vgpu_regs_connected(world->regs);
		world->connected = true;
		world->in_step = true;
		world->unsent_bytes = 0;
	}
}

static void event_reset(struct world *world, struct input *in)
{
	(void)in;
	vgpu_regs_reset(world->regs);
	world->connected = false;
	world->busy = false;
	REQUIRE(look(world, VGPU_REG_STATUS) == VGPU_STATUS_IDLE);
	REQUIRE(look(world, VGPU_REG_RESPONSE_LEN) == 0);
	REQUIRE(vgpu_regs_retry_ms(world->regs) == 0);
}

static void (*const events[])(struct world *world, struct input *in) = {
	event_access, event_submit,   event_bytes,   event_message,
	event_sent,   event_sent_all, event_connect, event_reset,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct vgpu_regs_config config = {.vm_id = 7, .pool_id = 'A', .priority = 1};
	struct input in = {data, size};
	struct world world = {.connected = false};
	unsigned i;

	if (vgpu_regs_new(&world.regs, &config))
		return 0;
	for (i = 0; i < EVENTS_MAX && in.bytes; i++) {
		world.now_us++;
		events[take(&in, 1) % (sizeof(events) / sizeof(events[0]))](&world, &in);
		check(&world);
	}
	vgpu_regs_free(world.regs);
	return 0;
}
