/* SPDX-License-Identifier: MIT */
/* See nvml_session.h. */
#include "mediator/nvml_session.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define CALL(session, call, expression)                    \
	__extension__({                                    \
		int call_result;                           \
		nvml_watch_begin(&(session)->watch, call); \
		call_result = (expression);                \
		nvml_watch_end(&(session)->watch);         \
		call_result;                               \
	})

static int load(struct nvml_session *session, char text[NVML_WHY_BYTES])
{
	char note[NVML_WHY_BYTES];
	int r;

	if (session->loaded)
		return 0;
	r = CALL(session, "dlopen", nvml_api_load(&session->api, session->library, note));
	memcpy(r < 0 ? text : session->note, note, sizeof(note));
	session->loaded = r == 0;
	return r;
}

/* Events are a convenience: without them Xid errors go unseen, and that is all. */
static void register_events(struct nvml_session *session)
{
	const struct nvml_api *api = &session->api;
	bool any = false;

	session->events = NULL;
	if (!api->events_create || !api->events_register || !api->events_wait || !api->events_free)
		return;
	if (CALL(session, "nvmlEventSetCreate", api->events_create(&session->events)) !=
	    NVML_SUCCESS) {
		session->events = NULL;
		return;
	}
	for (uint32_t gpu = 0; gpu < session->gpu_count; gpu++) {
		if (session->handles[gpu] &&
		    CALL(session, "nvmlDeviceRegisterEvents",
		         api->events_register(session->handles[gpu], NVML_EVENT_XID,
		                              session->events)) == NVML_SUCCESS)
			any = true;
	}
	if (any)
		return;
	CALL(session, "nvmlEventSetFree", api->events_free(session->events));
	session->events = NULL;
}

static uint32_t find_gpus(struct nvml_session *session)
{
	uint32_t found = 0;

	for (uint32_t gpu = 0; gpu < session->gpu_count; gpu++) {
		int r = CALL(
			session, "nvmlDeviceGetHandleByUUID",
			session->api.handle_by_uuid(session->uuids[gpu], &session->handles[gpu]));

		session->errors[gpu] = r;
		if (r == NVML_SUCCESS)
			found++;
		else
			session->handles[gpu] = NULL;
	}
	return found;
}

int nvml_session_open(struct nvml_session *session, char text[NVML_WHY_BYTES])
{
	char driver[80];
	uint32_t found;
	int r = load(session, text);

	if (r < 0)
		return r;
	r = CALL(session, "nvmlInit", session->api.init());
	if (r != NVML_SUCCESS) {
		const char *remedy = nvml_api_remedy(r);

		snprintf(text, NVML_WHY_BYTES, "nvmlInit: %s (%d)%s%s",
		         nvml_api_error(&session->api, r), r, *remedy ? "; " : "", remedy);
		return -EIO;
	}
	session->open = true;
	found = find_gpus(session);
	register_events(session);
	if (!session->api.driver_version ||
	    CALL(session, "nvmlSystemGetDriverVersion",
	         session->api.driver_version(driver, sizeof(driver))) != NVML_SUCCESS)
		snprintf(driver, sizeof(driver), "of unknown version");
	snprintf(text, NVML_WHY_BYTES, "driver %s, %u of %u GPU%s found%s%s%.300s", driver, found,
	         session->gpu_count, plural_s(session->gpu_count),
	         session->events ? "" : "; Xid errors cannot be seen",
	         session->note[0] ? "; values stay unknown, for it lacks " : "", session->note);
	return 0;
}

void nvml_session_close(struct nvml_session *session)
{
	if (!session->open)
		return;
	if (session->events)
		CALL(session, "nvmlEventSetFree", session->api.events_free(session->events));
	CALL(session, "nvmlShutdown", session->api.shutdown());
	session->events = NULL;
	session->open = false;
}

bool nvml_session_sample(struct nvml_session *session, uint32_t gpu, struct nvml_reading *out)
{
	if (session->handles[gpu]) {
		nvml_sample(out, &session->api, session->handles[gpu], &session->watch);
	} else {
		memset(out, 0, sizeof(*out));
		nvml_sample_error(out, &session->api, session->errors[gpu],
		                  "nvmlDeviceGetHandleByUUID");
	}
	out->at_ns = clock_monotonic_ns();
	return out->health.contact == HEALTH_ANSWERS;
}

int nvml_session_wait(struct nvml_session *session, uint32_t timeout_ms, uint32_t *gpu,
                      uint64_t *xid)
{
	struct nvml_event event = {.gpu = NULL};
	int r;

	if (!session->events)
		return -EIO;
	r = CALL(session, "nvmlEventSetWait",
	         session->api.events_wait(session->events, &event, timeout_ms));
	if (r == NVML_TIMEOUT)
		return 0;
	if (r != NVML_SUCCESS)
		return -EIO;
	for (*gpu = 0; *gpu < session->gpu_count; ++*gpu) {
		if (session->handles[*gpu] && session->handles[*gpu] == event.gpu)
			break;
	}
	if (*gpu == session->gpu_count || event.type != NVML_EVENT_XID)
		return 0;
	*xid = event.data;
	return 1;
}
