/* SPDX-License-Identifier: MIT */
/*
 * Whose messages are taken next.
 *
 * In one turn of the event loop each VM has a few messages taken as they come. One that
 * has sent more is put in line, behind the others that have: they are served one message
 * each, one after the other, and all of them together get GUEST_LINE_MESSAGES a turn. So
 * whoever sends one request at a time waits for a bounded number of others' messages,
 * however many VMs flood, and no VM is kept waiting for good.
 */
#include <errno.h>

#include <event2/event.h>

#include "mediator/guest_internal.h"

enum {
	GUEST_FRESH_MESSAGES = 4, /* of a VM in a turn, without waiting in line */
	GUEST_LINE_MESSAGES = 16, /* of all VMs in line together, in a turn */
};

bool guest_line_may_take(struct guest_port *port)
{
	struct guest_server *server = port->server;

	if (port->in_line)
		return false;
	if (!server->turn_ends) {
		/* Behind all that is to be done in this turn: the loop's clock is too coarse. */
		server->turn_ends = true;
		event_active(server->turn_end, EV_READ, 0);
	}
	if (port->turn != server->turn) {
		port->turn = server->turn;
		port->taken = 0;
	}
	return port->taken++ < GUEST_FRESH_MESSAGES;
}

static void on_turn_end(evutil_socket_t fd UNUSED, short what UNUSED, void *arg)
{
	struct guest_server *server = arg;

	server->turn_ends = false;
	server->turn++;
}

static void next_turn(struct guest_server *server)
{
	static const struct timeval now = {.tv_sec = 0};

	event_add(server->line_turn, &now);
}

void guest_line_join(struct connection *connection)
{
	struct guest_port *port = connection->port;
	struct guest_server *server = port->server;

	stream_pause(connection->stream, true);
	if (port->in_line)
		return;
	if (TAILQ_EMPTY(&server->line))
		next_turn(server);
	TAILQ_INSERT_TAIL(&server->line, port, line_link);
	port->in_line = true;
}

void guest_line_leave(struct guest_port *port)
{
	if (!port->in_line)
		return;
	TAILQ_REMOVE(&port->server->line, port, line_link);
	port->in_line = false;
}

static void on_line_turn(evutil_socket_t fd UNUSED, short what UNUSED, void *arg)
{
	struct guest_server *server = arg;
	struct guest_port *port;
	int left = GUEST_LINE_MESSAGES;

	while (left > 0 && (port = TAILQ_FIRST(&server->line))) {
		guest_line_leave(port);
		if (guest_port_take(port)) {
			TAILQ_INSERT_TAIL(&server->line, port, line_link);
			port->in_line = true;
			left--;
		} else {
			guest_port_resume(port);
		}
	}
	if (!TAILQ_EMPTY(&server->line))
		next_turn(server);
}

int guest_line_init(struct guest_server *server)
{
	TAILQ_INIT(&server->line);
	server->line_turn = event_new(server->base, -1, 0, on_line_turn, server);
	server->turn_end = event_new(server->base, -1, 0, on_turn_end, server);
	return server->line_turn && server->turn_end ? 0 : -ENOMEM;
}

void guest_line_fini(struct guest_server *server)
{
	if (server->line_turn)
		event_free(server->line_turn);
	if (server->turn_end)
		event_free(server->turn_end);
}
