/* SPDX-License-Identifier: MIT */
/*
 * The GPUs' health: what NVML reports becomes a state, and a state that forbids work
 * becomes a drain and, where one can help, a reset.
 *
 * Once every worker on it has ended it is reset: by the operator's command, if one is
 * configured, and then by the proof that a context can be made. Without a command that
 * proof is all that is tried; a GPU that soon needs a reset again stays drained. An operator's
 * own drain stays until the operator resumes. What drains a GPU is in the registry, and
 * holds again after a restart.
 */
#ifndef MEDIATOR_GPU_WATCH_H
#define MEDIATOR_GPU_WATCH_H

#include <jansson.h>

#include "core/watch/memory.h"
#include "mediator/mediator.h"
#include "mediator/nvml_reader.h"
#include "registry/registry.h"

struct admin_call;
struct gpu_watch;

/* Watches the GPUs in the mediator's table. Returns 0 or a negative errno. */
int gpu_watch_new(struct gpu_watch **out, struct mediator *mediator);
void gpu_watch_free(struct gpu_watch *watch);
DEFINE_CLEANUP(gpu_watch)

/* The mediator is ending: no reset begins any more. */
void gpu_watch_stop(struct gpu_watch *watch);

/* How many resets are under way. */
uint32_t gpu_watch_resets(const struct gpu_watch *watch);

/* ---- Events ------------------------------------------------------------------------ */

/* The core says that nothing of the GPU is used any more. */
void gpu_watch_drained(struct gpu_watch *watch, uint32_t gpu);

/*
 * A worker on the GPU cannot be killed: it is drained until the last one of these is freed
 * after all, or an operator resumes it.
 */
void gpu_watch_stuck(struct gpu_watch *watch, uint32_t gpu);
void gpu_watch_freed(struct gpu_watch *watch, uint32_t gpu);

/* Workers on the GPU do not start, that of VM @who for one; or one has. */
void gpu_watch_starts_fail(struct gpu_watch *watch, uint32_t gpu, const char *who);
void gpu_watch_started(struct gpu_watch *watch, uint32_t gpu);

/*
 * An operator, @by, takes a GPU out of service, or gives it back, whatever had drained
 * it. @call is answered once that is recorded.
 */
void gpu_watch_set_drained(struct gpu_watch *watch, uint32_t gpu, bool drained, const char *by,
                           struct admin_call *call);

/*
 * The registry has been read. The first time what it says holds again; later on what is
 * known here goes before what another file says.
 */
void gpu_watch_registry_read(struct gpu_watch *watch, const struct registry_gpu_holds *holds);

/* What holds GPU @gpu has been written, or could not be. */
void gpu_watch_stored(struct gpu_watch *watch, uint32_t gpu, bool stored);

/* ---- What is known -------------------------------------------------------------------- */

/* State, readings, reasons and load of one GPU. NULL without memory. */
json_t *gpu_watch_describe(const struct gpu_watch *watch, uint32_t gpu);

struct gpu_figures {
	const char *state;                    /* of health_state_name() */
	const struct health_reading *reading; /* NULL: none */
	struct health_counters counters;
	const struct health *health; /* NULL with the cpu backend */
	bool processes_known;
	uint32_t foreign_processes; /* noted as none of ours */
	uint64_t foreign_bytes;
	bool nvml_up;
};

/* What the VM's worker holds of its GPU's memory, and should; MEMORY_UNKNOWN. */
void gpu_watch_vm_memory(const struct gpu_watch *watch, uint32_t core_vm, uint64_t *bytes,
                         uint64_t *expected_bytes);

/* For the metrics. Pointers are valid until the next event. */
void gpu_watch_figures(const struct gpu_watch *watch, uint32_t gpu, struct gpu_figures *out);

#endif
