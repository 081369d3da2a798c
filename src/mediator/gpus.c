/* SPDX-License-Identifier: MIT */
/*
 * See gpus.h. The mediator itself never loads CUDA: `vgpu-worker --probe` does, in a
 * process that may crash or hang without harm.
 */
#include "mediator/gpus.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "mediator/gpu_probe.h"
#include "settings/settings.h"

static void copy_text(char *to, const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	snprintf(to, GPU_TEXT_BYTES, "%s", text ? text : "");
}

/* Asks for the GPU that @spec names. Returns 0 or a negative errno with @why filled. */
static int probe(struct gpu_info *out, const char *program, const char *backend, const char *spec,
                 char *why, size_t why_size)
{
	char line[1024];
	json_t *object;
	int r = gpu_probe(program, backend, spec, GPU_PROBE_TIMEOUT_S, line, sizeof(line));

	if (r < 0) {
		snprintf(why, why_size, "%s",
		         r == -ETIMEDOUT ? "the driver does not answer"
		         : r == -ENODEV  ? "see the worker's message above"
		                         : line);
		return r;
	}
	object = json_loads(line, 0, NULL);
	if (!object) {
		snprintf(why, why_size, "%s --probe said something else than JSON", program);
		return -EPROTO;
	}
	snprintf(out->spec, sizeof(out->spec), "%s", spec);
	copy_text(out->uuid, object, "uuid");
	copy_text(out->name, object, "name");
	out->answers = true;
	json_decref(object);
	return 0;
}

/* Adds a GPU to the table unless it is there already, and to @pool. */
static int add_gpu(struct gpu_table *table, uint32_t pool, const struct gpu_info *gpu)
{
	for (uint32_t i = 0; i < table->count; i++) {
		if (strcmp(table->gpus[i].uuid, gpu->uuid) == 0) {
			table->pool_mask[pool] |= 1u << i;
			return 0;
		}
	}
	if (table->count == CORE_MAX_GPUS) {
		log_error("more than %d GPUs are configured", CORE_MAX_GPUS);
		return -E2BIG;
	}
	table->pool_mask[pool] |= 1u << table->count;
	table->gpus[table->count++] = *gpu;
	return 0;
}

/*
 * The GPU that @spec names, and whether it answers. One with a UUID that does not is kept all the
 * same: the others must work, and it may be back.
 */
static int look_at_gpu(struct gpu_info *out, const char *program, uint32_t pool, const char *spec)
{
	char why[1024];
	int r = probe(out, program, "cuda", spec, why, sizeof(why));

	if (r == 0)
		return 0;
	log_error("pool %c: GPU %s cannot be used: %s", pool_letter(pool), spec, why);
	if (strncmp(spec, "GPU-", 4) != 0)
		return -ENODEV;
	*out = (struct gpu_info){.answers = false};
	snprintf(out->spec, sizeof(out->spec), "%s", spec);
	snprintf(out->uuid, sizeof(out->uuid), "%s", spec);
	snprintf(out->name, sizeof(out->name), "does not answer");
	return 0;
}

static int find_pool(struct gpu_table *table, const struct config *config, uint32_t pool,
                     const char *program)
{
	char list[CONFIG_GPUS_BYTES];
	char *save = NULL;
	int r = 0;

	snprintf(list, sizeof(list), "%s", config->gpus[pool][0] ? config->gpus[pool] : "0");
	for (const char *spec = strtok_r(list, ",", &save); r == 0 && spec;
	     spec = strtok_r(NULL, ",", &save)) {
		struct gpu_info gpu;

		r = look_at_gpu(&gpu, program, pool, spec);
		if (r == 0)
			r = add_gpu(table, pool, &gpu);
	}
	return r;
}

static int find_cuda(struct gpu_table *table, const struct config *config, const char *program)
{
	bool answers = false;

	for (uint32_t pool = 0; pool < POOL_COUNT; pool++) {
		int r = find_pool(table, config, pool, program);

		if (r < 0)
			return r;
	}
	for (uint32_t i = 0; i < table->count; i++)
		answers |= table->gpus[i].answers;
	table->cuda = true;
	return answers ? 0 : -ENODEV;
}

static void use_cpu(struct gpu_table *table)
{
	*table = (struct gpu_table){.count = 1};
	snprintf(table->gpus[0].uuid, GPU_TEXT_BYTES, "cpu");
	snprintf(table->gpus[0].name, GPU_TEXT_BYTES, "the CPU");
	for (uint32_t pool = 0; pool < POOL_COUNT; pool++)
		table->pool_mask[pool] = 1;
}

int gpus_find(struct gpu_table *out, const struct config *config, const char *worker_program)
{
	bool named = config->gpus[0][0] || config->gpus[1][0];
	char why[1024];
	struct gpu_info gpu;

	*out = (struct gpu_table){.count = 0};
	switch ((enum config_backend)config->backend) {
	case CONFIG_BACKEND_CPU:
		use_cpu(out);
		break;
	case CONFIG_BACKEND_AUTO:
		if (!named && probe(&gpu, worker_program, "cuda", "0", why, sizeof(why)) < 0) {
			log_warning("no GPU answers: jobs are computed on the CPU (backend = cpu)");
			use_cpu(out);
			break;
		}
		/* fall through */
	case CONFIG_BACKEND_CUDA:
		if (find_cuda(out, config, worker_program) < 0) {
			log_error("backend cuda needs a GPU: is the NVIDIA driver loaded "
			          "(nvidia-smi)? `--backend cpu` runs without one");
			return -ENODEV;
		}
		break;
	}
	for (uint32_t i = 0; i < out->count; i++)
		log_info("GPU %u: %s (%s)", i, out->gpus[i].name, out->gpus[i].uuid);
	return 0;
}
