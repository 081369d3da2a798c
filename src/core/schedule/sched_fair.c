/* SPDX-License-Identifier: MIT */
/*
 * The fair scheduler: start-time fair queuing (P. Goyal, H. M. Vin, H. Cheng,
 * "Start-time Fair Queuing", IEEE/ACM Transactions on Networking 5(5), 1997) over
 * charged GPU time, each VM in proportion to phi = weight times priority factor.
 *
 * It deviates in four points. A charge is known only afterwards, so an estimate
 * takes the place of the packet's length, and only in the order. Several turns may be
 * open at once, so virtual time is not the start tag in service: it stops at kappa,
 * the least tag that anyone present was promised or has reached. A VM that wakes may
 * lead that by wake_lead. And demand and waiting discount the estimate, so that they
 * change the order inside the bounds and can starve nobody.
 *
 * This file is the interface: VMs and jobs come and go. Everything is integers.
 */
#include <assert.h>
#include <errno.h>

#include "core/schedule/sched_fair.h"

const struct sched_config sched_config_default = {
	.quantum_ns = 4 * NS_PER_MS,
	.slice_ns = 2300 * NS_PER_US,
	.handover_ns = 150 * NS_PER_US,
	.overlap_after_ns = 50 * NS_PER_MS,
	.wake_lead_ns = 200 * NS_PER_MS,
	.anticipation_ns = 150 * NS_PER_US,
	.overlap_max = FAIR_OPEN_MAX,
	.boost_percent = 50,
};

static void set_config(struct sched *sched, const struct sched_config *config)
{
	struct sched_config *widest = &sched->widest;

	sched->config = *config;
	run_list_configure(&sched->run, config->slice_ns, config->handover_ns);
	widest->quantum_ns = max_i64(widest->quantum_ns, config->quantum_ns);
	widest->handover_ns = max_i64(widest->handover_ns, config->handover_ns);
	widest->wake_lead_ns = max_i64(widest->wake_lead_ns, config->wake_lead_ns);
	widest->anticipation_ns = max_i64(widest->anticipation_ns, config->anticipation_ns);
	if (sched->config.overlap_max > FAIR_OPEN_MAX)
		sched->config.overlap_max = FAIR_OPEN_MAX;
	sched->open_bound = max_u64(sched->open_count, (uint32_t)sched->config.overlap_max);
}

static int create(struct sched **out, const struct sched_config *config,
                  int64_t (*head_since_ns)(const void *owner), int64_t now_ns)
{
	struct sched *sched = calloc(1, sizeof(*sched));

	if (!sched)
		return -ENOMEM;
	TAILQ_INIT(&sched->all);
	TAILQ_INIT(&sched->open);
	run_list_init(&sched->run);
	set_config(sched, config);
	sched->head_since_ns = head_since_ns;
	sched->created_ns = now_ns;
	sched->charged_to_ns = now_ns;
	sched->look_at_ns = SCHED_NEVER;
	*out = sched;
	return 0;
}

static void destroy(struct sched *sched)
{
	struct sched_vm *vm;

	if (!sched)
		return;
	while ((vm = TAILQ_FIRST(&sched->all))) {
		TAILQ_REMOVE(&sched->all, vm, all_link);
		free(vm);
	}
	free(sched->ready.vms);
	free(sched->ready.least);
	free(sched);
}

static void configure(struct sched *sched, int64_t now_ns, const struct sched_config *config)
{
	struct sched_vm *vm;

	fair_advance(sched, now_ns);
	set_config(sched, config);
	TAILQ_FOREACH (vm, &sched->all, all_link) {
		if (vm->ready_index == 0)
			continue;
		fair_ready_remove(&sched->ready, vm);
		fair_set_admission(sched, vm);
		fair_ready_insert(&sched->ready, vm);
	}
}

static int vm_add(struct sched *sched, int64_t now_ns, struct sched_vm **out, uint32_t id,
                  int32_t phi, uint32_t priority, int64_t lag, void *owner)
{
	struct sched_vm *vm;

	if (fair_ready_reserve(&sched->ready, sched->vm_count + 1) < 0)
		return -ENOMEM;
	vm = calloc(1, sizeof(*vm));
	if (!vm)
		return -ENOMEM;
	fair_advance(sched, now_ns);
	vm->id = id;
	vm->owner = owner;
	vm->phi = phi;
	vm->next_phi = phi;
	vm->priority = priority;
	vm->moved_lag = max_i64(0, lag);
	vm->finish_tag = sched->virtual_time + vm->moved_lag;
	TAILQ_INSERT_TAIL(&sched->all, vm, all_link);
	sched->vm_count++;
	*out = vm;
	return 0;
}

