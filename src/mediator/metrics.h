/* SPDX-License-Identifier: MIT */
/*
 * The mediator's figures in the Prometheus text format, version 0.0.4.
 */
#ifndef MEDIATOR_METRICS_H
#define MEDIATOR_METRICS_H

struct mediator;

/* The whole exposition, to be freed with free(); NULL without memory. */
char *metrics_text(struct mediator *mediator);

#endif
