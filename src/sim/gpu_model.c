/* SPDX-License-Identifier: MIT */
/*
 * See gpu_model.h. One context runs or is being turned to; the next one with work, by
 * number and around the end, follows it.
 */
#include "sim/gpu_model.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/units.h"
#include "base/util.h"

#define NOBODY UINT32_MAX

const struct gpu_model_costs gpu_model_h100 = {
	.slice_ns = 2047 * NS_PER_US,
	.boundary_ns = 60 * NS_PER_US,
	.cut_ns = 165 * NS_PER_US,
	.resume_ns = 5 * NS_PER_US,
	.idle_ns = 145 * NS_PER_US,
	.same_ns = 5 * NS_PER_US,
	.gap_ns = 1 * NS_PER_US,
	.not_worth_ns = 120 * NS_PER_US,
};

struct context {
	int64_t left_ns[GPU_MODEL_STREAM]; /* of its jobs, a ring */
	uint32_t first;
	uint32_t count;
	bool listed; /* runs, is turned to, or stands in a queue */
	bool cut;    /* its first job was cut */
	struct gpu_model_context_stats stats;
};

struct gpu_model {
	struct gpu_model_costs costs;
	struct context *contexts;
	uint32_t context_count;
	uint32_t listed_count;
	uint32_t running;    /* NOBODY = idle or turning */
	uint32_t turning_to; /* NOBODY = not turning */
	uint32_t last;       /* that ran */
	int64_t turned_ns;   /* when turning_to starts to run */
	int64_t run_from_ns;
	int64_t slice_start_ns;
	uint64_t switches;
};

int gpu_model_new(struct gpu_model **out, const struct gpu_model_costs *costs, uint32_t contexts)
{
	struct gpu_model *model = calloc(1, sizeof(*model));

	if (!model)
		return -ENOMEM;
	model->costs = *costs;
	model->running = model->turning_to = model->last = NOBODY;
	model->contexts = calloc(contexts, sizeof(*model->contexts));
	model->context_count = contexts;
	if (!model->contexts) {
		gpu_model_free(model);
		return -ENOMEM;
	}
	*out = model;
	return 0;
}

void gpu_model_free(struct gpu_model *model)
{
	if (!model)
		return;
	free(model->contexts);
	free(model);
}

static void list(struct gpu_model *model, struct context *context, bool listed)
{
	context->listed = listed;
	model->listed_count += listed ? 1 : -1;
}

/* Others than the one that runs or is being turned to. */
static bool has_rivals(const struct gpu_model *model)
{
	return model->listed_count > 1;
}

static int64_t *first_left_ns(struct context *context)
{
	return &context->left_ns[context->first];
}

/* Books what the running job did up to @now_ns. */
static void account(struct gpu_model *model, int64_t now_ns)
{
	struct context *context;
	int64_t ns;

	if (model->running == NOBODY || now_ns <= model->run_from_ns)
		return;
	context = &model->contexts[model->running];
	ns = now_ns - model->run_from_ns;
	if (*first_left_ns(context) != INT64_MAX)
		*first_left_ns(context) -= ns;
	context->stats.useful_ns += ns;
	context->stats.occupied_ns += ns;
	model->run_from_ns = now_ns;
}

/* The next context with work after the one that ran last; there must be one. */
static uint32_t next_in_order(const struct gpu_model *model)
{
	uint32_t number = model->last == NOBODY ? model->context_count - 1 : model->last;

	do
		number = (number + 1) % model->context_count;
	while (!model->contexts[number].listed);
	return number;
}

/* Turns to the next in order; @from_idle: nobody ran just now, else @cut or ended. */
static void turn(struct gpu_model *model, int64_t now_ns, bool from_idle, bool cut)
{
	const struct gpu_model_costs *costs = &model->costs;
	uint32_t next;
	int64_t cost_ns;

	model->running = NOBODY;
	model->turning_to = NOBODY;
	if (model->listed_count == 0)
		return;
	next = next_in_order(model);
	cost_ns = model->contexts[next].cut ? costs->resume_ns : 0;
	if (!from_idle)
		cost_ns += costs->boundary_ns + (cut ? costs->cut_ns : 0);
	else if (next == model->last)
		cost_ns = costs->same_ns;
	else
		cost_ns += costs->idle_ns;
	model->contexts[next].cut = false;
	model->contexts[next].stats.occupied_ns += cost_ns;
	model->turning_to = next;
	model->turned_ns = now_ns + cost_ns;
	model->switches++;
}

