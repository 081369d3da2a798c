/* SPDX-License-Identifier: MIT */
/*
 * Turns of the fair scheduler: who is next, who is admitted beside the open turns,
 * how long a turn goes on and what is sent in it.
 *
 * Exclusive turns are the normal case: they lose least time to hand-overs and carry
 * the weights. A VM that wakes, or that a long job keeps out, is admitted beside the
 * open turns and the hardware slices. Two conditions hold that together: its tag may
 * not run ahead of what the others still have to get (kappa), and each open turn must
 * have lasted as long as the newcomer's is expected to.
 */
#include <assert.h>

#include "core/schedule/sched_fair.h"

int64_t fair_wait_ns(const struct sched *sched, const struct sched_vm *vm)
{
	return max_i64(sched->config.anticipation_ns,
	               min_i64(vm->estimate_job_ns / 10, FAIR_WAIT_MAX_NS));
}

static bool worth_waiting(const struct sched *sched, const struct sched_vm *vm)
{
	return sched->config.anticipation_ns && vm->enabled && vm->queued == 0 &&
	       vm->hit >= FAIR_HIT_WAITS;
}

/*
 * u: half of it for the jobs that wait, half for how long the first has waited. It
 * discounts the estimate, never the tag: order changes inside the bounds only.
 */
static int64_t boost_ppm(const struct sched *sched, const struct sched_vm *vm, int64_t now_ns)
{
	int64_t waits_ns = now_ns - sched->head_since_ns(vm->owner);
	int64_t depth_ppm = 500000 * min_i64(vm->queued, FAIR_BOOST_DEPTH) / FAIR_BOOST_DEPTH;
	int64_t wait_ppm = max_i64(0, min_i64(waits_ns, FAIR_BOOST_WAIT_NS)) / 2000;

	return sched->config.boost_percent * (depth_ppm + wait_ppm) / 100;
}

/* K, fixed until the VM leaves the ready ones. */
static void set_key(struct sched *sched, struct sched_vm *vm, int64_t now_ns)
{
	int64_t expected_ns = min_i64(vm->estimate_turn_ns, FAIR_ORDER_CAP_NS);

	vm->boost_ppm = boost_ppm(sched, vm, now_ns);
	expected_ns -= expected_ns * vm->boost_ppm / 1000000;
	vm->key = vm->start_tag + fair_tag(expected_ns, vm->phi);
}

void fair_set_admission(const struct sched *sched, struct sched_vm *vm)
{
	int64_t patience_ns = FAIR_FIRST_PATIENCE_NS;

	/* A mean follows slowly: who has just gone over to long jobs is not quick any more. */
	if (vm->turns)
		patience_ns = max_i64(vm->estimate_turn_ns, vm->last_turn_ns);
	/* Nor do turns of about the same length begin beside the end of each other. */
	patience_ns += patience_ns / FAIR_MARGIN_OF;
	patience_ns = min_i64(patience_ns, FAIR_ESTIMATE_CAP_NS) + 2 * sched->config.handover_ns;
	vm->lead_tag = vm->start_tag;
	if (vm->woken)
		vm->lead_tag -= fair_tag(sched->config.wake_lead_ns, vm->phi);
	else
		patience_ns = max_i64(patience_ns, sched->config.overlap_after_ns);
	vm->patience_ns = patience_ns;
}

static void set_promise(const struct sched *sched, struct sched_vm *vm)
{
	int64_t expected_ns = min_i64(vm->estimate_turn_ns, FAIR_ESTIMATE_CAP_NS);

	vm->promise = max_i64(sched->virtual_time, vm->start_tag + fair_tag(expected_ns, vm->phi));
}

