/* SPDX-License-Identifier: MIT */
/*
 * The command line: its options in one table, and the help made from it.
 */
#ifndef ADMIN_OPTIONS_H
#define ADMIN_OPTIONS_H

#include "admin/admin.h"

/*
 * Reads the command line into @admin. Returns true when a command is to be run;
 * otherwise everything has been said and *@status is the exit status.
 */
bool options_read(struct admin *admin, int argc, char **argv, enum admin_exit *status);

/* "--weight" of OPTION_WEIGHT. */
const char *options_name(enum option_id option);

void options_help(FILE *to);
void options_help_command(FILE *to, const struct command *command);

/* The same as JSON; the caller owns the result. */
json_t *options_describe(const struct command *command);

/* The command of that name, or NULL. */
const struct command *options_find_command(const char *name);

#endif
