/* SPDX-License-Identifier: MIT */
/*
 * The daemon around the core: it brings events in and carries actions out.
 *
 *   guest_server  devices' requests     -> core -> answers
 *   worker_host   readiness, results    -> core -> starts, jobs, kills
 *   store         what was written      -> core -> what to write
 *   a timer       time                  -> core
 *
 * All of it runs in one thread on one event loop; only the registry has its own.
 */
#ifndef MEDIATOR_MEDIATOR_H
#define MEDIATOR_MEDIATOR_H

#include "mediator/config.h"

struct event_base;
struct mediator;

/*
 * Starts everything that @config names; @source, which it was loaded from, is read again
 * on reload and must outlive the mediator. Errors are logged. Returns 0 or a negative
 * errno. The caller owns *@out and runs the loop.
 */
int mediator_new(struct mediator **out, struct event_base *base, const struct config *config,
                 const struct config_source *source);
void mediator_free(struct mediator *mediator);
DEFINE_CLEANUP(mediator)

#endif
