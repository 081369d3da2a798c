/* SPDX-License-Identifier: MIT */
/* See bounds.h. */
#include "sim/bounds.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/units.h"

/* Rounding of tags and of the nanoseconds that follow from them. */
enum { SLACK_TAG = 64, SLACK_NS = 64 };

struct now {
	struct bounds *bounds;
	const struct scenario *scenario;
	const struct scenario_rules *rules;
	int64_t ns;
	const struct core_vm_stats *stats; /* by VM */
};

void bounds_init(struct bounds *bounds)
{
	memset(bounds, 0, sizeof(*bounds));
	bounds->gpus[0].together_ns = INT64_MAX;
	bounds->gpus[1].together_ns = INT64_MAX;
}

/* The first thing that does not hold is what is told. */
static PRINTF(2, 3) void violated(struct bounds *bounds, const char *format, ...)
{
	va_list arguments;

	if (bounds->violation[0])
		return;
	va_start(arguments, format);
	vsnprintf(bounds->violation, sizeof(bounds->violation), format, arguments);
	va_end(arguments);
}

/* Notes how much of bound @number is used; says so when it is more than all. */
static void use(struct now *now, int number, uint32_t vm, double used, double bound)
{
	struct bounds *bounds = now->bounds;
	double part = bound > 0 ? used / bound : 0;

	bounds->worst[number] = fmax(bounds->worst[number], part);
	if (part > 1)
		violated(bounds, "bound %d, VM %s: %.0f of %.0f", number,
		         now->scenario->vms[vm].name, used, bound);
}

static int64_t tag(int64_t ns, int32_t phi)
{
	return 256 * ns / phi;
}

/* M: how far a start tag can lead virtual time. */
static int64_t lead_ns(const struct now *now, const struct bounds_vm *vm)
{
	return vm->turn_ns + now->bounds->wake_lead_ns;
}

/* M + E: how far from its due a VM can be. */
static int64_t reach_ns(const struct now *now, const struct bounds_vm *vm)
{
	return lead_ns(now, vm) + min_i64(NS_PER_SEC, vm->turn_ns);
}

static void left_gpu(struct bounds *bounds, uint32_t number)
{
	const struct bounds_vm *gone = &bounds->vms[number];

	bounds->gpus[gone->gpu].together_ns = INT64_MAX;
	for (uint32_t i = 0; i < SCENARIO_VMS; i++)
		if (bounds->vms[i].present && bounds->vms[i].gpu == gone->gpu)
			bounds->vms[i].ready_left_ns += gone->reach_ns;
}

/* A VM that is new here, or whose charges are no longer comparable with what they were. */
static void start_over(struct now *now, uint32_t number)
{
	struct bounds *bounds = now->bounds;
	struct bounds_vm *vm = &bounds->vms[number];
	const struct core_vm_stats *stats = &now->stats[number];

	bounds->rare[RARE_REWEIGHTED] += vm->present && vm->phi != stats->sched.phi;
	bounds->rare[RARE_MOVED] += vm->present && vm->gpu != stats->gpu;
	if (vm->present && vm->gpu != stats->gpu)
		left_gpu(bounds, number);
	if (!vm->present || vm->gpu != stats->gpu)
		*vm = (struct bounds_vm){.turn_ns = vm->present ? vm->turn_ns : 0};
	vm->present = true;
	vm->gpu = stats->gpu;
	vm->phi = stats->sched.phi;
	vm->charged_ns = stats->sched.charged_ns;
	bounds->gpus[vm->gpu].together_ns = INT64_MAX;
	for (uint32_t i = 0; i < SCENARIO_VMS; i++) {
		bounds->lead_tag[i][number] = INT64_MAX;
		bounds->lead_tag[number][i] = INT64_MAX;
	}
}

/* What the GPUs have charged is what VMs were charged, those that left included. */
static void check_sum(struct now *now, const struct world *world, bool any_left)
{
	struct bounds *bounds = now->bounds;
	int64_t sum_ns = 0;

	for (uint32_t g = 0; g < now->scenario->gpus; g++) {
		struct sched_stats stats;

		core_gpu_stats(world_core(world), g, &stats);
		sum_ns += stats.busy_ns;
	}
	for (uint32_t i = 0; i < now->scenario->vm_count; i++)
		if (bounds->vms[i].present)
			sum_ns -= now->stats[i].sched.charged_ns;
	if (!any_left && sum_ns != bounds->unaccounted_ns)
		violated(bounds, "bound 5: the charges of all VMs are %" PRId64 " ns off", sum_ns);
	bounds->unaccounted_ns = sum_ns;
}

