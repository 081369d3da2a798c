/* SPDX-License-Identifier: MIT */
/*
 * The commands of vgpu-client except bench: each sends a request or a few, checks that
 * the answer is what the operation promises, and tells it.
 */
#include "guest/client.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/units.h"
#include "base/util.h"
#include "guest/histogram.h"
#include "guest/parse.h"
#include "guest/sgemm_check.h"

static double us(int64_t duration_ns)
{
	return (double)duration_ns / (double)NS_PER_US;
}

static uint64_t wanted_count(const struct client *client)
{
	return client->options.count ? (uint64_t)client->options.count : 1;
}

/* ---- info ------------------------------------------------------------------- */

static void report_device(struct report *report, const struct vgpu_info *info)
{
	static const char *const priorities[] = {
		[VGPU_PRIORITY_LOW] = "low",
		[VGPU_PRIORITY_MEDIUM] = "medium",
		[VGPU_PRIORITY_HIGH] = "high",
	};
	char pool = (char)info->pool_id;
	char version[32];

	report_bytes(report, "pool", &pool, 1);
	report_text(report, "priority",
	            info->priority < ARRAY_LEN(priorities) ? priorities[info->priority]
	                                                   : "unknown");
	report_u64(report, "vm_id", info->vm_id);
	snprintf(version, sizeof(version), "%" PRIu32 ".%" PRIu32, info->protocol_version >> 16,
	         info->protocol_version & 0xffff);
	report_text(report, "protocol", version);
	report_u64(report, "status", info->status);
	report_hex(report, "capabilities", info->capabilities);
	report_bool(report, "can_interrupt", info->capabilities & VGPU_CAP_MSIX);
	report_bool(report, "can_dma", info->capabilities & VGPU_CAP_DMA);
	report_bool(report, "can_channels", info->capabilities & VGPU_CAP_CHANNELS);
	report_bool(report, "extended_registers", info->capabilities & VGPU_CAP_EXTENDED_REGISTERS);
	if (!(info->capabilities & VGPU_CAP_EXTENDED_REGISTERS))
		return;
	report_u64(report, "channels", info->channels);
	report_u64(report, "window_kib", info->window_kib);
	report_u64(report, "mmio_reads", info->mmio_reads);
	report_u64(report, "mmio_writes", info->mmio_writes);
}

static void report_gpu(struct report *report, const struct vgpu_response *response)
{
	static const char *const backends[] = {"cpu", "cuda"};
	const uint32_t *results = response->results;
	uint32_t count = response->result_count;
	char capability[32];

	report_bytes(report, "name", response->data, response->data_bytes);
	if (count > VGPU_INFO_BACKEND)
		report_text(report, "backend",
		            results[VGPU_INFO_BACKEND] < ARRAY_LEN(backends)
		                    ? backends[results[VGPU_INFO_BACKEND]]
		                    : "unknown");
	if (count > VGPU_INFO_CAPABILITY) {
		snprintf(capability, sizeof(capability), "%" PRIu32 ".%" PRIu32,
		         results[VGPU_INFO_CAPABILITY] >> 16,
		         results[VGPU_INFO_CAPABILITY] & 0xffff);
		report_text(report, "capability", capability);
	}
	if (count > VGPU_INFO_MULTIPROCESSORS)
		report_u64(report, "multiprocessors", results[VGPU_INFO_MULTIPROCESSORS]);
	if (count > VGPU_INFO_QUOTA_MIB)
		report_u64(report, "memory_mib", results[VGPU_INFO_QUOTA_MIB]);
	if (count > VGPU_INFO_USED_MIB)
		report_u64(report, "used_mib", results[VGPU_INFO_USED_MIB]);
}

static enum outcome_status info_run(struct client *client)
{
	struct vgpu_response response;
	struct report report;
	struct vgpu_info info;
	int64_t round_trip_ns;
	int answered, r;

	answered = client_call(client, VGPU_OP_GET_DEVICE_INFO, NULL, 0, &response, &round_trip_ns);
	r = vgpu_get_info(client->vgpu, &info);
	if (r != 0)
		return client_fail(client, r, NULL, NULL);
	/* What the device itself says is worth most when nobody answers behind it. */
	if (answered != 0 && (client->options.json || !info.is_device))
		return client_fail(client, answered, &response, NULL);

