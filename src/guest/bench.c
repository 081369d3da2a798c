/* SPDX-License-Identifier: MIT */
/*
 * vgpu-client bench: keeps a number of requests under way and measures them.
 *
 * Closed loop: each of K slots submits, waits for its answer and submits again, so that
 * the load follows the speed of the answers. A slot whose request was refused pauses as
 * the retry rule says, while the others go on. One loop serves a device (K = 1)
 * and a socket.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/units.h"
#include "base/util.h"
#include "guest/client.h"
#include "guest/histogram.h"
#include "guest/sgemm_check.h"

enum slot_state {
	SLOT_IDLE,    /* free for the next request */
	SLOT_RUNNING, /* submitted, not answered */
	SLOT_PAUSED,  /* refused; to be submitted again at due_ns */
};

struct slot {
	enum slot_state state;
	unsigned int attempt; /* retries so far */
	uint32_t id;
	uint32_t params[2];
	int64_t submitted_ns;
	int64_t due_ns; /* RUNNING: gives up, PAUSED: goes on */
};

struct bench;

struct bench_op {
	const char *name;
	uint32_t opcode;
	uint32_t param_count;
	void (*fill)(const struct bench *bench, uint64_t index, uint32_t *params);
	/* Whether the answer is right; NULL: there is nothing to check. */
	bool (*check)(const struct bench *bench, const struct slot *slot,
	              const struct vgpu_response *response);
};

struct bench {
	struct client *client;
	const struct bench_op *op;
	struct sgemm_expected expected;
	struct slot slots[VGPU_OUTSTANDING_MAX];
	uint32_t slot_count;
	uint32_t running;
	uint32_t paused;
	uint64_t started; /* requests, without retries */
	int64_t start_ns;
	int64_t end_ns; /* nothing new from then on */
	uint64_t done;
	uint64_t failed;
	uint64_t wrong;
	uint64_t gpu_us;
	int first_failure;
	int fatal; /* what ended the run early, or 0 */
	struct histogram latency_ns;
	uint64_t errors[VGPU_E_NO_REQUEST + 1]; /* by result */
};

/* ---- Operations ----------------------------------------------------------------- */

static void add_fill(const struct bench *bench UNUSED, uint64_t index, uint32_t *params)
{
	params[0] = (uint32_t)index * 0x9e3779b1u;
	params[1] = (uint32_t)(index >> 3) ^ 0x55555555u;
}

static bool add_check(const struct bench *bench UNUSED, const struct slot *slot,
                      const struct vgpu_response *response)
{
	return response->result_count >= 1 &&
	       response->results[0] == slot->params[0] + slot->params[1];
}

static void sgemm_fill(const struct bench *bench, uint64_t index UNUSED, uint32_t *params)
{
	params[0] = bench->expected.n;
	params[1] = bench->expected.seed;
}

static bool sgemm_answer_check(const struct bench *bench, const struct slot *slot UNUSED,
                               const struct vgpu_response *response)
{
	const char *why;

	return sgemm_check(&bench->expected, response->results, response->result_count, &why);
}

static void spin_fill(const struct bench *bench, uint64_t index UNUSED, uint32_t *params)
{
	params[0] = (uint32_t)bench->client->options.spin_us;
}

static const struct bench_op bench_ops[] = {
	{"nop", VGPU_OP_NOP, 0, NULL, NULL},
	{"add", VGPU_OP_CUDA_KERNEL, 2, add_fill, add_check},
	{"sgemm", VGPU_OP_SGEMM, 2, sgemm_fill, sgemm_answer_check},
	{"spin", VGPU_OP_SPIN, 1, spin_fill, NULL},
};

static const struct bench_op *find_op(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(bench_ops); i++) {
		if (strcmp(bench_ops[i].name, name) == 0)
			return &bench_ops[i];
	}
	return NULL;
}

enum outcome_status bench_check(struct client *client)
{
	const struct options *options = &client->options;

