/* SPDX-License-Identifier: MIT */
/*
 * See guest_server.h. A connection reads message after message from its stream; each
 * known type has a row in `handlers`. A peer that breaks the framing is cut off, since
 * nothing after that could be understood; one that sends a bad request inside good
 * framing is answered.
 */
#include "mediator/guest_server.h"

#include <errno.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include <event2/buffer.h>
#include <event2/event.h>
#include <uthash.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/socket.h"
#include "base/stream.h"
#include "proto/request.h"
#include "vgpu/wire.h"

enum {
	GUEST_FEATURES = VGPU_FEATURE_BUSY,
	GUEST_LEGACY_UNBOUND_MAX = 64, /* connections that have not said who they are */
	GUEST_ACCEPT_PAUSE_S = 1,      /* after running out of descriptors */
	GUEST_LOG_BURST = 5,
	GUEST_LOG_INTERVAL_S = 60,
};

struct connection {
	TAILQ_ENTRY(connection) link; /* in port.connections or server.unbound */
	UT_hash_handle by_client;
	struct guest_server *server;
	struct guest_port *port; /* NULL on the legacy socket before the first message */
	struct stream *stream;
	struct ucred peer;
	int64_t since_ns;
	uint64_t requests;
	uint64_t client;
	uint32_t features; /* VGPU_FEATURE_*, in common by HELLO; 0 before it */
	bool spoken;       /* a message has come */
	bool broken;       /* to be closed once its data callback is over */
};

TAILQ_HEAD(connection_list, connection);

struct listener {
	struct guest_server *server;
	struct guest_port *port; /* NULL: the legacy socket */
	int fd;
	struct event *readable;
	char path[108];
};

struct guest_port {
	struct guest_server *server;
	TAILQ_ENTRY(guest_port) link;
	void *vm;
	char *label;
	struct guest_identity identity;
	struct listener listener;
	struct connection_list connections;
	uint32_t connection_count;
	struct log_limit log_limit;
};

struct guest_server {
	struct event_base *base;
	struct stream_group *streams;
	const struct guest_ops *ops;
	void *owner;
	struct guest_limits limits;
	TAILQ_HEAD(, guest_port) ports;
	struct listener legacy;
	struct connection_list unbound;
	uint32_t unbound_count;
	struct connection *by_client;
	uint64_t last_client;
	struct event *accept_again;
	struct log_limit log_limit;
	bool stopped;
};

/* ---- Connections ------------------------------------------------------------ */

static const char *label_of(const struct guest_port *port)
{
	return port ? port->label : "legacy socket";
}

/* Whether a line about @port, or about the legacy socket, may be written now. */
static bool may_log(struct guest_server *server, struct guest_port *port)
{
	return log_limit_pass(port ? &port->log_limit : &server->log_limit, label_of(port),
	                      (uint64_t)clock_monotonic_ns(), GUEST_LOG_BURST,
	                      GUEST_LOG_INTERVAL_S * NS_PER_SEC);
}

/* Takes it out of all lists and closes it. */
static void connection_free(struct connection *connection)
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

	connection_free(connection);
	if (port)
		server->ops->client_gone(server->owner, port->vm, client);
}

static void send_message(struct connection *connection, uint32_t type, uint32_t request_id,
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
	if (may_log(connection->server, connection->port))
		log_warning("%s: connection closed: %s", label_of(connection->port), why);
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
	} else if (may_log(connection->server, connection->port)) {
		log_warning("%s: request %u refused: %s", label_of(connection->port),
		            header->request_id, why);
	}
	server->ops->submit(server->owner, connection->port->vm, connection->client,
	                    header->request_id, code, request.opcode, message);
}

static void on_ping(struct connection *connection, const struct vgpu_socket_header *header,
                    const uint8_t *payload)
{
	send_message(connection, VGPU_MSG_PONG, header->request_id, payload, header->payload_bytes);
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
	connection->features = vgpu_get_le32(payload + 4) & GUEST_FEATURES;
	vgpu_put_le32(reply, VGPU_HELLO_VERSION);
	vgpu_put_le32(reply + 4, connection->features);
	send_message(connection, VGPU_MSG_HELLO, header->request_id, reply, sizeof(reply));
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
	if (may_log(connection->server, connection->port))
		log_warning("%s: message of unknown type 0x%02x ignored",
		            label_of(connection->port), header->type);
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

static void on_data(void *owner, struct evbuffer *input)
{
	struct connection *connection = owner;

	while (!connection->broken && !stream_congested(connection->stream) &&
	       take_message(connection, input))
		;
	if (connection->broken)
		connection_end(connection);
}

static void on_end(void *owner, int reason)
{
	struct connection *connection = owner;

	if (reason < 0 && reason != -ECONNRESET && reason != -EPIPE &&
	    may_log(connection->server, connection->port))
		log_warning("%s: connection lost: %s", label_of(connection->port),
		            reason == -ETIMEDOUT ? "it does not read its answers"
		                                 : strerror(-reason));
	connection_end(connection);
}

static const struct stream_ops stream_ops = {.data = on_data, .end = on_end};

/* ---- Listeners -------------------------------------------------------------------- */

static bool may_connect(struct listener *listener)
{
	struct guest_server *server = listener->server;

	if (!listener->port)
		return server->unbound_count < GUEST_LEGACY_UNBOUND_MAX;
	return listener->port->connection_count < server->limits.max_connections_per_vm;
}

static void connection_add(struct listener *listener, int fd)
{
	struct guest_server *server = listener->server;
	struct guest_port *port = listener->port;
	struct connection *connection = calloc(1, sizeof(*connection));
	socklen_t size = sizeof(connection->peer);

	if (!connection) {
		close(fd);
		return;
	}
	connection->server = server;
	connection->port = port;
	connection->client = ++server->last_client;
	connection->since_ns = clock_monotonic_ns();
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &connection->peer, &size) < 0)
		connection->peer = (struct ucred){0};
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

