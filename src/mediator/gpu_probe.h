/* SPDX-License-Identifier: MIT */
/*
 * Asks a GPU whether it works, before there is an event loop to wait on.
 *
 * `vgpu-worker --probe` loads the driver's library in a process of its own, which may
 * crash or hang without harm: whatever it does, the caller goes on in bounded time.
 */
#ifndef MEDIATOR_GPU_PROBE_H
#define MEDIATOR_GPU_PROBE_H

#include <stddef.h>

/*
 * Has @program probe @gpu ("" = the backend has none to choose), and waits for it. Returns 0 with
 * the JSON line that it printed in @line; -ETIMEDOUT after @timeout_s seconds, or another negative
 * errno with a reason in @line. One that hangs is killed, and left behind, with a line in the log,
 * if it survives even that.
 */
int gpu_probe(const char *program, const char *backend, const char *gpu, int timeout_s, char *line,
              size_t size);

#endif
