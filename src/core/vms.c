/* SPDX-License-Identifier: MIT */
/*
 * VMs come, change, move between GPUs and go.
 *
 * A VM has one GPU of its pool for its home: the one with the least weight on it when the
 * VM comes, so that VMs spread by what they may claim. It finds another when its pool no
 * longer uses that one. While its home is drained it is the guest of another GPU of its
 * pool that works, if there is one. It moves without a job in flight and with its worker
 * ended.
 */
#include <assert.h>
#include <errno.h>

#include "core/internal.h"

const struct vm_settings vm_settings_default = {
	.priority = VGPU_PRIORITY_MEDIUM,
	.weight_hundredths = 100,
};

int32_t core_claim(const struct vm_settings *settings)
{
	return (int32_t)(settings->weight_hundredths << settings->priority);
}

static bool better_gpu(const struct gpu *a, const struct gpu *b)
{
	return a->draining != b->draining ? !a->draining : a->weight < b->weight;
}

static uint32_t choose_gpu(const struct core *core, const struct vm_settings *settings)
{
	uint32_t mask = core->config.pools[settings->pool].gpu_mask;
	uint32_t best = CORE_MAX_GPUS;

	for (uint32_t i = 0; i < core->config.gpu_count; i++) {
		if ((mask & (1u << i)) &&
		    (best == CORE_MAX_GPUS || better_gpu(&core->gpus[i], &core->gpus[best])))
			best = i;
	}
	assert(best < CORE_MAX_GPUS);
	return best;
}

/* Makes the VM known to the scheduler of @gpu. Returns 0 or -ENOMEM. */
static int enrol(struct core *core, struct vm *vm, uint32_t gpu, int64_t lag, struct sched_vm **out)
{
	return core_policy(core)->vm_add(core->gpus[gpu].sched, core->now_ns, out, vm->id,
	                                 core_claim(&vm->settings), vm->settings.priority, lag, vm);
}

/* The VM belongs to @gpu from now on, whose scheduler knows it as @sched. */
static void attach(struct core *core, struct vm *vm, uint32_t gpu, struct sched_vm *sched)
{
	vm->sched = sched;
	vm->gpu = gpu;
	vm->enabled = false;
	vm->budget.charged_ns = 0;
	core->gpus[gpu].weight += vm->settings.weight_hundredths;
	for (uint32_t i = 0; i < vm->offered_count; i++)
		core_policy(core)->job_queued(core->gpus[gpu].sched, core->now_ns, vm->sched);
}

/* Returns the VM's lag. Nothing of it may be in flight. */
static int64_t detach(struct core *core, struct vm *vm)
{
	struct gpu *gpu = &core->gpus[vm->gpu];

	vm->charged_before_ns += core_policy(core)->charged_ns(gpu->sched, core->now_ns, vm->sched);
	if (vm->offered_count)
		core_policy(core)->jobs_dropped(gpu->sched, core->now_ns, vm->sched,
		                                vm->offered_count);
	gpu->weight -= vm->settings.weight_hundredths;
	return core_policy(core)->vm_remove(gpu->sched, core->now_ns, TAKE_PTR(vm->sched));
}

static int reserve_slot(struct core *core, uint32_t *out)
{
	uint32_t slots = core->vm_slots;
	struct vm **vms;

	for (uint32_t i = 0; i < slots; i++) {
		if (!core->vms[i]) {
			*out = i;
			return 0;
		}
	}
	vms = realloc(core->vms, (slots ? 2 * slots : 16) * sizeof(*vms));
	if (!vms)
		return -ENOMEM;
	core->vms = vms;
	core->vm_slots = slots ? 2 * slots : 16;
	for (uint32_t i = slots; i < core->vm_slots; i++)
		vms[i] = NULL;
	*out = slots;
	return 0;
}

int core_vm_add(struct core *core, int64_t now_ns, uint32_t *out,
                const struct vm_settings *settings, bool quarantined, void *owner)
{
	CLEANUP(freep) struct vm *vm = calloc(1, sizeof(*vm));
	struct sched_vm *sched;
	uint32_t slot, gpu;
	int r;

	core_advance(core, now_ns);
	if (!vm)
		return -ENOMEM;
	r = reserve_slot(core, &slot);
	if (r == 0)
		r = heap_reserve(&core->timers, core->vm_count + 1);
	if (r == 0)
		r = core_reserve_actions(core, core->job_count, core->vm_count + 1);
	if (r < 0)
		return r;
	vm->id = slot;
	vm->owner = owner;
	vm->settings = *settings;
	vm->quarantined = quarantined;
	vm->worker.idle_since_ns = SCHED_NEVER;
	vm->deadline_ns = SCHED_NEVER;
	vm->budget.updated_ns = core->now_ns;
	TAILQ_INIT(&vm->queued);
	TAILQ_INIT(&vm->in_flight);
	TAILQ_INIT(&vm->held);
	records_init(&vm->records);
	vm->condemned_ns = vm->arrived_ns = INT64_MIN;
	vm->home = gpu = choose_gpu(core, settings);
	r = enrol(core, vm, gpu, 0, &sched);
	if (r < 0)
		return r;
	CORE_NOTE(core, CORE_EVENT_VM_ADD, settings, now_ns, slot, quarantined);
	attach(core, vm, gpu, sched);
	core->vms[slot] = TAKE_PTR(vm);
	core->vm_count++;
	*out = slot;
	return 0;
}

