/* SPDX-License-Identifier: MIT */
/*
 * What the files of the guest server share; nobody else includes it.
 *
 *   guest_server.c      ports: who may connect, and answers
 *   guest_connection.c  one connection and the messages on it
 *   guest_line.c        whose messages are taken next
 */
#ifndef MEDIATOR_GUEST_INTERNAL_H
#define MEDIATOR_GUEST_INTERNAL_H

#include <sys/queue.h>
#include <sys/socket.h>

#include <uthash.h>

#include "base/log.h"
#include "base/stream.h"
#include "mediator/guest_server.h"

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

struct guest_port {
	struct guest_server *server;
	TAILQ_ENTRY(guest_port) link;
	void *vm;
	char *label;
	struct guest_identity identity;
	struct listener *listener; /* NULL: retired */
	struct connection_list connections;
	uint32_t connection_count;
	struct log_limit log_limit;
	TAILQ_ENTRY(guest_port) line_link; /* in server.line */
	bool in_line;                      /* it has sent more than it may at once */
	uint64_t turn;                     /* the last one in which messages of it were taken */
	uint32_t taken;                    /* in that turn */
};

struct guest_server {
	struct event_base *base;
	struct stream_group *streams;
	const struct guest_ops *ops;
	void *owner;
	struct guest_limits limits;
	TAILQ_HEAD(, guest_port) ports;
	TAILQ_HEAD(, guest_port) line;
	struct event *line_turn;
	uint64_t turn;  /* of the event loop; counted only while messages are taken */
	bool turn_ends; /* @turn_end is active */
	struct event *turn_end;
	struct listener *legacy; /* or NULL */
	struct connection_list unbound;
	uint32_t unbound_count;
	struct connection *by_client;
	uint64_t last_client;
	struct log_limit log_limit;
	bool stopped;
};

/* For the log; @port is NULL for the legacy socket, here and below. */
const char *guest_label(const struct guest_port *port);

/* Whether a line about @port may be written now. */
bool guest_may_log(struct guest_server *server, struct guest_port *port);

/* Takes @fd over. */
void guest_connection_add(struct guest_server *server, struct guest_port *port, int fd,
                          const struct ucred *peer);

/* Takes it out of all lists and closes it. */
void guest_connection_free(struct connection *connection);

/* Takes one message that a connection of the port has read. False: none may be taken. */
bool guest_port_take(struct guest_port *port);

/* Sends a message of @length payload bytes. The connection is bound to a port. */
void guest_connection_send(struct connection *connection, uint32_t type, uint32_t request_id,
                           const void *payload, size_t length);

/* Whether another message of the VM may be taken at once; counts it. */
bool guest_line_may_take(struct guest_port *port);

/* Its VM has sent more: it is not read from until the line has taken what there is. */
void guest_line_join(struct connection *connection);
void guest_line_leave(struct guest_port *port);

int guest_line_init(struct guest_server *server);
void guest_line_fini(struct guest_server *server);

#endif