	client_report_begin(client, &report, true);
	report_text(&report, "transport", info.is_device ? "device" : "socket");
	report_text(&report, info.is_device ? "device" : "socket", info.name);
	if (info.is_device)
		report_device(&report, &info);
	if (!info.is_device || info.capabilities & VGPU_CAP_EXTENDED_REGISTERS) {
		report_bool(&report, "connected", info.link & VGPU_LINK_CONNECTED);
		report_bool(&report, "extended_mediator", info.link & VGPU_LINK_EXTENDED);
	}
	report_u64(&report, "outstanding_max", info.outstanding_max);
	if (answered == 0) {
		report_open(&report, "gpu");
		report_gpu(&report, &response);
		report_close(&report);
	}
	report_end(&report);
	return answered == 0 ? OUTCOME_DONE : client_fail(client, answered, &response, NULL);
}

/* ---- ping ------------------------------------------------------------------- */

static enum outcome_status ping_run(struct client *client)
{
	CLEANUP(freep) struct histogram *round_trips = calloc(1, sizeof(*round_trips));
	struct vgpu_response response;
	struct report report;
	int64_t round_trip_ns;
	int r;

	if (!round_trips)
		return client_fail(client, -ENOMEM, NULL, NULL);
	for (uint64_t i = 0; i < wanted_count(client); i++) {
		r = client_call(client, VGPU_OP_NOP, NULL, 0, &response, &round_trip_ns);
		if (r != 0)
			return client_fail(client, r, &response, NULL);
		histogram_add(round_trips, (uint64_t)round_trip_ns);
		if (!client->options.json)
			printf("answer %" PRIu64 ": %.1f us\n", i + 1, us(round_trip_ns));
	}
	if (!client->options.json) {
		if (round_trips->count > 1)
			printf("%" PRIu64 " answers: min %.1f, mean %.1f, max %.1f us\n",
			       round_trips->count, us((int64_t)round_trips->min),
			       histogram_mean(round_trips) / (double)NS_PER_US,
			       us((int64_t)round_trips->max));
		return OUTCOME_DONE;
	}
	client_report_begin(client, &report, true);
	report_u64(&report, "answers", round_trips->count);
	report_double(&report, "min_us", us((int64_t)round_trips->min), 1);
	report_double(&report, "mean_us", histogram_mean(round_trips) / (double)NS_PER_US, 1);
	report_double(&report, "max_us", us((int64_t)round_trips->max), 1);
	report_end(&report);
	return OUTCOME_DONE;
}

/* ---- add -------------------------------------------------------------------- */

static bool parse_argument(const struct client *client, int index, const char *name, int64_t min,
                           int64_t max, int64_t *out)
{
	if (parse_integer(client->arguments[index], min, max, out))
		return true;
	fprintf(stderr,
	        "vgpu-client: %s: wrong %s '%s': give a whole number from %" PRId64 " to %" PRId64
	        "\n",
	        client->command->name, name, client->arguments[index], min, max);
	return false;
}

static bool parse_addends(const struct client *client, int64_t *a, int64_t *b)
{
	return parse_argument(client, 0, "A", INT32_MIN, INT32_MAX, a) &&
	       parse_argument(client, 1, "B", INT32_MIN, INT32_MAX, b);
}

static enum outcome_status add_check(struct client *client)
{
	int64_t a, b;

	return parse_addends(client, &a, &b) ? OUTCOME_DONE : OUTCOME_USAGE;
}

static enum outcome_status add_run(struct client *client)
{
	struct vgpu_response response;
	struct report report;
	int64_t a, b, round_trip_ns;
	uint32_t params[2];
	int r;

