/* SPDX-License-Identifier: MIT */
/*
 * One connection of a device. It reads message after message from its stream; each known
 * type has a row in `handlers`. A peer that breaks the framing is cut off, since nothing
 * after that could be understood; one that sends a bad request inside good framing is
 * answered.
 */
#include <errno.h>
#include <string.h>

#include <event2/buffer.h>

#include "base/clock.h"
#include "mediator/guest_internal.h"
#include "proto/request.h"
#include "vgpu/wire.h"

enum { GUEST_FEATURES = VGPU_FEATURE_BUSY };

void guest_connection_free(struct connection *connection)
{
	struct guest_server *server = connection->server;

	HASH_DELETE(by_client, server->by_client, connection);
	if (connection->port) {
		TAILQ_REMOVE(&connection->port->connections, connection, link);
		connection->port->connection_count--;
	} else {
		TAILQ_REMOVE(&server->unbound, connection, link);
		server->unbound_count--;
	}
	stream_free(connection->stream);
	free(connection);
}

static void connection_end(struct connection *connection)
{
	struct guest_server *server = connection->server;
	struct guest_port *port = connection->port;
	uint64_t client = connection->client;

	guest_connection_free(connection);
	if (port)
		server->ops->client_gone(server->owner, port->vm, client);
}

void guest_connection_send(struct connection *connection, uint32_t type, uint32_t request_id,
                           const void *payload, size_t length)
{
	uint8_t bytes[VGPU_SOCKET_HEADER_BYTES + VGPU_MESSAGE_BYTES];
	const struct guest_identity *identity = &connection->port->identity;
	const struct vgpu_socket_header header = {
		.type = type,
		.vm_id = identity->vm_id,
		.request_id = request_id,
		.pool_id = (uint8_t)identity->pool,
		.priority = identity->priority,
		.payload_bytes = (uint16_t)length,
	};

	vgpu_socket_header_encode(bytes, &header);
	if (length)
		memcpy(bytes + VGPU_SOCKET_HEADER_BYTES, payload, length);
	stream_write(connection->stream, bytes, VGPU_SOCKET_HEADER_BYTES + length);
}

/* ---- Messages of a device ------------------------------------------------------ */

/* Cuts off a peer that cannot be followed any further. */
static void break_off(struct connection *connection, const char *why)
{
	if (guest_may_log(connection->server, connection->port))
		log_warning("%s: connection closed: %s", guest_label(connection->port), why);
	connection->broken = true;
}

static void on_request(struct connection *connection, const struct vgpu_socket_header *header,
                       const uint8_t *payload)
{
	struct guest_server *server = connection->server;
	struct request_view request = {.opcode = 0};
	const char *why = NULL;
	enum vgpu_code code = request_decode(&request, payload, header->payload_bytes, &why);
	struct message *message = NULL;

	connection->requests++;
	if (code == VGPU_CODE_OK) {
		message = message_new(payload, header->payload_bytes);
		if (!message) {
			break_off(connection, "out of memory");
			return;
		}
	} else if (guest_may_log(connection->server, connection->port)) {
		log_warning("%s: request %u refused: %s", guest_label(connection->port),
		            header->request_id, why);
	}
	server->ops->submit(server->owner, connection->port->vm, connection->client,
	                    header->request_id, code, request.opcode, message);
}

static void on_ping(struct connection *connection, const struct vgpu_socket_header *header,
                    const uint8_t *payload)
{
	guest_connection_send(connection, VGPU_MSG_PONG, header->request_id, payload,
	                      header->payload_bytes);
}

static void on_pong(struct connection *connection UNUSED,
                    const struct vgpu_socket_header *header UNUSED, const uint8_t *payload UNUSED)
{
}

static void on_hello(struct connection *connection, const struct vgpu_socket_header *header,
                     const uint8_t *payload)
{
	uint8_t reply[VGPU_HELLO_MEDIATOR_BYTES] = {0};

	if (connection->spoken) {
		break_off(connection, "HELLO was not its first message");
		return;
	}
	if (header->payload_bytes < VGPU_HELLO_DEVICE_BYTES) {
		break_off(connection, "HELLO is too short");
		return;
	}
	connection->features = vgpu_get_le32(payload + VGPU_HELLO_FIELD_FEATURES) & GUEST_FEATURES;
	vgpu_put_le32(reply + VGPU_HELLO_FIELD_VERSION, VGPU_HELLO_VERSION);
	vgpu_put_le32(reply + VGPU_HELLO_FIELD_FEATURES, connection->features);
	vgpu_put_le32(reply + VGPU_HELLO_FIELD_MAX_OUTSTANDING,
	              connection->server->limits.max_queue_per_vm);
	guest_connection_send(connection, VGPU_MSG_HELLO, header->request_id, reply, sizeof(reply));
}

static const struct handler {
	uint32_t type;
	void (*handle)(struct connection *connection, const struct vgpu_socket_header *header,
	               const uint8_t *payload);
} handlers[] = {
	{VGPU_MSG_REQUEST, on_request},
	{VGPU_MSG_PING, on_ping},
	{VGPU_MSG_PONG, on_pong},
	{VGPU_MSG_HELLO, on_hello},
};