/* What has been charged so far is paid under the limit that was in force for it. */
static void pay_budget(struct core *core, struct vm *vm)
{
	int64_t charged_ns =
		core_policy(core)->charged_ns(core->gpus[vm->gpu].sched, core->now_ns, vm->sched);

	limit_budget_debt_ns(&vm->budget, &vm->settings, core->now_ns, charged_ns);
}

/*
 * To another GPU, with its queue and what it owes there. Without memory for that it stays
 * where it is until the next time; with memory for no more than a place it owes nothing.
 */
static void move(struct core *core, struct vm *vm, uint32_t gpu)
{
	struct sched_vm *sched, *owing;
	int64_t lag;

	if (enrol(core, vm, gpu, 0, &sched) < 0)
		return;
	pay_budget(core, vm);
	lag = detach(core, vm);
	if (lag && enrol(core, vm, gpu, lag, &owing) == 0) {
		core_policy(core)->vm_remove(core->gpus[gpu].sched, core->now_ns, sched);
		sched = owing;
	}
	attach(core, vm, gpu, sched);
	vm->arrived_ns = core->now_ns;
	if (core->gpus[gpu].draining)
		jobs_answer_queued(core, vm, CORE_NO_CLIENT, VGPU_CODE_RATE_LIMITED);
}

static bool serves(const struct core *core, const struct vm *vm, uint32_t gpu)
{
	return core->config.pools[vm->settings.pool].gpu_mask & (1u << gpu);
}

/* Its home, or another GPU while that is drained and the other is not. */
static uint32_t right_gpu(const struct core *core, const struct vm *vm)
{
	uint32_t here = serves(core, vm, vm->gpu) ? vm->gpu : vm->home, other;

	if (!core->gpus[vm->home].draining)
		return vm->home;
	if (!core->gpus[here].draining)
		return here;
	other = choose_gpu(core, &vm->settings);
	return core->gpus[other].draining ? here : other;
}

void vm_place(struct core *core, struct vm *vm)
{
	uint32_t gpu;

	if (!serves(core, vm, vm->home))
		vm->home = choose_gpu(core, &vm->settings);
	gpu = right_gpu(core, vm);
	if (gpu == vm->gpu)
		return;
	if (vm->worker.state == CORE_WORKER_NONE)
		move(core, vm, gpu);
	else if (!core->gpus[vm->gpu].draining)
		place_evict(core, vm);
}

void core_vm_set(struct core *core, int64_t now_ns, uint32_t number,
                 const struct vm_settings *settings, bool quarantined)
{
	struct vm *vm = core_find_vm(core, number);

	CORE_NOTE(core, CORE_EVENT_VM_SET, settings, now_ns, number, quarantined);
	core_advance(core, now_ns);
	pay_budget(core, vm);
	core->gpus[vm->gpu].weight += settings->weight_hundredths - vm->settings.weight_hundredths;
	vm->settings = *settings;
	core_policy(core)->vm_set_phi(core->gpus[vm->gpu].sched, core->now_ns, vm->sched,
	                              core_claim(settings), settings->priority);
	vm_set_quarantined(core, vm, quarantined);
	vm_place(core, vm);
	worker_settle(core, vm);
	core_dispatch(core);
}

void core_vm_remove(struct core *core, int64_t now_ns, uint32_t number)
{
	struct vm *vm = core_find_vm(core, number);

	CORE_NOTE(core, CORE_EVENT_VM_REMOVE, NULL, now_ns, number);
	core_advance(core, now_ns);
	vm->removing = true;
	jobs_answer_queued(core, vm, CORE_NO_CLIENT, VGPU_CODE_CANCELLED);
	worker_settle(core, vm);
	core_dispatch(core);
}

void vm_finish(struct core *core, struct vm *vm)
{
	detach(core, vm);
	heap_remove(&core->timers, &vm->timer);
	core_push_action(core, CORE_ACTION_VM_GONE, vm);
	core->vms[vm->id] = NULL;
	core->vm_count--;
	free(vm);
}