	if (!find_op(options->op)) {
		fprintf(stderr,
		        "vgpu-client: bench: wrong --op '%s': give nop, add, sgemm or spin\n",
		        options->op);
		return OUTCOME_USAGE;
	}
	if (options->count && options->seconds) {
		fprintf(stderr, "vgpu-client: bench: --count and --seconds exclude each other\n");
		return OUTCOME_USAGE;
	}
	if (options->outstanding > 1 && !options->socket) {
		fprintf(stderr,
		        "vgpu-client: bench: --outstanding %" PRId64
		        " needs --socket PATH: the device's registers take one request at a time\n",
		        options->outstanding);
		return OUTCOME_USAGE;
	}
	return OUTCOME_DONE;
}

/* ---- One slot ------------------------------------------------------------------- */

static int64_t now_ns(const struct bench *bench)
{
	return guest_env_now_ns(&bench->client->env);
}

static void fail(struct bench *bench, int result)
{
	bench->failed++;
	if (bench->first_failure == 0)
		bench->first_failure = result;
	if (result > 0 && (size_t)result < ARRAY_LEN(bench->errors))
		bench->errors[result]++;
}

/* The connection, the device or the VM's right to use it is gone. */
static bool is_fatal(int result)
{
	return result < 0 || result == VGPU_E_CLOSED || result == VGPU_E_NO_DEVICE ||
	       result == VGPU_CODE_QUARANTINED;
}

static void submit(struct bench *bench, struct slot *slot)
{
	struct vgpu_request request = {
		.opcode = bench->op->opcode,
		.params = slot->params,
		.param_count = bench->op->param_count,
	};
	int64_t timeout_us = bench->client->options.timeout_ms * 1000;
	int r;

	slot->submitted_ns = now_ns(bench);
	/* With others under way there is an answer to collect first. */
	r = vgpu_submit(bench->client->vgpu, &request, bench->running ? 0 : timeout_us, &slot->id);
	if (r == VGPU_E_BUSY && bench->running) {
		bench->paused += slot->state != SLOT_PAUSED;
		slot->state = SLOT_PAUSED;
		slot->due_ns = 0;
		return;
	}
	bench->paused -= slot->state == SLOT_PAUSED;
	slot->state = SLOT_IDLE;
	if (r != 0) {
		fail(bench, r);
		/* A device that is still BUSY after the whole time would be so again. */
		bench->fatal = r;
		return;
	}
	slot->state = SLOT_RUNNING;
	slot->due_ns = slot->submitted_ns + timeout_us * NS_PER_US;
	bench->running++;
}

static void finish(struct bench *bench, struct slot *slot, int result,
                   const struct vgpu_response *response)
{
	bool verify = bench->op->check && !bench->client->options.no_verify;
	int64_t delay_us = -1;

	bench->running--;
	slot->state = SLOT_IDLE;
	if (result == VGPU_CODE_RATE_LIMITED && !bench->fatal)
		delay_us = vgpu_retry_delay_us(bench->client->vgpu, slot->attempt + 1,
		                               response->retry_after_us);
	if (delay_us >= 0) {
		slot->attempt++;
		slot->state = SLOT_PAUSED;
		slot->due_ns = now_ns(bench) + delay_us * NS_PER_US;
		bench->paused++;
		return;
	}
	if (result != 0) {
		fail(bench, result);
		if (is_fatal(result))
			bench->fatal = result;
		return;
	}
	bench->done++;
	bench->gpu_us += response->exec_time_us;
	histogram_add(&bench->latency_ns, (uint64_t)(now_ns(bench) - slot->submitted_ns));
	if (verify && !bench->op->check(bench, slot, response))
		bench->wrong++;
}

/* ---- The loop ------------------------------------------------------------------- */

static bool wants_more(const struct bench *bench)
{
	uint64_t count = (uint64_t)bench->client->options.count;

	if (bench->fatal || now_ns(bench) >= bench->end_ns)
		return false;
	return bench->client->options.seconds || bench->started < count;
}

