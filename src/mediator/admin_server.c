/* SPDX-License-Identifier: MIT */
/* See admin_server.h. A client that sends an endless line is cut off at ADMIN_LINE_MAX. */
#include "mediator/admin_server.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>

#include <event2/buffer.h>

#include "base/listener.h"
#include "base/log.h"
#include "base/stream.h"
#include "base/utf8.h"

struct admin_client {
	TAILQ_ENTRY(admin_client) link;
	struct admin_server *server;
	struct stream *stream;
	uint64_t number;
	bool broken;
};

struct admin_call {
	TAILQ_ENTRY(admin_call) link; /* in server.calls */
	struct admin_server *server;
	uint64_t client;
	json_t *id;
};

struct admin_server {
	struct stream_group *streams;
	const struct admin_method *methods;
	void *owner;
	struct listener *listener;
	TAILQ_HEAD(, admin_client) clients;
	TAILQ_HEAD(, admin_call) calls;
	uint32_t client_count;
	uint64_t last_number;
};

static void client_free(struct admin_client *client)
{
	TAILQ_REMOVE(&client->server->clients, client, link);
	client->server->client_count--;
	stream_free(client->stream);
	free(client);
}

/* ---- Answers ----------------------------------------------------------------------- */

static void call_free(struct admin_call *call)
{
	TAILQ_REMOVE(&call->server->calls, call, link);
	json_decref(call->id);
	free(call);
}

/* Sends {"id": ..., @key: @value}, taking @value over, and ends the call. */
static void answer(struct admin_call *call, const char *key, json_t *value)
{
	struct admin_client *client;
	json_t *object;
	char *text;

	TAILQ_FOREACH (client, &call->server->clients, link) {
		if (client->number == call->client)
			break;
	}
	object = json_pack("{s:O, s:o}", "id", call->id, key, value ? value : json_null());
	text = object ? json_dumps(object, JSON_COMPACT | JSON_ENSURE_ASCII) : NULL;
	if (client && text) {
		stream_write(client->stream, text, strlen(text));
		stream_write(client->stream, "\n", 1);
	}
	free(text);
	json_decref(object);
	call_free(call);
}

void admin_call_result(struct admin_call *call, json_t *result)
{
	if (result)
		answer(call, "result", result);
	else
		admin_call_error(call, ADMIN_E_INTERNAL, "out of memory");
}

json_t *admin_text(const char *text)
{
	CLEANUP(freep) char *valid = text ? utf8_repair(text) : NULL;

	if (!text)
		return json_null();
	return valid ? json_string(valid) : NULL;
}

void admin_call_error(struct admin_call *call, int code, const char *format, ...)
{
	char message[512];
	va_list args;

	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	answer(call, "error",
	       json_pack("{s:i, s:o}", "code", code, "message", admin_text(message)));
}

/* ---- Requests ------------------------------------------------------------------------ */

static void dispatch(struct admin_server *server, struct admin_call *call, const json_t *request)
{
	const char *name = json_string_value(json_object_get(request, "method"));
	const json_t *params = json_object_get(request, "params");

	if (!name) {
		admin_call_error(call, ADMIN_E_REQUEST,
		                 "a request is {\"id\", \"method\", \"params\"}");
		return;
	}
	if (params && !json_is_object(params)) {
		admin_call_error(call, ADMIN_E_PARAMS, "params must be an object");
		return;
	}
	for (const struct admin_method *method = server->methods; method->name; method++) {
		if (strcmp(method->name, name) == 0) {
			method->handle(server->owner, call, params);
			return;
		}
	}
	admin_call_error(call, ADMIN_E_METHOD, "no method \"%.64s\"; `help` lists them", name);
}

static void on_line(struct admin_client *client, const char *line, size_t length)
{
	struct admin_server *server = client->server;
	struct admin_call *call = calloc(1, sizeof(*call));
	json_error_t error;
	json_t *request, *id;

	if (!call) {
		client->broken = true;
		return;
	}
	request = json_loadb(line, length, JSON_REJECT_DUPLICATES, &error);
	id = json_object_get(request, "id");
	call->server = server;
	call->client = client->number;
	call->id = id ? json_incref(id) : json_null();
	TAILQ_INSERT_TAIL(&server->calls, call, link);
	if (request)
		dispatch(server, call, request);
	else
		admin_call_error(call, ADMIN_E_PARSE, "not JSON at column %d: %.200s", error.column,
		                 error.text);
	json_decref(request);
}

static void on_data(void *owner, struct evbuffer *input)
{
	struct admin_client *client = owner;
	size_t length;
	char *line;

	while (!client->broken && !stream_congested(client->stream) &&
	       (line = evbuffer_readln(input, &length, EVBUFFER_EOL_LF))) {
		if (length)
			on_line(client, line, length);
		free(line);
	}
	if (!stream_congested(client->stream) && evbuffer_get_length(input) > ADMIN_LINE_MAX) {
		log_warning("admin socket: connection closed: a request line has no end");
		client->broken = true;
	}
	if (client->broken)
		client_free(client);
}

static void on_end(void *owner, int reason UNUSED)
{
	client_free(owner);
}

static const struct stream_ops stream_ops = {.data = on_data, .end = on_end};

static void on_accepted(void *owner, int peer)
{
	struct admin_server *server = owner;
	struct admin_client *client;

	client = server->client_count < ADMIN_CLIENTS_MAX ? calloc(1, sizeof(*client)) : NULL;
	if (!client) {
		log_warning("admin socket: refused: %d connections are open", ADMIN_CLIENTS_MAX);
		close(peer);
		return;
	}
	client->server = server;
	client->number = ++server->last_number;
	if (stream_new(&client->stream, server->streams, peer, &stream_ops, client) < 0) {
		free(client);
		return;
	}
	TAILQ_INSERT_TAIL(&server->clients, client, link);
	server->client_count++;
}

int admin_server_new(struct admin_server **out, struct event_base *base, const char *path,
                     const struct admin_method *methods, void *owner)
{
	CLEANUP(admin_server_freep) struct admin_server *server = calloc(1, sizeof(*server));
	int r;

	if (!server)
		return -ENOMEM;
	server->methods = methods;
	server->owner = owner;
	TAILQ_INIT(&server->clients);
	TAILQ_INIT(&server->calls);
	r = stream_group_new(&server->streams, base, STREAM_STALL_MS);
	if (r == 0)
		r = listener_new(&server->listener, base, path, 0600, "admin socket", on_accepted,
		                 server);
	if (r < 0)
		return r;
	*out = TAKE_PTR(server);
	return 0;
}

void admin_server_free(struct admin_server *server)
{
	struct admin_client *client;
	struct admin_call *call;

	if (!server)
		return;
	while ((call = TAILQ_FIRST(&server->calls)))
		call_free(call);
	while ((client = TAILQ_FIRST(&server->clients)))
		client_free(client);
	listener_free(server->listener);
	stream_group_free(server->streams);
	free(server);
}

bool admin_server_flush(struct admin_server *server)
{
	struct admin_client *client;
	bool flushed = true;

	TAILQ_FOREACH (client, &server->clients, link)
		flushed = stream_flush(client->stream) && flushed;
	return flushed;
}
