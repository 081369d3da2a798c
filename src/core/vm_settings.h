/* SPDX-License-Identifier: MIT */
/*
 * What an operator can set for one VM, as the core computes with it: scaled integers.
 * How they are written, which values they may have and where they are kept is the
 * business of settings/settings.h.
 */
#ifndef CORE_VM_SETTINGS_H
#define CORE_VM_SETTINGS_H

#include <stdint.h>

struct vm_settings {
	uint32_t priority;         /* enum vgpu_priority */
	uint32_t pool;             /* 0 is A, 1 is B */
	int64_t weight_hundredths; /* 100..10000 */
	int64_t rate_thousandths;  /* jobs per 1000 s; 0 = no limit */
	int64_t burst_jobs;        /* 0 = one second's worth, at least 1 */
	int64_t queue_depth;       /* jobs; 0 = no limit of its own */
	int64_t gpu_thousandths;   /* ms of GPU time per second; 0 = no limit */
	int64_t job_timeout_ms;    /* 0 = the pool's or the mediator's default */
	int64_t memory_quota_mib;  /* 0 = no quota */
};

enum { POOL_COUNT = 2 };

/* A new VM: weight 1.00, medium priority, pool A, no limits. */
extern const struct vm_settings vm_settings_default;

/* What a VM can claim of its GPU beside others: weight times priority factor, in hundredths. */
int32_t core_claim(const struct vm_settings *settings);

#endif
