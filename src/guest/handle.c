/* SPDX-License-Identifier: MIT */
/*
 * The handle: which requests are under way, who waits for which answer, when a refused
 * one is tried again, and the counts of all that.
 *
 * An id is a place in the table of requests plus a generation above it, so that an
 * answer finds its request at once and a late one from the past finds nobody.
 */
#include "guest/handle.h"

#include <errno.h>
#include <string.h>
#include <sys/queue.h>

#include "base/units.h"
#include "base/util.h"
#include "guest/retry.h"
#include "proto/request.h"

enum place_state {
	PLACE_FREE,      /* on the stack of free places */
	PLACE_SENT,      /* the transport will bring its answer */
	PLACE_ANSWERED,  /* its answer is in the list of early ones */
	PLACE_ABANDONED, /* as SENT, but the answer is to be dropped */
};

/* An answer that came while its caller waited for another. */
struct early {
	TAILQ_ENTRY(early) link;
	uint32_t id;
	int result;
	struct vgpu_response response;
};

struct place {
	enum place_state state;
	uint32_t id; /* of its present or last request */
	struct early *early;
};

struct vgpu {
	struct transport *transport;
	struct guest_env env;
	int64_t timeout_us;
	unsigned int retries;
	struct vgpu_stats stats;
	TAILQ_HEAD(, early) early; /* in order of arrival */
	uint32_t in_transport;     /* places in SENT or ABANDONED */
	uint32_t sent;             /* places in SENT */
	uint32_t free_count;
	uint16_t free_places[VGPU_OUTSTANDING_MAX]; /* a stack */
	struct place places[VGPU_OUTSTANDING_MAX];
};

_Static_assert((VGPU_OUTSTANDING_MAX & (VGPU_OUTSTANDING_MAX - 1)) == 0,
               "the low bits of an id are its place");

int handle_new(struct vgpu **out, struct transport *transport, const struct guest_env *env)
{
	struct vgpu *vgpu = calloc(1, sizeof(*vgpu));

	if (!vgpu) {
		transport->ops->free(transport);
		return -ENOMEM;
	}
	vgpu->transport = transport;
	vgpu->env = *env;
	vgpu->timeout_us = VGPU_TIMEOUT_US;
	vgpu->retries = VGPU_RETRIES_MAX;
	TAILQ_INIT(&vgpu->early);
	for (uint32_t i = 0; i < VGPU_OUTSTANDING_MAX; i++) {
		vgpu->places[i].id = i;
		vgpu->free_places[i] = (uint16_t)(VGPU_OUTSTANDING_MAX - 1 - i);
	}
	vgpu->free_count = VGPU_OUTSTANDING_MAX;
	*out = vgpu;
	return 0;
}

void vgpu_close(struct vgpu *vgpu)
{
	struct early *early;

	if (!vgpu)
		return;
	while ((early = TAILQ_FIRST(&vgpu->early))) {
		TAILQ_REMOVE(&vgpu->early, early, link);
		free(early);
	}
	vgpu->transport->ops->free(vgpu->transport);
	free(vgpu);
}

/* ---- Places ----------------------------------------------------------------- */

static struct place *place_find(struct vgpu *vgpu, uint32_t id)
{
	struct place *place = &vgpu->places[id % VGPU_OUTSTANDING_MAX];

	return place->id == id && place->state != PLACE_FREE ? place : NULL;
}

static void place_free(struct vgpu *vgpu, struct place *place)
{
	if (place->state == PLACE_SENT || place->state == PLACE_ABANDONED)
		vgpu->in_transport--;
	if (place->state == PLACE_SENT)
		vgpu->sent--;
	place->state = PLACE_FREE;
	vgpu->free_places[vgpu->free_count++] = (uint16_t)(place - vgpu->places);
}

/* The connection has ended: so has every request that was under way. */
static void places_fail(struct vgpu *vgpu)
{
	for (uint32_t i = 0; i < VGPU_OUTSTANDING_MAX; i++) {
		struct place *place = &vgpu->places[i];

		if (place->state == PLACE_SENT || place->state == PLACE_ABANDONED)
			place_free(vgpu, place);
	}
}

/* ---- Answers ---------------------------------------------------------------- */

static int count_answer(struct vgpu *vgpu, int result, const struct vgpu_response *response)
{
	if (result == 0)
		result = (int)response->code;
	if (result == 0)
		vgpu->stats.done++;
	else if (result == VGPU_CODE_RATE_LIMITED)
		vgpu->stats.rate_limited++;
	else if (result == VGPU_CODE_QUARANTINED)
		vgpu->stats.quarantined++;
	else
		vgpu->stats.failed++;
	return result;
}

/*
 * Takes answers from the transport until one belongs to a request that is waited for;
 * sets *@id, *@out and *@result (what vgpu_wait() returns for it). Returns 0, or why
 * there is none.
 */
