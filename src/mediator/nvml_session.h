/* SPDX-License-Identifier: MIT */
/*
 * NVML as one thread uses it: opened, asked, waited for, closed and opened again.
 *
 * Everything here may block. struct nvml_watch shows other threads which call runs.
 */
#ifndef MEDIATOR_NVML_SESSION_H
#define MEDIATOR_NVML_SESSION_H

#include "mediator/nvml_reader.h"

struct nvml_session {
	struct nvml_watch watch; /* may be read by other threads */
	const char *library;
	char uuids[NVML_GPUS_MAX][NVML_UUID_BYTES];
	uint32_t gpu_count;

	struct nvml_api api;
	char note[NVML_WHY_BYTES]; /* symbols that are missing */
	bool loaded;
	bool open;
	void *handles[NVML_GPUS_MAX]; /* NULL: errors[] says why */
	int errors[NVML_GPUS_MAX];
	void *events; /* NULL: there are none to be had */
};

/*
 * Loads the library if need be, starts NVML, finds the GPUs and registers for Xid errors.
 * Returns 0, or a negative errno; @text says what is up or what is wrong. A GPU that is
 * not found is no error here.
 */
int nvml_session_open(struct nvml_session *session, char text[NVML_WHY_BYTES]);

/* Safe when it is not open. */
void nvml_session_close(struct nvml_session *session);

/* Reads GPU @gpu. False when it needs a new session to be seen again. */
bool nvml_session_sample(struct nvml_session *session, uint32_t gpu, struct nvml_reading *out);

/*
 * Waits for an Xid of any GPU. Returns 1 with *@gpu and *@xid set, 0 when none came in
 * @timeout_ms, or -EIO when waiting is not possible (then no time may have passed).
 */
int nvml_session_wait(struct nvml_session *session, uint32_t timeout_ms, uint32_t *gpu,
                      uint64_t *xid);

#endif
