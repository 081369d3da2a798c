/* SPDX-License-Identifier: MIT */
/*
 * A job's life: refused, or accepted, queued, sent to a worker, answered.
 *
 * Whatever way it ends, it goes through job_answer(), which is the only place that
 * hands out answers of accepted jobs and frees their slots.
 */
#include <assert.h>
#include <errno.h>

#include "base/units.h"
#include "core/internal.h"

/* How long a guest waits before it asks again whether a GPU is back. */
enum { RESET_RETRY_US = 1000000 };

/* ---- Slots ------------------------------------------------------------------ */

static int grow_slots(struct core *core)
{
	uint32_t slots = core->job_slots, more = slots ? slots : FIRST_SLOTS;
	struct job **jobs;

	jobs = realloc(core->jobs, (slots + more) * sizeof(*jobs));
	if (!jobs)
		return -ENOMEM;
	core->jobs = jobs;
	for (uint32_t i = slots; i < slots + more; i++) {
		jobs[i] = calloc(1, sizeof(**jobs));
		if (!jobs[i])
			return i == slots ? -ENOMEM : 0;
		core->job_slots = i + 1;
		TAILQ_INSERT_TAIL(&core->free_jobs, jobs[i], link);
	}
	return 0;
}

static struct job *take_slot(struct core *core)
{
	struct job *job;

	if (TAILQ_EMPTY(&core->free_jobs) && grow_slots(core) < 0)
		return NULL;
	if (core_reserve_actions(core, core->job_count + 1, core->vm_count) < 0)
		return NULL;
	job = TAILQ_FIRST(&core->free_jobs);
	TAILQ_REMOVE(&core->free_jobs, job, link);
	job->id = ++core->last_job;
	core->job_count++;
	core->job_peak = (uint32_t)max_u64(core->job_peak, core->job_count);
	return job;
}

/* ---- Answers ------------------------------------------------------------------ */

static enum core_outcome outcome_of(enum vgpu_code code)
{
	switch (code) {
	case VGPU_CODE_OK:
		return CORE_OUTCOME_DONE;
	case VGPU_CODE_TIMEOUT:
		return CORE_OUTCOME_TIMEOUT;
	case VGPU_CODE_CANCELLED:
	case VGPU_CODE_RATE_LIMITED:
	case VGPU_CODE_QUARANTINED:
		return CORE_OUTCOME_CANCELLED;
	default:
		return CORE_OUTCOME_FAILED;
	}
}

/* Takes the job out of the list that its state names. */
static void leave_list(struct vm *vm, struct job *job)
{
	switch (job->state) {
	case JOB_OFFERED:
		vm->offered_count--;
		if (job == vm->last_offered)
			vm->last_offered = TAILQ_PREV(job, job_list, link);
		/* fall through */
	case JOB_QUEUED:
		TAILQ_REMOVE(&vm->queued, job, link);
		vm->queued_count--;
		break;
	case JOB_IN_FLIGHT:
		TAILQ_REMOVE(&vm->in_flight, job, link);
		vm->in_flight_count--;
		vm->on_gpu_count -= !job->without_gpu;
		break;
	case JOB_HELD:
		TAILQ_REMOVE(&vm->held, job, link);
		vm->held_count--;
		break;
	case JOB_FREE:
		assert(!"a free job is in no list");
	}
}

static void job_answer(struct core *core, struct vm *vm, struct job *job,
                       const struct core_answer *answer, void *result)
{
	struct core_action *action = core_push_action(core, CORE_ACTION_ANSWER, vm);

	action->job = job->id;
	action->opcode = job->opcode;
	action->client = job->client;
	action->cookie = job->cookie;
	action->payload = job->payload;
	action->result = result;
	action->answer = *answer;

	vm->outcomes[outcome_of(answer->code)]++;
	histogram_record(&vm->latency, core->now_ns - job->accepted_ns);
	leave_list(vm, job);
	vm->payload_bytes -= job->bytes;
	job->state = JOB_FREE;
	job->payload = NULL;
	TAILQ_INSERT_HEAD(&core->free_jobs, job, link);
	core->job_count--;
}

