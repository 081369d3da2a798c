/* SPDX-License-Identifier: MIT */
/*
 * Plays an event log of the mediator: the same events happen to a core of our own, which must
 * do the same and keep every invariant.
 */
#ifndef SIM_REPLAY_H
#define SIM_REPLAY_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/trace/trace_line.h"

/* One VM, from when it came to when it went. */
struct replay_vm {
	bool present;
	uint32_t gpu; /* the last it was on, as phi */
	int32_t phi;
	uint64_t done, failed, refused; /* jobs */
	uint64_t faults;
	int64_t charged_ns;
	double due_ns;    /* by weight, of what those with work were charged */
	int64_t newly_ns; /* charged since the last event, */
	bool works;       /* and whether it had work since then that could run */
};

struct replay_figures {
	char version[32]; /* that wrote the log */
	int64_t first_ns, last_ns;
	uint64_t lines[TRACE_KINDS];
	enum trace_end end; /* TRACE_END_COUNT: the log breaks off */
	uint64_t decisions, turns, switches;
	struct replay_vm *vms; /* as they came */
	uint32_t vm_count;
	uint64_t line;     /* the last read */
	char problem[200]; /* of that line; empty if all is well */
};

/*
 * Plays the log; @to gets a table or JSON. Returns 0, or a negative errno when the log cannot
 * be read or played, or is not equal; standard error has said where and why.
 */
int replay_run(FILE *to, const char *path, bool json);

/* replay_report.c */
void replay_table(FILE *to, const char *path, const struct replay_figures *figures);
void replay_json(FILE *to, const char *path, const struct replay_figures *figures);

#endif
