/* SPDX-License-Identifier: MIT */
/* See guest_server.h. */
#include "mediator/guest_server.h"

#include <errno.h>
#include <string.h>

#include <event2/event.h>

#include "base/clock.h"
#include "base/listener.h"
#include "mediator/guest_internal.h"
#include "proto/request.h"
#include "vgpu/wire.h"

#define SOCKET_MODE 0666

enum {
	/* Connections that have not said who they are: in all, and of one process. */
	GUEST_LEGACY_UNBOUND_MAX = 256,
	GUEST_LEGACY_UNBOUND_PER_PEER = 4,
	GUEST_LOG_BURST = 5,
	GUEST_LOG_INTERVAL_S = 60,
};

const char *guest_label(const struct guest_port *port)
{
	return port ? port->label : "legacy socket";
}

bool guest_may_log(struct guest_server *server, struct guest_port *port)
{
	return log_limit_pass(port ? &port->log_limit : &server->log_limit, guest_label(port),
	                      (uint64_t)clock_monotonic_ns(), GUEST_LOG_BURST,
	                      GUEST_LOG_INTERVAL_S * NS_PER_SEC);
}

/* ---- Who connects ------------------------------------------------------------------ */

static void refuse(struct guest_server *server, struct guest_port *port, int fd)
{
	close(fd);
	if (guest_may_log(server, port))
		log_warning("%s: refused: too many connections at once", guest_label(port));
}

/* As the kernel says; all 0 if it does not, as for a process that we cannot see. */
static struct ucred peer_of(int fd)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
		return (struct ucred){0};
	return peer;
}

static void on_connected(void *owner, int fd)
{
	struct guest_port *port = owner;
	struct guest_server *server = port->server;

	const struct ucred peer = peer_of(fd);

	if (port->connection_count < server->limits.max_connections_per_vm)
		guest_connection_add(server, port, fd, &peer);
	else
		refuse(server, port, fd);
}

/*
 * An old device says nothing before its guest does, for days perhaps. So silence is
 * nothing to be cut off for; but nobody needs to be silent often.
 */
static bool may_be_silent(const struct guest_server *server, const struct ucred *peer)
{
	const struct connection *connection;
	uint32_t count = 0;

	if (server->unbound_count >= GUEST_LEGACY_UNBOUND_MAX)
		return false;
	TAILQ_FOREACH (connection, &server->unbound, link)
		count += connection->peer.pid == peer->pid;
	return peer->pid == 0 || count < GUEST_LEGACY_UNBOUND_PER_PEER;
}

static void on_legacy_connected(void *owner, int fd)
{
	struct guest_server *server = owner;
	const struct ucred peer = peer_of(fd);

	if (may_be_silent(server, &peer))
		guest_connection_add(server, NULL, fd, &peer);
	else
		refuse(server, NULL, fd);
}

/* ---- Ports --------------------------------------------------------------------------- */

int guest_port_open(struct guest_server *server, struct guest_port **out, const char *path,
                    const char *label, const struct guest_identity *identity, void *vm)
{
	struct guest_port *port = calloc(1, sizeof(*port));
	int r;

	if (!port)
		return -ENOMEM;
	port->server = server;
	port->vm = vm;
	port->identity = *identity;
	TAILQ_INIT(&port->connections);
	TAILQ_INSERT_TAIL(&server->ports, port, link);
	port->label = strdup(label);
	/* The peers are QEMU processes with a user of their own each: the path is the key. */
	r = port->label ? listener_new(&port->listener, server->base, path, SOCKET_MODE, label,
	                               on_connected, port)
	                : -ENOMEM;
	if (r < 0) {
		guest_port_close(port);
		return r;
	}
	*out = port;
	return 0;
}

void guest_port_set_identity(struct guest_port *port, const struct guest_identity *identity)
{
	port->identity = *identity;
}

void guest_port_retire(struct guest_port *port)
{
	struct connection *connection;

	listener_free(TAKE_PTR(port->listener));
	guest_line_leave(port);
	TAILQ_FOREACH (connection, &port->connections, link)
		stream_pause(connection->stream, true);
}

void guest_port_close(struct guest_port *port)
{
	struct connection *connection;

	if (!port)
		return;
	while ((connection = TAILQ_FIRST(&port->connections))) {
		stream_flush(connection->stream);
		guest_connection_free(connection);
	}
	guest_line_leave(port);
	listener_free(port->listener);
	TAILQ_REMOVE(&port->server->ports, port, link);
	free(port->label);
	free(port);
}

void guest_port_resume(struct guest_port *port)
{
	struct connection *connection;

	if (port->server->stopped || port->in_line)
		return;
	TAILQ_FOREACH (connection, &port->connections, link)
		stream_pause(connection->stream, false);
}

