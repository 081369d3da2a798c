/* SPDX-License-Identifier: MIT */
/*
 * Jobs and workers: whether what an action says of them makes sense.
 */
#include "sim/audit_internal.h"

enum { SENT_MAX = 4 }; /* of jobs that need the GPU */

struct sim_job *audit_oldest_sent(const struct world *world, uint32_t number)
{
	struct sim_job *job;

	TAILQ_FOREACH (job, &world->vms[number].jobs, link) {
		if (job->watch.state == WATCH_SENT)
			return job;
		if (job->watch.state == WATCH_QUEUED)
			return NULL;
	}
	return NULL;
}

void audit_accepted(struct world *world, uint32_t number, struct sim_job *job)
{
	struct audit *audit = world->options->audit;
	struct audit_vm *vm = &audit->vms[number];

	if (vm->expected != VGPU_CODE_OK)
		audit_violated(audit, world, number, "a job is accepted that had to be refused");
	audit_fill_bucket(audit, vm, &world->vms[number].settings);
	job->watch.state = WATCH_QUEUED;
	vm->submitted = NULL;
	vm->unanswered++;
}

/* Over its GPU seconds a VM is refused, which comes before its rate and is seen outside. */
static bool may_be_throttled(const struct world *world, uint32_t number,
                             const struct core_answer *answer)
{
	const struct audit_vm *vm = &world->options->audit->vms[number];

	return world->vms[number].settings.gpu_thousandths &&
	       answer->code == VGPU_CODE_RATE_LIMITED && answer->detail == VGPU_BUSY_RATE &&
	       (vm->expected == VGPU_CODE_OK ||
	        (vm->expected == VGPU_CODE_RATE_LIMITED && vm->expected_detail == VGPU_BUSY_RATE));
}

static void count_refusal(struct audit *audit, const struct core_answer *answer)
{
	static const enum rare_path busy[] = {
		[VGPU_BUSY_RATE] = RARE_RATE,
		[VGPU_BUSY_DEPTH] = RARE_DEPTH,
		[VGPU_BUSY_GPU_RESET] = RARE_DRAIN_REFUSED,
	};

	if (answer->code == VGPU_CODE_RATE_LIMITED)
		audit->rare[busy[answer->detail]]++;
	audit->rare[RARE_POOL_OFF] += answer->code == VGPU_CODE_INVALID_POOL;
	audit->rare[RARE_MALFORMED] += answer->code == VGPU_CODE_INVALID_REQUEST;
}

static void check_refusal(struct world *world, uint32_t number, const struct core_answer *answer)
{
	struct audit *audit = world->options->audit;
	struct audit_vm *vm = &audit->vms[number];
	bool as_expected =
		answer->code == vm->expected && answer->detail == vm->expected_detail &&
		(vm->expected_hint_us < 0 || answer->retry_after_us == vm->expected_hint_us);

	vm->submitted = NULL;
	if (answer->code == VGPU_CODE_RATE_LIMITED && answer->retry_after_us == 0)
		audit_violated(audit, world, number, "a refusal does not say when to come again");
	if (as_expected)
		count_refusal(audit, answer);
	else if (may_be_throttled(world, number, answer))
		audit->rare[RARE_THROTTLED]++;
	else
		audit_violated(audit, world, number,
		               "a job is refused otherwise than it had to be");
}

/* Whether something has given cause to answer a job that no worker ever had. */
static bool has_cause(const struct world *world, uint32_t number, enum vgpu_code code)
{
	const struct audit_vm *vm = &world->options->audit->vms[number];

	switch (code) {
	case VGPU_CODE_CANCELLED:
		return vm->may_cancel || world->vms[number].leaving;
	case VGPU_CODE_UNAVAILABLE:
		return vm->start_failed || vm->stuck;
	case VGPU_CODE_RATE_LIMITED:
		return world->draining[0] || world->draining[1];
	case VGPU_CODE_QUARANTINED:
		return vm->quarantined;
	default:
		return false;
	}
}

static void check_sent(struct world *world, uint32_t number, const struct sim_job *job,
                       enum vgpu_code code)
{
	struct audit *audit = world->options->audit;
	struct audit_vm *vm = &audit->vms[number];

	if (job->watch.reported) {
		if (code != job->watch.code)
			audit_violated(audit, world, number, "an answer is not the worker's");
		return;
	}
	vm->context_lost = true;
	audit->rare[RARE_CANCELLED_RUNNING] += code == VGPU_CODE_CANCELLED;
	if (code == VGPU_CODE_CONTEXT_LOST || (code == VGPU_CODE_CANCELLED && vm->may_cancel))
		return;
	audit_violated(audit, world, number, "a job fails without a cause");
}

