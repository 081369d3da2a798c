/* SPDX-License-Identifier: MIT */
/*
 * What holds a GPU must outlive the mediator: an operator's drain, a reset that is due,
 * one that has failed. After every change the registry is told what holds the GPU now,
 * as one set; after a restart the set is taken over.
 *
 * At most one set of a GPU is on its way to the registry. What changes meanwhile is
 * written when it has arrived; what could not be written is tried again.
 */
#include <stdio.h>
#include <string.h>

#include <event2/event.h>

#include "base/clock.h"
#include "mediator/gpu_watch_internal.h"

enum { AGAIN_S = 10 };

/* ---- The set ------------------------------------------------------------------------ */

static struct store_hold *add(struct store_holds *holds, const char *code, int64_t since_ns)
{
	struct store_hold *hold = &holds->items[holds->count++];
	int64_t age_ns = clock_monotonic_ns() - since_ns;

	hold->code = code;
	hold->at_s = clock_realtime_s() - age_ns / NS_PER_SEC;
	hold->message[0] = hold->by[0] = '\0';
	return hold;
}

static void collect(const struct watched *gpu, struct store_holds *out)
{
	const struct health_reason *reason = NULL;

	out->count = 0;
	for (int code = 0; code < GPU_CAUSE_COUNT; code++) {
		const struct gpu_cause *cause = &gpu->causes[code];
		struct store_hold *hold;

		if (!cause->active || !gpu_cause_infos[code].kept)
			continue;
		hold = add(out, gpu_cause_infos[code].code, cause->since_ns);
		snprintf(hold->by, sizeof(hold->by), "%s", cause->by);
	}
	while (gpu->health && (reason = health_next_reason(gpu->health, reason))) {
		struct store_hold *hold;

		if (!reason->drains || out->count == STORE_HOLDS_MAX)
			continue;
		hold = add(out, reason->code, reason->since_ns);
		snprintf(hold->message, sizeof(hold->message), "%s", reason->message);
	}
}

/* The times are not looked at: they are rounded, and follow from the rest. */
static bool same(const struct store_holds *a, const struct store_holds *b)
{
	if (a->count != b->count)
		return false;
	for (uint32_t i = 0; i < a->count; i++) {
		const struct store_hold *x = &a->items[i], *y = &b->items[i];

		if (strcmp(x->code, y->code) != 0 || strcmp(x->message, y->message) != 0 ||
		    strcmp(x->by, y->by) != 0)
			return false;
	}
	return true;
}

/* ---- Writing ------------------------------------------------------------------------ */

static void answer_all(struct watched *gpu, bool recorded)
{
	struct hold_waiter *waiter;

	while ((waiter = TAILQ_FIRST(&gpu->holds.waiters))) {
		if (recorded)
			admin_call_result(waiter->call, gpu_watch_describe(gpu->watch, gpu->index));
		else
			admin_call_error(waiter->call, ADMIN_E_FAILED,
			                 "it is done, but the registry cannot be written: until it "
			                 "can, a restart of the mediator undoes it");
		TAILQ_REMOVE(&gpu->holds.waiters, waiter, link);
		free(waiter);
	}
}

static void failed(struct watched *gpu)
{
	const struct timeval after = {.tv_sec = AGAIN_S};

	log_error("GPU %u: what drains it is not recorded; trying again in %d s", gpu->index,
	          AGAIN_S);
	event_add(gpu->holds.again, &after);
	answer_all(gpu, false);
}

void gpu_holds_sync(struct watched *gpu)
{
	struct mediator *mediator = gpu->watch->mediator;
	struct gpu_holds *holds = &gpu->holds;

	if (!gpu->watch->restored || holds->busy || evtimer_pending(holds->again, NULL))
		return;
	collect(gpu, &holds->storing);
	if (!holds->stale && same(&holds->storing, &holds->stored)) {
		answer_all(gpu, true);
		return;
	}
	holds->busy = store_gpu(mediator->store, gpu->index, mediator->gpus.gpus[gpu->index].uuid,
	                        &holds->storing) == 0;
	if (!holds->busy)
		failed(gpu);
}

void gpu_holds_stored(struct watched *gpu, bool stored)
{
	struct gpu_holds *holds = &gpu->holds;

	holds->busy = false;
	if (!stored) {
		failed(gpu);
		return;
	}
	holds->stored = holds->storing;
	holds->stale = false;
}

void gpu_holds_answer(struct watched *gpu, struct admin_call *call)
{
	struct hold_waiter *waiter = calloc(1, sizeof(*waiter));

	if (!waiter) {
		admin_call_result(call, NULL);
		return;
	}
	waiter->call = call;
	TAILQ_INSERT_TAIL(&gpu->holds.waiters, waiter, link);
	/* Whoever asks shall not wait for the next attempt. */
	event_del(gpu->holds.again);
	gpu_holds_sync(gpu);
}

static void on_again(evutil_socket_t fd UNUSED, short what UNUSED, void *arg)
{
	gpu_holds_sync(arg);
}

/* ---- Reading ------------------------------------------------------------------------ */

static bool restore_cause(struct watched *gpu, const struct registry_gpu_hold *row,
                          int64_t since_ns)
{
	char message[HEALTH_TEXT_BYTES];

	for (int code = 0; code < GPU_CAUSE_COUNT; code++) {
		if (!gpu_cause_infos[code].kept ||
		    strcmp(gpu_cause_infos[code].code, row->code) != 0)
			continue;
		gpu_cause_begin(gpu, code, since_ns, row->by ? row->by : "");
		log_warning("GPU %u: still %s", gpu->index,
		            gpu_cause_message(message, sizeof(message), gpu, code));
		return true;
	}
	return false;
}

static void restore(struct watched *gpu, const struct registry_gpu_hold *row)
{
	const char *message = row->message ? row->message : "";
	int64_t now_ns = clock_monotonic_ns();
	int64_t since_ns = now_ns - max_i64(clock_realtime_s() - row->at_s, 0) * NS_PER_SEC;

	if (!restore_cause(gpu, row, since_ns) &&
	    (!gpu->health || !health_restore(gpu->health, now_ns, row->code, since_ns, message)))
		log_warning("GPU %u: the registry has it out of service for an unknown reason, %s",
		            gpu->index, row->code);
}

void gpu_holds_read(struct watched *gpu, const struct registry_gpu_holds *rows)
{
	const char *uuid = gpu->watch->mediator->gpus.gpus[gpu->index].uuid;
	uint32_t found = 0;

	for (size_t i = 0; i < rows->count; i++) {
		if (strcmp(rows->items[i].gpu_uuid, uuid) != 0)
			continue;
		found++;
		if (!gpu->watch->restored)
			restore(gpu, &rows->items[i]);
	}
	if (gpu->holds.busy)
		return;
	/* Another file was put in place, or it was edited: what is known here goes into it. */
	gpu->holds.stale = found != gpu->holds.stored.count;
}

int gpu_holds_init(struct watched *gpu)
{
	TAILQ_INIT(&gpu->holds.waiters);
	gpu->holds.again = evtimer_new(gpu->watch->mediator->base, on_again, gpu);
	return gpu->holds.again ? 0 : -ENOMEM;
}

void gpu_holds_clear(struct watched *gpu)
{
	struct hold_waiter *waiter;

	/* Their calls are the admin server's. */
	while ((waiter = TAILQ_FIRST(&gpu->holds.waiters))) {
		TAILQ_REMOVE(&gpu->holds.waiters, waiter, link);
		free(waiter);
	}
	if (gpu->holds.again)
		event_free(gpu->holds.again);
}
