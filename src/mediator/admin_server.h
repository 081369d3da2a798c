/* SPDX-License-Identifier: MIT */
/*
 * The admin socket: one JSON object per line each way.
 *
 *   {"id":1,"method":"ping","params":{}}   ->   {"id":1,"result":{...}}
 *                                          or   {"id":1,"error":{"code":-32601,"message":"..."}}
 *
 * JSON-RPC 2.0 without its version member (one that has it is accepted). A method may
 * answer at once or later; a call whose client has gone away is answered into the void.
 */
#ifndef MEDIATOR_ADMIN_SERVER_H
#define MEDIATOR_ADMIN_SERVER_H

#include <stdbool.h>

#include <jansson.h>

#include "base/util.h"

struct event_base;
struct admin_server;
struct admin_call;

enum {
	ADMIN_CLIENTS_MAX = 64,
	ADMIN_LINE_MAX = 64 * 1024, /* bytes of one request */
};

/* Error codes; the first ones are those of JSON-RPC 2.0. */
enum {
	ADMIN_E_PARSE = -32700,
	ADMIN_E_REQUEST = -32600,
	ADMIN_E_METHOD = -32601,
	ADMIN_E_PARAMS = -32602,
	ADMIN_E_INTERNAL = -32603,
	ADMIN_E_FAILED = 1,
};

struct admin_method {
	const char *name;
	const char *help;
	/* Has to answer @call exactly once, now or later. @params may be NULL. */
	void (*handle)(void *owner, struct admin_call *call, const json_t *params);
};

/*
 * Listens at @path (mode 0600). @methods ends with a NULL name. Returns 0 or a negative
 * errno. The caller owns *@out.
 */
int admin_server_new(struct admin_server **out, struct event_base *base, const char *path,
                     const struct admin_method *methods, void *owner);
void admin_server_free(struct admin_server *server);
DEFINE_CLEANUP(admin_server)

/* Takes @result over (NULL: out of memory) and ends the call. */
void admin_call_result(struct admin_call *call, json_t *result);
void admin_call_error(struct admin_call *call, int code, const char *format, ...) PRINTF(3, 4);

/* A string of @text, with U+FFFD for each byte that is no UTF-8; null for NULL. */
json_t *admin_text(const char *text);

/* Sends what it can now. True when every answer has left. */
bool admin_server_flush(struct admin_server *server);

#endif
