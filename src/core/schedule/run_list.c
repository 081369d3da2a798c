/* SPDX-License-Identifier: MIT */
/*
 * See run_list.h. The rules are those of the hardware's own list, as measured: slices
 * are about equal and follow each other without regard to who wakes; a context woken
 * beside one other waits for the slice's end, one woken beside several for the round.
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
}

static void admit_pending(struct run_list *list)
{
	struct run_node *node;

	TAILQ_FOREACH (node, &list->pending, link)
		node->place = RUN_IN_RING;
	TAILQ_CONCAT(&list->ring, &list->pending, link);
}

int64_t run_list_head_until_ns(const struct run_list *list, int64_t from_ns, int64_t until_ns,
                               int64_t slice_ns)
{
	if (list->count < 2)
		return until_ns;
	return max_i64(from_ns, min_i64(until_ns, list->slice_start_ns + slice_ns));
}

void run_list_rotate(struct run_list *list, int64_t now_ns, int64_t slice_ns)
{
	struct run_node *head = run_list_head(list);

	if (list->count < 2 || now_ns - list->slice_start_ns < slice_ns)
		return;
	TAILQ_REMOVE(&list->ring, head, link);
	TAILQ_INSERT_TAIL(&list->ring, head, link);
	admit_pending(list);
	list->slice_start_ns = now_ns;
}

void run_list_enter(struct run_list *list, struct run_node *node, int64_t now_ns, int64_t slice_ns)
{
	assert(node->place == RUN_OUTSIDE);
	node->entered_ns = now_ns;
	node->place = RUN_IN_RING;
	if (list->count == 0) {
		TAILQ_INSERT_TAIL(&list->ring, node, link);
		list->slice_start_ns = now_ns;
	} else if (list->count == 1) {
		/* Slices follow each other also while one is alone: the present one goes on. */
		list->slice_start_ns += (now_ns - list->slice_start_ns) / slice_ns * slice_ns;
		TAILQ_INSERT_TAIL(&list->ring, node, link);
	} else {
		TAILQ_INSERT_TAIL(&list->pending, node, link);
		node->place = RUN_IS_PENDING;
	}
	list->count++;
}

int64_t run_list_leave(struct run_list *list, struct run_node *node, int64_t now_ns,
                       int64_t handover_ns)
{
	bool was_head = node == run_list_head(list);
	int64_t unseen_ns = 0;

	assert(node->place != RUN_OUTSIDE);
	if (!was_head) {
		unseen_ns = min_i64(handover_ns, now_ns - node->entered_ns);
		unseen_ns = min_i64(unseen_ns, now_ns - list->slice_start_ns);
	}
	TAILQ_REMOVE(node->place == RUN_IN_RING ? &list->ring : &list->pending, node, link);
	node->place = RUN_OUTSIDE;
	list->count--;
	list->slice_start_ns = now_ns;
	if (was_head)
		admit_pending(list);
	return unseen_ns;
}