static void on_accept(evutil_socket_t fd, short what UNUSED, void *arg)
{
	static const struct timeval pause = {.tv_sec = GUEST_ACCEPT_PAUSE_S};
	struct listener *listener = arg;
	struct guest_server *server = listener->server;
	int peer = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (peer >= 0 && may_connect(listener)) {
		connection_add(listener, peer);
		return;
	}
	if (peer >= 0) {
		close(peer);
		if (may_log(server, listener->port))
			log_warning("%s: refused: too many connections at once",
			            label_of(listener->port));
		return;
	}
	if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
		log_error("cannot accept connections: %s", strerror(errno));
		event_del(listener->readable);
		event_add(server->accept_again, &pause);
	}
}

static void on_accept_again(evutil_socket_t fd UNUSED, short what UNUSED, void *arg)
{
	struct guest_server *server = arg;
	struct guest_port *port;

	if (server->stopped)
		return;
	TAILQ_FOREACH (port, &server->ports, link) {
		if (port->listener.readable)
			event_add(port->listener.readable, NULL);
	}
	if (server->legacy.readable)
		event_add(server->legacy.readable, NULL);
}

static int listener_open(struct listener *listener, struct guest_server *server,
                         struct guest_port *port, const char *path)
{
	int r;

	*listener = (struct listener){.server = server, .port = port, .fd = -1};
	/* The peers are QEMU processes with a user of their own each: the path is the key. */
	r = socket_listen_unix(&listener->fd, path, 0666);
	if (r < 0)
		return r;
	strcpy(listener->path, path);
	listener->readable =
		event_new(server->base, listener->fd, EV_READ | EV_PERSIST, on_accept, listener);
	if (!listener->readable || event_add(listener->readable, NULL) < 0)
		return -ENOMEM;
	return 0;
}

static void listener_close(struct listener *listener)
{
	if (listener->readable)
		event_free(listener->readable);
	if (listener->fd >= 0) {
		unlink(listener->path);
		close(listener->fd);
	}
	listener->readable = NULL;
	listener->fd = -1;
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
	port->listener.fd = -1;
	TAILQ_INSERT_TAIL(&server->ports, port, link);
	port->label = strdup(label);
	r = port->label ? listener_open(&port->listener, server, port, path) : -ENOMEM;
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

	listener_close(&port->listener);
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
		connection_free(connection);
	}
	listener_close(&port->listener);
	TAILQ_REMOVE(&port->server->ports, port, link);
	free(port->label);
	free(port);
}

void guest_port_resume(struct guest_port *port)
{
	struct connection *connection;

	if (port->server->stopped)
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
	server->legacy.fd = -1;
	TAILQ_INIT(&server->ports);
	TAILQ_INIT(&server->unbound);
	r = stream_group_new(&server->streams, base);
	if (r < 0)
		return r;
	server->accept_again = event_new(base, -1, 0, on_accept_again, server);
	if (!server->accept_again)
		return -ENOMEM;
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
		connection_free(connection);
	listener_close(&server->legacy);
	if (server->accept_again)
		event_free(server->accept_again);
	stream_group_free(server->streams);
	free(server);
}

void guest_server_set_limits(struct guest_server *server, const struct guest_limits *limits)
{
	server->limits = *limits;
}

int guest_server_open_legacy(struct guest_server *server, const char *path)
{
	int r = listener_open(&server->legacy, server, NULL, path);

	if (r < 0)
		listener_close(&server->legacy);
	return r;
}

void guest_server_stop(struct guest_server *server)
{
	struct guest_port *port;

	server->stopped = true;
	listener_close(&server->legacy);
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
		vgpu_put_le32(bytes, results[0]);
		vgpu_put_le32(bytes + 4, results[1]);
		send_message(connection, VGPU_MSG_BUSY, request_id, bytes, VGPU_BUSY_BYTES);
	} else if (knows_busy && answer->code == VGPU_CODE_QUARANTINED) {
		send_message(connection, VGPU_MSG_QUARANTINED, request_id, NULL, 0);
	} else {
		send_message(connection, VGPU_MSG_RESPONSE, request_id, bytes,
		             response_encode(bytes, answer->code, answer->gpu_time_us, results,
		                             ARRAY_LEN(results), NULL, 0));
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
		send_message(connection, VGPU_MSG_RESPONSE, request_id, result->bytes,
		             result->length);
	else
		send_refusal(connection, request_id, answer);
}
