/* SPDX-License-Identifier: MIT */
/*
 * Why GPUs must not get work: what an operator has ordered and what a reset has not mended
 * must still hold after a restart.
 */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "registry/handle.h"

static int hold_insert(struct registry *registry, const char *gpu_uuid,
                       const struct registry_gpu_hold_event *hold)
{
	return registry_run(registry, "change",
	                    "INSERT INTO gpu_holds (gpu_uuid, code, at, message, held_by) "
	                    "VALUES (?1, ?2, ?3, substr(?4, 1, ?5), substr(?6, 1, ?5))",
	                    "ttitit", gpu_uuid, hold->code,
	                    hold->at_s != 0 ? hold->at_s : clock_realtime_s(), hold->message,
	                    (int64_t)REGISTRY_DETAIL_BYTES_MAX, hold->by);
}

int registry_gpu_holds_set(struct registry *registry, const char *gpu_uuid,
                           const struct registry_gpu_hold_event *items, size_t count)
{
	int r = registry_change_begin(registry, "change");

	if (r != 0)
		return r;
	r = registry_run(registry, "change", "DELETE FROM gpu_holds WHERE gpu_uuid = ?1", "t",
	                 gpu_uuid);
	for (size_t i = 0; r == 0 && i < count; i++)
		r = hold_insert(registry, gpu_uuid, &items[i]);
	return registry_change_end(registry, "change", r);
}

void registry_gpu_holds_clear(struct registry_gpu_holds *holds)
{
	for (size_t i = 0; i < holds->count; i++) {
		free(holds->items[i].gpu_uuid);
		free(holds->items[i].code);
		free(holds->items[i].message);
		free(holds->items[i].by);
	}
	free(holds->items);
	memset(holds, 0, sizeof(*holds));
}

static int hold_append(struct registry *registry UNUSED, sqlite3_stmt *statement, void *context)
{
	struct registry_gpu_holds *holds = context;
	struct registry_gpu_hold *items =
		registry_grown(holds->items, holds->count, sizeof(*items));
	int r = 0;

	if (!items)
		return -ENOMEM;
	holds->items = items;
	items[holds->count++] = (struct registry_gpu_hold){
		.gpu_uuid = registry_column_text(statement, 0, &r),
		.code = registry_column_text(statement, 1, &r),
		.at_s = sqlite3_column_int64(statement, 2),
		.message = registry_column_text(statement, 3, &r),
		.by = registry_column_text(statement, 4, &r),
	};
	return r;
}

int registry_gpu_hold_list(struct registry *registry, struct registry_gpu_holds *out)
{
	CLEANUP(statement_freep) sqlite3_stmt *statement = NULL;
	struct registry_gpu_holds holds = {.items = NULL};
	int r;

	/* A file of an earlier version, opened for reading, has none. */
	if (!registry->has_gpu_holds) {
		*out = holds;
		return 0;
	}
	r = registry_prepare(registry, &statement, "read",
	                     "SELECT gpu_uuid, code, at, message, held_by "
	                     "FROM gpu_holds ORDER BY gpu_uuid, at, code",
	                     "");
	r = registry_rows(registry, statement, r, hold_append, &holds);
	if (r != 0) {
		registry_gpu_holds_clear(&holds);
		return r;
	}
	*out = holds;
	return 0;
}