	parse_addends(client, &a, &b);
	params[0] = (uint32_t)a;
	params[1] = (uint32_t)b;
	r = client_call(client, VGPU_OP_CUDA_KERNEL, params, 2, &response, &round_trip_ns);
	if (r != 0)
		return client_fail(client, r, &response, NULL);
	if (response.result_count < 1)
		return client_fail_wrong(client, "it has no result");
	if (response.results[0] != params[0] + params[1])
		return client_fail_wrong(client, "wrong sum");
	if (!client->options.json) {
		printf("%" PRId64 " + %" PRId64 " = %" PRId32 "\n", a, b,
		       (int32_t)response.results[0]);
		return OUTCOME_DONE;
	}
	client_report_begin(client, &report, true);
	report_i64(&report, "a", a);
	report_i64(&report, "b", b);
	report_i64(&report, "sum", (int32_t)response.results[0]);
	report_u64(&report, "gpu_us", response.exec_time_us);
	report_double(&report, "round_trip_us", us(round_trip_ns), 1);
	report_end(&report);
	return OUTCOME_DONE;
}

/* ---- sgemm ------------------------------------------------------------------ */

/* One product. Returns OUTCOME_DONE when it is right; else that is said already. */
static enum outcome_status multiply(struct client *client, uint32_t seed,
                                    struct vgpu_response *response, int64_t *round_trip_ns)
{
	uint32_t n = (uint32_t)client->options.n;
	const uint32_t params[] = {n, seed};
	struct sgemm_expected expected;
	const char *why;
	int r;

	r = client_call(client, VGPU_OP_SGEMM, params, 2, response, round_trip_ns);
	if (r != 0)
		return client_fail(client, r, response, NULL);
	if (response->result_count != VGPU_SGEMM_RESULTS)
		return client_fail_wrong(client, "wrong number of results");
	if (client->options.no_verify)
		return OUTCOME_DONE;
	r = sgemm_expect(&expected, n, seed);
	if (r < 0)
		return client_fail(client, r, NULL, NULL);
	if (!sgemm_check(&expected, response->results, response->result_count, &why))
		return client_fail_wrong(client, why);
	return OUTCOME_DONE;
}

static enum outcome_status sgemm_run(struct client *client)
{
	const struct options *options = &client->options;
	double operations = 2.0 * (double)options->n * (double)options->n * (double)options->n;
	double total_us = 0, time_us = 0;
	struct vgpu_response response;
	enum outcome_status status;
	struct report report;
	int64_t round_trip_ns;
	uint32_t seed = (uint32_t)options->seed;
	uint64_t count = wanted_count(client);

	for (uint64_t i = 0; i < count; i++) {
		seed = (uint32_t)options->seed + (uint32_t)i;
		status = multiply(client, seed, &response, &round_trip_ns);
		if (status != OUTCOME_DONE)
			return status;
		/* A worker that reports no time leaves the round trip as the only measure. */
		time_us = response.exec_time_us ? response.exec_time_us : us(round_trip_ns);
		total_us += time_us;
		if (!options->json)
			printf("n %" PRId64 ", seed %" PRIu32 ", checksum 0x%016" PRIx64
			       ", %.1f us, %.1f GFLOP/s, %s\n",
			       options->n, seed, sgemm_checksum(response.results), time_us,
			       operations / time_us / 1e3,
			       options->no_verify ? "not verified" : "verified");
	}
	if (!options->json)
		return OUTCOME_DONE;
	client_report_begin(client, &report, true);
	report_i64(&report, "n", options->n);
	report_u64(&report, "seed", seed);
	report_u64(&report, "count", count);
	report_hex(&report, "checksum", sgemm_checksum(response.results));
	report_u64(&report, "gpu_us", response.exec_time_us);
	report_double(&report, "round_trip_us", us(round_trip_ns), 1);
	report_double(&report, "gflops", operations * (double)count / total_us / 1e3, 1);
	report_bool(&report, "verified", !options->no_verify);
	report_end(&report);
	return OUTCOME_DONE;
}

/* ---- Test operations ---------------------------------------------------------- */

static enum outcome_status run_test_operation(struct client *client, uint32_t opcode,
                                              const uint32_t *params, uint32_t param_count)
{
	struct vgpu_response response;
	struct report report;
	int64_t round_trip_ns;
	int r;

	r = client_call(client, opcode, params, param_count, &response, &round_trip_ns);
	if (r != 0)
		return client_fail(client, r, &response, NULL);
	client_report_begin(client, &report, true);
	report_u64(&report, "gpu_us", response.exec_time_us);
	report_double(&report, "round_trip_us", us(round_trip_ns), 1);
	report_end(&report);
	return OUTCOME_DONE;
}

