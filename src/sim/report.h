/* SPDX-License-Identifier: MIT */
/*
 * What a person or a program reads of a run: a table, JSON, a picture.
 */
#ifndef SIM_REPORT_H
#define SIM_REPORT_H

#include <jansson.h>
#include <stdio.h>

#include "sim/world.h"

/* One scenario under one policy. */
struct report_summary {
	double busy_percent;         /* jobs ran */
	double charge_error_percent; /* worst share of charged time against its target */
	double gpu_error_percent;    /* worst share of GPU time against its target */
	double kept_percent;         /* of the GPU, by the VMs that share it */
	double least_share_percent;  /* the smallest share of useful GPU time of any VM */
	double switches_per_s;
	int64_t wait_p50_ns; /* of the light VMs, of all where there is none */
	int64_t wait_p99_ns;
	int64_t wait_max_ns;
};

void report_summarize(struct report_summary *out, const struct scenario *scenario,
                      struct world_result *result);

void report_heading(FILE *to);
void report_line(FILE *to, const struct scenario *scenario, const char *policy,
                 const struct report_summary *summary);

/* Returns 0, or -EPROTO after having said what the scenario expects and did not get. */
int report_expect(FILE *to, const struct scenario *scenario, const struct report_summary *summary);

/* One line a VM. */
void report_vms(FILE *to, const struct scenario *scenario, struct world_result *result);

/* The same as an object, or NULL without memory; the caller owns it. */
json_t *report_json(const struct scenario *scenario, const char *policy,
                    struct world_result *result);

/* GPU time by VM over time, as a stacked area. */
void report_svg(FILE *to, const struct scenario *scenario, const char *policy,
                const struct world_result *result);

#endif