/* Jobs of the queue were answered; before that @offered of it were. */
static void left_unsent(struct core *core, struct vm *vm, uint32_t offered)
{
	if (offered > vm->offered_count)
		core_policy(core)->jobs_dropped(core->gpus[vm->gpu].sched, core->now_ns, vm->sched,
		                                offered - vm->offered_count);
	jobs_move_on(core, vm);
}

void jobs_answer_queued(struct core *core, struct vm *vm, uint64_t client, enum vgpu_code code)
{
	struct core_answer answer = {.code = code, .command = UINT32_MAX};
	uint32_t offered = vm->offered_count;
	struct job *job, *next;

	if (code == VGPU_CODE_RATE_LIMITED) {
		answer.detail = VGPU_BUSY_GPU_RESET;
		answer.retry_after_us = RESET_RETRY_US;
	}
	for (job = TAILQ_FIRST(&vm->queued); job; job = next) {
		next = TAILQ_NEXT(job, link);
		if (client != CORE_NO_CLIENT && job->client != client)
			continue;
		job_answer(core, vm, job, &answer, NULL);
	}
	left_unsent(core, vm, offered);
}

/* Keeps the answer until jobs_release_held(); the job stays the VM's. */
static void job_hold(struct vm *vm, struct job *job, const struct core_answer *answer, void *result)
{
	leave_list(vm, job);
	job->state = JOB_HELD;
	job->answer = *answer;
	job->result = result;
	TAILQ_INSERT_TAIL(&vm->held, job, link);
	vm->held_count++;
}

void jobs_release_held(struct core *core, struct vm *vm)
{
	struct job *job;

	while ((job = TAILQ_FIRST(&vm->held)))
		job_answer(core, vm, job, &job->answer, TAKE_PTR(job->result));
}

void jobs_fail_in_flight(struct core *core, struct vm *vm, enum vgpu_code code)
{
	const struct core_answer answer = {.code = code, .command = UINT32_MAX};
	struct job *job;

	while ((job = TAILQ_FIRST(&vm->in_flight)))
		job_answer(core, vm, job, &answer, NULL);
}

void jobs_blame_oldest(struct core *core, struct vm *vm, enum vgpu_code code)
{
	const struct core_answer answer = {.code = code, .command = UINT32_MAX};
	struct job *job = TAILQ_FIRST(&vm->in_flight);

	if (job)
		job_hold(vm, job, &answer, NULL);
	jobs_fail_in_flight(core, vm, VGPU_CODE_CONTEXT_LOST);
}

/* ---- Submission ----------------------------------------------------------------- */

static void refuse(struct core *core, struct vm *vm, const struct core_submission *submission,
                   enum core_refusal why, const struct core_answer *answer)
{
	struct core_action *action = core_push_action(core, CORE_ACTION_ANSWER, vm);

	vm->refusals[why]++;
	action->opcode = submission->opcode;
	action->client = submission->client;
	action->cookie = submission->cookie;
	action->payload = submission->payload;
	action->answer = *answer;
	action->answer.command = UINT32_MAX;
}

static uint32_t to_retry_us(int64_t ns)
{
	return (uint32_t)min_i64((ns + NS_PER_US - 1) / NS_PER_US, UINT32_MAX);
}

/* How long a full queue of this VM may take for one job: what a refused guest waits. */
static int64_t depth_retry_ns(const struct core *core, const struct vm *vm)
{
	struct sched_vm_stats stats;

	core_policy(core)->vm_stats(core->gpus[vm->gpu].sched, vm->sched, &stats);
	return max_i64(stats.estimate_job_ns, NS_PER_MS);
}

/* The VM's own limits. True if the job may come in. */
static bool within_limits(struct core *core, struct vm *vm, enum core_refusal *why,
                          struct core_answer *answer)
{
	struct sched *sched = core->gpus[vm->gpu].sched;
	int64_t retry_ns = 0;