/* Held until its fault was stored, or could not be. */
static void check_held(struct world *world, uint32_t number, const struct sim_job *job,
                       enum vgpu_code code)
{
	struct audit *audit = world->options->audit;

	if (audit->vms[number].awaited)
		audit_violated(audit, world, number, "an answer leaves before its fault is stored");
	if (code != job->watch.code)
		audit_violated(audit, world, number, "a held answer has become another");
}

void audit_check_answer(struct world *world, uint32_t number, const struct core_action *action)
{
	struct audit *audit = world->options->audit;
	struct audit_vm *vm = &audit->vms[number];
	const struct sim_job *job = action->payload;
	enum vgpu_code code = action->answer.code;

	if (job == vm->submitted) {
		check_refusal(world, number, &action->answer);
		return;
	}
	if (job->watch.state == WATCH_QUEUED) {
		if (!has_cause(world, number, code))
			audit_violated(audit, world, number,
			               "a job in a queue is answered without a cause");
		audit->rare[RARE_CANCELLED_QUEUED] += code == VGPU_CODE_CANCELLED;
		audit->rare[RARE_DRAIN_REFUSED] += code == VGPU_CODE_RATE_LIMITED;
	} else if (job->watch.state == WATCH_HELD) {
		check_held(world, number, job, code);
	} else {
		check_sent(world, number, job, code);
		vm->sent--;
	}
	vm->unanswered--;
	vm->answered++;
}

/* How many of the jobs that the worker has need the GPU, or do not. */
static uint32_t count_sent(const struct world *world, uint32_t number, bool without_gpu)
{
	const struct sim_job *job;
	uint32_t count = 0;

	TAILQ_FOREACH (job, &world->vms[number].jobs, link)
		count += job->watch.state == WATCH_SENT && (job->length_ns == 0) == without_gpu;
	return count;
}

static const char *check_out(const struct world *world, uint32_t number, const struct sim_job *job)
{
	if (job->length_ns)
		return count_sent(world, number, false) < SENT_MAX
		               ? NULL
		               : "too many jobs of a VM are sent at once";
	if (count_sent(world, number, false))
		return "a job that needs no GPU is sent behind one that does";
	return count_sent(world, number, true) < CORE_WITHOUT_GPU_MAX
	               ? NULL
	               : "too many jobs of a VM that need no GPU are sent at once";
}

void audit_check_send(struct world *world, uint32_t number, const struct core_action *action)
{
	struct audit *audit = world->options->audit;
	struct audit_vm *vm = &audit->vms[number];
	struct sim_job *job = action->payload;
	const char *wrong;

	if (job == vm->submitted)
		audit_accepted(world, number, job);
	if (job->watch.state != WATCH_QUEUED)
		audit_violated(audit, world, number, "a job is sent twice");
	if (job->watch.number <= vm->last_sent)
		audit_violated(audit, world, number, "a job is sent before an older one");
	if (vm->worker != CORE_WORKER_READY || vm->generation != action->generation)
		audit_violated(audit, world, number, "a job is sent to a worker that is not there");
	if (vm->quarantined || vm->awaited)
		audit_violated(audit, world, number, "a job of a VM in quarantine is sent");
	if (world->draining[vm->gpu])
		audit_violated(audit, world, number, "a job is sent to a GPU that is drained");
	audit_pay(audit, vm, audit_charged_ns(world, number));
	wrong = check_out(world, number, job);
	if (wrong)
		audit_violated(audit, world, number, wrong);
	if (job->length_ns && vm->in_debt && vm->balance < -1000 * AUDIT_REFUND_NS)
		audit_violated(audit, world, number, "a job is sent beyond the VM's GPU seconds");
	job->watch.state = WATCH_SENT;
	job->watch.id = action->job;
	vm->settled = true;
	vm->last_sent = job->watch.number;
	vm->sent++;
	audit->rare[RARE_WITHOUT_GPU] += job->length_ns == 0;
}

/* ---- Workers -------------------------------------------------------------------------- */

static uint32_t count_workers(const struct audit *audit)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < SCENARIO_VMS; i++)
		count += audit->vms[i].worker != CORE_WORKER_NONE;
	return count;
}

static const char *check_start(struct world *world, struct audit_vm *vm,
                               const struct core_action *action)
{
	struct audit *audit = world->options->audit;
	uint32_t others = count_workers(audit);

	if (vm->worker != CORE_WORKER_NONE || action->generation <= vm->generation)
		return "a worker is started beside another";
	if (others >= world->rules.core.max_workers)
		return "a worker is started that has no place";
	if (world->draining[action->gpu])
		return "a worker is started on a GPU that is drained";
	if (vm->awaited || vm->quarantined)
		return "a worker is started for a VM in quarantine";
	audit->rare[RARE_AWAY] += vm->gpu != action->gpu && world->draining[vm->gpu];
	vm->worker = CORE_WORKER_STARTING;
	vm->since_ns = audit->now_ns;
	vm->was_ready = false;
	vm->generation = action->generation;
	vm->gpu = action->gpu;
	return NULL;
}

