/* SPDX-License-Identifier: MIT */
/*
 * See socket_transport.h. HELLO goes out first, with BUSY and QUARANTINED as the only feature, and
 * nothing waits for the answer: a mediator that does not know it says all the same
 * things in responses.
 *
 * Sending never blocks. The buffer for what the socket does not take at once has room
 * for every request that may be under way, so a mediator that stops reading until we read
 * cannot lock up with us.
 */
#include "guest/socket_transport.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "base/units.h"
#include "base/util.h"
#include "vgpu/wire.h"

#define ACCEPT_TIMEOUT_US 2000000
#define ACCEPT_PAUSE_NS   (10 * NS_PER_MS)
#define DEVICE_VERSION    3

enum {
	FRAME_BYTES = VGPU_SOCKET_HEADER_BYTES + VGPU_MESSAGE_BYTES,
	IN_BYTES = 16 * FRAME_BYTES,
	/* PONGs are queued only below this, so they take no room from requests. */
	PONG_BYTES_MAX = 4096,
	OUT_BYTES = PONG_BYTES_MAX + (VGPU_OUTSTANDING_MAX + 2) * FRAME_BYTES,
};

struct connection {
	struct transport transport;
	struct guest_env env;
	int fd;
	int ended; /* 0, or what every call returns from now on */
	bool extended;
	uint32_t limit;
	size_t in_used;
	size_t out_begin; /* bytes out_begin..out_end wait for the socket */
	size_t out_end;
	char name[VGPU_NAME_BYTES];
	uint8_t in[IN_BYTES];
	uint8_t out[OUT_BYTES];
};

static struct connection *connection_of(struct transport *transport)
{
	return CONTAINER_OF(transport, struct connection, transport);
}

/* ---- Sending ------------------------------------------------------------------ */

static void flush(struct connection *connection)
{
	ssize_t n;

	while (!connection->ended && connection->out_begin < connection->out_end) {
		n = send(connection->fd, connection->out + connection->out_begin,
		         connection->out_end - connection->out_begin, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n >= 0)
			connection->out_begin += (size_t)n;
		else if (errno == EAGAIN || errno == EWOULDBLOCK)
			return;
		else if (errno != EINTR)
			/* What the peer said before it closed can still be read. */
			connection->out_begin = connection->out_end;
	}
}

static int enqueue(struct connection *connection, uint32_t type, uint32_t id, const void *payload,
                   uint32_t length)
{
	struct vgpu_socket_header header = {
		.type = type,
		.request_id = id,
		.pool_id = 'A',
		.priority = VGPU_PRIORITY_MEDIUM,
		.payload_bytes = (uint16_t)length,
	};

	memmove(connection->out, connection->out + connection->out_begin,
	        connection->out_end - connection->out_begin);
	connection->out_end -= connection->out_begin;
	connection->out_begin = 0;
	if (VGPU_SOCKET_HEADER_BYTES + length > OUT_BYTES - connection->out_end)
		return VGPU_E_BUSY;
	vgpu_socket_header_encode(connection->out + connection->out_end, &header);
	if (length)
		memcpy(connection->out + connection->out_end + VGPU_SOCKET_HEADER_BYTES, payload,
		       length);
	connection->out_end += VGPU_SOCKET_HEADER_BYTES + length;
	flush(connection);
	return 0;
}

static int connection_submit(struct transport *transport, uint32_t id, const uint8_t *bytes,
                             uint32_t length, int64_t deadline_ns UNUSED)
{
	struct connection *connection = connection_of(transport);

	if (connection->ended)
		return connection->ended;
	return enqueue(connection, VGPU_MSG_REQUEST, id, bytes, length);
}

/* ---- Receiving ---------------------------------------------------------------- */

/* A message handler returns whether *@out is an answer now. */
typedef bool message_handler(struct connection *connection, const struct vgpu_socket_header *header,
                             const uint8_t *payload, struct answer *out);

static bool on_response(struct connection *connection UNUSED,
                        const struct vgpu_socket_header *header, const uint8_t *payload,
                        struct answer *out)
{
	out->length = header->payload_bytes;
	memcpy(out->bytes, payload, header->payload_bytes);
	return true;
}

