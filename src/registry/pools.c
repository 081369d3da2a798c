/* SPDX-License-Identifier: MIT */
/*
 * Table pools: two rows that always exist, whatever a file lacks: reading gives a missing
 * one its defaults, a change writes it.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "registry/handle.h"

enum {
	POOL_COLUMN_ID,
	POOL_COLUMN_NAME,
	POOL_COLUMN_DESCRIPTION,
	POOL_COLUMN_ENABLED,
	POOL_COLUMN_VMS,
	POOL_COLUMN_TIMEOUT,
};

void registry_pools_clear(struct registry_pools *pools)
{
	for (size_t i = 0; i < POOL_COUNT; i++) {
		free(pools->items[i].name);
		free(pools->items[i].description);
		free(pools->items[i].problem);
	}
	memset(pools, 0, sizeof(*pools));
}

static int pool_read_timeout(sqlite3_stmt *statement, struct registry_pool *pool)
{
	const struct decimal *limit = &setting_fields[SETTING_TIMEOUT].number;
	int type = sqlite3_column_type(statement, POOL_COLUMN_TIMEOUT);
	double value = sqlite3_column_double(statement, POOL_COLUMN_TIMEOUT);

	free(TAKE_PTR(pool->problem));
	if (type == SQLITE_NULL)
		return 0;
	if ((type == SQLITE_INTEGER || type == SQLITE_FLOAT) &&
	    decimal_from_double(&pool->job_timeout_ms, limit, value) == 0)
		return 0;
	if (asprintf(&pool->problem,
	             "pool %c: job_timeout_ms is %.40s, allowed is %s; repair it with "
	             "vgpu-admin set-timeout",
	             pool_letter(pool->pool),
	             (const char *)sqlite3_column_text(statement, POOL_COLUMN_TIMEOUT),
	             limit->range) < 0) {
		pool->problem = NULL;
		return -ENOMEM;
	}
	return 0;
}

static int pool_read(struct registry *registry UNUSED, sqlite3_stmt *statement, void *context)
{
	struct registry_pools *pools = context;
	const char *letter = (const char *)sqlite3_column_text(statement, POOL_COLUMN_ID);
	struct registry_pool *pool;
	uint32_t index;
	int r = 0;

	if (!letter || pool_parse(&index, letter) < 0)
		return 0;
	pool = &pools->items[index];
	if (sqlite3_column_type(statement, POOL_COLUMN_NAME) != SQLITE_NULL) {
		free(pool->name);
		pool->name = registry_column_text(statement, POOL_COLUMN_NAME, &r);
	}
	free(pool->description);
	pool->description = registry_column_text(statement, POOL_COLUMN_DESCRIPTION, &r);
	if (sqlite3_column_type(statement, POOL_COLUMN_ENABLED) != SQLITE_NULL)
		pool->enabled = sqlite3_column_int(statement, POOL_COLUMN_ENABLED) != 0;
	pool->vm_count = (uint32_t)sqlite3_column_int(statement, POOL_COLUMN_VMS);
	return r == 0 ? pool_read_timeout(statement, pool) : r;
}

static int pools_defaults(struct registry_pools *pools)
{
	memset(pools, 0, sizeof(*pools));
	for (uint32_t i = 0; i < POOL_COUNT; i++) {
		pools->items[i].pool = i;
		pools->items[i].enabled = true;
		if (asprintf(&pools->items[i].name, "Pool %c", pool_letter(i)) < 0) {
			pools->items[i].name = NULL;
			return -ENOMEM;
		}
	}
	return 0;
}

int registry_pool_list(struct registry *registry, struct registry_pools *out)
{
	CLEANUP(statement_freep) sqlite3_stmt *statement = NULL;
	struct registry_pools pools;
	char sql[256];
	int r;

	r = pools_defaults(&pools);
	/* An empty file has no tables; what it would get are the defaults. */
	if (r == 0 && registry->vm_columns != 0) {
		snprintf(sql, sizeof(sql),
		         "SELECT pool_id, pool_name, description, enabled, (SELECT count(*) FROM "
		         "vms WHERE vms.pool_id = pools.pool_id), %s FROM pools",
		         registry->pool_timeout ? "job_timeout_ms" : "NULL");
		r = registry_prepare(registry, &statement, "read", sql, "");
		r = registry_rows(registry, statement, r, pool_read, &pools);
	}
	if (r != 0) {
		registry_pools_clear(&pools);
		return r;
	}
	*out = pools;
	return 0;
}

static int pool_set(struct registry *registry, const char *sql, int64_t value, uint32_t pool)
{
	char letter[2] = {pool_letter(pool), '\0'};
	int r;

	if (pool >= POOL_COUNT)
		return registry_fail(registry, REGISTRY_E_INVALID, "there are pools A and B only");
	r = registry_change_begin(registry, "change");
	if (r != 0)
		return r;
	r = registry_run(registry, "change",
	                 "INSERT OR IGNORE INTO pools (pool_id, pool_name) "
	                 "VALUES (?1, 'Pool ' || ?1)",
	                 "t", letter);
	if (r == 0)
		r = registry_run(registry, "change", sql, "it", value, letter);
	return registry_change_end(registry, "change", r);
}

int registry_pool_set_enabled(struct registry *registry, uint32_t pool, bool enabled)
{
	return pool_set(registry,
	                "UPDATE pools SET enabled = ?1, updated_at = CURRENT_TIMESTAMP "
	                "WHERE pool_id = ?2",
	                enabled, pool);
}

int registry_pool_set_timeout(struct registry *registry, uint32_t pool, int64_t job_timeout_ms)
{
	const struct decimal *limit = &setting_fields[SETTING_TIMEOUT].number;

	if (!decimal_allows(limit, job_timeout_ms))
		return registry_fail(registry, REGISTRY_E_INVALID,
		                     "timeout %" PRId64 " is out of range: %s", job_timeout_ms,
		                     limit->range);
	return pool_set(registry,
	                "UPDATE pools SET job_timeout_ms = ?1, updated_at = CURRENT_TIMESTAMP "
	                "WHERE pool_id = ?2",
	                job_timeout_ms, pool);
}