/* Who is there, on which GPU, with which weight. */
static void take_stock(struct now *now, const struct world *world)
{
	struct bounds *bounds = now->bounds;
	bool any_left = false;
	uint32_t core_vm;

	for (uint32_t i = 0; i < now->scenario->vm_count; i++) {
		struct bounds_vm *vm = &bounds->vms[i];

		if (!world_vm_present(world, i, &core_vm)) {
			any_left |= vm->present;
			bounds->rare[RARE_LEFT] += vm->present;
			if (vm->present)
				left_gpu(bounds, i);
			vm->present = false;
			continue;
		}
		if (!vm->present || vm->gpu != now->stats[i].gpu ||
		    vm->phi != now->stats[i].sched.phi)
			start_over(now, i);
		vm->turn_ns = max_i64(vm->turn_ns, now->stats[i].sched.turn_bound_ns);
		vm->reach_ns = reach_ns(now, vm);
	}
	check_sum(now, world, any_left);
	for (uint32_t g = 0; g < 2; g++) {
		bounds->gpus[g].phi = 0;
		bounds->gpus[g].reach_ns = 0;
	}
	for (uint32_t i = 0; i < now->scenario->vm_count; i++) {
		if (bounds->vms[i].present) {
			bounds->gpus[bounds->vms[i].gpu].phi += bounds->vms[i].phi;
			bounds->gpus[bounds->vms[i].gpu].reach_ns += bounds->vms[i].reach_ns;
		}
	}
}

static void note_rare(struct bounds *bounds, const struct core_vm_stats *stats)
{
	bounds->rare[RARE_WAIT] += stats->sched.open && stats->sched.in_flight == 0;
	bounds->rare[RARE_AHEAD] += stats->sched.in_flight > 1;
	bounds->rare[RARE_KEPT_OUT] += stats->sched.ready && !stats->sched.admissible;
}

/* B of a VM that is there. */
static double wait_bound_ns(const struct bounds *bounds, uint32_t number)
{
	const struct bounds_vm *vm = &bounds->vms[number];
	const struct bounds_gpu *gpu = &bounds->gpus[vm->gpu];

	return (double)(gpu->reach_ns - vm->reach_ns) +
	       (double)vm->reach_ns * (gpu->phi - vm->phi) / vm->phi;
}

static void check_lead(struct now *now, uint32_t number, int64_t virtual_time)
{
	const struct sched_vm_stats *stats = &now->stats[number].sched;
	int64_t most_ns = lead_ns(now, &now->bounds->vms[number]);

	if (stats->ready && stats->start_tag > virtual_time)
		use(now, 1, number, (double)(stats->start_tag - virtual_time),
		    (double)(tag(most_ns, stats->phi) + SLACK_TAG));
}

/* Bound 2 for what VM @m lost to VM @f since it began to want the GPU. */
static void check_pair(struct now *now, uint32_t f, uint32_t m)
{
	struct bounds *bounds = now->bounds;
	const struct bounds_vm *ahead = &bounds->vms[f], *behind = &bounds->vms[m];
	int64_t lead = tag(now->stats[f].sched.charged_ns, ahead->phi) -
	               tag(now->stats[m].sched.charged_ns, behind->phi);
	int64_t *least = &bounds->lead_tag[f][m];

	if (!behind->wants || lead < *least) {
		*least = lead;
		return;
	}
	use(now, 2, m, (double)(lead - *least),
	    (double)(tag(ahead->reach_ns, ahead->phi) + tag(behind->reach_ns, behind->phi) +
	             SLACK_TAG));
}

static void check_wait(struct now *now, uint32_t number)
{
	struct bounds_vm *vm = &now->bounds->vms[number];
	double bound = wait_bound_ns(now->bounds, number);

	vm->ready_bound_ns = max_i64(vm->ready_bound_ns, (int64_t)bound);
	use(now, 3, number, (double)(now->ns - vm->ready_since_ns),
	    (double)(vm->ready_bound_ns + vm->ready_left_ns + SLACK_NS));
}

/* Bound 6: from ready, or from the last turn that another was granted. */
static void check_woken(struct now *now, uint32_t number)
{
	const struct bounds_vm *vm = &now->bounds->vms[number];
	int64_t from_ns = max_i64(vm->ready_since_ns, now->bounds->gpus[vm->gpu].last_grant_ns);

	if (!vm->excused && now->stats[number].sched.woken)
		use(now, 6, number, (double)(now->ns - from_ns),
		    2.0 * (double)now->stats[number].sched.patience_ns + SLACK_NS);
}

static void check_turn(struct now *now, uint32_t number)
{
	const struct bounds_vm *vm = &now->bounds->vms[number];
	const struct sched_vm_stats *stats = &now->stats[number].sched;

	use(now, 5, number, (double)(stats->charged_ns - vm->opened_charged_ns),
	    (double)stats->turn_bound_ns);
}

