/* SPDX-License-Identifier: MIT */
/*
 * Measures what the scheduler has to know about a GPU model: how long the hardware's time
 * slices are and what it costs to hand the GPU from one process to another.
 */
#ifndef WORKER_CALIBRATE_H
#define WORKER_CALIBRATE_H

/*
 * Measures on @gpu (index or "GPU-<uuid>"; NULL is the first), which nobody else should
 * use meanwhile, and prints tables and the values to configure on stdout. Takes some ten
 * seconds. Returns 0, or a negative errno with the reason on stderr. The caller has not
 * touched the GPU.
 */
int calibrate_gpu(const char *gpu);

#endif