void fair_make_ready(struct sched *sched, struct sched_vm *vm, int64_t now_ns, bool woken)
{
	if (vm->queued == 0 || !vm->enabled || vm->open || vm->ready_index)
		return;
	vm->woken = woken;
	vm->start_tag = vm->finish_tag;
	if (woken)
		vm->start_tag = max_i64(sched->virtual_time, vm->finish_tag);
	if (vm->start_tag <= sched->virtual_time)
		vm->moved_lag = 0;
	vm->ready_since_ns = now_ns;
	set_promise(sched, vm);
	set_key(sched, vm, now_ns);
	fair_set_admission(sched, vm);
	fair_ready_insert(&sched->ready, vm);
}

void fair_settle_idle(struct sched *sched)
{
	if (sched->ready.count == 0 && sched->open_count == 0)
		sched->virtual_time = max_i64(sched->virtual_time, sched->finish_max);
}

static void open_turn(struct sched *sched, struct sched_vm *vm, int64_t now_ns)
{
	sched->virtual_time =
		max_i64(sched->virtual_time, min_i64(vm->start_tag, fair_kappa(sched)));
	vm->open = true;
	vm->waiting = false;
	vm->opened_ns = now_ns;
	vm->used_ns = 0;
	TAILQ_INSERT_TAIL(&sched->open, vm, open_link);
	sched->open_count++;
	sched->turns++;
	if (sched->last_granted != vm)
		sched->context_switches++;
	sched->last_granted = vm;
}

static void grant(struct sched *sched, struct sched_vm *vm, int64_t now_ns)
{
	/* Before it leaves the ready ones: what it was promised counts in kappa. */
	open_turn(sched, vm, now_ns);
	fair_ready_remove(&sched->ready, vm);
}

static void learn_turn(struct sched_vm *vm)
{
	vm->last_turn_ns = vm->used_ns;
	if (vm->turns++ == 0)
		vm->estimate_turn_ns = vm->used_ns;
	else
		vm->estimate_turn_ns += (vm->used_ns - vm->estimate_turn_ns) / FAIR_AVERAGE_OF;
}

/* Rounds toward virtual time, whichever side of it the tag is on. */
static int64_t rescale(int64_t virtual_time, int64_t tag, int32_t from_phi, int32_t to_phi)
{
	int64_t distance = tag - virtual_time;

	/* In two parts, so that no product overflows. */
	return virtual_time + distance / to_phi * from_phi + distance % to_phi * from_phi / to_phi;
}

void fair_apply_phi(struct sched *sched, struct sched_vm *vm)
{
	int64_t v = sched->virtual_time;
	int32_t from = vm->phi, to = vm->next_phi;
	bool ready = vm->ready_index > 0;

	if (vm->open || from == to)
		return;
	if (ready)
		fair_ready_remove(&sched->ready, vm);
	vm->phi = to;
	vm->tag_remainder = 0;
	vm->moved_lag = rescale(0, vm->moved_lag, from, to);
	vm->finish_tag = rescale(v, vm->finish_tag, from, to);
	if (!ready)
		return;
	vm->start_tag = rescale(v, vm->start_tag, from, to);
	vm->promise = rescale(v, vm->promise, from, to);
	vm->key = rescale(v, vm->key, from, to);
	fair_set_admission(sched, vm);
	fair_ready_insert(&sched->ready, vm);
}

void fair_end_turn(struct sched *sched, struct sched_vm *vm, int64_t now_ns)
{
	assert(vm->open && vm->in_flight == 0);
	vm->finish_tag = fair_reached_tag(vm);
	vm->tag_remainder = (SCHED_TAG_SCALE * vm->used_ns + vm->tag_remainder) % vm->phi;
	sched->finish_max = max_i64(sched->finish_max, vm->finish_tag);
	learn_turn(vm);
	vm->open = false;
	vm->waiting = false;
	TAILQ_REMOVE(&sched->open, vm, open_link);
	sched->open_count--;
	sched->open_bound = max_u64(sched->open_count, (uint32_t)sched->config.overlap_max);
	fair_apply_phi(sched, vm);
	fair_make_ready(sched, vm, now_ns, false);
	fair_settle_idle(sched);
}