void guest_port_walk(const struct guest_port *port,
                     void (*each)(void *context, const struct guest_connection *connection),
                     void *context)
{
	const struct connection *connection;

	TAILQ_FOREACH (connection, &port->connections, link) {
		const struct guest_connection info = {
			.pid = connection->peer.pid,
			.uid = connection->peer.uid,
			.since_ns = connection->since_ns,
			.requests = connection->requests,
			.extended = connection->features != 0,
		};

		each(context, &info);
	}
}

uint32_t guest_port_connections(const struct guest_port *port)
{
	return port->connection_count;
}

/* ---- Server --------------------------------------------------------------------------- */

int guest_server_new(struct guest_server **out, struct event_base *base,
                     const struct guest_ops *ops, void *owner)
{
	CLEANUP(guest_server_freep) struct guest_server *server = calloc(1, sizeof(*server));
	int r;

	if (!server)
		return -ENOMEM;
	server->base = base;
	server->ops = ops;
	server->owner = owner;
	TAILQ_INIT(&server->ports);
	TAILQ_INIT(&server->unbound);
	r = guest_line_init(server);
	if (r == 0)
		r = stream_group_new(&server->streams, base, STREAM_STALL_MS);
	if (r < 0)
		return r;
	*out = TAKE_PTR(server);
	return 0;
}

void guest_server_free(struct guest_server *server)
{
	struct connection *connection;
	struct guest_port *port;

	if (!server)
		return;
	while ((port = TAILQ_FIRST(&server->ports)))
		guest_port_close(port);
	while ((connection = TAILQ_FIRST(&server->unbound)))
		guest_connection_free(connection);
	listener_free(server->legacy);
	guest_line_fini(server);
	stream_group_free(server->streams);
	free(server);
}

void guest_server_set_limits(struct guest_server *server, struct guest_limits limits)
{
	server->limits = limits;
}

int guest_server_open_legacy(struct guest_server *server, const char *path)
{
	return listener_new(&server->legacy, server->base, path, SOCKET_MODE, guest_label(NULL),
	                    on_legacy_connected, server);
}

void guest_server_stop(struct guest_server *server)
{
	struct guest_port *port;

	server->stopped = true;
	listener_free(TAKE_PTR(server->legacy));
	TAILQ_FOREACH (port, &server->ports, link)
		guest_port_retire(port);
}

bool guest_server_flush(struct guest_server *server)
{
	struct connection *connection;
	struct guest_port *port;
	bool flushed = true;

	TAILQ_FOREACH (port, &server->ports, link) {
		TAILQ_FOREACH (connection, &port->connections, link)
			flushed = stream_flush(connection->stream) && flushed;
	}
	return flushed;
}

/* An answer that has no bytes from a worker, for a peer as it understands it. */
static void send_refusal(struct connection *connection, uint32_t request_id,
                         const struct core_answer *answer)
{
	uint8_t bytes[VGPU_MESSAGE_BYTES];
	uint32_t results[2] = {answer->detail, answer->command};
	bool knows_busy = connection->features & VGPU_FEATURE_BUSY;

	if (answer->code == VGPU_CODE_RATE_LIMITED)
		results[1] = answer->retry_after_us;
	if (knows_busy && answer->code == VGPU_CODE_RATE_LIMITED) {
		vgpu_put_le32(bytes + VGPU_BUSY_FIELD_REASON, answer->detail);
		vgpu_put_le32(bytes + VGPU_BUSY_FIELD_RETRY_AFTER_US, answer->retry_after_us);
		guest_connection_send(connection, VGPU_MSG_BUSY, request_id, bytes,
		                      VGPU_BUSY_BYTES);
	} else if (knows_busy && answer->code == VGPU_CODE_QUARANTINED) {
		guest_connection_send(connection, VGPU_MSG_QUARANTINED, request_id, NULL, 0);
	} else {
		guest_connection_send(connection, VGPU_MSG_RESPONSE, request_id, bytes,
		                      response_encode(bytes, answer->code, answer->gpu_time_us,
		                                      results, ARRAY_LEN(results), NULL, 0));
	}
}

void guest_server_answer(struct guest_server *server, uint64_t client, uint32_t request_id,
                         const struct core_answer *answer, const struct message *result)
{
	struct connection *connection;

	HASH_FIND(by_client, server->by_client, &client, sizeof(client), connection);
	if (!connection || connection->broken)
		return;
	if (result)
		guest_connection_send(connection, VGPU_MSG_RESPONSE, request_id, result->bytes,
		                      result->length);
	else
		send_refusal(connection, request_id, answer);
}