static int receive(struct vgpu *vgpu, int64_t deadline_ns, uint32_t *id, int *result,
                   struct vgpu_response *out)
{
	struct answer answer;
	struct place *place;
	bool wanted;
	int r;

	for (;;) {
		r = vgpu->transport->ops->wait(vgpu->transport, &answer, deadline_ns);
		if (r != 0) {
			if (r != VGPU_E_TIMED_OUT)
				places_fail(vgpu);
			return r;
		}
		place = place_find(vgpu, answer.id);
		wanted = place && place->state == PLACE_SENT;
		if (place && place->state == PLACE_ANSWERED)
			place = NULL;
		if (place)
			place_free(vgpu, place);
		if (wanted)
			break;
		vgpu->stats.dropped++;
		/* Those to abandoned requests are few; a peer may invent any number. */
		if (!place && guest_env_now_ns(&vgpu->env) >= deadline_ns)
			return VGPU_E_TIMED_OUT;
	}
	*id = answer.id;
	*result = count_answer(vgpu, handle_read_answer(out, &answer), out);
	return 0;
}

static int early_take(struct vgpu *vgpu, struct early *early, struct vgpu_response *out)
{
	int result = early->result;

	TAILQ_REMOVE(&vgpu->early, early, link);
	place_free(vgpu, place_find(vgpu, early->id));
	*out = early->response;
	free(early);
	return result;
}

static int early_keep(struct vgpu *vgpu, uint32_t id, int result,
                      const struct vgpu_response *response)
{
	struct place *place = &vgpu->places[id % VGPU_OUTSTANDING_MAX];
	struct early *early = malloc(sizeof(*early));

	if (!early)
		return -ENOMEM;
	early->id = id;
	early->result = result;
	early->response = *response;
	TAILQ_INSERT_TAIL(&vgpu->early, early, link);
	/* receive() has just put the place on top of the stack of free ones. */
	vgpu->free_count--;
	place->state = PLACE_ANSWERED;
	place->early = early;
	return 0;
}

static int wait_until(struct vgpu *vgpu, uint32_t id, int64_t deadline_ns,
                      struct vgpu_response *out)
{
	struct place *place = place_find(vgpu, id);
	uint32_t answered;
	int result, r;

	if (!place || place->state == PLACE_ABANDONED)
		return VGPU_E_NO_REQUEST;
	if (place->state == PLACE_ANSWERED)
		return early_take(vgpu, place->early, out);
	for (;;) {
		r = receive(vgpu, deadline_ns, &answered, &result, out);
		if (r != 0)
			return r;
		if (answered == id)
			return result;
		r = early_keep(vgpu, answered, result, out);
		if (r < 0)
			return r;
	}
}

int vgpu_wait(struct vgpu *vgpu, uint32_t id, int64_t timeout_us, struct vgpu_response *out)
{
	return wait_until(vgpu, id, guest_env_deadline_ns(&vgpu->env, timeout_us), out);
}

int vgpu_wait_any(struct vgpu *vgpu, int64_t timeout_us, uint32_t *id, struct vgpu_response *out)
{
	struct early *early = TAILQ_FIRST(&vgpu->early);
	int result, r;

	if (early) {
		*id = early->id;
		return early_take(vgpu, early, out);
	}
	*id = 0;
	if (vgpu->sent == 0)
		return VGPU_E_NO_REQUEST;
	r = receive(vgpu, guest_env_deadline_ns(&vgpu->env, timeout_us), id, &result, out);
	return r != 0 ? r : result;
}

int vgpu_abandon(struct vgpu *vgpu, uint32_t id)
{
	struct place *place = place_find(vgpu, id);
	struct vgpu_response unused;

	if (!place || place->state == PLACE_ABANDONED)
		return VGPU_E_NO_REQUEST;
	if (place->state == PLACE_ANSWERED) {
		early_take(vgpu, place->early, &unused);
		vgpu->stats.dropped++;
	} else if (vgpu->transport->ops->abandon(vgpu->transport, id)) {
		place->state = PLACE_ABANDONED;
		vgpu->sent--;
	} else {
		place_free(vgpu, place);
	}
	return 0;
}

/* ---- Requests --------------------------------------------------------------- */

/* Makes room by collecting answers, which frees the transport; those that are still
 * waited for go to the list of early ones. */
static int make_place(struct vgpu *vgpu, int64_t deadline_ns)
{
	struct vgpu_response response;
	uint32_t id;
	int result, r;

	while (vgpu->free_count == 0 ||
	       vgpu->in_transport >= vgpu->transport->ops->limit(vgpu->transport)) {
		if (vgpu->in_transport == 0)
			return VGPU_E_BUSY;
		r = receive(vgpu, deadline_ns, &id, &result, &response);
		if (r == VGPU_E_TIMED_OUT)
			return VGPU_E_BUSY;
		if (r == 0)
			r = early_keep(vgpu, id, result, &response);
		if (r != 0)
			return r;
	}
	return 0;
}