	answer->code = VGPU_CODE_RATE_LIMITED;
	if (vm->settings.queue_depth && vm_depth(vm) >= vm->settings.queue_depth) {
		*why = CORE_REFUSAL_DEPTH;
		answer->detail = VGPU_BUSY_DEPTH;
		answer->retry_after_us = to_retry_us(depth_retry_ns(core, vm));
		return false;
	}
	if (vm->settings.gpu_thousandths) {
		int64_t charged_ns = core_policy(core)->charged_ns(sched, core->now_ns, vm->sched);

		retry_ns =
			limit_budget_debt_ns(&vm->budget, &vm->settings, core->now_ns, charged_ns);
		if (retry_ns > 0) {
			*why = CORE_REFUSAL_GPU_SECONDS;
			answer->detail = VGPU_BUSY_RATE;
			answer->retry_after_us = to_retry_us(retry_ns);
			return false;
		}
	}
	if (!limit_rate_take(&vm->rate, &vm->settings, core->now_ns, &retry_ns)) {
		*why = CORE_REFUSAL_RATE;
		answer->detail = VGPU_BUSY_RATE;
		answer->retry_after_us = to_retry_us(retry_ns);
		return false;
	}
	return true;
}

/* True if the job may come in; else why not, and what to answer. */
static bool admit(struct core *core, struct vm *vm, const struct core_submission *submission,
                  enum core_refusal *why, struct core_answer *answer)
{
	*answer = (struct core_answer){.code = VGPU_CODE_OK};
	if (submission->malformed != VGPU_CODE_OK) {
		*why = CORE_REFUSAL_INVALID;
		answer->code = submission->malformed;
	} else if (vm->quarantined) {
		*why = CORE_REFUSAL_QUARANTINE;
		answer->code = VGPU_CODE_QUARANTINED;
	} else if (!core->config.pools[vm->settings.pool].enabled) {
		*why = CORE_REFUSAL_POOL_DISABLED;
		answer->code = VGPU_CODE_INVALID_POOL;
	} else if (core->gpus[vm->gpu].draining) {
		*why = CORE_REFUSAL_GPU_RESET;
		answer->code = VGPU_CODE_RATE_LIMITED;
		answer->detail = VGPU_BUSY_GPU_RESET;
		answer->retry_after_us = RESET_RETRY_US;
	} else if (core->stopping || vm->removing || vm->worker.stuck ||
	           worker_is_failing(core, vm)) {
		*why = CORE_REFUSAL_UNAVAILABLE;
		answer->code = VGPU_CODE_UNAVAILABLE;
	} else {
		return within_limits(core, vm, why, answer);
	}
	return false;
}

int core_job_submitted(struct core *core, int64_t now_ns, uint32_t number,
                       const struct core_submission *submission)
{
	struct vm *vm = core_find_vm(core, number);
	struct core_answer answer;
	enum core_refusal why;
	struct job *job;

	assert(submission->client != CORE_NO_CLIENT);
	CORE_NOTE(core, CORE_EVENT_JOB_SUBMITTED, submission, now_ns, number);
	core_advance(core, now_ns);
	if (!admit(core, vm, submission, &why, &answer)) {
		vm->submitted++;
		refuse(core, vm, submission, why, &answer);
		return 0;
	}
	job = take_slot(core);
	if (!job)
		return -ENOMEM;
	vm->submitted++;
	job->state = JOB_QUEUED;
	job->client = submission->client;
	job->cookie = submission->cookie;
	job->opcode = submission->opcode;
	job->bytes = submission->bytes;
	job->without_gpu = submission->without_gpu;
	job->payload = submission->payload;
	job->accepted_ns = core->now_ns;
	TAILQ_INSERT_TAIL(&vm->queued, job, link);
	vm->queued_count++;
	vm->payload_bytes += job->bytes;
	jobs_move_on(core, vm);
	worker_settle(core, vm);
	core_dispatch(core);
	return 0;
}

void core_client_gone(struct core *core, int64_t now_ns, uint32_t number, uint64_t client)
{
	struct vm *vm = core_find_vm(core, number);

	assert(client != CORE_NO_CLIENT);
	CORE_NOTE(core, CORE_EVENT_CLIENT_GONE, NULL, now_ns, number, (int64_t)client);
	core_advance(core, now_ns);
	jobs_answer_queued(core, vm, client, VGPU_CODE_CANCELLED);
	worker_settle(core, vm);
	core_dispatch(core);
}

/* ---- In flight -------------------------------------------------------------------- */

