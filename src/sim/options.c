/* SPDX-License-Identifier: MIT */
/* See options.h. Every option is a row of a table; parsing and help walk the same rows. */
#include "sim/options.h"

#include <errno.h>
#include <getopt.h>
#include <stddef.h>
#include <stdlib.h>

#include "base/util.h"

enum kind { KIND_SWITCH, KIND_TEXT, KIND_NUMBER, KIND_POLICY };

struct row {
	const char *name;
	enum kind kind;
	size_t offset;
	const char *argument;
	const char *help;
};

enum { SEED_DEFAULT = 1 };

#define AT(member) offsetof(struct options, member)

static const struct row rows[] = {
	{"policy", KIND_POLICY, AT(policy), "NAME", "plays under this policy (default: fair)"},
	{"compare", KIND_SWITCH, AT(compare), NULL, "plays under every policy"},
	{"expect", KIND_SWITCH, AT(expect), NULL,
         "fails where a policy does not reach what the scenario expects of it"},
	{"check", KIND_SWITCH, AT(check), NULL, "checks every bound of the rule after every event"},
	{"seeds", KIND_NUMBER, AT(seeds), "N",
         "plays N seeds from the scenario's on; shows the worst of each figure"},
	{"vms", KIND_SWITCH, AT(vms), NULL, "one line a VM as well"},
	{"json", KIND_SWITCH, AT(json), NULL, "one JSON object a run"},
	{"svg", KIND_TEXT, AT(svg), "FILE", "draws GPU time by VM over time of the last run"},
	{"random", KIND_NUMBER, AT(random), "N",
         "plays N random scenarios, checks everything after every event, and shrinks the first"
         " that fails"},
	{"seed", KIND_NUMBER, AT(seed), "S", "of the first random scenario (default: 1)"},
	{"decisions", KIND_NUMBER, AT(decisions), "D",
         "goes on with random scenarios until the scheduler has decided D times"},
	{"show", KIND_SWITCH, AT(show), NULL, "prints the first random scenario instead"},
	{"replay", KIND_TEXT, AT(replay), "FILE",
         "plays an event log of the mediator instead, and looks whether its decisions were the "
         "same"},
	{"pick-cost", KIND_SWITCH, AT(pick_cost), NULL,
         "measures what a decision costs with 10 to 10,000 VMs, and how many jobs a second are"
         " played"},
	{"help", KIND_SWITCH, AT(help), NULL, "this"},
	{"version", KIND_SWITCH, AT(version), NULL, "the version"},
};

static bool parse_whole(int64_t *out, const char *option, const char *text)
{
	char *end;

	errno = 0;
	*out = strtoll(text, &end, 10);
	if (errno == 0 && end != text && *end == '\0' && *out >= 0)
		return true;
	fprintf(stderr, "vgpu-sim: --%s %s: give a whole number\n", option, text);
	return false;
}

static bool set(struct options *options, const struct row *row, char *text)
{
	void *at = (char *)options + row->offset;

	switch (row->kind) {
	case KIND_SWITCH:
		*(bool *)at = true;
		return true;
	case KIND_TEXT:
		*(const char **)at = text;
		return true;
	case KIND_NUMBER:
		return parse_whole(at, row->name, text);
	case KIND_POLICY:
		break;
	}
	options->policy = sim_policy_find(text);
	if (!options->policy)
		fprintf(stderr, "vgpu-sim: no policy %s (see --help)\n", text);
	return options->policy != NULL;
}

static bool refuse(const char *why)
{
	fprintf(stderr, "vgpu-sim: %s (see --help)\n", why);
	return false;
}

/* What stands there must have a meaning, and something must be left to do. */
static bool is_complete(const struct options *options)
{
	bool plays_files = !options->random && !options->decisions && !options->show &&
	                   !options->replay && !options->pick_cost;

	if (plays_files && !*options->files)
		return refuse("which scenario?");
	if (!plays_files && *options->files)
		return refuse("this is done without a scenario");
	if (plays_files && options->seed != SEED_DEFAULT)
		return refuse("--seed is of random scenarios; another one names its own");
	if (options->seeds == 0)
		return refuse("--seeds 0 plays nothing");
	return true;
}

int options_parse(struct options *out, int argc, char **argv)
{
	struct option known[ARRAY_LEN(rows) + 1] = {{NULL, 0, NULL, 0}};
	int option, index = 0;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		known[i] = (struct option){
			.name = rows[i].name,
			.has_arg = rows[i].argument ? required_argument : no_argument,
		};
	*out = (struct options){.seed = SEED_DEFAULT, .seeds = 1};
	while ((option = getopt_long(argc, argv, "", known, &index)) != -1) {
		if (option == '?' || !set(out, &rows[index], optarg))
			return -EINVAL;
	}
	out->files = argv + optind;
	return out->help || out->version || is_complete(out) ? 0 : -EINVAL;
}

void options_help(FILE *to)
{
	char text[32];

	fputs("usage: vgpu-sim [OPTION...] SCENARIO...\n"
	      "       vgpu-sim --random N [--seed S] [--decisions D]\n"
	      "       vgpu-sim --replay FILE [--json]\n"
	      "       vgpu-sim --pick-cost\n"
	      "\nPlays scenarios with the mediator's core over a model of the GPU.\n\n",
	      to);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		snprintf(text, sizeof(text), "--%s %s", rows[i].name,
		         rows[i].argument ? rows[i].argument : "");
		fprintf(to, "  %-16s %s\n", text, rows[i].help);
	}
	fputs("\nPolicies:\n", to);
	for (const struct sim_policy *policy = sim_policies; policy->name; policy++)
		fprintf(to, "  %-16s %s\n", policy->name, policy->what);
}
