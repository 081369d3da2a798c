/* SPDX-License-Identifier: MIT */
/* See timeline.h. */
#include "sim/timeline.h"

#include <errno.h>
#include <stdlib.h>

static bool earlier(const struct dated *a, const struct dated *b)
{
	return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

int timeline_push(struct timeline *timeline, const struct dated *item)
{
	uint32_t at = timeline->count;
	struct dated added = *item;

	if (timeline->count == timeline->capacity) {
		uint32_t capacity = timeline->capacity ? 2 * timeline->capacity : 256;
		struct dated *items = reallocarray(timeline->items, capacity, sizeof(*items));

		if (!items)
			return -ENOMEM;
		timeline->items = items;
		timeline->capacity = capacity;
	}
	added.order = ++timeline->pushed;
	timeline->count++;
	for (; at && earlier(&added, &timeline->items[(at - 1) / 2]); at = (at - 1) / 2)
		timeline->items[at] = timeline->items[(at - 1) / 2];
	timeline->items[at] = added;
	return 0;
}

struct dated timeline_pop(struct timeline *timeline)
{
	struct dated first = timeline->items[0];
	struct dated last = timeline->items[--timeline->count];
	uint32_t at = 0;

	for (;;) {
		uint32_t child = 2 * at + 1;

		if (child >= timeline->count)
			break;
		if (child + 1 < timeline->count &&
		    earlier(&timeline->items[child + 1], &timeline->items[child]))
			child++;
		if (!earlier(&timeline->items[child], &last))
			break;
		timeline->items[at] = timeline->items[child];
		at = child;
	}
	timeline->items[at] = last;
	return first;
}

int64_t timeline_next_ns(const struct timeline *timeline)
{
	return timeline->count ? timeline->items[0].at_ns : INT64_MAX;
}

void timeline_fini(struct timeline *timeline)
{
	free(timeline->items);
}
