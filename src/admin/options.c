/* SPDX-License-Identifier: MIT */
/*
 * See options.h. The options that every command takes may stand before or after its
 * name. Which of the others a command takes is a mask in its row, so that a misplaced
 * option is refused and never ignored.
 */
#include "admin/options.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#define COMMON                                                                                   \
	(OPTION_BIT(DB) | OPTION_BIT(ADMIN_SOCKET) | OPTION_BIT(JSON) | OPTION_BIT(XE_TIMEOUT) | \
	 OPTION_BIT(HELP) | OPTION_BIT(VERSION))

/* What getopt_long() returns for the first option; what is less is a character. */
enum { OPTION_FIRST = 256 };

struct option_row {
	const char *name;
	const char *argument; /* NULL = a flag */
	const char *help;
};

/* All but those of settings, which have their own table. */
static const struct option_row option_rows[OPTION_COUNT] = {
	[OPTION_DB] = {"db", "FILE", "the registry (default /etc/vgpu/vgpu_config.db)"},
	[OPTION_ADMIN_SOCKET] = {"admin-socket", "PATH",
                                 "the mediator's socket (default /run/vgpu/admin.sock)"},
	[OPTION_JSON] = {"json", NULL, "print JSON"},
	[OPTION_XE_TIMEOUT] = {"xe-timeout", "SECONDS", "how long to wait for xe (default 10)"},
	[OPTION_HELP] = {"help", NULL, "print help, also about one command"},
	[OPTION_VERSION] = {"version", NULL, "print the version"},
	[OPTION_VM_UUID] = {"vm-uuid", "UUID", "the VM"},
	[OPTION_VM_NAME] = {"vm-name", "NAME", "the VM by the name that xe knows"},
	[OPTION_ALL] = {"all", NULL, "all registered VMs"},
	[OPTION_POOL] = {"pool", "A|B", "the pool"},
	[OPTION_POOL_ID] = {"pool-id", "A|B", "the same as --pool"},
	[OPTION_PRIORITY] = {"priority", "low|medium|high", "the VM's priority"},
	[OPTION_VM_ID] = {"vm-id", "N", "the VM's number, 0 to 4294967295"},
	[OPTION_NAME] = {"name", "NAME", "the name to keep in the registry"},
	[OPTION_ALLOW_CUBIN] = {"allow-cubin", "yes|no",
                                "may this VM load GPU machine code (default no)"},
	[OPTION_ENABLED] = {"enabled", "yes|no", "does the pool take jobs"},
	[OPTION_REASON] = {"reason", "TEXT", "why, for whoever looks later"},
	[OPTION_VERBOSE] = {"verbose", NULL, "with the parts of the scheduler's order"},
	[OPTION_PROMETHEUS] = {"prometheus", NULL, "as Prometheus reads it"},
	[OPTION_JOB] = {"job", "ID", "the job, as list-jobs shows it"},
	[OPTION_GPU] = {"gpu", "N", "the GPU, as health numbers it; needed if there are several"},
};

static struct option_row option_row(int option)
{
	const struct setting_field *field = &setting_fields[0];

	if (option < OPTION_SETTINGS || option >= OPTION_SETTINGS + SETTING_COUNT)
		return option_rows[option];
	field += option - OPTION_SETTINGS;
	return (struct option_row){field->number.name, field->argument, field->help};
}

const char *options_name(enum option_id option)
{
	return option_row((int)option).name;
}

const struct command *options_find_command(const char *name)
{
	for (const struct command *command = admin_commands; command->name; command++) {
		if (strcmp(command->name, name) == 0)
			return command;
	}
	return NULL;
}

static void help_options(FILE *to, uint64_t mask)
{
	for (int i = 0; i < OPTION_COUNT; i++) {
		const struct option_row row = option_row(i);
		char left[48];

		if (!(mask & UINT64_C(1) << i))
			continue;
		snprintf(left, sizeof(left), "--%s%s%s", row.name, row.argument ? "=" : "",
		         row.argument ? row.argument : "");
		fprintf(to, "  %-30s %s\n", left, row.help);
	}
}

