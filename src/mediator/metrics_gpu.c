/* SPDX-License-Identifier: MIT */
/*
 * See metrics_gpu.h. Gauges exist only while NVML gives their value; counters exist
 * from the start, at 0, because alerts are written on their growth.
 */
#include "mediator/metrics_gpu.h"

#include <inttypes.h>
#include <string.h>

#include "mediator/internal.h"
#include "mediator/metrics_format.h"

static const struct {
	const char *name;
	const char *help;
	enum health_value value;
	double scale;
} gauges[] = {
	{"vgpu_gpu_temperature_celsius", "Temperature.", HEALTH_TEMPERATURE_C, 1},
	{"vgpu_gpu_power_watts", "Power drawn.", HEALTH_POWER_MW, 1e-3},
	{"vgpu_gpu_utilization_ratio", "Part of the time in which a kernel ran.",
         HEALTH_GPU_BUSY_PERCENT, 1e-2},
	{"vgpu_gpu_memory_utilization_ratio",
         "Part of the time in which the memory controller worked.", HEALTH_MEMORY_BUSY_PERCENT,
         1e-2},
	{"vgpu_gpu_memory_used_bytes", "GPU memory in use.", HEALTH_MEMORY_USED_BYTES, 1},
	{"vgpu_gpu_memory_total_bytes", "GPU memory there is.", HEALTH_MEMORY_TOTAL_BYTES, 1},
};

static void write_gauges(FILE *out, const struct mediator *mediator)
{
	for (size_t i = 0; i < ARRAY_LEN(gauges); i++) {
		metrics_write_head(out, gauges[i].name, "gauge", gauges[i].help);
		for (uint32_t gpu = 0; gpu < mediator->gpus.count; gpu++) {
			struct gpu_figures figures;
			int64_t raw;

			gpu_watch_figures(mediator->watch, gpu, &figures);
			if (figures.reading &&
			    health_reading_get(figures.reading, gauges[i].value, &raw))
				fprintf(out, "%s{gpu_uuid=\"%s\"} %.9g\n", gauges[i].name,
				        mediator->gpus.gpus[gpu].uuid,
				        (double)raw * gauges[i].scale);
		}
	}
}

/* False where it is not known. */
static bool foreign_processes(const struct gpu_figures *figures, uint64_t *out)
{
	*out = figures->foreign_processes;
	return figures->processes_known;
}

static bool foreign_bytes(const struct gpu_figures *figures, uint64_t *out)
{
	*out = figures->foreign_bytes;
	return figures->processes_known;
}

static bool resets(const struct gpu_figures *figures, uint64_t *out)
{
	*out = figures->counters.resets;
	return true;
}

static const struct {
	const char *name;
	const char *type;
	const char *help;
	bool (*get)(const struct gpu_figures *figures, uint64_t *out);
} counts[] = {
	/* Programs beside us, once they have been there for a while. */
	{"vgpu_gpu_foreign_processes", "gauge", "Processes on the GPU that are none of ours.",
         foreign_processes},
	{"vgpu_gpu_foreign_memory_bytes", "gauge", "GPU memory that they hold.", foreign_bytes},
	{"vgpu_gpu_resets_total", "counter", "Resets, those of others included.", resets},
};

static void write_counts(FILE *out, const struct mediator *mediator)
{
	for (size_t i = 0; i < ARRAY_LEN(counts); i++) {
		metrics_write_head(out, counts[i].name, counts[i].type, counts[i].help);
		for (uint32_t gpu = 0; gpu < mediator->gpus.count; gpu++) {
			struct gpu_figures figures;
			uint64_t count;

			gpu_watch_figures(mediator->watch, gpu, &figures);
			if (counts[i].get(&figures, &count))
				fprintf(out, "%s{gpu_uuid=\"%s\"} %" PRIu64 "\n", counts[i].name,
				        mediator->gpus.gpus[gpu].uuid, count);
		}
	}
}

static void write_ecc(FILE *out, const struct mediator *mediator)
{
	static const char name[] = "vgpu_gpu_ecc_errors_total";

	metrics_write_head(out, name, "counter", "Memory errors, by type.");
	for (uint32_t gpu = 0; gpu < mediator->gpus.count; gpu++) {
		const char *uuid = mediator->gpus.gpus[gpu].uuid;
		struct gpu_figures figures;

		gpu_watch_figures(mediator->watch, gpu, &figures);
		fprintf(out, "%s{gpu_uuid=\"%s\",type=\"corrected\"} %" PRIu64 "\n", name, uuid,
		        figures.counters.ecc_corrected);
		fprintf(out, "%s{gpu_uuid=\"%s\",type=\"uncorrected\"} %" PRIu64 "\n", name, uuid,
		        figures.counters.ecc_uncorrected);
	}
}

static void write_xids(FILE *out, const struct mediator *mediator)
{
	metrics_write_head(out, "vgpu_gpu_xid_errors_total", "counter", "Xid errors, by number.");
	for (uint32_t gpu = 0; gpu < mediator->gpus.count; gpu++) {
		struct gpu_figures figures;
		uint64_t number, count;

		gpu_watch_figures(mediator->watch, gpu, &figures);
		for (size_t i = 0;
		     figures.health && health_xid_count(figures.health, i, &number, &count); i++)
			fprintf(out,
			        "vgpu_gpu_xid_errors_total{gpu_uuid=\"%s\",xid=\"%" PRIu64
			        "\"} %" PRIu64 "\n",
			        mediator->gpus.gpus[gpu].uuid, number, count);
	}
}

static void write_health(FILE *out, const struct mediator *mediator)
{
	metrics_write_head(out, "vgpu_gpu_health", "gauge", "1 for the state that the GPU is in.");
	for (uint32_t gpu = 0; gpu < mediator->gpus.count; gpu++) {
		struct gpu_figures figures;

		gpu_watch_figures(mediator->watch, gpu, &figures);
		for (enum health_state state = 0; state < HEALTH_STATE_COUNT; state++)
			fprintf(out, "vgpu_gpu_health{gpu_uuid=\"%s\",state=\"%s\"} %d\n",
			        mediator->gpus.gpus[gpu].uuid, health_state_name(state),
			        strcmp(figures.state, health_state_name(state)) == 0);
	}
}

void metrics_write_gpus(FILE *out, const struct mediator *mediator)
{
	struct gpu_figures figures;

	write_gauges(out, mediator);
	write_counts(out, mediator);
	write_ecc(out, mediator);
	write_xids(out, mediator);
	write_health(out, mediator);
	gpu_watch_figures(mediator->watch, 0, &figures);
	metrics_write_head(out, "vgpu_nvml_up", "gauge", "1 while NVML gives readings.");
	fprintf(out, "vgpu_nvml_up %d\n", figures.nvml_up);
}