static const char *check_end(struct world *world, uint32_t number, struct audit_vm *vm,
                             const struct core_action *action)
{
	struct audit *audit = world->options->audit;
	bool stop = action->type == CORE_ACTION_STOP_WORKER;

	if (action->generation != vm->generation || vm->worker == CORE_WORKER_NONE ||
	    vm->worker == CORE_WORKER_KILLED || (stop && vm->worker != CORE_WORKER_READY))
		return "a worker is ended that is not there";
	if (stop && vm->sent)
		return "a worker is stopped while it has jobs";
	if (!stop && vm->worker == CORE_WORKER_READY && vm->sent && !vm->context_lost)
		audit_timeout(world, number);
	if (stop && vm->unanswered && !vm->awaited && !world->draining[vm->gpu] &&
	    !world->vms[number].leaving)
		audit->rare[RARE_MADE_ROOM]++;
	vm->context_lost |= !stop;
	vm->worker = stop ? CORE_WORKER_STOPPING : CORE_WORKER_KILLED;
	vm->since_ns = audit->now_ns;
	return NULL;
}

static const char *check_stuck(struct world *world, struct audit_vm *vm,
                               const struct core_action *action)
{
	struct audit *audit = world->options->audit;

	if (action->generation != vm->generation || vm->worker != CORE_WORKER_KILLED || vm->stuck)
		return "a worker is stuck that is not";
	if (audit->now_ns - vm->since_ns < world->rules.core.worker_kill_timeout_ns)
		return "a worker is given up too early";
	vm->stuck = true;
	audit->rare[RARE_STUCK]++;
	return NULL;
}

void audit_unstuck(struct world *world, uint32_t gpu)
{
	struct audit *audit = world->options->audit;
	bool others = false;

	for (uint32_t i = 0; i < world->scenario->vm_count; i++)
		others |= audit->vms[i].stuck && audit->vms[i].gpu == gpu;
	audit->freed_due[gpu] = !others;
	audit->rare[RARE_UNSTUCK]++;
}

static const char *check_freed(struct audit *audit, const struct core_action *action)
{
	if (!audit->freed_due[action->gpu])
		return "a worker is stuck no more that was not";
	audit->freed_due[action->gpu] = false;
	return NULL;
}

bool audit_is_failing(const struct audit *audit, const struct audit_vm *vm)
{
	return vm->worker == CORE_WORKER_NONE && vm->failed_starts >= CORE_FAILING_STARTS &&
	       audit->now_ns < vm->start_not_before_ns;
}

void audit_count_failed_starts(struct world *world, uint32_t number, uint32_t failed_starts)
{
	const struct core_config *config = &world->rules.core;
	struct audit *audit = world->options->audit;
	struct audit_vm *vm = &audit->vms[number];
	int64_t backoff_ns = config->worker_backoff_min_ns;

	if (failed_starts > vm->failed_starts) {
		/* Whoever calls a start off does not let it fail; that is not seen from here. */
		if (failed_starts != vm->failed_starts + 1 || !vm->start_failed)
			audit_violated(audit, world, number,
			               "a start is counted that did not fail");
		for (uint32_t i = 1;
		     i < failed_starts && backoff_ns < config->worker_backoff_max_ns; i++)
			backoff_ns = min_i64(2 * backoff_ns, config->worker_backoff_max_ns);
		vm->start_not_before_ns = audit->now_ns + backoff_ns;
	}
	vm->failed_starts = failed_starts;
	audit->rare[RARE_FAILING] += audit_is_failing(audit, vm);
}

void audit_check_worker(struct world *world, uint32_t number, const struct core_action *action)
{
	struct audit *audit = world->options->audit;
	struct audit_vm *vm = &audit->vms[number];
	const char *wrong;

	if (action->type == CORE_ACTION_WORKER_FAILING)
		wrong = vm->start_failed ? NULL : "no start has failed";
	else if (action->type == CORE_ACTION_WORKER_FREED)
		wrong = check_freed(audit, action);
	else if (action->type == CORE_ACTION_WORKER_STUCK)
		wrong = check_stuck(world, vm, action);
	else if (action->type == CORE_ACTION_START_WORKER)
		wrong = check_start(world, vm, action);
	else
		wrong = check_end(world, number, vm, action);
	if (wrong)
		audit_violated(audit, world, number, wrong);
}