void gpu_model_launch(struct gpu_model *model, int64_t now_ns, uint32_t number, int64_t length_ns)
{
	struct context *context = &model->contexts[number];

	assert(context->count < GPU_MODEL_STREAM);
	account(model, now_ns);
	context->left_ns[(context->first + context->count++) % GPU_MODEL_STREAM] = length_ns;
	if (context->listed)
		return;
	/* Slices follow each other also while nobody else has work: the present one goes on. */
	if (!has_rivals(model) && model->running != NOBODY)
		model->slice_start_ns += (now_ns - model->slice_start_ns) / model->costs.slice_ns *
		                         model->costs.slice_ns;
	list(model, context, true);
	if (model->running == NOBODY && model->turning_to == NOBODY)
		turn(model, now_ns, true, false);
}

void gpu_model_kill(struct gpu_model *model, int64_t now_ns, uint32_t number)
{
	struct context *context = &model->contexts[number];

	account(model, now_ns);
	context->count = 0;
	context->cut = false;
	if (!context->listed)
		return;
	list(model, context, false);
	if (model->running == number || model->turning_to == number)
		turn(model, now_ns, true, false);
}

int64_t gpu_model_next_ns(const struct gpu_model *model)
{
	const struct context *context;
	int64_t left_ns, ends_ns = GPU_MODEL_NEVER;

	if (model->turning_to != NOBODY)
		return model->turned_ns;
	if (model->running == NOBODY)
		return GPU_MODEL_NEVER;
	context = &model->contexts[model->running];
	left_ns = context->left_ns[context->first];
	if (left_ns != INT64_MAX)
		ends_ns = model->run_from_ns + left_ns;
	if (!has_rivals(model) || left_ns <= model->costs.not_worth_ns)
		return ends_ns;
	return min_i64(ends_ns,
	               max_i64(model->slice_start_ns + model->costs.slice_ns, model->run_from_ns));
}

/* The running context's first job has ended. */
static void end_job(struct gpu_model *model, int64_t now_ns)
{
	uint32_t number = model->running;
	struct context *context = &model->contexts[number];

	context->first = (context->first + 1) % GPU_MODEL_STREAM;
	if (--context->count == 0) {
		list(model, context, false);
		turn(model, now_ns, true, false);
		return;
	}
	model->run_from_ns = now_ns + model->costs.gap_ns;
	if (has_rivals(model) && now_ns - model->slice_start_ns >= model->costs.slice_ns) {
		turn(model, now_ns, false, false);
	}
}

int64_t gpu_model_step(struct gpu_model *model)
{
	int64_t now_ns = gpu_model_next_ns(model);
	uint32_t number = model->running;

	if (model->turning_to != NOBODY) {
		model->running = model->last = model->turning_to;
		model->turning_to = NOBODY;
		model->run_from_ns = model->slice_start_ns = now_ns;
		return -1;
	}
	account(model, now_ns);
	if (*first_left_ns(&model->contexts[number]) == 0) {
		end_job(model, now_ns);
		return number;
	}
	model->contexts[number].cut = true;
	turn(model, now_ns, false, true);
	return -1;
}

uint64_t gpu_model_switches(const struct gpu_model *model)
{
	return model->switches;
}

struct gpu_model_context_stats gpu_model_context_stats(const struct gpu_model *model,
                                                       int64_t now_ns, uint32_t context)
{
	struct gpu_model_context_stats stats = model->contexts[context].stats;

	if (model->running == context && now_ns > model->run_from_ns) {
		stats.useful_ns += now_ns - model->run_from_ns;
		stats.occupied_ns += now_ns - model->run_from_ns;
	}
	return stats;
}