static int64_t vm_remove(struct sched *sched, int64_t now_ns, struct sched_vm *vm)
{
	int64_t lag;

	fair_advance(sched, now_ns);
	assert(vm->queued == 0 && vm->in_flight == 0);
	vm->enabled = false;
	if (vm->open)
		fair_end_turn(sched, vm, now_ns);
	lag = max_i64(0, vm->finish_tag - sched->virtual_time);
	if (sched->last_granted == vm)
		sched->last_granted = NULL;
	sched->gone_ns += vm->charged_ns;
	TAILQ_REMOVE(&sched->all, vm, all_link);
	sched->vm_count--;
	free(vm);
	return lag;
}

static void vm_set_phi(struct sched *sched, int64_t now_ns, struct sched_vm *vm, int32_t phi,
                       uint32_t priority)
{
	bool ready = vm->ready_index > 0;

	fair_advance(sched, now_ns);
	if (ready)
		fair_ready_remove(&sched->ready, vm);
	vm->priority = priority;
	if (ready)
		fair_ready_insert(&sched->ready, vm);
	vm->next_phi = phi;
	fair_apply_phi(sched, vm);
}

/* What a VM's turn and its place among the ready ones need once it may not run. */
static void withdraw(struct sched *sched, struct sched_vm *vm, int64_t now_ns)
{
	if (vm->ready_index)
		fair_ready_remove(&sched->ready, vm);
	if (vm->open && vm->in_flight == 0)
		fair_end_turn(sched, vm, now_ns);
	fair_settle_idle(sched);
}

static void vm_enable(struct sched *sched, int64_t now_ns, struct sched_vm *vm, bool enabled)
{
	fair_advance(sched, now_ns);
	vm->enabled = enabled;
	if (enabled)
		fair_make_ready(sched, vm, now_ns, true);
	else
		withdraw(sched, vm, now_ns);
}

/* Did the VM come back as quickly as the GPU would have waited for it? */
static void learn_return(struct sched *sched, struct sched_vm *vm, int64_t now_ns)
{
	if (vm->queued || vm->in_flight || !vm->answered_once)
		return;
	if (now_ns - vm->last_answer_ns > fair_wait_ns(sched, vm))
		vm->hit -= vm->hit > 0;
	else
		vm->hit += vm->hit < FAIR_HIT_MAX;
}

static void job_queued(struct sched *sched, int64_t now_ns, struct sched_vm *vm)
{
	fair_advance(sched, now_ns);
	learn_return(sched, vm, now_ns);
	vm->queued++;
	vm->waiting = false;
	fair_make_ready(sched, vm, now_ns, true);
}

static void jobs_dropped(struct sched *sched, int64_t now_ns, struct sched_vm *vm, uint32_t count)
{
	fair_advance(sched, now_ns);
	assert(count <= vm->queued);
	vm->queued -= count;
	if (vm->queued == 0 && !vm->waiting)
		withdraw(sched, vm, now_ns);
}

static void learn_job(struct sched_vm *vm)
{
	int64_t job_ns = max_i64(0, vm->job_used_ns);

	vm->longest_job_ns = max_i64(vm->longest_job_ns, job_ns);
	if (vm->estimate_job_ns == 0)
		vm->estimate_job_ns = job_ns;
	else
		vm->estimate_job_ns += (job_ns - vm->estimate_job_ns) / FAIR_AVERAGE_OF;
	vm->job_used_ns = 0;
}

static void job_done(struct sched *sched, int64_t now_ns, struct sched_vm *vm)
{
	fair_advance(sched, now_ns);
	assert(vm->in_flight > 0);
	if (--vm->in_flight == 0)
		fair_run_leave(sched, vm, now_ns);
	learn_job(vm);
	vm->answered_once = true;
	vm->last_answer_ns = now_ns;
	if (vm->in_flight == 0)
		fair_turn_ran_out(sched, vm, now_ns);
}

static void vm_reaped(struct sched *sched, int64_t now_ns, struct sched_vm *vm)
{
	fair_advance(sched, now_ns);
	vm->enabled = false;
	if (vm->in_flight) {
		vm->in_flight = 0;
		fair_run_leave(sched, vm, now_ns);
		vm->longest_job_ns = max_i64(vm->longest_job_ns, vm->job_used_ns);
		vm->job_used_ns = 0;
	}
	withdraw(sched, vm, now_ns);
}

static int64_t deadline(const struct sched *sched)
{
	return sched->look_at_ns;
}

static int64_t charged_ns(struct sched *sched, int64_t now_ns, const struct sched_vm *vm)
{
	fair_advance(sched, now_ns);
	return vm->charged_ns;
}

const struct sched_policy sched_fair = {
	.name = "fair",
	.create = create,
	.destroy = destroy,
	.configure = configure,
	.vm_add = vm_add,
	.vm_remove = vm_remove,
	.vm_set_phi = vm_set_phi,
	.vm_enable = vm_enable,
	.job_queued = job_queued,
	.jobs_dropped = jobs_dropped,
	.job_done = job_done,
	.vm_reaped = vm_reaped,
	.next = fair_next,
	.deadline = deadline,
	.charged_ns = charged_ns,
	.vm_stats = fair_vm_stats,
	.stats = fair_stats,
	.check = fair_check,
};
