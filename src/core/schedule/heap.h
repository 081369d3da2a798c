/* SPDX-License-Identifier: MIT */
/*
 * A binary heap of nodes that live inside other structures: insert, remove and
 * update of any node in O(log n), without allocation once room is reserved.
 *
 * The order is the caller's function; it must be total, so that the same insertions
 * always give the same first node.
 */
#ifndef CORE_HEAP_H
#define CORE_HEAP_H

#include <stdbool.h>
#include <stdint.h>

/* Zero-initialised: in no heap. A node is in at most one heap. */
struct heap_node {
	uint32_t position; /* index + 1; 0 = in no heap */
};

/* True if @a comes before @b. */
typedef bool heap_before(const struct heap_node *a, const struct heap_node *b);

struct heap {
	struct heap_node **nodes;
	uint32_t count;
	uint32_t capacity;
	heap_before *before;
};

void heap_init(struct heap *heap, heap_before *before);
void heap_fini(struct heap *heap);

/* Makes room for @count nodes in all. Returns 0 or -ENOMEM. */
int heap_reserve(struct heap *heap, uint32_t count);

/* The first node, or NULL. */
struct heap_node *heap_first(const struct heap *heap);

/* @node must be in no heap, and room reserved. */
void heap_insert(struct heap *heap, struct heap_node *node);

/* A node that is in no heap is left alone. */
void heap_remove(struct heap *heap, struct heap_node *node);

/* After what the order looks at has changed in @node, which is in the heap. */
void heap_update(struct heap *heap, struct heap_node *node);

static inline bool heap_contains(const struct heap_node *node)
{
	return node->position != 0;
}

#endif
