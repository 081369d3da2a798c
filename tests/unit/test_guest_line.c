/* SPDX-License-Identifier: MIT */
/* Whose messages are taken in a turn of the event loop, with real sockets and no core. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>
#include <event2/event.h>

#include "base/socket.h"
#include "base/util.h"
#include "mediator/guest_server.h"
#include "vgpu/wire.h"

enum {
	VMS = 20,
	AT_ONCE = 4,  /* of a VM in a turn, without waiting in line */
	IN_LINE = 16, /* of all VMs in line, in a turn */
	FLOOD = 100,
	TURNS = 200, /* several of them within a tick of the kernel's coarse clock */
};

struct vm {
	struct guest_port *port;
	int peer;
	unsigned int taken;
};

struct world {
	char directory[32];
	struct event_base *base;
	struct guest_server *server;
	struct vm vms[VMS];
	unsigned int taken; /* of all */
};

static void on_submit(void *owner, void *vm, uint64_t client UNUSED, uint32_t request_id UNUSED,
                      enum vgpu_code malformed, uint32_t opcode UNUSED, struct message *request)
{
	struct world *world = owner;

	assert_int_equal(malformed, VGPU_CODE_OK);
	((struct vm *)vm)->taken++;
	world->taken++;
	free(request);
}

static void on_client_gone(void *owner UNUSED, void *vm UNUSED, uint64_t client UNUSED)
{
}

static bool has_room(void *owner UNUSED, void *vm UNUSED)
{
	return true;
}

static const struct guest_ops ops = {
	.submit = on_submit,
	.client_gone = on_client_gone,
	.has_room = has_room,
};

static void turn(struct world *world)
{
	assert_true(event_base_loop(world->base, EVLOOP_ONCE | EVLOOP_NONBLOCK) >= 0);
}

static void submit(struct vm *vm, int count)
{
	uint8_t frame[VGPU_SOCKET_HEADER_BYTES + VGPU_HEADER_BYTES] = {0};
	const struct vgpu_socket_header header = {
		.type = VGPU_MSG_REQUEST,
		.payload_bytes = VGPU_HEADER_BYTES,
	};

	vgpu_socket_header_encode(frame, &header);
	vgpu_put_le32(frame + VGPU_SOCKET_HEADER_BYTES + VGPU_REQUEST_VERSION,
	              VGPU_PROTOCOL_VERSION);
	for (int i = 0; i < count; i++)
		assert_int_equal(send(vm->peer, frame, sizeof(frame), 0), sizeof(frame));
}

static int setup(void **state)
{
	static struct world world;
	const struct guest_identity identity = {.pool = 'A'};
	char path[64];

	world = (struct world){.directory = "/tmp/vgpu-line-XXXXXX", .base = event_base_new()};
	*state = &world;
	if (!world.base || !mkdtemp(world.directory) ||
	    guest_server_new(&world.server, world.base, &ops, &world) < 0)
		return -1;
	guest_server_set_limits(world.server, (struct guest_limits){1, 1024});
	for (int i = 0; i < VMS; i++) {
		struct vm *vm = &world.vms[i];

		snprintf(path, sizeof(path), "%s/%d", world.directory, i);
		if (guest_port_open(world.server, &vm->port, path, "a VM", &identity, vm) < 0 ||
		    socket_connect_unix(&vm->peer, path, true) < 0)
			return -1;
		while (guest_port_connections(vm->port) == 0)
			event_base_loop(world.base, EVLOOP_ONCE);
	}
	return 0;
}

static int teardown(void **state)
{
	struct world *world = *state;

	guest_server_free(world->server);
	event_base_free(world->base);
	for (int i = 0; i < VMS; i++)
		close(world->vms[i].peer);
	return rmdir(world->directory);
}

static void test_the_rest_waits_in_line(void **state)
{
	struct world *world = *state;

	submit(&world->vms[0], FLOOD);
	turn(world);
	assert_int_equal(world->taken, AT_ONCE);
	turn(world);
	assert_int_equal(world->taken, AT_ONCE + IN_LINE);
	while (world->taken < FLOOD)
		turn(world);
}

/* Whoever sends no more than that never waits in line, however quickly turns follow. */
static void test_every_turn_counts_anew(void **state)
{
	struct world *world = *state;

	for (unsigned int i = 1; i <= TURNS; i++) {
		submit(&world->vms[0], AT_ONCE);
		turn(world);
		assert_int_equal(world->taken, i * AT_ONCE);
	}
}

static void test_who_floods_waits_for_the_others(void **state)
{
	struct world *world = *state;
	struct vm *modest = &world->vms[VMS - 1];

	for (int i = 0; i < VMS - 1; i++)
		submit(&world->vms[i], FLOOD);
	turn(world);
	for (unsigned int i = 1; i <= TURNS / AT_ONCE; i++) {
		unsigned int before = world->taken;

		submit(modest, 1);
		turn(world);
		assert_int_equal(modest->taken, i);
		assert_in_range(world->taken - before, 1, 1 + IN_LINE);
	}
	while (world->taken < modest->taken + FLOOD * (VMS - 1))
		turn(world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_the_rest_waits_in_line, setup, teardown),
		cmocka_unit_test_setup_teardown(test_every_turn_counts_anew, setup, teardown),
		cmocka_unit_test_setup_teardown(test_who_floods_waits_for_the_others, setup,
	                                        teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
