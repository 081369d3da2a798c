/* SPDX-License-Identifier: MIT */
/*
 * What a result of the library means for whoever runs vgpu-client: the exit status, and
 * what a person can do about it.
 */
#ifndef GUEST_OUTCOME_H
#define GUEST_OUTCOME_H

/* Exit statuses: sysexits.h, and 124 as timeout(1) has it. */
enum outcome_status {
	OUTCOME_DONE = 0,
	OUTCOME_USAGE = 64,
	OUTCOME_UNAVAILABLE = 69, /* no device or no mediator */
	OUTCOME_FAILED = 70,      /* the job failed */
	OUTCOME_TRY_LATER = 75,   /* over a limit */
	OUTCOME_QUARANTINED = 77,
	OUTCOME_TIMED_OUT = 124,
};

/* @result as of vgpu/vgpu.h. */
enum outcome_status outcome_status(int result);

/* A constant text, or NULL when there is nothing to advise. */
const char *outcome_remedy(int result);

/* "rate", "depth", "gpu_reset" for an enum vgpu_busy_reason, "unknown" for anything else. */
const char *outcome_reason(unsigned int reason);

#endif
