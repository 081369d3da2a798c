/* SPDX-License-Identifier: MIT */
/*
 * The limits again, by other means: jobs per second as a bucket that drains by the clock,
 * GPU seconds paid at every event, and how long the oldest job may run.
 */
#include "sim/audit_internal.h"

static int64_t interval_ns(const struct vm_settings *settings)
{
	return (1000 * NS_PER_SEC + settings->rate_thousandths - 1) / settings->rate_thousandths;
}

static int64_t burst_of(const struct vm_settings *settings)
{
	if (settings->burst_jobs)
		return settings->burst_jobs;
	return max_i64(1, settings->rate_thousandths / 1000);
}

static void drain_bucket(const struct audit *audit, struct audit_vm *vm)
{
	vm->bucket_ns = max_i64(0, vm->bucket_ns - (audit->now_ns - vm->bucket_at_ns));
	vm->bucket_at_ns = audit->now_ns;
}

/* For how long no job passes; at most 0 when one does now. */
static int64_t bucket_over_ns(const struct audit *audit, struct audit_vm *vm,
                              const struct vm_settings *settings)
{
	int64_t interval = interval_ns(settings), burst = burst_of(settings);

	drain_bucket(audit, vm);
	vm->bucket_ns = min_i64(vm->bucket_ns, burst * interval);
	return vm->bucket_ns - (burst - 1) * interval;
}

void audit_fill_bucket(struct audit *audit, struct audit_vm *vm, const struct vm_settings *settings)
{
	drain_bucket(audit, vm);
	if (settings->rate_thousandths)
		vm->bucket_ns += interval_ns(settings);
}

static void expect(struct audit_vm *vm, enum vgpu_code code, uint32_t detail, int64_t hint_us)
{
	vm->expected = code;
	vm->expected_detail = detail;
	vm->expected_hint_us = hint_us;
}

void audit_expect(struct world *world, uint32_t number, enum vgpu_code malformed)
{
	struct audit *audit = world->options->audit;
	struct audit_vm *vm = &audit->vms[number];
	const struct vm_settings *settings = &world->vms[number].settings;
	int64_t over_ns;

	expect(vm, VGPU_CODE_OK, 0, -1);
	if (malformed != VGPU_CODE_OK) {
		expect(vm, malformed, 0, 0);
	} else if (vm->quarantined) {
		expect(vm, VGPU_CODE_QUARANTINED, 0, 0);
	} else if (!world->rules.core.pools[settings->pool].enabled) {
		expect(vm, VGPU_CODE_INVALID_POOL, 0, 0);
	} else if (world->draining[core_vm_gpu(world->core, world->vms[number].core_vm)]) {
		expect(vm, VGPU_CODE_RATE_LIMITED, VGPU_BUSY_GPU_RESET, -1);
	} else if (vm->stuck || audit_is_failing(audit, vm)) {
		expect(vm, VGPU_CODE_UNAVAILABLE, 0, 0);
	} else if (settings->queue_depth && vm->unanswered >= settings->queue_depth) {
		expect(vm, VGPU_CODE_RATE_LIMITED, VGPU_BUSY_DEPTH, -1);
	} else if (settings->rate_thousandths) {
		over_ns = bucket_over_ns(audit, vm, settings);
		if (over_ns > 0)
			expect(vm, VGPU_CODE_RATE_LIMITED, VGPU_BUSY_RATE,
			       (over_ns + NS_PER_US - 1) / NS_PER_US);
	}
}

void audit_pay(struct audit *audit, struct audit_vm *vm, int64_t charged_ns)
{
	int64_t elapsed_ns = audit->now_ns - vm->balance_at_ns;
	int64_t used_ns = charged_ns - vm->balance_charged_ns;
	int64_t rate = vm->gpu_thousandths;

	vm->balance_at_ns = audit->now_ns;
	vm->balance_charged_ns = charged_ns;
	vm->balance = min_i64(vm->balance + elapsed_ns * rate, rate * NS_PER_SEC) - used_ns * 1000;
	if (rate == 0)
		vm->balance = 0;
}

void audit_advance(struct world *world)
{
	struct audit *audit = world->options->audit;
	int64_t elapsed_ns = world->now_ns - audit->now_ns;

	for (uint32_t g = 0; g < 2; g++) {
		int64_t share = max_i64(1, audit->open[g]),
			whole = elapsed_ns + audit->part_rest[g];

		audit->part_ns[g] += whole / share;
		audit->part_rest[g] = whole % share;
	}
	audit->now_ns = world->now_ns;
}

void audit_look_at_head(struct world *world, uint32_t number, int64_t charged_ns)
{
	struct audit *audit = world->options->audit;
	struct audit_vm *vm = &audit->vms[number];
	const struct sim_job *oldest = audit_oldest_sent(world, number);

	if (oldest && oldest->watch.number != vm->head) {
		vm->head_charged_ns = charged_ns;
		vm->head_part_ns = audit->part_ns[vm->gpu];
	}
	vm->head = oldest ? oldest->watch.number : 0;
	if (oldest && vm->worker == CORE_WORKER_READY &&
	    audit_limit_left_ns(world, number, charged_ns) < -AUDIT_REFUND_NS)
		audit_violated(audit, world, number, "a job lives longer than its limit");
}

int64_t audit_limit_ns(const struct world *world, uint32_t number)
{
	const struct audit_vm *vm = &world->options->audit->vms[number];
	int64_t limit_ns = world->vms[number].settings.job_timeout_ms * NS_PER_MS;

	if (limit_ns == 0)
		limit_ns = world->rules.core.job_timeout_ns;
	if (vm->short_limit && limit_ns > NS_PER_SEC)
		limit_ns = max_i64(NS_PER_SEC, limit_ns / 10);
	return limit_ns;
}

int64_t audit_limit_left_ns(const struct world *world, uint32_t number, int64_t charged_ns)
{
	const struct audit *audit = world->options->audit;
	const struct audit_vm *vm = &audit->vms[number];

	return audit_limit_ns(world, number) - max_i64(charged_ns - vm->head_charged_ns,
	                                               audit->part_ns[vm->gpu] - vm->head_part_ns);
}
