/* SPDX-License-Identifier: MIT */
/*
 * Words for every result of the library: the contract's codes, the library's own
 * conditions and the system's errors share one number line (vgpu/vgpu.h).
 */
#include <string.h>

#include "base/util.h"
#include "proto/request.h"
#include "vgpu/vgpu.h"

static const char *const own_texts[] = {
	[VGPU_E_TIMED_OUT - VGPU_E_TIMED_OUT] = "no answer in time",
	[VGPU_E_BUSY - VGPU_E_TIMED_OUT] = "busy with earlier requests",
	[VGPU_E_CLOSED - VGPU_E_TIMED_OUT] = "connection closed",
	[VGPU_E_PROTOCOL - VGPU_E_TIMED_OUT] = "received bytes that are no valid answer",
	[VGPU_E_NO_DEVICE - VGPU_E_TIMED_OUT] = "no vgpu device",
	[VGPU_E_NO_REQUEST - VGPU_E_TIMED_OUT] = "no such request outstanding",
};

const char *vgpu_strerror(int error)
{
	if (error < 0)
		return strerror(-error);
	if (error < VGPU_E_TIMED_OUT)
		return code_name((uint32_t)error);
	if ((size_t)(error - VGPU_E_TIMED_OUT) < ARRAY_LEN(own_texts))
		return own_texts[error - VGPU_E_TIMED_OUT];
	return "unknown error";
}