int64_t job_limit_ns(const struct core *core, const struct vm *vm)
{
	const struct core_pool_config *pool = &core->config.pools[vm->settings.pool];
	int64_t limit_ns = core->config.job_timeout_ns;

	if (vm->settings.job_timeout_ms)
		limit_ns = vm->settings.job_timeout_ms * NS_PER_MS;
	else if (pool->job_timeout_ns)
		limit_ns = pool->job_timeout_ns;
	/* A VM that hangs again and again must not thin everybody's share each time. */
	if (vm->short_limit)
		limit_ns = min_i64(limit_ns, max_i64(limit_ns / 10, NS_PER_SEC));
	return limit_ns;
}

/* The oldest job in flight has changed: its limit counts from here. */
static void head_changed(struct core *core, struct vm *vm)
{
	vm->head_part_ns = core->gpus[vm->gpu].part_ns;
	vm->head_charged_ns =
		core_policy(core)->charged_ns(core->gpus[vm->gpu].sched, core->now_ns, vm->sched);
}

/* The oldest job that is not sent. */
static void send_head(struct core *core, struct vm *vm)
{
	struct core_action *action = core_push_action(core, CORE_ACTION_SEND_JOB, vm);
	struct job *job = TAILQ_FIRST(&vm->queued);

	leave_list(vm, job);
	TAILQ_INSERT_TAIL(&vm->in_flight, job, link);
	vm->in_flight_count++;
	vm->on_gpu_count += !job->without_gpu;
	job->state = JOB_IN_FLIGHT;
	job->sent_ns = core->now_ns;
	histogram_record(&core->pools[vm->settings.pool].wait, core->now_ns - job->accepted_ns);
	if (vm->in_flight_count == 1)
		head_changed(core, vm);
	action->job = job->id;
	action->opcode = job->opcode;
	action->payload = job->payload;
}

void job_send_offered(struct core *core, struct vm *vm)
{
	assert(TAILQ_FIRST(&vm->queued)->state == JOB_OFFERED);
	send_head(core, vm);
	worker_settle(core, vm);
}

/* The oldest job that the scheduler does not know of. */
static struct job *first_unoffered(const struct vm *vm)
{
	return vm->last_offered ? TAILQ_NEXT(vm->last_offered, link) : TAILQ_FIRST(&vm->queued);
}

/*
 * Jobs are sent in their order, and none is sent behind one that may hang on the GPU but by
 * the scheduler: those that need no GPU wait until those before them are answered.
 */
void jobs_move_on(struct core *core, struct vm *vm)
{
	struct job *job;

	while ((job = first_unoffered(vm))) {
		if (!job->without_gpu) {
			job->state = JOB_OFFERED;
			vm->last_offered = job;
			vm->offered_count++;
			core_policy(core)->job_queued(core->gpus[vm->gpu].sched, core->now_ns,
			                              vm->sched);
		} else if (worker_takes_jobs(core, vm) && !vm->offered_count && !vm->on_gpu_count &&
		           vm->in_flight_count < CORE_WITHOUT_GPU_MAX) {
			send_head(core, vm);
		} else {
			return;
		}
	}
}

/* Nothing that was sent to that worker can succeed, and nothing more must be sent to it. */
static void context_is_lost(struct core *core, struct vm *vm, struct job *job,
                            const struct core_answer *answer, void *result)
{
	worker_kill(core, vm);
	vm_fault(core, vm, CORE_FAULT_GPU, answer->detail);
	job_hold(vm, job, answer, result);
	jobs_fail_in_flight(core, vm, VGPU_CODE_CONTEXT_LOST);
}

/* The job of that name, if the VM's present worker has it. */
static struct job *find_in_flight(const struct vm *vm, uint64_t generation, uint64_t id)
{
	struct job *job;

	if (vm->worker.state != CORE_WORKER_READY || vm->worker.generation != generation)
		return NULL;
	TAILQ_FOREACH (job, &vm->in_flight, link) {
		if (job->id == id)
			return job;
	}
	return NULL;
}

