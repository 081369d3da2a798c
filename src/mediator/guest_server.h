/* SPDX-License-Identifier: MIT */
/*
 * The sockets that VMs' devices connect to, and the messages on them.
 *
 * A port is one VM's listening socket; who connects there is that VM, whatever its
 * messages claim. Messages are checked and decoded here, and answers encoded for what
 * the peer has announced that it understands; what a request means is not known here.
 *
 * Everything a peer can make us hold is bounded: connections per VM, bytes read ahead,
 * bytes not yet taken by it, and (through has_room) the VM's queue.
 */
#ifndef MEDIATOR_GUEST_SERVER_H
#define MEDIATOR_GUEST_SERVER_H

#include "core/core.h"
#include "mediator/message.h"

struct event_base;
struct guest_server;
struct guest_port;

/* Calls out of the server; @vm is what the port was opened for. */
struct guest_ops {
	/* A request has come; the message is the callee's. */
	void (*submit)(void *owner, void *vm, uint64_t client, uint32_t request_id,
	               enum vgpu_code malformed, uint32_t opcode, struct message *request);
	/* The connection is gone. Answers to it lead nowhere from now on. */
	void (*client_gone)(void *owner, void *vm, uint64_t client);
	/* Whether another request of this VM may be taken; guest_port_resume() says when again. */
	bool (*has_room)(void *owner, void *vm);
	/* For the legacy socket: the port of the VM with that number, or NULL. */
	struct guest_port *(*find)(void *owner, uint32_t vm_id);
};

struct guest_limits {
	uint32_t max_connections_per_vm;
	uint32_t max_queue_per_vm; /* what HELLO says that may be under way */
};

/* What answers repeat about the VM; devices ignore it. */
struct guest_identity {
	uint32_t vm_id;
	char pool;
	uint8_t priority;
};

/* Returns 0 or a negative errno. The caller owns *@out. */
int guest_server_new(struct guest_server **out, struct event_base *base,
                     const struct guest_ops *ops, void *owner);
void guest_server_free(struct guest_server *server);
DEFINE_CLEANUP(guest_server)

void guest_server_set_limits(struct guest_server *server, struct guest_limits limits);

/*
 * Listens at @path for the VM @vm; the log calls it @label. Returns 0 or a negative
 * errno (see socket_listen_unix()); the caller owns *@out.
 */
int guest_port_open(struct guest_server *server, struct guest_port **out, const char *path,
                    const char *label, const struct guest_identity *identity, void *vm);
void guest_port_set_identity(struct guest_port *port, const struct guest_identity *identity);

/* Removes the socket and reads no more; answers still go out, until it is closed. */
void guest_port_retire(struct guest_port *port);

/* Ends its connections without a word (client_gone is not called) and removes the socket. */
void guest_port_close(struct guest_port *port);

/* There is room again: goes on reading. */
void guest_port_resume(struct guest_port *port);

struct guest_connection {
	int32_t pid; /* of the peer, as the kernel says; 0 = unknown */
	uint32_t uid;
	int64_t since_ns; /* of CLOCK_MONOTONIC */
	uint64_t requests;
	bool extended; /* it said HELLO */
};

/* Calls @each for every connection of the port. */
void guest_port_walk(const struct guest_port *port,
                     void (*each)(void *context, const struct guest_connection *connection),
                     void *context);

uint32_t guest_port_connections(const struct guest_port *port);

/* One socket for all VMs, where the vm_id of the first message is believed. */
int guest_server_open_legacy(struct guest_server *server, const char *path);

/* Stops accepting and reading everywhere; answers still go out. */
void guest_server_stop(struct guest_server *server);

/* True when every answer has left. */
bool guest_server_flush(struct guest_server *server);

/* @result may be NULL; it stays the caller's. A client that is gone is not an error. */
void guest_server_answer(struct guest_server *server, uint64_t client, uint32_t request_id,
                         const struct core_answer *answer, const struct message *result);

#endif
