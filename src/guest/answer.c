/* SPDX-License-Identifier: MIT */
/*
 * The response of an answer.
 *
 * What went wrong can be told in two places: beside the response (ERROR_CODE and the
 * registers that go with it, BUSY, QUARANTINED) or in it (its status and results), and
 * an old device says "CUDA error" beside whatever the response says. Here the two become
 * one, so that callers see the same response over every transport and every age of peer.
 */
#include "guest/handle.h"

#include <string.h>

#include "proto/request.h"

static void copy_response(struct vgpu_response *out, const struct response_view *view)
{
	out->exec_time_us = view->exec_time_us;
	out->result_count = view->result_count;
	for (uint32_t i = 0; i < view->result_count; i++)
		out->results[i] = response_result(view, i);
	out->data_bytes = view->data_bytes;
	if (view->data_bytes)
		memcpy(out->data, view->data, view->data_bytes);
}

int handle_read_answer(struct vgpu_response *out, const struct answer *answer)
{
	struct response_view view;

	out->code = answer->code;
	out->exec_time_us = 0;
	out->reason = answer->reason;
	out->retry_after_us = answer->retry_after_us;
	out->detail = answer->detail;
	out->result_count = 0;
	out->data_bytes = 0;
	if (answer->length == 0)
		return answer->code == VGPU_CODE_OK ? VGPU_E_PROTOCOL : 0;
	if (response_decode(&view, answer->bytes, answer->length, NULL) != VGPU_CODE_OK ||
	    view.status >= VGPU_E_TIMED_OUT)
		return VGPU_E_PROTOCOL;

	copy_response(out, &view);
	if (view.status != VGPU_CODE_OK &&
	    (out->code == VGPU_CODE_OK || out->code == VGPU_CODE_CUDA))
		out->code = view.status;
	if (out->code == VGPU_CODE_RATE_LIMITED && out->reason == 0 && view.result_count >= 2) {
		out->reason = out->results[0];
		out->retry_after_us = out->results[1];
	}
	if (out->code == VGPU_CODE_CUDA && out->detail == 0 && view.result_count >= 1)
		out->detail = out->results[0];
	return 0;
}
