/* SPDX-License-Identifier: MIT */
/*
 * The intrusive heap: on random operations it is compared with a plain array that is
 * searched from end to end.
 */
#include "core/schedule/heap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"

enum { ITEMS = 40, STEPS = 20000 };

struct item {
	struct heap_node node;
	int64_t key;
	uint32_t id;
	bool inside; /* as the test knows it */
};

static bool item_before(const struct heap_node *a, const struct heap_node *b)
{
	const struct item *x = CONTAINER_OF(a, const struct item, node);
	const struct item *y = CONTAINER_OF(b, const struct item, node);

	return x->key != y->key ? x->key < y->key : x->id < y->id;
}

static uint64_t random_below(uint64_t *state, uint64_t bound)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return (*state >> 11) % bound;
}

static const struct item *naive_first(const struct item *items)
{
	const struct item *first = NULL;

	for (uint32_t i = 0; i < ITEMS; i++) {
		if (items[i].inside && (!first || item_before(&items[i].node, &first->node)))
			first = &items[i];
	}
	return first;
}

static void check(const struct heap *heap, const struct item *items)
{
	const struct item *first = naive_first(items);
	uint32_t inside = 0;

	for (uint32_t i = 0; i < ITEMS; i++) {
		assert_int_equal(heap_contains(&items[i].node), items[i].inside);
		inside += items[i].inside;
	}
	assert_int_equal(heap->count, inside);
	assert_ptr_equal(heap_first(heap), first ? &first->node : NULL);
}

static void test_random_operations(void **state UNUSED)
{
	struct item items[ITEMS];
	uint64_t random = 88172645463325252u;
	struct heap heap;

	memset(items, 0, sizeof(items));
	heap_init(&heap, item_before);
	assert_int_equal(heap_reserve(&heap, ITEMS), 0);
	for (uint32_t i = 0; i < ITEMS; i++)
		items[i].id = i;
	for (int step = 0; step < STEPS; step++) {
		struct item *item = &items[random_below(&random, ITEMS)];

		if (!item->inside) {
			/* Few keys, so that many are equal. */
			item->key = (int64_t)random_below(&random, 12) - 6;
			heap_insert(&heap, &item->node);
			item->inside = true;
		} else if (random_below(&random, 3)) {
			item->key = (int64_t)random_below(&random, 12) - 6;
			heap_update(&heap, &item->node);
		} else {
			heap_remove(&heap, &item->node);
			item->inside = false;
		}
		check(&heap, items);
	}
	heap_fini(&heap);
}

/* Taking the first again and again gives the order. */
static void test_order(void **state UNUSED)
{
	struct item items[ITEMS];
	const struct item *last = NULL;
	uint64_t random = 4711;
	struct heap heap;

	memset(items, 0, sizeof(items));
	heap_init(&heap, item_before);
	for (uint32_t i = 0; i < ITEMS; i++) {
		items[i].id = i;
		items[i].key = (int64_t)random_below(&random, 10);
		assert_int_equal(heap_reserve(&heap, i + 1), 0);
		heap_insert(&heap, &items[i].node);
	}
	for (uint32_t i = 0; i < ITEMS; i++) {
		struct item *first = CONTAINER_OF(heap_first(&heap), struct item, node);

		assert_true(!last || item_before(&last->node, &first->node));
		heap_remove(&heap, &first->node);
		last = first;
	}
	assert_null(heap_first(&heap));
	heap_fini(&heap);
}

static void test_edges(void **state UNUSED)
{
	struct item item = {.key = 1};
	struct heap heap;

	heap_init(&heap, item_before);
	assert_null(heap_first(&heap));
	/* In no heap: nothing happens. */
	heap_remove(&heap, &item.node);
	assert_int_equal(heap_reserve(&heap, 0), 0);
	assert_int_equal(heap_reserve(&heap, 1), 0);
	heap_insert(&heap, &item.node);
	heap_update(&heap, &item.node);
	assert_ptr_equal(heap_first(&heap), &item.node);
	heap_remove(&heap, &item.node);
	heap_remove(&heap, &item.node);
	assert_null(heap_first(&heap));
	heap_fini(&heap);
	heap_fini(&heap);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_operations),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_edges),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
