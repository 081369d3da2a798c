/* SPDX-License-Identifier: MIT */
/*
 * What the commands of vgpu-client share.
 */
#ifndef GUEST_CLIENT_H
#define GUEST_CLIENT_H

#include "guest/env.h"
#include "guest/options.h"
#include "guest/outcome.h"
#include "guest/report.h"
#include "vgpu/vgpu.h"

enum { CLIENT_ARGUMENTS_MAX = 2 };

struct client;

struct command {
	const char *name;
	const char *arguments; /* as help shows them, "" for none */
	int argument_count;
	uint32_t options; /* OPTION_BIT()s beside OPTION_GENERAL */
	const char *summary;
	const char *details; /* paragraphs of the command's own help */
	/* Checks options and arguments before anything is opened; NULL: nothing to check.
	 * Returns OUTCOME_DONE, or OUTCOME_USAGE after a message. */
	enum outcome_status (*check)(struct client *client);
	/* Does it over client->vgpu, and has said everything when it returns. */
	enum outcome_status (*run)(struct client *client);
};

struct client {
	struct options options;
	const struct command *command;
	char *arguments[CLIENT_ARGUMENTS_MAX];
	struct guest_env env;
	struct vgpu *vgpu;
};

/* Starts the report of a command that succeeded, or failed with @ok false. */
void client_report_begin(const struct client *client, struct report *report, bool ok);

/*
 * Says on stderr, and in JSON if asked, why the command failed. @response: what came with
 * an enum vgpu_code, or NULL. @why: a text instead of the library's, or NULL. Returns the
 * exit status.
 */
enum outcome_status client_fail(const struct client *client, int result,
                                const struct vgpu_response *response, const char *why);

/* The same for an answer that is not right: @why says in which way. */
enum outcome_status client_fail_wrong(const struct client *client, const char *why);

/* A request with its round trip time, which contains retries. Result as of vgpu_call(). */
int client_call(struct client *client, uint32_t opcode, const uint32_t *params,
                uint32_t param_count, struct vgpu_response *response, int64_t *round_trip_ns);

/* bench.c */
enum outcome_status bench_check(struct client *client);
enum outcome_status bench_run(struct client *client);

/* command.c; NULL when there is no such command. */
const struct command *command_find(const char *name);
/* One line per command. */
void command_list(FILE *stream);

#endif
