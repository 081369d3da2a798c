/* SPDX-License-Identifier: MIT */
/*
 * The worker's conversation with the mediator: READY or START_FAILED first, then
 * one DONE or LOST for every JOB, in order.
 */
#ifndef WORKER_SERVE_H
#define WORKER_SERVE_H

#include "worker/backend.h"

/* How the program ends; sysexits where they fit. */
enum worker_exit {
	WORKER_EXIT_OK = 0,            /* the mediator closed the socket */
	WORKER_EXIT_USAGE = 64,        /* EX_USAGE: wrong options */
	WORKER_EXIT_UNAVAILABLE = 69,  /* EX_UNAVAILABLE: START_FAILED says why */
	WORKER_EXIT_PROTOCOL = 70,     /* EX_SOFTWARE: a packet that cannot be understood */
	WORKER_EXIT_CONTEXT_LOST = 71, /* a job destroyed the device context */
};

/* Sends START_FAILED. Errors are ignored: the exit status tells the same. */
void serve_start_failed(int socket, const struct backend_failure *failure);

/*
 * Sends READY and serves jobs until the mediator closes @socket (SOCK_SEQPACKET), the
 * context is lost or the mediator sends nonsense. Borrows everything. *@idle tells
 * whether nothing was in flight at the end, so that @backend can be stopped.
 */
enum worker_exit serve_jobs(int socket, struct backend *backend,
                            const struct backend_options *options, bool *idle);

#endif