static bool on_busy(struct connection *connection UNUSED, const struct vgpu_socket_header *header,
                    const uint8_t *payload, struct answer *out)
{
	out->code = VGPU_CODE_RATE_LIMITED;
	if (header->payload_bytes >= VGPU_BUSY_BYTES) {
		out->reason = vgpu_get_le32(payload + VGPU_BUSY_FIELD_REASON);
		out->retry_after_us = vgpu_get_le32(payload + VGPU_BUSY_FIELD_RETRY_AFTER_US);
	}
	return true;
}

static bool on_quarantined(struct connection *connection UNUSED,
                           const struct vgpu_socket_header *header UNUSED,
                           const uint8_t *payload UNUSED, struct answer *out)
{
	out->code = VGPU_CODE_QUARANTINED;
	return true;
}

static bool on_hello(struct connection *connection, const struct vgpu_socket_header *header,
                     const uint8_t *payload, struct answer *out UNUSED)
{
	uint32_t max_outstanding;

	if (header->payload_bytes < VGPU_HELLO_MEDIATOR_BYTES)
		return false;
	connection->extended = true;
	max_outstanding = vgpu_get_le32(payload + VGPU_HELLO_FIELD_MAX_OUTSTANDING);
	if (max_outstanding > 0)
		connection->limit = (uint32_t)min_u64(max_outstanding, VGPU_OUTSTANDING_MAX);
	return false;
}

static bool on_ping(struct connection *connection, const struct vgpu_socket_header *header,
                    const uint8_t *payload UNUSED, struct answer *out UNUSED)
{
	if (connection->out_end - connection->out_begin < PONG_BYTES_MAX)
		enqueue(connection, VGPU_MSG_PONG, header->request_id, NULL, 0);
	return false;
}

/* Takes the first whole message out of the buffer. Returns whether it was an answer, and
 * sets *@more when there may be another message behind it. */
static bool take_message(struct connection *connection, struct answer *out, bool *more)
{
	static message_handler *const handlers[] = {
		[VGPU_MSG_RESPONSE] = on_response,
		[VGPU_MSG_PING] = on_ping,
		[VGPU_MSG_BUSY] = on_busy,
		[VGPU_MSG_HELLO] = on_hello,
		[VGPU_MSG_QUARANTINED] = on_quarantined,
	};
	struct vgpu_socket_header header;
	const uint8_t *payload = connection->in + VGPU_SOCKET_HEADER_BYTES;
	size_t frame_bytes;
	bool answered = false;

	*more = false;
	if (connection->in_used < VGPU_SOCKET_HEADER_BYTES)
		return false;
	if (vgpu_socket_header_decode(&header, connection->in) != 0) {
		connection->ended = VGPU_E_PROTOCOL;
		return false;
	}
	frame_bytes = VGPU_SOCKET_HEADER_BYTES + (size_t)header.payload_bytes;
	if (connection->in_used < frame_bytes)
		return false;
	*more = true;
	if (header.type < ARRAY_LEN(handlers) && handlers[header.type]) {
		out->id = header.request_id;
		out->code = out->reason = out->retry_after_us = out->detail = out->length = 0;
		answered = handlers[header.type](connection, &header, payload, out);
	}
	connection->in_used -= frame_bytes;
	memmove(connection->in, connection->in + frame_bytes, connection->in_used);
	return answered;
}

/* Waits for the socket until @deadline_ns and reads what there is. Returns 0 if there may
 * be news in the buffer. */
static int fill(struct connection *connection, int64_t deadline_ns)
{
	int64_t left_ns = max_i64(0, deadline_ns - guest_env_now_ns(&connection->env));
	struct timespec left = {
		.tv_sec = (time_t)(left_ns / NS_PER_SEC),
		.tv_nsec = (long)(left_ns % NS_PER_SEC),
	};
	struct pollfd poll_fd = {.fd = connection->fd, .events = POLLIN};
	ssize_t n;

	if (connection->out_begin < connection->out_end)
		poll_fd.events |= POLLOUT;
	if (ppoll(&poll_fd, 1, deadline_ns == GUEST_NEVER ? NULL : &left, NULL) == 0)
		return VGPU_E_TIMED_OUT;
	flush(connection);
	n = recv(connection->fd, connection->in + connection->in_used,
	         IN_BYTES - connection->in_used, MSG_DONTWAIT);
	if (n > 0)
		connection->in_used += (size_t)n;
	else if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
		connection->ended = VGPU_E_CLOSED;
	return 0;
}

