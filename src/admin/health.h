/* SPDX-License-Identifier: MIT */
/*
 * What `health` says of each GPU below its table: what is wrong and what to do about it,
 * and the readings that no column holds, a line each. What is not known is left out.
 */
#ifndef ADMIN_HEALTH_H
#define ADMIN_HEALTH_H

#include <jansson.h>

/* @gpus as the mediator's method `health` answers. */
void health_print(const json_t *gpus);

#endif