void options_help(FILE *to)
{
	fputs("Usage: vgpu-admin [OPTION]... COMMAND [OPTION]...\n"
	      "Manages which VMs may use the GPU, and shows what they do with it.\n\nCommands:\n",
	      to);
	for (const struct command *command = admin_commands; command->name; command++)
		fprintf(to, "  %-18s %s\n", command->name, command->summary);
	fputs("\nOptions of every command:\n", to);
	help_options(to, COMMON);
	fputs("\nvgpu-admin COMMAND --help says more about one command.\n"
	      "Exit status: 0 done, 1 failed, 2 wrong usage or value, 3 no such VM,\n"
	      "4 several VMs have that name, 5 the mediator is not running.\n",
	      to);
}

void options_help_command(FILE *to, const struct command *command)
{
	fprintf(to, "Usage: vgpu-admin %s%s%s%s\n%s.\n", command->name,
	        command->options ? " [OPTION]..." : "", command->argument ? " " : "",
	        command->argument ? command->argument : "", command->summary);
	if (command->details)
		fprintf(to, "\n%s\n", command->details);
	if (command->options) {
		fputs("\nOptions:\n", to);
		help_options(to, command->options);
	}
	fputs("\nOptions of every command:\n", to);
	help_options(to, COMMON);
}

json_t *options_describe(const struct command *command)
{
	json_t *options = json_array();

	for (int i = 0; i < OPTION_COUNT; i++) {
		const struct option_row row = option_row(i);

		if ((COMMON | command->options) & UINT64_C(1) << i)
			json_array_append_new(options, json_pack("{s:s, s:s?, s:s}", "name",
			                                         row.name, "argument", row.argument,
			                                         "help", row.help));
	}
	return json_pack("{s:s, s:s, s:s?, s:s?, s:o}", "name", command->name, "summary",
	                 command->summary, "details", command->details, "argument",
	                 command->argument, "options", options);
}

/* ---- The command line ------------------------------------------------------------ */

/* What getopt_long() did not like, the caller's to free; NULL without memory. */
static char *complaint(const struct admin *admin, int found, const char *word)
{
	char *text;
	int length;

	if (found == ':')
		length = asprintf(&text, "%s needs a value", word);
	else if (optopt >= OPTION_FIRST)
		length = asprintf(&text, "--%s takes no value",
		                  options_name((enum option_id)(optopt - OPTION_FIRST)));
	else
		length = asprintf(&text, "%s%s is no option%s%s", optopt ? "-" : "",
		                  optopt ? (char[]){(char)optopt, '\0'} : word,
		                  admin->command ? " of " : "",
		                  admin->command ? admin->command->name : "");
	return length < 0 ? NULL : text;
}

/* Reads the options of @mask up to the first argument (@stop) or all; false is a usage error. */
static bool scan(struct admin *admin, int argc, char **argv, uint64_t mask, bool stop)
{
	CLEANUP(freep) char *wrong = NULL;
	struct option rows[OPTION_COUNT + 1];
	int count = 0, found;
	bool right = true;

	memset(rows, 0, sizeof(rows));
	for (int i = 0; i < OPTION_COUNT; i++) {
		const struct option_row row = option_row(i);

		if (mask & UINT64_C(1) << i)
			rows[count++] = (struct option){.name = row.name,
			                                .has_arg = row.argument ? required_argument
			                                                        : no_argument,
			                                .val = i + OPTION_FIRST};
	}
	optind = 0;
	opterr = 0;
	/* To the end in any case: --json may come after what is wrong. */
	while ((found = getopt_long(argc, argv, stop ? "+:h" : ":h", rows, NULL)) != -1) {
		if (found == 'h')
			found = OPTION_HELP + OPTION_FIRST;
		if (found != '?' && found != ':') {
			admin->values[found - OPTION_FIRST] = optarg ? optarg : "";
			continue;
		}
		if (right)
			wrong = complaint(admin, found, argv[optind - 1]);
		right = false;
	}
	admin->json = admin_given(admin, OPTION_JSON);
	if (!right)
		admin_fail(admin, ADMIN_USAGE, "%s", wrong ? wrong : "out of memory");
	return right;
}

