/* SPDX-License-Identifier: MIT */
/*
 * What vgpu-sim is asked for on its command line.
 */
#ifndef SIM_OPTIONS_H
#define SIM_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "sim/policies.h"

struct watch;

struct options {
	/* NULL: the rule; with `expect`, those from which the scenario expects something. */
	const struct sim_policy *policy;
	bool compare; /* every policy */
	bool expect;
	bool check;
	bool vms;
	bool json;
	bool show;
	bool pick_cost;
	bool help;
	bool version;
	struct watch *watch; /* set by main(), with `check` */
	const char *svg;
	const char *replay; /* an event log */
	int64_t seeds;      /* of each scenario */
	int64_t random;     /* scenarios; 0 = none */
	int64_t seed;       /* of the first random one */
	int64_t decisions;
	char **files; /* ended by NULL */
};

/* Returns 0, or -EINVAL after having said what is wrong. */
int options_parse(struct options *out, int argc, char **argv);

/* The words of --help. */
void options_help(FILE *to);

#endif
