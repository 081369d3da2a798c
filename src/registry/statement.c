/* SPDX-License-Identifier: MIT */
/* The one way to run a statement, and the one way to report; see handle.h. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "registry/handle.h"

int registry_fail(struct registry *registry, int code, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(registry->message.text, sizeof(registry->message.text), format, args);
	va_end(args);
	return code;
}

static const struct {
	int sql_code;
	int code;
	const char *remedy;
} sql_errors[] = {
	{SQLITE_BUSY, REGISTRY_E_LOCKED,
         "another process holds it; try again, or find it with fuser(1)"},
	{SQLITE_LOCKED, REGISTRY_E_LOCKED,
         "another process holds it; try again, or find it with fuser(1)"},
	{SQLITE_CORRUPT, REGISTRY_E_CORRUPT,
         "it is damaged; move it away and restore a backup of it"},
	{SQLITE_NOTADB, REGISTRY_E_NOT_A_DATABASE,
         "it is no SQLite database; check the path, or move it away and restore a backup"},
	{SQLITE_READONLY, REGISTRY_E_READ_ONLY,
         "the file, its directory or its file system is read-only; make it writable"},
	{SQLITE_FULL, REGISTRY_E_DISK_FULL,
         "the disk is full and nothing was changed; free some space and try again"},
	{SQLITE_CANTOPEN, REGISTRY_E_DENIED,
         "the file, or the journal beside it, cannot be opened; check owner and mode of both "
         "the file and its directory"},
	{SQLITE_IOERR, REGISTRY_E_IO,
         "the disk, or a limit on the size of files (ulimit -f), does not take it; nothing was "
         "changed; the kernel's log may say why"},
	{SQLITE_PERM, REGISTRY_E_DENIED, "permission denied; check owner and mode"},
	{SQLITE_NOMEM, -ENOMEM, "out of memory"},
};

void registry_warn(struct registry *registry, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(registry->warning.text, sizeof(registry->warning.text), format, args);
	va_end(args);
}

int registry_fail_sql(struct registry *registry, int sql_code, const char *what)
{
	for (size_t i = 0; i < ARRAY_LEN(sql_errors); i++) {
		if ((sql_code & 0xff) == sql_errors[i].sql_code)
			return registry_fail(registry, sql_errors[i].code,
			                     "cannot %s registry %s: %s", what, registry->path,
			                     sql_errors[i].remedy);
	}
	return registry_fail(registry, -EIO, "cannot %s registry %s: %s", what, registry->path,
	                     sqlite3_errmsg(registry->db));
}

static int statement_bind(struct registry *registry, sqlite3_stmt *statement, const char *types,
                          va_list args)
{
	int code = SQLITE_OK;

	for (int i = 0; types[i] && code == SQLITE_OK; i++) {
		if (types[i] == 't')
			code = sqlite3_bind_text(statement, i + 1, va_arg(args, const char *), -1,
			                         SQLITE_TRANSIENT);
		else if (types[i] == 'd')
			code = sqlite3_bind_double(statement, i + 1, va_arg(args, double));
		else
			code = sqlite3_bind_int64(statement, i + 1, va_arg(args, int64_t));
	}
	return code == SQLITE_OK ? 0 : registry_fail_sql(registry, code, "use");
}

static int prepare_list(struct registry *registry, sqlite3_stmt **out, const char *what,
                        const char *sql, const char *types, va_list args)
{
	CLEANUP(statement_freep) sqlite3_stmt *statement = NULL;
	int code = sqlite3_prepare_v2(registry->db, sql, -1, &statement, NULL);
	int r;

	if (code != SQLITE_OK)
		return registry_fail_sql(registry, code, what);
	r = statement_bind(registry, statement, types, args);
	if (r == 0)
		*out = TAKE_PTR(statement);
	return r;
}

int registry_prepare(struct registry *registry, sqlite3_stmt **out, const char *what,
                     const char *sql, const char *types, ...)
{
	va_list args;
	int r;

	va_start(args, types);
	r = prepare_list(registry, out, what, sql, types, args);
	va_end(args);
	return r;
}

int registry_step(struct registry *registry, sqlite3_stmt *statement, const char *what, bool *row)
{
	int code = sqlite3_step(statement);

	if (code != SQLITE_ROW && code != SQLITE_DONE)
		return registry_fail_sql(registry, code, what);
	*row = code == SQLITE_ROW;
	return 0;
}

int registry_run(struct registry *registry, const char *what, const char *sql, const char *types,
                 ...)
{
	CLEANUP(statement_freep) sqlite3_stmt *statement = NULL;
	bool row = true;
	va_list args;
	int r;

	va_start(args, types);
	r = prepare_list(registry, &statement, what, sql, types, args);
	va_end(args);
	while (r == 0 && row)
		r = registry_step(registry, statement, what, &row);
	return r;
}

int registry_rows(struct registry *registry, sqlite3_stmt *statement, int r, row_visit visit,
                  void *context)
{
	bool row = true;

	while (r == 0) {
		r = registry_step(registry, statement, "read", &row);
		if (r != 0 || !row)
			break;
		r = visit(registry, statement, context);
	}
	return r;
}

void *registry_grown(void *items, size_t count, size_t size)
{
	enum { LEAST = 16 };
	bool full = count == 0 || (count >= LEAST && (count & (count - 1)) == 0);

	/* Always a power of two, so that the count alone tells when they are full. */
	return full ? reallocarray(items, max_u64(LEAST, 2 * count), size) : items;
}

int registry_query_int(struct registry *registry, int64_t *out, const char *sql, int64_t fallback)
{
	CLEANUP(statement_freep) sqlite3_stmt *statement = NULL;
	bool row;
	int r;

	r = registry_prepare(registry, &statement, "read", sql, "");
	if (r == 0)
		r = registry_step(registry, statement, "read", &row);
	if (r == 0)
		*out = row && sqlite3_column_type(statement, 0) != SQLITE_NULL
		               ? sqlite3_column_int64(statement, 0)
		               : fallback;
	return r;
}

char *registry_column_text(sqlite3_stmt *statement, int column, int *r)
{
	const unsigned char *text;
	char *copy;

	if (sqlite3_column_type(statement, column) == SQLITE_NULL)
		return NULL;
	text = sqlite3_column_text(statement, column);
	copy = text ? strdup((const char *)text) : NULL;
	if (!copy)
		*r = -ENOMEM;
	return copy;
}