static int connection_wait(struct transport *transport, struct answer *out, int64_t deadline_ns)
{
	struct connection *connection = connection_of(transport);
	bool more, tried = false;
	int r;

	for (;;) {
		if (connection->ended)
			return connection->ended;
		if (take_message(connection, out, &more))
			return 0;
		if (more || connection->ended)
			continue;
		/* Also for a peer that talks without end and never answers. */
		if (tried && guest_env_now_ns(&connection->env) >= deadline_ns)
			return VGPU_E_TIMED_OUT;
		r = fill(connection, deadline_ns);
		if (r != 0)
			return r;
		tried = true;
	}
}

/* ---- The rest ----------------------------------------------------------------- */

static bool connection_abandon(struct transport *transport UNUSED, uint32_t id UNUSED)
{
	return true;
}

static uint32_t connection_limit(const struct transport *transport)
{
	return CONTAINER_OF(transport, const struct connection, transport)->limit;
}

static int connection_get_info(struct transport *transport, struct vgpu_info *out)
{
	struct connection *connection = connection_of(transport);

	out->link = (connection->ended ? 0 : VGPU_LINK_CONNECTED) |
	            (connection->extended ? VGPU_LINK_EXTENDED : 0);
	out->outstanding_max = connection->limit;
	snprintf(out->name, sizeof(out->name), "%s", connection->name);
	return 0;
}

static void connection_free(struct transport *transport)
{
	struct connection *connection = connection_of(transport);

	close(connection->fd);
	free(connection);
}

static const struct transport_ops connection_ops = {
	.submit = connection_submit,
	.wait = connection_wait,
	.abandon = connection_abandon,
	.limit = connection_limit,
	.get_info = connection_get_info,
	.free = connection_free,
};

int socket_transport_new(struct transport **out, int fd, const char *name,
                         const struct guest_env *env)
{
	uint8_t hello[VGPU_HELLO_DEVICE_BYTES];
	struct connection *connection = malloc(sizeof(*connection));

	if (!connection) {
		close(fd);
		return -ENOMEM;
	}
	/* The buffers stay untouched, so that they cost memory only when used. */
	memset(connection, 0, offsetof(struct connection, in));
	connection->transport.ops = &connection_ops;
	connection->env = *env;
	connection->fd = fd;
	connection->limit = VGPU_OUTSTANDING_MAX;
	snprintf(connection->name, sizeof(connection->name), "%s", name);

	vgpu_put_le32(hello + VGPU_HELLO_FIELD_VERSION, VGPU_HELLO_VERSION);
	vgpu_put_le32(hello + VGPU_HELLO_FIELD_FEATURES, VGPU_FEATURE_BUSY);
	vgpu_put_le32(hello + VGPU_HELLO_FIELD_MAX_CHANNELS, 0);
	vgpu_put_le32(hello + VGPU_HELLO_FIELD_DEVICE_VERSION, DEVICE_VERSION);
	enqueue(connection, VGPU_MSG_HELLO, 0, hello, sizeof(hello));
	*out = &connection->transport;
	return 0;
}

int socket_transport_connect(struct transport **out, const char *path, const struct guest_env *env)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	CLEANUP(closep) int fd = -1;
	int64_t deadline_ns = guest_env_deadline_ns(env, ACCEPT_TIMEOUT_US);

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	/* EAGAIN: the listener's queue is full, which a busy mediator soon empties. */
	while (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
		if (errno == EAGAIN && guest_env_now_ns(env) < deadline_ns)
			guest_env_sleep_ns(env, ACCEPT_PAUSE_NS);
		else if (errno != EINTR)
			return -errno;
	}
	return socket_transport_new(out, TAKE_FD(fd), path, env);
}