static void wait_for_next_job(struct sched *sched, struct sched_vm *vm, int64_t now_ns)
{
	vm->waiting = true;
	vm->wait_until_ns = now_ns + fair_wait_ns(sched, vm);
}

/*
 * The turn is over and the VM's next job is expected at once. Where the VM would be
 * the next anyway, the GPU waits for that job instead of going round by another VM.
 */
static void wait_as_new_turn(struct sched *sched, struct sched_vm *vm, int64_t now_ns)
{
	const struct sched_vm *first = fair_ready_first(&sched->ready);
	int64_t expected_ns = min_i64(vm->estimate_turn_ns, FAIR_ORDER_CAP_NS);

	if (sched->open_count >= (uint32_t)sched->config.overlap_max)
		return;
	if (!first || vm->finish_tag + fair_tag(expected_ns, vm->phi) >= first->key)
		return;
	if (sched->open_count && vm->finish_tag > fair_kappa(sched))
		return;
	vm->start_tag = vm->finish_tag;
	vm->woken = false;
	set_promise(sched, vm);
	open_turn(sched, vm, now_ns);
	wait_for_next_job(sched, vm, now_ns);
}

void fair_turn_ran_out(struct sched *sched, struct sched_vm *vm, int64_t now_ns)
{
	bool wait = worth_waiting(sched, vm);
	bool over = vm->used_ns >= sched->config.quantum_ns;

	if (!over && vm->enabled && vm->queued)
		return;
	if (!over && wait) {
		wait_for_next_job(sched, vm, now_ns);
		return;
	}
	fair_end_turn(sched, vm, now_ns);
	if (wait)
		wait_as_new_turn(sched, vm, now_ns);
}

/* Returns the first open VM that may have another job on the GPU now. */
static struct sched_vm *first_to_feed(const struct sched *sched)
{
	struct sched_vm *vm;

	TAILQ_FOREACH (vm, &sched->open, open_link) {
		int64_t job_ns = vm->estimate_job_ns;
		uint32_t depth = job_ns == 0 ? 1 : job_ns < FAIR_SHORT_JOB_NS ? FAIR_DEPTH_MAX : 2;

		if (!vm->enabled || vm->queued == 0 || vm->in_flight >= depth)
			continue;
		if (vm->in_flight == 0 ||
		    vm->used_ns + vm->in_flight * job_ns < sched->config.quantum_ns)
			return vm;
	}
	return NULL;
}

/* What the open turns ask of a VM that is to be admitted beside them now. */
static void fill_gate(const struct sched *sched, struct fair_gate *gate, int64_t now_ns)
{
	const struct sched_vm *vm;

	gate->kappa = fair_kappa(sched);
	gate->shortest_ns = INT64_MAX;
	gate->overrun_tag = INT64_MIN;
	TAILQ_FOREACH (vm, &sched->open, open_link) {
		int64_t age_ns = now_ns - vm->opened_ns;

		gate->shortest_ns = min_i64(gate->shortest_ns, max_i64(vm->used_ns, age_ns / 2));
		if (vm->used_ns > FAIR_OVERRUN_NS)
			gate->overrun_tag = max_i64(gate->overrun_tag, fair_reached_tag(vm));
	}
}

/* The earliest instant at which every open turn can have lasted @patience_ns. */
static int64_t patience_over_ns(const struct sched *sched, int64_t patience_ns, int64_t now_ns)
{
	int64_t at_ns = now_ns + 1;
	const struct sched_vm *vm;

	TAILQ_FOREACH (vm, &sched->open, open_link) {
		int64_t by_charge_ns = now_ns + patience_ns - vm->used_ns;
		int64_t by_age_ns = vm->opened_ns + 2 * patience_ns;

		at_ns = max_i64(at_ns, min_i64(by_charge_ns, by_age_ns));
	}
	return at_ns;
}

