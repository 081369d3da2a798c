/* SPDX-License-Identifier: MIT */
/* The part of the metrics that tells of GPUs: what the driver reports and what follows. */
#ifndef MEDIATOR_METRICS_GPU_H
#define MEDIATOR_METRICS_GPU_H

#include <stdio.h>

struct mediator;

/* Writes all GPU metrics that come from NVML, in the format of metrics.h. */
void metrics_write_gpus(FILE *out, const struct mediator *mediator);

#endif