static enum outcome_status spin_check(struct client *client)
{
	int64_t spin_us;

	return parse_argument(client, 0, "US", 0, VGPU_SPIN_MAX_US, &spin_us) ? OUTCOME_DONE
	                                                                      : OUTCOME_USAGE;
}

static enum outcome_status spin_run(struct client *client)
{
	uint32_t params[1];
	int64_t spin_us;

	parse_argument(client, 0, "US", 0, VGPU_SPIN_MAX_US, &spin_us);
	params[0] = (uint32_t)spin_us;
	return run_test_operation(client, VGPU_OP_SPIN, params, 1);
}

static enum outcome_status fault_run(struct client *client)
{
	return run_test_operation(client, VGPU_OP_FAULT, NULL, 0);
}

static enum outcome_status hang_run(struct client *client)
{
	return run_test_operation(client, VGPU_OP_HANG, NULL, 0);
}

/* ---- The table ---------------------------------------------------------------- */

static const struct command commands[] = {
	{"info", "", 0, 0, "what the device and the GPU behind it are",
         "Prints the device's registers, or the state of the socket, and what the mediator\n"
         "says about the GPU: name, backend, compute capability, memory.",
         NULL, info_run},
	{"ping", "", 0, OPTION_BIT(OPTION_COUNT), "ask for nothing, and time the answer",
         "Sends requests that do nothing, one after the other, and prints their round trip\n"
         "times.",
         NULL, ping_run},
	{"add", "A B", 2, 0, "add two numbers on the GPU",
         "Adds two 32-bit integers on the GPU, wrapping on overflow, and checks the sum.",
         add_check, add_run},
	{"sgemm", "", 0,
         OPTION_BIT(OPTION_N) | OPTION_BIT(OPTION_SEED) | OPTION_BIT(OPTION_COUNT) |
                 OPTION_BIT(OPTION_NO_VERIFY),
         "multiply two matrices on the GPU, and prove the product",
         "Multiplies two n x n matrices of float32 that are made from a seed, and verifies\n"
         "the product here: four elements, and all of it by a checksum that takes O(n^2).\n"
         "With --count, every product uses the next seed.",
         NULL, sgemm_run},
	{"bench", "", 0,
         OPTION_BIT(OPTION_OP) | OPTION_BIT(OPTION_COUNT) | OPTION_BIT(OPTION_SECONDS) |
                 OPTION_BIT(OPTION_OUTSTANDING) | OPTION_BIT(OPTION_SPIN_US) |
                 OPTION_BIT(OPTION_N) | OPTION_BIT(OPTION_SEED) | OPTION_BIT(OPTION_NO_VERIFY),
         "measure latency and throughput",
         "Keeps K requests under way and prints throughput, percentiles of the time from\n"
         "submission to answer, errors and refusals. A refused request is tried again by\n"
         "the retry rule; its latency is that of the try that was answered. Every answer is\n"
         "checked unless --no-verify is given. The spin operation needs a mediator that\n"
         "allows test operations.",
         bench_check, bench_run},
	{"spin", "US", 1, 0, "occupy the GPU (test operation)",
         "Occupies the GPU for US microseconds. A test operation: refused unless the\n"
         "mediator runs with allow_test_ops = yes.",
         spin_check, spin_run},
	{"fault", "", 0, 0, "make an illegal access on the GPU (test operation)",
         "Makes an illegal memory access in this VM's worker, which fails the job and counts\n"
         "towards this VM's quarantine. A test operation: refused unless the mediator runs\n"
         "with allow_test_ops = yes.",
         NULL, fault_run},
	{"hang", "", 0, 0, "run a job that never ends (test operation)",
         "Runs a job that ends only when the mediator kills it at its time limit, which\n"
         "counts towards this VM's quarantine. A test operation: refused unless the mediator\n"
         "runs with allow_test_ops = yes.",
         NULL, hang_run},
};

const struct command *command_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	}
	return NULL;
}

void command_list(FILE *stream)
{
	char left[32];

	for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
		snprintf(left, sizeof(left), "%s%s%s", commands[i].name,
		         commands[i].arguments[0] ? " " : "", commands[i].arguments);
		fprintf(stream, "  %-18s %s\n", left, commands[i].summary);
	}
}
