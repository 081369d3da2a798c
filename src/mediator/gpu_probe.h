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

struct gpu_probe_command {
	const char *argv[10]; /* ends with NULL; points to what was given, and below */
	char parent[16];
};

/* The probe of @gpu ("" = the backend has none to choose) as a command of @program. */
void gpu_probe_command(struct gpu_probe_command *out, const char *program, const char *backend,
                       const char *gpu);

/*
 * Runs that command and waits for it. Returns 0 with the JSON line that it printed in @line;
 * -ETIMEDOUT after @timeout_s seconds, or another negative errno with a reason in @line. One that
 * hangs is killed, and left behind, with a line in the log, if it survives even that.
 */
int gpu_probe(const char *program, const char *backend, const char *gpu, int timeout_s, char *line,
              size_t size);

#endif
