/* SPDX-License-Identifier: MIT */
/*
 * The two questions that the worker answers about itself instead of serving jobs:
 * which device would a backend use, and does the sandbox hold?
 */
#ifndef WORKER_PROBE_H
#define WORKER_PROBE_H

#include "worker/backend.h"

/* Prints what the started backend found as one line of JSON on stdout. */
void probe_print_device(const struct backend *backend);

/*
 * Call inside the sealed sandbox: tries what must not work, prints one line on stdout
 * for each attempt, and returns how many of them the filter let through.
 */
unsigned int probe_try_escapes(void);

#endif
