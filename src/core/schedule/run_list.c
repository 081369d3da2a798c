/* SPDX-License-Identifier: MIT */
/*
 * See run_list.h. The rules are those of the hardware's own list, as measured: slices
 * are about equal and follow each other without regard to who wakes; a context woken
 * beside one other waits for the slice's end, one woken beside several for the round.
 *
 * The list runs blind between answers, so that it may be a little late. Who is answered
 * while another is the head tells where the hardware is, if it was the next in turn:
 * then the hardware has turned to it already, and on to the one behind it. Who is
 * answered out of any turn tells nothing: not every request needs the GPU.
 */
#include "core/schedule/run_list.h"

#include <assert.h>

#include "base/util.h"

void run_list_init(struct run_list *list)
{
	TAILQ_INIT(&list->ring);
	TAILQ_INIT(&list->pending);
	list->count = 0;
	list->slice_start_ns = 0;
	run_list_configure(list, 1, 0);
}

void run_list_configure(struct run_list *list, int64_t slice_ns, int64_t handover_ns)
{
	assert(slice_ns > 0 && handover_ns >= 0);
	list->slice_ns = slice_ns;
	list->handover_ns = handover_ns;
}

static void admit_pending(struct run_list *list)
{
	struct run_node *node;

	TAILQ_FOREACH (node, &list->pending, link)
		node->place = RUN_IN_RING;
	TAILQ_CONCAT(&list->ring, &list->pending, link);
}

int64_t run_list_head_until_ns(const struct run_list *list, int64_t from_ns, int64_t until_ns)
{
	if (list->count < 2)
		return until_ns;
	return max_i64(from_ns, min_i64(until_ns, list->slice_start_ns + list->slice_ns));
}

/* The head's slice is over: it goes behind the others, and those that wait enter. */
static void turn(struct run_list *list, int64_t now_ns)
{
	struct run_node *head = run_list_head(list);

	TAILQ_REMOVE(&list->ring, head, link);
	TAILQ_INSERT_TAIL(&list->ring, head, link);
	admit_pending(list);
	list->slice_start_ns = now_ns;
}

void run_list_rotate(struct run_list *list, int64_t now_ns)
{
	if (list->count >= 2 && now_ns - list->slice_start_ns >= list->slice_ns)
		turn(list, now_ns);
}

/* The slices of a context that is alone follow each other without a hand-over. */
static int64_t slice_alone_ns(const struct run_list *list)
{
	return max_i64(list->slice_ns - list->handover_ns, list->slice_ns / 2 + 1);
}

void run_list_enter(struct run_list *list, struct run_node *node, int64_t now_ns)
{
	assert(node->place == RUN_OUTSIDE);
	node->entered_ns = now_ns;
	node->place = RUN_IN_RING;
	if (list->count == 0) {
		TAILQ_INSERT_TAIL(&list->ring, node, link);
		list->slice_start_ns = now_ns;
	} else if (list->count == 1) {
		int64_t alone_ns = now_ns - list->slice_start_ns;

		/* The present slice goes on. */
		list->slice_start_ns = now_ns - alone_ns % slice_alone_ns(list);
		TAILQ_INSERT_TAIL(&list->ring, node, link);
	} else {
		TAILQ_INSERT_TAIL(&list->pending, node, link);
		node->place = RUN_IS_PENDING;
	}
	list->count++;
}

static void take_out(struct run_list *list, struct run_node *node)
{
	TAILQ_REMOVE(node->place == RUN_IN_RING ? &list->ring : &list->pending, node, link);
	node->place = RUN_OUTSIDE;
	list->count--;
}

int64_t run_list_leave(struct run_list *list, struct run_node *node, int64_t now_ns)
{
	struct run_node *head = run_list_head(list);
	bool was_next = node == TAILQ_NEXT(head, link);
	int64_t unseen_ns;

	assert(node->place != RUN_OUTSIDE);
	take_out(list, node);
	if (node == head) {
		admit_pending(list);
		list->slice_start_ns = now_ns;
		return 0;
	}
	unseen_ns = min_i64(list->handover_ns, now_ns - node->entered_ns);
	unseen_ns = min_i64(unseen_ns, now_ns - list->slice_start_ns);
	if (was_next)
		turn(list, now_ns);
	return unseen_ns;
}
