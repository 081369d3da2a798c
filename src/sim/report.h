/* SPDX-License-Identifier: MIT */
/*
 * What a person or a program reads of a run: a table, JSON, a picture, and whether it is
 * what the scenario expects.
 */
#ifndef SIM_REPORT_H
#define SIM_REPORT_H

#include <jansson.h>
#include <stdio.h>

#include "sim/world.h"

/* One scenario under one policy. */
struct report_summary {
	double busy_percent;        /* of the GPUs: jobs ran */
	double kept_percent;        /* of the GPUs: by the VMs that share */
	double share_error_percent; /* worst charge against what was due, in percent of that */
	double gpu_error_percent;   /* the same of GPU time */
	double least_percent;       /* of a GPU, the least useful time of a VM that shares */
	double excess_turns;        /* most beyond what was due, of those of whom that counts */
	double failed_jobs;         /* of VMs that count; refused ones are none */
	double wait_p50_ms;         /* of the worst VM whose wait counts; of any where none does */
	double wait_p99_ms;
	double wait_max_ms;
	uint32_t seeds;       /* that it is the worst of */
	uint32_t least_waits; /* how many the one with the fewest has had */
	double switches_per_s;
};

/* What report_worst() starts with. */
extern const struct report_summary report_best;

/* Takes over what is worse in @other than in @worst. */
void report_worst(struct report_summary *worst, const struct report_summary *other);

/* Sorts the waits in @result. */
void report_summarize(struct report_summary *out, const struct scenario *scenario,
                      struct world_result *result);

void report_heading(FILE *to);
void report_line(FILE *to, const struct scenario *scenario, const char *policy,
                 const struct report_summary *summary);

/* Returns 0, or -EPROTO after having said what the scenario expects and did not get. */
int report_expect(FILE *to, const struct scenario *scenario, const struct sim_policy *policy,
                  const struct report_summary *summary);

/* One line a VM; after report_summarize(). */
void report_vms(FILE *to, const struct scenario *scenario, const struct world_result *result);

/* All of it as an object, or NULL without memory; the caller owns it. */
json_t *report_json(const struct scenario *scenario, const char *policy,
                    const struct report_summary *summary, const struct world_result *result);

/* GPU time by VM over time, as a stacked area. */
void report_svg(FILE *to, const struct scenario *scenario, const char *policy,
                const struct world_result *result);

#endif
