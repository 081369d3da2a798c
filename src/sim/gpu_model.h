/* SPDX-License-Identifier: MIT */
/*
 * What a GPU does with the work of several processes, in virtual time.
 *
 * Contexts with work take turns in a fixed order and in slices of about 2 ms, which
 * follow each other also while a context is alone: one that wakes waits for the slice's
 * end, and beside several for its place in the round. A kernel that is cut loses more
 * than one that ends; handing an idle GPU to another context costs about 150 us, to the
 * same one almost nothing. No weights. The figures are measurements of one H100
 * (tests/unit/test_gpu_model.c holds the rows that the model is checked against).
 *
 * The model has no clock: the caller asks when its next event is and has it happen.
 */
#ifndef SIM_GPU_MODEL_H
#define SIM_GPU_MODEL_H

#include <stdbool.h>
#include <stdint.h>

enum { GPU_MODEL_STREAM = 64 }; /* jobs that a context holds at most */

#define GPU_MODEL_NEVER INT64_MAX

struct gpu_model_costs {
	int64_t slice_ns;
	int64_t boundary_ns;  /* to the next context where a kernel ends */
	int64_t cut_ns;       /* more where one is cut */
	int64_t resume_ns;    /* more where the next one was cut before */
	int64_t idle_ns;      /* from idle to another context than the last */
	int64_t same_ns;      /* from idle to the last context */
	int64_t gap_ns;       /* between two jobs of one stream */
	int64_t not_worth_ns; /* a kernel with less left than this is not cut */
};

extern const struct gpu_model_costs gpu_model_h100;

struct gpu_model;

struct gpu_model_context_stats {
	int64_t useful_ns;   /* its jobs ran */
	int64_t occupied_ns; /* and what was lost to turn to it */
};

/* Returns 0 or -ENOMEM; the caller owns *@out. Contexts are 0..@contexts - 1. */
int gpu_model_new(struct gpu_model **out, const struct gpu_model_costs *costs, uint32_t contexts);
void gpu_model_free(struct gpu_model *model);

/*
 * A job of @length_ns, INT64_MAX = it never ends, goes into the context's stream.
 * Events due before @now_ns must have happened.
 */
void gpu_model_launch(struct gpu_model *model, int64_t now_ns, uint32_t context, int64_t length_ns);

/* The context's process is gone, and its jobs with it. */
void gpu_model_kill(struct gpu_model *model, int64_t now_ns, uint32_t context);

/* When the next event is, or GPU_MODEL_NEVER. */
int64_t gpu_model_next_ns(const struct gpu_model *model);

/*
 * Has the event happen that is due at gpu_model_next_ns(). Returns the context whose
 * oldest job ended with it, or -1.
 */
int64_t gpu_model_step(struct gpu_model *model);

uint64_t gpu_model_switches(const struct gpu_model *model);
struct gpu_model_context_stats gpu_model_context_stats(const struct gpu_model *model,
                                                       int64_t now_ns, uint32_t context);

#endif
