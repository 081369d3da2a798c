/* SPDX-License-Identifier: MIT */
/*
 * Who is on the GPU now, by the mediator's clock alone.
 *
 * The hardware keeps a list of the contexts that have work and gives each a time
 * slice in turn. This is its mirror image, from which GPU time is charged: a VM is in
 * it from its first job sent to its last one answered, and all time goes to the head.
 * No figure of a worker enters, so that no lie of a worker can lower its bill.
 *
 * The list knows neither VMs nor bills. Its owner asks how long the head has the GPU,
 * charges that, and says so; what moves between two VMs when one leaves out of turn
 * is for the owner to book.
 */
#ifndef CORE_RUN_LIST_H
#define CORE_RUN_LIST_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

enum run_place {
	RUN_OUTSIDE,   /* in no list */
	RUN_IN_RING,   /* in run_list.ring */
	RUN_IS_PENDING /* in run_list.pending: enters with the next rotation */
};

/* One VM; zero-initialised it is outside. */
struct run_node {
	TAILQ_ENTRY(run_node) link;
	enum run_place place;
	int64_t entered_ns;
};

TAILQ_HEAD(run_queue, run_node);

struct run_list {
	struct run_queue ring;
	struct run_queue pending;
	uint32_t count; /* in either */
	int64_t slice_start_ns;
	int64_t slice_ns;    /* from one context's turn to the next one's, hand-over included */
	int64_t handover_ns; /* of that, from one context to another */
};

void run_list_init(struct run_list *list);

/* What the hardware does, @slice_ns > 0; holds from the present slice on. */
void run_list_configure(struct run_list *list, int64_t slice_ns, int64_t handover_ns);

/* Who has the GPU, or NULL when nobody has work on it. */
static inline struct run_node *run_list_head(const struct run_list *list)
{
	return TAILQ_FIRST(&list->ring);
}

/*
 * Until when the head has the GPU if nothing happens: the end of its slice, or
 * @until_ns where that is earlier or it has no rival. Never before @from_ns.
 */
int64_t run_list_head_until_ns(const struct run_list *list, int64_t from_ns, int64_t until_ns);

/* Passes the GPU on where the head's slice is over at @now_ns. */
void run_list_rotate(struct run_list *list, int64_t now_ns);

/* @node, which is outside, has work on the GPU from @now_ns on. Rotate first. */
void run_list_enter(struct run_list *list, struct run_node *node, int64_t now_ns);

/*
 * @node, which is inside, has no more work. Where it was not the head, the hardware
 * may have turned to it unseen: returns how much of the head's time belongs to it, at
 * most the hand-over. Otherwise 0.
 */
int64_t run_list_leave(struct run_list *list, struct run_node *node, int64_t now_ns);

#endif