/* The legacy socket: the first message says whose connection this is. */
static bool bind_legacy(struct connection *connection, uint32_t vm_id)
{
	struct guest_server *server = connection->server;
	struct guest_port *port = server->ops->find(server->owner, vm_id);

	if (!port) {
		break_off(connection, "no VM has the vm_id of its message");
		return false;
	}
	if (port->connection_count >= server->limits.max_connections_per_vm) {
		break_off(connection, "its VM has too many connections");
		return false;
	}
	TAILQ_REMOVE(&server->unbound, connection, link);
	server->unbound_count--;
	connection->port = port;
	TAILQ_INSERT_TAIL(&port->connections, connection, link);
	port->connection_count++;
	return true;
}

static void handle_message(struct connection *connection, const struct vgpu_socket_header *header,
                           const uint8_t *payload)
{
	for (size_t i = 0; i < ARRAY_LEN(handlers); i++) {
		if (handlers[i].type == header->type) {
			handlers[i].handle(connection, header, payload);
			connection->spoken = true;
			return;
		}
	}
	connection->spoken = true;
	if (guest_may_log(connection->server, connection->port))
		log_warning("%s: message of unknown type 0x%02x ignored",
		            guest_label(connection->port), header->type);
}

/* Takes one message off @input. False when there is no whole one, or none may be taken. */
static bool take_message(struct connection *connection, struct evbuffer *input)
{
	uint8_t bytes[VGPU_SOCKET_HEADER_BYTES + VGPU_MESSAGE_BYTES];
	struct guest_server *server = connection->server;
	struct vgpu_socket_header header;
	int r;

	if (evbuffer_copyout(input, bytes, VGPU_SOCKET_HEADER_BYTES) < VGPU_SOCKET_HEADER_BYTES)
		return false;
	r = vgpu_socket_header_decode(&header, bytes);
	if (r != 0) {
		break_off(connection, r == VGPU_CODE_TOO_LARGE
		                              ? "a message announces more than 1024 bytes"
		                              : "a message does not begin with the magic number");
		return false;
	}
	if (evbuffer_get_length(input) < VGPU_SOCKET_HEADER_BYTES + (size_t)header.payload_bytes)
		return false;
	if (!connection->port && !bind_legacy(connection, header.vm_id))
		return false;
	if (header.type == VGPU_MSG_REQUEST &&
	    !server->ops->has_room(server->owner, connection->port->vm)) {
		stream_pause(connection->stream, true);
		return false;
	}
	evbuffer_remove(input, bytes, VGPU_SOCKET_HEADER_BYTES + (size_t)header.payload_bytes);
	handle_message(connection, &header, bytes + VGPU_SOCKET_HEADER_BYTES);
	return true;
}

static bool may_take(const struct connection *connection)
{
	return !connection->broken && !stream_congested(connection->stream);
}

static void on_data(void *owner, struct evbuffer *input)
{
	struct connection *connection = owner;

	while (may_take(connection) && evbuffer_get_length(input)) {
		/* Who it is stands in the first message where the socket does not tell. */
		if (connection->port && !guest_line_may_take(connection->port)) {
			guest_line_join(connection);
			break;
		}
		if (!take_message(connection, input))
			break;
	}
	if (connection->broken)
		connection_end(connection);
}

bool guest_port_take(struct guest_port *port)
{
	struct connection *connection;
	bool taken;

	TAILQ_FOREACH (connection, &port->connections, link) {
		taken = may_take(connection) &&
		        take_message(connection, stream_input(connection->stream));
		if (connection->broken) {
			connection_end(connection);
			return true;
		}
		if (taken) {
			TAILQ_REMOVE(&port->connections, connection, link);
			TAILQ_INSERT_TAIL(&port->connections, connection, link);
			return true;
		}
	}
	return false;
}

static void on_end(void *owner, int reason)
{
	struct connection *connection = owner;

	if (reason < 0 && reason != -ECONNRESET && reason != -EPIPE &&
	    guest_may_log(connection->server, connection->port))
		log_warning("%s: connection lost: %s", guest_label(connection->port),
		            reason == -ETIMEDOUT ? "it does not read its answers"
		                                 : strerror(-reason));
	connection_end(connection);
}

static const struct stream_ops stream_ops = {.data = on_data, .end = on_end};

void guest_connection_add(struct guest_server *server, struct guest_port *port, int fd,
                          const struct ucred *peer)
{
	struct connection *connection = calloc(1, sizeof(*connection));

	if (!connection) {
		close(fd);
		return;
	}
	connection->server = server;
	connection->port = port;
	connection->client = ++server->last_client;
	connection->since_ns = clock_monotonic_ns();
	connection->peer = *peer;
	if (stream_new(&connection->stream, server->streams, fd, &stream_ops, connection) < 0) {
		free(connection);
		return;
	}
	HASH_ADD(by_client, server->by_client, client, sizeof(connection->client), connection);
	if (port) {
		TAILQ_INSERT_TAIL(&port->connections, connection, link);
		port->connection_count++;
	} else {
		TAILQ_INSERT_TAIL(&server->unbound, connection, link);
		server->unbound_count++;
	}
}