static bool usage(struct admin *admin, enum admin_exit *status, const char *hint)
{
	fprintf(stderr, "Try: vgpu-admin %s%s--help\n", hint, *hint ? " " : "");
	admin->failed = true;
	*status = ADMIN_USAGE;
	return false;
}

/* What --help and --version ask for has been said when this returns true. */
static bool said_enough(const struct admin *admin)
{
	if (admin_given(admin, OPTION_HELP)) {
		if (admin->command)
			options_help_command(stdout, admin->command);
		else
			options_help(stdout);
		return true;
	}
	if (admin_given(admin, OPTION_VERSION)) {
		printf("vgpu-admin %s\n", VGPU_VERSION);
		return true;
	}
	return false;
}

static void fail_needs(struct admin *admin)
{
	char list[256] = "";
	size_t used = 0;

	for (int i = 0; i < OPTION_COUNT; i++) {
		if (admin->command->needs & UINT64_C(1) << i && used < sizeof(list))
			used += (size_t)snprintf(list + used, sizeof(list) - used, "%s--%s",
			                         used ? ", " : "", options_name((enum option_id)i));
	}
	admin_fail(admin, ADMIN_USAGE, "%s needs %s%s", admin->command->name,
	           strchr(list, ',') ? "one of " : "", list);
}

/* What the command's row demands; reports and returns false when it is not there. */
static bool command_check(struct admin *admin, int argc, char **argv)
{
	const struct command *command = admin->command;
	uint64_t given = 0;

	for (int i = 0; i < OPTION_COUNT; i++) {
		if (admin_given(admin, (enum option_id)i))
			given |= UINT64_C(1) << i;
	}
	if (optind < argc && command->argument)
		admin->argument = argv[optind++];
	if (optind < argc) {
		admin_fail(admin, ADMIN_USAGE, "%s takes no argument \"%s\"", command->name,
		           argv[optind]);
		return false;
	}
	if (command->argument && command->argument[0] != '[' && !admin->argument) {
		admin_fail(admin, ADMIN_USAGE, "%s needs the argument %s", command->name,
		           command->argument);
		return false;
	}
	if (given & OPTION_BIT(POOL) && given & OPTION_BIT(POOL_ID)) {
		admin_fail(admin, ADMIN_USAGE, "--pool and --pool-id are the same; give one");
		return false;
	}
	if (command->needs && !(given & command->needs)) {
		fail_needs(admin);
		return false;
	}
	if (!admin_given(admin, OPTION_POOL))
		admin->values[OPTION_POOL] = admin->values[OPTION_POOL_ID];
	return true;
}

bool options_read(struct admin *admin, int argc, char **argv, enum admin_exit *status)
{
	int first;

	if (!scan(admin, argc, argv, COMMON, true))
		return usage(admin, status, "");
	*status = ADMIN_DONE;
	first = optind;
	if (first < argc)
		admin->command = options_find_command(argv[first]);
	if (first < argc && !admin->command) {
		admin_fail(admin, ADMIN_USAGE, "there is no command \"%s\"", argv[first]);
		return usage(admin, status, "");
	}
	if (!admin->command) {
		if (said_enough(admin))
			return false;
		if (!admin->json)
			options_help(stderr);
		*status = admin_fail(admin, ADMIN_USAGE, "which command?");
		return false;
	}
	if (!scan(admin, argc - first, argv + first, COMMON | admin->command->options, false))
		return usage(admin, status, admin->command->name);
	if (said_enough(admin))
		return false;
	if (!command_check(admin, argc - first, argv + first))
		return usage(admin, status, admin->command->name);
	return true;
}
