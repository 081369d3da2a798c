/* SPDX-License-Identifier: MIT */
/* See registry_world.h. */
#include "registry_world.h"

#include <sqlite3.h>

int registry_world_new(void **state)
{
	const struct registry_options options = {.mode = REGISTRY_WRITE};
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->directory, "/tmp/test-registry-XXXXXX");
	assert_non_null(mkdtemp(f->directory));
	snprintf(f->path, sizeof(f->path), "%s/vgpu.db", f->directory);
	assert_int_equal(registry_open(&f->registry, f->path, &options, NULL), 0);
	*state = f;
	return 0;
}

int registry_world_free(void **state)
{
	struct fixture *f = *state;
	char other[128];

	registry_free(f->registry);
	unlink(f->path);
	snprintf(other, sizeof(other), "%s/copy.db", f->directory);
	unlink(other);
	assert_int_equal(rmdir(f->directory), 0);
	free(f);
	return 0;
}

void sql_by_hand(const struct fixture *f, const char *sql)
{
	sqlite3 *db;

	assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
	if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
		fail_msg("%s: %s", sql, sqlite3_errmsg(db));
	sqlite3_close(db);
}

void insert(struct fixture *f, const char *uuid, const char *name)
{
	struct registry_vm_change change = {.fields = REGISTRY_FIELD_NAME, .name = name};

	assert_int_equal(registry_vm_insert(f->registry, uuid, &change, NULL), 0);
}
