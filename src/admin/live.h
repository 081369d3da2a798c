/* SPDX-License-Identifier: MIT */
/*
 * Commands that only show what the running mediator says: a method and a table.
 */
#ifndef ADMIN_LIVE_H
#define ADMIN_LIVE_H

#include "admin/table.h"

struct live_view {
	const char *method; /* of the admin socket, called without params */
	const char *key;    /* the member of its result that is the array of rows */
	const struct column *columns;
	const char *none;                  /* said instead of an empty table */
	void (*below)(const json_t *rows); /* prints what no column holds, or NULL */
};

extern const struct live_view live_connections;
extern const struct live_view live_jobs;
extern const struct live_view live_workers;
extern const struct live_view live_metrics;
extern const struct live_view live_health;

/* The VMs as status shows them. */
extern const struct column live_vm_columns[];
extern const struct column live_gpu_columns[];

#endif