int core_job_done(struct core *core, int64_t now_ns, uint32_t number, uint64_t generation,
                  uint64_t id, const struct core_result *result)
{
	struct vm *vm = number < core->vm_slots ? core->vms[number] : NULL;
	struct core_answer answer = {
		.code = result->code,
		.detail = result->detail,
		.command = result->command,
	};
	uint64_t gpu_time_ns;
	struct job *job;
	bool was_oldest, without_gpu;

	CORE_NOTE(core, CORE_EVENT_JOB_DONE, result, now_ns, number, (int64_t)generation,
	          (int64_t)id);
	core_advance(core, now_ns);
	job = vm ? find_in_flight(vm, generation, id) : NULL;
	if (!job) {
		core->stale_events++;
		return -ESTALE;
	}
	was_oldest = job == TAILQ_FIRST(&vm->in_flight);
	gpu_time_ns = min_u64(result->gpu_time_ns, (uint64_t)(core->now_ns - job->sent_ns));
	answer.gpu_time_us = (uint32_t)min_u64(gpu_time_ns / NS_PER_US, UINT32_MAX);
	vm->job_gpu_ns += gpu_time_ns;
	vm->executed++;
	histogram_record(&core->pools[vm->settings.pool].execution, (int64_t)gpu_time_ns);
	if (result->context_lost) {
		context_is_lost(core, vm, job, &answer, result->result);
	} else {
		without_gpu = job->without_gpu;
		if (answer.code == VGPU_CODE_OK && !without_gpu)
			vm_success(core, vm);
		job_answer(core, vm, job, &answer, result->result);
		/* Before the scheduler hears of it: its turn goes on if there is more. */
		jobs_move_on(core, vm);
		if (!without_gpu)
			core_policy(core)->job_done(core->gpus[vm->gpu].sched, core->now_ns,
			                            vm->sched);
		if (was_oldest)
			head_changed(core, vm);
	}
	worker_settle(core, vm);
	core_dispatch(core);
	return 0;
}

/* ---- For operators -------------------------------------------------------------------- */

static void walk_list(const struct core *core, const struct vm *vm, const struct job_list *list,
                      void (*each)(void *context, const struct core_job_info *info), void *context)
{
	const struct job *job;

	TAILQ_FOREACH (job, list, link) {
		const struct core_job_info info = {
			.id = job->id,
			.owner = vm->owner,
			.opcode = job->opcode,
			.running = job->state == JOB_IN_FLIGHT,
			.age_ns = core->now_ns - job->accepted_ns,
		};

		each(context, &info);
	}
}

void core_jobs_walk(const struct core *core,
                    void (*each)(void *context, const struct core_job_info *info), void *context)
{
	for (uint32_t i = 0; i < core->vm_slots; i++) {
		if (!core->vms[i])
			continue;
		walk_list(core, core->vms[i], &core->vms[i]->in_flight, each, context);
		walk_list(core, core->vms[i], &core->vms[i]->queued, each, context);
	}
}

static struct job *find_job(const struct core *core, uint64_t id, struct vm **vm)
{
	struct job *job;

	for (uint32_t i = 0; i < core->vm_slots; i++) {
		*vm = core->vms[i];
		if (!*vm)
			continue;
		TAILQ_FOREACH (job, &(*vm)->queued, link) {
			if (job->id == id)
				return job;
		}
		TAILQ_FOREACH (job, &(*vm)->in_flight, link) {
			if (job->id == id)
				return job;
		}
	}
	return NULL;
}

int core_job_cancel(struct core *core, int64_t now_ns, uint64_t id)
{
	const struct core_answer answer = {.code = VGPU_CODE_CANCELLED, .command = UINT32_MAX};
	struct vm *vm;
	struct job *job = find_job(core, id, &vm);
	uint32_t offered;

	CORE_NOTE(core, CORE_EVENT_JOB_CANCEL, NULL, now_ns, (int64_t)id);
	core_advance(core, now_ns);
	if (!job)
		return -ENOENT;
	if (job->state != JOB_IN_FLIGHT) {
		offered = vm->offered_count;
		job_answer(core, vm, job, &answer, NULL);
		left_unsent(core, vm, offered);
	} else {
		job_answer(core, vm, job, &answer, NULL);
		jobs_fail_in_flight(core, vm, VGPU_CODE_CONTEXT_LOST);
		worker_kill(core, vm);
	}
	worker_settle(core, vm);
	core_dispatch(core);
	return 0;
}
