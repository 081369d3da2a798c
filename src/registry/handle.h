/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the registry share and nobody else sees: the handle, the one
 * way to run a statement, the one way to report, the one way to change something.
 *
 * Only SQL that SQLite 3.7.17 knows is used, since that is what older Dom0s have.
 */
#ifndef REGISTRY_HANDLE_H
#define REGISTRY_HANDLE_H

#include <sqlite3.h>
#include <sys/stat.h>

#include "registry/registry.h"

/* The columns of table vms, in the order of schema_vm_columns[] and of every SELECT. */
enum vm_column {
	VM_COLUMN_ID,
	VM_COLUMN_UUID,
	VM_COLUMN_NAME,
	VM_COLUMN_POOL,
	VM_COLUMN_PRIORITY,
	VM_COLUMN_CREATED,
	VM_COLUMN_UPDATED,
	VM_COLUMN_ALLOW_CUBIN,
	VM_COLUMN_QUARANTINED,
	VM_COLUMN_QUARANTINE_AT,
	VM_COLUMN_QUARANTINE_REASON,
	VM_COLUMN_QUARANTINE_BY,
	VM_COLUMN_ERROR_COUNT,
	VM_COLUMN_SETTINGS, /* that of setting i is this + i */
};

struct registry {
	sqlite3 *db;
	char *path;
	enum registry_mode mode;
	bool in_memory;
	bool in_batch;
	int64_t busy_since_ns;          /* of the present wait for another process */
	const atomic_llong *give_up_ns; /* or NULL */
	uint32_t vm_columns;            /* bit i: table vms has schema_vm_columns[i] */
	bool pool_timeout;              /* table pools has job_timeout_ms */
	bool has_faults;                /* there is a table faults */
	bool fault_done_by;             /* and it has done_by */
	bool has_gpu_holds;             /* there is a table gpu_holds */
	/* Of the file as this handle knows it: whatever differs was done by another process. */
	uint32_t change_counter;
	bool foreign_change;
	dev_t device;
	ino_t inode;
	char *upgrade_backup;
	struct registry_error message;
	struct registry_error warning; /* "" = none */
};

/* Sets the message and returns @code. */
int registry_fail(struct registry *registry, int code, const char *format, ...) PRINTF(3, 4);

/* Sets the warning. */
void registry_warn(struct registry *registry, const char *format, ...) PRINTF(2, 3);

/* The message and code for what SQLite returned; @what completes "cannot ...". */
int registry_fail_sql(struct registry *registry, int sql_code, const char *what);

/*
 * Prepares @sql with arguments by @types: 't' const char * (NULL allowed), 'i' int64_t,
 * 'd' double. The caller finalizes *@out (CLEANUP(statement_freep)).
 */
int registry_prepare(struct registry *registry, sqlite3_stmt **out, const char *what,
                     const char *sql, const char *types, ...);

/* The same, run to its end; rows are ignored. */
int registry_run(struct registry *registry, const char *what, const char *sql, const char *types,
                 ...);

/* One step. Returns 0 with *@row false at the end. */
int registry_step(struct registry *registry, sqlite3_stmt *statement, const char *what, bool *row);

/*
 * Runs @statement to its end and calls @visit for each row; what that returns, if not 0, ends
 * it. Does nothing but return @r if that is not 0, so that a failed preparation can be passed on.
 */
typedef int (*row_visit)(struct registry *registry, sqlite3_stmt *statement, void *context);
int registry_rows(struct registry *registry, sqlite3_stmt *statement, int r, row_visit visit,
                  void *context);

/*
 * Room for one more of @size bytes behind the @count that @items holds, which grow by no other
 * means. Returns where they are now, or NULL: no memory, and @items is as it was.
 */
void *registry_grown(void *items, size_t count, size_t size);

/* One number; @fallback when there is no row or it is NULL. */
int registry_query_int(struct registry *registry, int64_t *out, const char *sql, int64_t fallback);

static inline void statement_freep(sqlite3_stmt **statement)
{
	sqlite3_finalize(*statement);
}

/*
 * The bracket around every change: a transaction, or a savepoint inside a batch.
 * registry_change_end() commits when @r is 0, else undoes; it returns @r or
 * why the commit failed.
 */
int registry_change_begin(struct registry *registry, const char *what);
int registry_change_end(struct registry *registry, const char *what, int r);

/* The row of table vms, by stored text first, then without regard to case. */
int registry_vm_rowid(struct registry *registry, const char *uuid, int64_t *rowid);

/*
 * A whole change of one VM: finds its row and does @change to it, in the bracket above.
 * REGISTRY_E_NOT_FOUND.
 */
typedef int (*vm_change)(struct registry *registry, const char *uuid, int64_t rowid,
                         const void *context);
int registry_change_vm(struct registry *registry, const char *uuid, vm_change change,
                       const void *context);

/* A copy of a text column, or NULL; *@r is -ENOMEM if there is no memory. */
char *registry_column_text(sqlite3_stmt *statement, int column, int *r);

#endif