/* Of the place's next request: 0 is nobody's. */
static uint32_t next_id(const struct place *place)
{
	uint32_t id = place->id + VGPU_OUTSTANDING_MAX;

	return id ? id : VGPU_OUTSTANDING_MAX;
}

static int submit_until(struct vgpu *vgpu, const struct vgpu_request *request, int64_t deadline_ns,
                        uint32_t *id)
{
	uint8_t bytes[VGPU_MESSAGE_BYTES];
	struct place *place;
	uint32_t next;
	size_t length;
	int r;

	length = request_encode(bytes, request->opcode, request->flags, request->params,
	                        request->param_count, request->data, request->data_bytes);
	if (length == 0)
		return -EMSGSIZE;
	r = make_place(vgpu, deadline_ns);
	if (r != 0)
		return r;
	place = &vgpu->places[vgpu->free_places[vgpu->free_count - 1]];
	next = next_id(place);
	r = vgpu->transport->ops->submit(vgpu->transport, next, bytes, (uint32_t)length,
	                                 deadline_ns);
	if (r != 0)
		return r;
	vgpu->free_count--;
	vgpu->in_transport++;
	vgpu->sent++;
	vgpu->stats.submitted++;
	place->state = PLACE_SENT;
	place->id = next;
	*id = next;
	return 0;
}

int vgpu_submit(struct vgpu *vgpu, const struct vgpu_request *request, int64_t timeout_us,
                uint32_t *id)
{
	return submit_until(vgpu, request, guest_env_deadline_ns(&vgpu->env, timeout_us), id);
}

static void count_retry(struct vgpu *vgpu, int64_t delay_us)
{
	vgpu->stats.retries++;
	vgpu->stats.retry_wait_us += (uint64_t)delay_us;
}

static int64_t draw_delay_us(const struct vgpu *vgpu, unsigned int attempt, uint32_t hint_us)
{
	return retry_delay_us(attempt, hint_us, vgpu->env.random(vgpu->env.context));
}

int64_t vgpu_retry_delay_us(struct vgpu *vgpu, unsigned int attempt, uint32_t retry_after_us)
{
	int64_t delay_us;

	if (attempt == 0 || attempt > vgpu->retries)
		return -1;
	delay_us = draw_delay_us(vgpu, attempt, retry_after_us);
	count_retry(vgpu, delay_us);
	return delay_us;
}

static int call_once(struct vgpu *vgpu, const struct vgpu_request *request, int64_t deadline_ns,
                     struct vgpu_response *out)
{
	uint32_t id;
	int r;

	r = submit_until(vgpu, request, deadline_ns, &id);
	if (r != 0)
		return r;
	r = wait_until(vgpu, id, deadline_ns, out);
	if (r == VGPU_E_TIMED_OUT) {
		vgpu->stats.timeouts++;
		vgpu_abandon(vgpu, id);
	}
	return r;
}

int vgpu_call(struct vgpu *vgpu, const struct vgpu_request *request, struct vgpu_response *out)
{
	int64_t deadline_ns = guest_env_deadline_ns(&vgpu->env, vgpu->timeout_us);
	int64_t delay_us;
	unsigned int attempt;
	int r;

	for (attempt = 1;; attempt++) {
		r = call_once(vgpu, request, deadline_ns, out);
		if (r != VGPU_CODE_RATE_LIMITED || attempt > vgpu->retries)
			return r;
		delay_us = draw_delay_us(vgpu, attempt, out->retry_after_us);
		if (delay_us * NS_PER_US > deadline_ns - guest_env_now_ns(&vgpu->env))
			return r;
		count_retry(vgpu, delay_us);
		guest_env_sleep_ns(&vgpu->env, delay_us * NS_PER_US);
	}
}

/* ---- Settings and what can be read -------------------------------------------- */

int vgpu_set_timeout(struct vgpu *vgpu, int64_t timeout_us)
{
	if (timeout_us == 0 || timeout_us < VGPU_WAIT_FOREVER)
		return -EINVAL;
	vgpu->timeout_us = timeout_us;
	return 0;
}

int vgpu_set_retries(struct vgpu *vgpu, unsigned int retries)
{
	if (retries > VGPU_RETRIES_MAX)
		return -EINVAL;
	vgpu->retries = retries;
	return 0;
}

int vgpu_get_info(struct vgpu *vgpu, struct vgpu_info *out)
{
	memset(out, 0, sizeof(*out));
	return vgpu->transport->ops->get_info(vgpu->transport, out);
}

void vgpu_get_stats(const struct vgpu *vgpu, struct vgpu_stats *out)
{
	*out = vgpu->stats;
}