static void submit_due(struct bench *bench)
{
	for (uint32_t i = 0; i < bench->slot_count; i++) {
		struct slot *slot = &bench->slots[i];

		if (slot->state == SLOT_PAUSED &&
		    (bench->fatal || now_ns(bench) >= bench->end_ns)) {
			slot->state = SLOT_IDLE;
			bench->paused--;
		} else if (slot->state == SLOT_PAUSED && now_ns(bench) >= slot->due_ns) {
			submit(bench, slot);
		} else if (slot->state == SLOT_IDLE && wants_more(bench)) {
			slot->attempt = 0;
			if (bench->op->fill)
				bench->op->fill(bench, bench->started, slot->params);
			bench->started++;
			submit(bench, slot);
		}
	}
}

/* When some slot has something to do besides receiving its answer. */
static int64_t next_due_ns(const struct bench *bench)
{
	int64_t due_ns = GUEST_NEVER;

	for (uint32_t i = 0; i < bench->slot_count; i++) {
		const struct slot *slot = &bench->slots[i];

		/* Due at 0: waits for any answer to make a place. */
		if (slot->state != SLOT_IDLE && slot->due_ns > 0)
			due_ns = min_i64(due_ns, slot->due_ns);
	}
	return due_ns;
}

static void expire(struct bench *bench)
{
	for (uint32_t i = 0; i < bench->slot_count; i++) {
		struct slot *slot = &bench->slots[i];

		if (slot->state != SLOT_RUNNING || now_ns(bench) < slot->due_ns)
			continue;
		vgpu_abandon(bench->client->vgpu, slot->id);
		slot->state = SLOT_IDLE;
		bench->running--;
		fail(bench, VGPU_E_TIMED_OUT);
	}
}

static struct slot *find_slot(struct bench *bench, uint32_t id)
{
	for (uint32_t i = 0; i < bench->slot_count; i++) {
		if (bench->slots[i].state == SLOT_RUNNING && bench->slots[i].id == id)
			return &bench->slots[i];
	}
	return NULL;
}

static void collect(struct bench *bench, int64_t wait_ns)
{
	struct vgpu_response response;
	struct slot *slot;
	uint32_t id;
	int r;

	r = vgpu_wait_any(bench->client->vgpu, wait_ns / NS_PER_US + 1, &id, &response);
	slot = find_slot(bench, id);
	if (slot) {
		finish(bench, slot, r, &response);
		return;
	}
	if (r == VGPU_E_TIMED_OUT) {
		expire(bench);
		return;
	}
	/* Not about one request: all of them are lost. */
	for (uint32_t i = 0; i < bench->slot_count; i++) {
		if (bench->slots[i].state == SLOT_RUNNING) {
			bench->slots[i].state = SLOT_IDLE;
			bench->running--;
			fail(bench, r);
		}
	}
	bench->fatal = r;
}

static void measure(struct bench *bench)
{
	int64_t due_ns;

	bench->start_ns = now_ns(bench);
	bench->end_ns = GUEST_NEVER;
	if (bench->client->options.seconds)
		bench->end_ns = bench->start_ns + bench->client->options.seconds * NS_PER_SEC;
	else if (!bench->client->options.count)
		bench->client->options.count = 1000;
	for (;;) {
		submit_due(bench);
		if (bench->running == 0 && bench->paused == 0 && !wants_more(bench))
			break;
		due_ns = next_due_ns(bench);
		if (bench->running)
			collect(bench, max_i64(0, due_ns - now_ns(bench)));
		else if (bench->paused)
			guest_env_sleep_ns(
				&bench->client->env,
				max_i64(0, min_i64(due_ns, bench->end_ns) - now_ns(bench)));
	}
	bench->end_ns = now_ns(bench);
}

/* ---- The report ----------------------------------------------------------------- */