/* Follows one VM from its last state to the present one. */
static void follow(struct now *now, uint32_t number, bool full)
{
	struct bounds_vm *vm = &now->bounds->vms[number];
	const struct sched_vm_stats *stats = &now->stats[number].sched;
	bool new_turn = stats->turns != vm->turns;

	if (vm->ready) {
		check_wait(now, number);
		check_woken(now, number);
	}
	if (vm->open)
		check_turn(now, number);
	if (stats->ready && (!vm->ready || new_turn)) {
		vm->ready_since_ns = now->ns;
		vm->ready_bound_ns = 0;
		vm->ready_left_ns = 0;
		vm->excused = false;
	}
	if (stats->open && (!vm->open || new_turn))
		vm->opened_charged_ns = stats->charged_ns;
	if (stats->ready && (!stats->admissible || full))
		vm->excused = true;
	vm->ready = stats->ready;
	vm->open = stats->open;
	vm->turns = stats->turns;
}

/* Bound 4 where all VMs of a GPU have wanted it for some time. */
static void check_shares(struct now *now, uint32_t g)
{
	struct bounds *bounds = now->bounds;
	struct bounds_gpu *gpu = &bounds->gpus[g];
	bool together = true, begins = gpu->together_ns == INT64_MAX;

	for (uint32_t i = 0; i < now->scenario->vm_count; i++)
		if (bounds->vms[i].present && bounds->vms[i].gpu == g)
			together &= bounds->vms[i].ready || bounds->vms[i].open;
	if (!together || begins)
		gpu->together_ns = together ? now->ns : INT64_MAX;
	for (uint32_t i = 0; together && i < now->scenario->vm_count; i++) {
		struct bounds_vm *vm = &bounds->vms[i];
		int64_t charged_ns = now->stats[i].sched.charged_ns;
		double due_ns = (double)(now->ns - gpu->together_ns);

		if (!vm->present || vm->gpu != g)
			continue;
		if (begins)
			vm->together_charged_ns = charged_ns;
		else
			use(now, 4, i,
			    fabs((double)(charged_ns - vm->together_charged_ns) * gpu->phi /
			                 vm->phi -
			         due_ns),
			    wait_bound_ns(bounds, i) + SLACK_NS);
	}
}

/* Under new rules: what was promised under the old ones is not held against them. */
static void take_rules(struct now *now)
{
	struct bounds *bounds = now->bounds;
	const struct sched_config *sched = &now->rules->core.sched;

	if (memcmp(&bounds->sched, sched, sizeof(*sched)) == 0)
		return;
	bounds->rare[RARE_NEW_RULES] += bounds->sched.slice_ns != 0;
	bounds->sched = *sched;
	bounds->wake_lead_ns = max_i64(bounds->wake_lead_ns, sched->wake_lead_ns);
	for (uint32_t i = 0; i < now->scenario->vm_count; i++)
		bounds->vms[i].excused = true;
}

static void observe_gpu(struct now *now, const struct world *world, uint32_t g)
{
	struct bounds *bounds = now->bounds;
	struct bounds_gpu *gpu = &bounds->gpus[g];
	uint32_t count = now->scenario->vm_count;
	struct sched_stats stats;
	bool full;

	core_gpu_stats(world_core(world), g, &stats);
	bounds->rare[RARE_BESIDE] += stats.open > 1;
	bounds->rare[RARE_CROWD] += stats.open > 3;
	full = stats.open >= (uint32_t)now->rules->core.sched.overlap_max;
	for (uint32_t i = 0; i < count; i++) {
		if (!bounds->vms[i].present || bounds->vms[i].gpu != g)
			continue;
		check_lead(now, i, stats.virtual_time);
		for (uint32_t k = 0; k < count; k++)
			if (k != i && bounds->vms[k].present && bounds->vms[k].gpu == g)
				check_pair(now, i, k);
		follow(now, i, full);
		note_rare(bounds, &now->stats[i]);
	}
	for (uint32_t i = 0; i < count; i++)
		bounds->vms[i].wants = bounds->vms[i].ready || bounds->vms[i].open;
	if (stats.turns != gpu->turns)
		gpu->last_grant_ns = now->ns;
	gpu->turns = stats.turns;
	check_shares(now, g);
}

/* A new mediator: nothing of the old one's promises binds it. */
static void start_again(struct bounds *bounds, uint32_t epoch)
{
	const struct bounds old = *bounds;

	bounds_init(bounds);
	memcpy(bounds->worst, old.worst, sizeof(bounds->worst));
	memcpy(bounds->rare, old.rare, sizeof(bounds->rare));
	bounds->epoch = epoch;
}

const char *bounds_look(struct bounds *bounds, const struct world *world,
                        const struct core_vm_stats *stats)
{
	struct now now = {
		.bounds = bounds,
		.scenario = world_scenario(world),
		.rules = world_rules(world),
		.ns = world_now_ns(world),
		.stats = stats,
	};

	if (world_epoch(world) != bounds->epoch)
		start_again(bounds, world_epoch(world));
	take_rules(&now);
	take_stock(&now, world);
	for (uint32_t g = 0; g < now.scenario->gpus; g++)
		observe_gpu(&now, world, g);
	return bounds->violation[0] ? bounds->violation : NULL;
}