/* The earliest instant at which an open turn can have overrun and be at @start_tag. */
static int64_t overrun_ns(const struct sched *sched, int64_t start_tag, int64_t now_ns)
{
	int64_t at_ns = INT64_MAX;
	const struct sched_vm *vm;

	TAILQ_FOREACH (vm, &sched->open, open_link) {
		int64_t tag_ns = (start_tag - vm->start_tag) * vm->phi - vm->tag_remainder;
		int64_t charge_ns = max_i64(FAIR_OVERRUN_NS + 1, tag_ns / SCHED_TAG_SCALE + 1);

		at_ns = min_i64(at_ns, now_ns + charge_ns - vm->used_ns);
	}
	/* Turns that share the GPU are charged more slowly: no closer look than this. */
	return max_i64(at_ns, now_ns + FAIR_LOOK_AGAIN_NS);
}

/* When somebody may pass @gate at the earliest, given that nobody does now. */
static int64_t next_look_ns(const struct sched *sched, const struct fair_gate *gate, int64_t now_ns)
{
	const struct fair_least *least = &sched->ready.least[0];
	int64_t patience_ns = fair_ready_least_patience_ns(&sched->ready, gate->kappa);
	int64_t look_at_ns = now_ns + FAIR_LOOK_AGAIN_NS;

	if (least->patience_ns > gate->shortest_ns && least->start_tag > gate->overrun_tag)
		look_at_ns = min_i64(patience_over_ns(sched, least->patience_ns, now_ns),
		                     overrun_ns(sched, least->start_tag, now_ns));
	if (patience_ns != INT64_MAX)
		look_at_ns = min_i64(look_at_ns, patience_over_ns(sched, patience_ns, now_ns));
	return look_at_ns;
}

/* The VM that gets a turn now, or NULL and when to look again. */
static struct sched_vm *choose(struct sched *sched, int64_t now_ns, int64_t *look_at_ns)
{
	struct fair_gate gate;
	struct sched_vm *vm;

	*look_at_ns = SCHED_NEVER;
	if (sched->ready.count == 0)
		return NULL;
	if (sched->open_count == 0)
		return fair_ready_first(&sched->ready);
	if (sched->open_count >= (uint32_t)sched->config.overlap_max)
		return NULL;
	fill_gate(sched, &gate, now_ns);
	vm = fair_ready_first_admissible(&sched->ready, &gate);
	if (!vm)
		*look_at_ns = next_look_ns(sched, &gate, now_ns);
	return vm;
}

/* Ends the turns whose wait is over; returns when the next one is. */
static int64_t end_waits(struct sched *sched, int64_t now_ns)
{
	int64_t next_ns = SCHED_NEVER;
	struct sched_vm *vm, *following;

	for (vm = TAILQ_FIRST(&sched->open); vm; vm = following) {
		following = TAILQ_NEXT(vm, open_link);
		if (vm->waiting && now_ns >= vm->wait_until_ns)
			fair_end_turn(sched, vm, now_ns);
		else if (vm->waiting)
			next_ns = min_i64(next_ns, vm->wait_until_ns);
	}
	return next_ns;
}

void *fair_next(struct sched *sched, int64_t now_ns)
{
	int64_t wait_over_ns, look_at_ns;
	struct sched_vm *vm;

	fair_advance(sched, now_ns);
	wait_over_ns = end_waits(sched, now_ns);
	vm = first_to_feed(sched);
	sched->decisions += vm || sched->ready.count;
	if (!vm) {
		vm = choose(sched, now_ns, &look_at_ns);
		if (!vm) {
			sched->look_at_ns = min_i64(wait_over_ns, look_at_ns);
			return NULL;
		}
		grant(sched, vm, now_ns);
	}
	if (vm->in_flight++ == 0)
		fair_run_enter(sched, vm, now_ns);
	vm->deepest = max_u64(vm->deepest, vm->in_flight);
	vm->queued--;
	return vm->owner;
}