static void report_latency(struct report *report, const struct histogram *latency_ns)
{
	static const struct {
		const char *key;
		unsigned int per_mille;
	} rows[] = {{"p50", 500}, {"p95", 950}, {"p99", 990}, {"p99_9", 999}};

	report_open(report, "latency_us");
	report_double(report, "min", (double)latency_ns->min / 1e3, 1);
	report_double(report, "mean", histogram_mean(latency_ns) / 1e3, 1);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		report_double(report, rows[i].key,
		              (double)histogram_quantile(latency_ns, rows[i].per_mille) / 1e3, 1);
	report_double(report, "max", (double)latency_ns->max / 1e3, 1);
	report_close(report);
}

static void report_bench(const struct bench *bench, bool ok)
{
	const struct options *options = &bench->client->options;
	double seconds = (double)(bench->end_ns - bench->start_ns) / 1e9;
	double n = (double)options->n;
	struct vgpu_stats stats;
	struct report report;

	vgpu_get_stats(bench->client->vgpu, &stats);
	client_report_begin(bench->client, &report, ok);
	report_text(&report, "op", bench->op->name);
	report_i64(&report, "outstanding", options->outstanding);
	report_double(&report, "seconds", seconds, 6);
	report_u64(&report, "requests", bench->started);
	report_u64(&report, "done", bench->done);
	report_u64(&report, "failed", bench->failed);
	report_u64(&report, "wrong", bench->wrong);
	report_u64(&report, "refused", stats.rate_limited);
	report_u64(&report, "retries", stats.retries);
	report_double(&report, "throughput_per_s", seconds > 0 ? (double)bench->done / seconds : 0,
	              1);
	if (bench->op->opcode == VGPU_OP_SGEMM && seconds > 0)
		report_double(&report, "gflops",
		              2 * n * n * n * (double)bench->done / seconds / 1e9, 1);
	report_double(&report, "gpu_us_mean",
	              bench->done ? (double)bench->gpu_us / (double)bench->done : 0, 1);
	if (bench->done)
		report_latency(&report, &bench->latency_ns);
	if (bench->failed) {
		report_open(&report, "errors");
		for (size_t i = 0; i < ARRAY_LEN(bench->errors); i++) {
			if (bench->errors[i])
				report_u64(&report, vgpu_strerror((int)i), bench->errors[i]);
		}
		report_close(&report);
	}
	report_end(&report);
}

enum outcome_status bench_run(struct client *client)
{
	CLEANUP(freep) struct bench *bench = calloc(1, sizeof(*bench));
	const char *remedy;
	int r;

	if (!bench)
		return client_fail(client, -ENOMEM, NULL, NULL);
	bench->client = client;
	bench->op = find_op(client->options.op);
	bench->slot_count = (uint32_t)client->options.outstanding;
	bench->expected.n = (uint32_t)client->options.n;
	bench->expected.seed = (uint32_t)client->options.seed;
	if (bench->op->opcode == VGPU_OP_SGEMM && !client->options.no_verify) {
		r = sgemm_expect(&bench->expected, bench->expected.n, bench->expected.seed);
		if (r < 0)
			return client_fail(client, r, NULL, NULL);
	}
	measure(bench);
	report_bench(bench, !bench->first_failure && !bench->wrong);
	if (bench->first_failure) {
		remedy = outcome_remedy(bench->first_failure);
		fprintf(stderr, "vgpu-client: bench: %" PRIu64 " request%s failed, first: %s%s%s\n",
		        bench->failed, plural_s(bench->failed), vgpu_strerror(bench->first_failure),
		        remedy ? "; " : "", remedy ? remedy : "");
		return outcome_status(bench->first_failure);
	}
	if (bench->wrong)
		fprintf(stderr, "vgpu-client: bench: %" PRIu64 " wrong answer%s\n", bench->wrong,
		        plural_s(bench->wrong));
	return bench->wrong ? OUTCOME_FAILED : OUTCOME_DONE;
}
