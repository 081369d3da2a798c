/* SPDX-License-Identifier: MIT */
/*
 * The command line of vgpu-client: one table of options, which parsing, ranges, help and
 * tests walk.
 *
 * An option that a command takes may stand before or after its arguments; the general
 * ones (device, socket and so on) also before the command.
 */
#ifndef GUEST_OPTIONS_H
#define GUEST_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum option_id {
	OPTION_DEVICE,
	OPTION_SOCKET,
	OPTION_TIMEOUT,
	OPTION_RETRIES,
	OPTION_JSON,
	OPTION_HELP,
	OPTION_VERSION,
	OPTION_COUNT,
	OPTION_SECONDS,
	OPTION_OUTSTANDING,
	OPTION_OP,
	OPTION_SPIN_US,
	OPTION_N,
	OPTION_SEED,
	OPTION_NO_VERIFY,
	OPTION_END,
};

#define OPTION_BIT(id) (1u << (id))
#define OPTION_GENERAL ((1u << (OPTION_VERSION + 1)) - 1) /* those that every command takes */

struct options {
	const char *device; /* NULL: not given */
	const char *socket;
	int64_t timeout_ms;
	int64_t retries;
	bool json;
	bool help;
	bool version;
	int64_t count;   /* 0: not given */
	int64_t seconds; /* 0: not given */
	int64_t outstanding;
	const char *op;
	int64_t spin_us;
	int64_t n;
	int64_t seed;
	bool no_verify;
};

/* Every option at its default. */
void options_init(struct options *options);

/*
 * Reads the options among those in @allowed (OPTION_BIT()s) from @argv at *@at on. What
 * is no option goes to @arguments, @max of them at most: parsing stops before one more. A
 * minus sign and a digit begin an argument, as does everything after "--". *@at is
 * then where parsing stopped and *@count how many arguments there are. Returns false
 * after a message on stderr.
 */
bool options_parse(struct options *options, uint32_t allowed, int argc, char **argv, int *at,
                   char **arguments, int max, int *count);

/* Writes one line on each of the @listed options. */
void options_help(FILE *stream, uint32_t listed);

#endif
