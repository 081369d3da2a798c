/* SPDX-License-Identifier: MIT */
/*
 * See outcome.h.
 */
#include "guest/outcome.h"

#include <stddef.h>

#include "base/util.h"
#include "vgpu/vgpu.h"

struct outcome {
	int result;
	enum outcome_status status;
	const char *remedy;
};

static const struct outcome outcomes[] = {
	{VGPU_CODE_OK, OUTCOME_DONE, NULL},
	{VGPU_CODE_UNAVAILABLE, OUTCOME_UNAVAILABLE,
         "none is connected, it is ending, or it cannot start this VM's worker: ask the host's "
         "operator for 'vgpu-admin status'"},
	{VGPU_CODE_TIMEOUT, OUTCOME_TIMED_OUT,
         "the job ran over its limit and was ended; make it shorter, or ask the operator for "
         "'vgpu-admin set-timeout'"},
	{VGPU_CODE_INVALID_POOL, OUTCOME_FAILED,
         "the VM's pool is disabled or unknown: ask the operator"},
	{VGPU_CODE_QUEUE_FULL, OUTCOME_TRY_LATER, "try again later"},
	{VGPU_CODE_UNSUPPORTED, OUTCOME_FAILED,
         "the mediator is older than this client, or, for a test operation, runs without "
         "'allow_test_ops = yes'"},
	{VGPU_CODE_RATE_LIMITED, OUTCOME_TRY_LATER,
         "try again later, or ask the operator for 'vgpu-admin set-rate-limit'"},
	{VGPU_CODE_QUARANTINED, OUTCOME_QUARANTINED,
         "too many of this VM's jobs failed; only the operator can end it, with "
         "'vgpu-admin clear-quarantine'"},
	{VGPU_CODE_CONTEXT_LOST, OUTCOME_FAILED,
         "an earlier failure took the GPU's state of this VM with it: start over"},
	{VGPU_CODE_MEMORY_QUOTA, OUTCOME_FAILED,
         "use less GPU memory, or ask the operator for 'vgpu-admin set-memory-quota'"},
	{VGPU_E_TIMED_OUT, OUTCOME_TIMED_OUT, "allow more time with --timeout MS"},
	{VGPU_E_BUSY, OUTCOME_TIMED_OUT,
         "an earlier request still runs; wait for its end, or allow more time with --timeout MS"},
	{VGPU_E_CLOSED, OUTCOME_UNAVAILABLE,
         "the mediator stopped or refused this peer: look into its log"},
	{VGPU_E_PROTOCOL, OUTCOME_UNAVAILABLE, "is the peer a vgpu-mediator?"},
	{VGPU_E_NO_DEVICE, OUTCOME_UNAVAILABLE, "was the device unplugged?"},
};

static const struct outcome *find(int result)
{
	for (size_t i = 0; i < ARRAY_LEN(outcomes); i++) {
		if (outcomes[i].result == result)
			return &outcomes[i];
	}
	return NULL;
}

enum outcome_status outcome_status(int result)
{
	const struct outcome *outcome = find(result);

	if (outcome)
		return outcome->status;
	return result < 0 ? OUTCOME_UNAVAILABLE : OUTCOME_FAILED;
}

const char *outcome_remedy(int result)
{
	const struct outcome *outcome = find(result);

	return outcome ? outcome->remedy : NULL;
}

const char *outcome_reason(unsigned int reason)
{
	static const char *const names[] = {
		[VGPU_BUSY_RATE] = "rate",
		[VGPU_BUSY_DEPTH] = "depth",
		[VGPU_BUSY_GPU_RESET] = "gpu_reset",
	};

	return reason < ARRAY_LEN(names) && names[reason] ? names[reason] : "unknown";
}
