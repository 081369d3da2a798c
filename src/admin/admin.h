/* SPDX-License-Identifier: MIT */
/*
 * One run of vgpu-admin: what was asked for, and how it answers.
 *
 * A command puts what it found into one JSON value. With --json that value is
 * printed; otherwise the command prints a table made from it. Both therefore always
 * say the same.
 */
#ifndef ADMIN_ADMIN_H
#define ADMIN_ADMIN_H

#include <jansson.h>

#include "admin/table.h"
#include "base/util.h"
#include "registry/registry.h"

/* The exit status of the program. */
enum admin_exit {
	ADMIN_DONE = 0,
	ADMIN_FAILED = 1,
	ADMIN_USAGE = 2, /* also values out of range */
	ADMIN_NO_SUCH_VM = 3,
	ADMIN_SEVERAL_VMS = 4,
	ADMIN_NO_MEDIATOR = 5,
};

/* Every option of every command; options.c has their names. */
enum option_id {
	OPTION_DB,
	OPTION_ADMIN_SOCKET,
	OPTION_JSON,
	OPTION_XE_TIMEOUT,
	OPTION_HELP,
	OPTION_VERSION,
	OPTION_VM_UUID,
	OPTION_VM_NAME,
	OPTION_ALL,
	OPTION_POOL,
	OPTION_POOL_ID, /* the same as OPTION_POOL */
	OPTION_PRIORITY,
	OPTION_VM_ID,
	OPTION_NAME,
	OPTION_ALLOW_CUBIN,
	OPTION_SETTINGS, /* that of setting i is this + i */
	OPTION_ENABLED = OPTION_SETTINGS + SETTING_COUNT,
	OPTION_REASON,
	OPTION_PROMETHEUS,
	OPTION_VERBOSE,
	OPTION_JOB,
	OPTION_GPU,
	OPTION_COUNT,
};

#define OPTION_BIT(id)  (UINT64_C(1) << OPTION_##id)
#define SETTING_BIT(id) (UINT64_C(1) << (OPTION_SETTINGS + SETTING_##id))

struct admin;
struct live_view; /* live.h */

struct command {
	const char *name;
	const char *summary;  /* one line */
	uint64_t options;     /* that it takes, besides those that all take */
	uint64_t needs;       /* of these at least one; 0 = none */
	const char *argument; /* name of its one argument for help, in [] if optional, or NULL */
	enum admin_exit (*run)(struct admin *admin);
	const struct live_view *view; /* of the commands that only show what the mediator says */
	const char *details;          /* further help, or NULL */
	bool pool_selects;            /* --pool means: all VMs of that pool */
};

/* Ended by a NULL name. */
extern const struct command admin_commands[];

struct admin {
	const struct command *command;
	const char *db_path;
	const char *socket_path;
	bool json;
	int64_t xe_timeout_ms;
	const char *values[OPTION_COUNT]; /* as written; NULL = not given ("" for flags) */
	const char *argument;             /* or NULL */
	struct registry *registry;
	json_t *result; /* what --json prints */
	bool changed;   /* the mediator is to be told */
	bool failed;    /* an error was reported */
	bool useless;   /* the registry as a whole fails: to ask for more makes no sense */
};

static inline void json_freep(json_t **json)
{
	json_decref(*json);
}

/* Reports an error on stderr, and in the JSON; returns @status. */
enum admin_exit admin_fail(struct admin *admin, enum admin_exit status, const char *format, ...)
	PRINTF(3, 4);

/* A line on stdout, made safe for a terminal; nothing with --json. */
void admin_say(const struct admin *admin, const char *format, ...) PRINTF(2, 3);

/* A remark on stderr. */
void admin_note(const char *format, ...) PRINTF(1, 2);

/* Opens admin->registry. For reading, a missing file counts as a fresh registry. */
enum admin_exit admin_open(struct admin *admin, enum registry_mode mode);

/* For reading what must be there: a missing file is a failure. */
enum admin_exit admin_open_existing(struct admin *admin);

/* Reports what the registry said about @code, with the exit status that fits. */
enum admin_exit admin_fail_registry(struct admin *admin, int code);
enum admin_exit admin_registry_status(int code);

/*
 * Asks the mediator; the caller owns *@result. When it is not running the status is
 * ADMIN_NO_MEDIATOR and, like every failure, reported.
 */
enum admin_exit admin_call(struct admin *admin, const char *method, json_t *params,
                           json_t **result);

/* Takes @result over as what --json prints. ADMIN_FAILED without memory (NULL). */
enum admin_exit admin_answer(struct admin *admin, json_t *result);

/* The same, and prints its member @key (or itself, for NULL) as a table when not --json. */
enum admin_exit admin_answer_table(struct admin *admin, json_t *result, const char *key,
                                   const struct column *columns);

static inline bool admin_given(const struct admin *admin, enum option_id option)
{
	return admin->values[option] != NULL;
}

#endif
