/* SPDX-License-Identifier: MIT */
/*
 * What the fair scheduler shows of itself, and what must hold of it after every
 * event. Bounds that relate two VMs over time are checked by the simulator, which
 * sees their history.
 */
#include "core/schedule/sched_fair.h"

int64_t fair_turn_bound_ns(const struct sched *sched, const struct sched_vm *vm)
{
	const struct sched_config *widest = &sched->widest;
	int64_t longest_ns = max_i64(vm->longest_job_ns, vm->job_used_ns);
	int64_t wait_ns = widest->anticipation_ns;

	if (wait_ns)
		wait_ns = max_i64(wait_ns, min_i64(longest_ns / 10, FAIR_WAIT_MAX_NS));
	return max_i64(widest->quantum_ns, widest->handover_ns + FAIR_GAP_NS) + wait_ns +
	       2 * FAIR_GAP_NS + longest_ns * max_i64(2, vm->deepest);
}

void fair_vm_stats(const struct sched *sched, const struct sched_vm *vm, struct sched_vm_stats *out)
{
	*out = (struct sched_vm_stats){
		.charged_ns = vm->charged_ns,
		.turns = vm->turns,
		.queued = vm->queued,
		.in_flight = vm->in_flight,
		.ready = vm->ready_index > 0,
		.open = vm->open,
		.woken = vm->woken,
		.admissible = vm->ready_index && vm->lead_tag <= fair_kappa(sched),
		.phi = vm->phi,
		.start_tag = vm->start_tag,
		.finish_tag = vm->finish_tag,
		.key = vm->key,
		.estimate_turn_ns = vm->estimate_turn_ns,
		.estimate_job_ns = vm->estimate_job_ns,
		.boost_ppm = vm->boost_ppm,
		.patience_ns = vm->patience_ns,
		.turn_bound_ns = fair_turn_bound_ns(sched, vm),
	};
}

void fair_stats(const struct sched *sched, struct sched_stats *out)
{
	*out = (struct sched_stats){
		.busy_ns = sched->busy_ns,
		.idle_ns = sched->idle_ns,
		.decisions = sched->decisions,
		.turns = sched->turns,
		.context_switches = sched->context_switches,
		.open = sched->open_count,
		.ready = sched->ready.count,
		.virtual_time = sched->virtual_time,
	};
}

/* The farthest that a ready VM's start tag may be ahead of virtual time: M / phi. */
static int64_t lead_bound_tag(const struct sched *sched, const struct sched_vm *vm)
{
	int64_t most_ns = fair_turn_bound_ns(sched, vm) + sched->widest.wake_lead_ns;

	return fair_tag(most_ns, vm->phi) + vm->moved_lag + 2;
}

static const char *check_vm(const struct sched *sched, const struct sched_vm *vm)
{
	bool should_be_ready = vm->queued && vm->enabled && !vm->open;

	if (should_be_ready != (vm->ready_index > 0))
		return "the heap does not hold exactly the ready VMs";
	if (vm->in_flight > FAIR_DEPTH_MAX)
		return "too many jobs of a VM are in flight";
	if (vm->in_flight && !vm->open)
		return "jobs are in flight outside a turn";
	if ((vm->in_flight > 0) != (vm->run.place != RUN_OUTSIDE))
		return "the run list does not hold exactly the VMs with jobs in flight";
	if (vm->open && vm->in_flight == 0 && !vm->waiting)
		return "a turn is open that neither runs nor waits";
	if (vm->waiting && (vm->queued || vm->in_flight || !vm->enabled))
		return "a turn waits for a job that is there or may not run";
	if (vm->ready_index && vm->start_tag > sched->virtual_time + lead_bound_tag(sched, vm))
		return "bound 1: a ready VM's start tag is too far ahead of virtual time";
	if (vm->open && (vm->used_ns < 0 || vm->used_ns > fair_turn_bound_ns(sched, vm)))
		return "bound 5: a turn is charged more than its bound";
	return NULL;
}

const char *fair_check(const struct sched *sched)
{
	int64_t charged_ns = sched->gone_ns;
	uint32_t ready = 0, open = 0;
	const struct sched_vm *vm;

	TAILQ_FOREACH (vm, &sched->all, all_link) {
		const char *wrong = check_vm(sched, vm);

		if (wrong)
			return wrong;
		charged_ns += vm->charged_ns;
		ready += vm->ready_index > 0;
		open += vm->open;
	}
	if (ready != sched->ready.count || open != sched->open_count)
		return "a VM is counted that is not there";
	if (open > sched->open_bound)
		return "more turns are open than overlap_max";
	if (ready && open == 0)
		return "the GPU is without an open turn beside a ready VM";
	if (sched->virtual_time > fair_kappa(sched))
		return "bound 1: virtual time is ahead of kappa";
	if (charged_ns != sched->busy_ns ||
	    sched->busy_ns + sched->idle_ns != sched->charged_to_ns - sched->created_ns)
		return "bound 5: charged and idle time do not add up to the time elapsed";
	return fair_ready_check(&sched->ready);
}
