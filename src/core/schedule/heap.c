/* SPDX-License-Identifier: MIT */
/* See heap.h. J. W. J. Williams, "Algorithm 232: Heapsort", CACM 7(6), 1964. */
#include "core/schedule/heap.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

void heap_init(struct heap *heap, heap_before *before)
{
	*heap = (struct heap){.before = before};
}

void heap_fini(struct heap *heap)
{
	free(heap->nodes);
	heap->nodes = NULL;
	heap->count = heap->capacity = 0;
}

int heap_reserve(struct heap *heap, uint32_t count)
{
	struct heap_node **nodes;
	uint32_t capacity = heap->capacity ? heap->capacity : 16;

	if (count <= heap->capacity)
		return 0;
	while (capacity < count)
		capacity *= 2;
	nodes = realloc(heap->nodes, capacity * sizeof(*nodes));
	if (!nodes)
		return -ENOMEM;
	heap->nodes = nodes;
	heap->capacity = capacity;
	return 0;
}

struct heap_node *heap_first(const struct heap *heap)
{
	return heap->count ? heap->nodes[0] : NULL;
}

static void place(struct heap *heap, uint32_t index, struct heap_node *node)
{
	heap->nodes[index] = node;
	node->position = index + 1;
}

static void sift_up(struct heap *heap, uint32_t index, struct heap_node *node)
{
	while (index > 0) {
		uint32_t parent = (index - 1) / 2;

		if (!heap->before(node, heap->nodes[parent]))
			break;
		place(heap, index, heap->nodes[parent]);
		index = parent;
	}
	place(heap, index, node);
}

static void sift_down(struct heap *heap, uint32_t index, struct heap_node *node)
{
	for (;;) {
		uint32_t child = 2 * index + 1;

		if (child >= heap->count)
			break;
		if (child + 1 < heap->count &&
		    heap->before(heap->nodes[child + 1], heap->nodes[child]))
			child++;
		if (!heap->before(heap->nodes[child], node))
			break;
		place(heap, index, heap->nodes[child]);
		index = child;
	}
	place(heap, index, node);
}

void heap_insert(struct heap *heap, struct heap_node *node)
{
	sift_up(heap, heap->count++, node);
}

void heap_update(struct heap *heap, struct heap_node *node)
{
	uint32_t index = node->position - 1;

	if (index > 0 && heap->before(node, heap->nodes[(index - 1) / 2]))
		sift_up(heap, index, node);
	else
		sift_down(heap, index, node);
}

void heap_remove(struct heap *heap, struct heap_node *node)
{
	struct heap_node *last;

	if (!heap_contains(node))
		return;
	last = heap->nodes[--heap->count];
	if (last != node) {
		place(heap, node->position - 1, last);
		heap_update(heap, last);
	}
	node->position = 0;
}
