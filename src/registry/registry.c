/* SPDX-License-Identifier: MIT */
/*
 * See registry.h. Opening, transactions and change detection.
 *
 * The file keeps SQLite's rollback journal (no WAL): it stays one file that old tools
 * and plain copies understand, writes are rare, and a killed writer's journal is rolled
 * back by whoever opens the file next. With synchronous = FULL, and the directory
 * synced after each commit (or else the removed journal could come back after a power
 * cut and undo it), a quarantine that was reported as stored stays stored. Where the
 * directory cannot be synced, what was done is done all the same: that is a warning.
 */
#include "registry/registry.h"

#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "registry/copy.h"
#include "registry/handle.h"
#include "registry/schema.h"

enum {
	BUSY_TIMEOUT_MS = 5000,
	BUSY_POLL_NS = 10 * NS_PER_MS,
	HEADER_CHANGE_COUNTER = 24, /* its offset in the file, 4 bytes big-endian */
};

/* ---- Who changed the file -------------------------------------------------------- */

/*
 * SQLite counts transactions in the file's header. Read through SQLite's own
 * descriptor, which takes no lock and, unlike PRAGMA data_version, works everywhere.
 */
static int change_counter_read(struct registry *registry, uint32_t *out)
{
	sqlite3_file *file = NULL;
	uint8_t bytes[4];
	int code;

	*out = 0;
	if (registry->in_memory)
		return 0;
	code = sqlite3_file_control(registry->db, "main", SQLITE_FCNTL_FILE_POINTER, &file);
	if (code != SQLITE_OK || !file || !file->pMethods)
		return registry_fail_sql(registry, SQLITE_CANTOPEN, "read");
	code = file->pMethods->xRead(file, bytes, sizeof(bytes), HEADER_CHANGE_COUNTER);
	if (code != SQLITE_OK && code != SQLITE_IOERR_SHORT_READ)
		return registry_fail_sql(registry, code, "read");
	*out = (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 |
	       bytes[3];
	return 0;
}

static int file_identify(struct registry *registry)
{
	struct stat file;

	if (registry->in_memory)
		return 0;
	if (stat(registry->path, &file) < 0)
		return registry_fail(registry, -errno, "cannot find registry %s: %s",
		                     registry->path, strerror(errno));
	registry->device = file.st_dev;
	registry->inode = file.st_ino;
	return change_counter_read(registry, &registry->change_counter);
}

int registry_changed(struct registry *registry, bool *out)
{
	uint32_t counter;
	struct stat file;
	int r;

	if (registry->in_memory) {
		*out = false;
		return 0;
	}
	if (stat(registry->path, &file) < 0 || file.st_dev != registry->device ||
	    file.st_ino != registry->inode)
		return registry_fail(registry, REGISTRY_E_REPLACED,
		                     "registry %s was moved or replaced while it was open",
		                     registry->path);
	r = change_counter_read(registry, &counter);
	if (r != 0)
		return r;
	*out = registry->foreign_change || counter != registry->change_counter;
	registry->foreign_change = false;
	registry->change_counter = counter;
	return 0;
}

/* ---- Transactions ---------------------------------------------------------------- */

static void transaction_undo(struct registry *registry)
{
	/* Some errors have ended the transaction already. */
	if (!sqlite3_get_autocommit(registry->db))
		sqlite3_exec(registry->db, "ROLLBACK", NULL, NULL, NULL);
}

static int transaction_begin(struct registry *registry, const char *what)
{
	uint32_t counter;
	int r;

	if (registry->mode == REGISTRY_READ)
		return registry_fail(registry, REGISTRY_E_READ_ONLY,
		                     "cannot %s registry %s: it was opened for reading only", what,
		                     registry->path);
	r = registry_run(registry, what, "BEGIN IMMEDIATE", "");
	if (r != 0)
		return r;
	r = change_counter_read(registry, &counter);
	if (r != 0) {
		transaction_undo(registry);
		return r;
	}
	if (counter != registry->change_counter) {
		registry->foreign_change = true;
		registry->change_counter = counter;
	}
	return 0;
}

static int transaction_commit(struct registry *registry, const char *what)
{
	uint32_t counter;
	int r;

	r = registry_run(registry, what, "COMMIT", "");
	if (r != 0) {
		transaction_undo(registry);
		return r;
	}
	if (registry->in_memory)
		return 0;
	/*
	 * Ours counts one, if it wrote at all; what is beyond that came after us. A count that
	 * cannot be read makes our change look foreign, and the file be read once more.
	 */
	if (change_counter_read(registry, &counter) == 0 && counter != registry->change_counter)
		registry->change_counter++;
	copy_sync_directory(registry, registry->path);
	return 0;
}

int registry_change_begin(struct registry *registry, const char *what)
{
	if (!registry->in_batch)
		return transaction_begin(registry, what);
	if (sqlite3_get_autocommit(registry->db))
		return registry_fail(registry, -EIO,
		                     "cannot %s registry %s: an earlier error has undone the batch",
		                     what, registry->path);
	return registry_run(registry, what, "SAVEPOINT change", "");
}

int registry_change_end(struct registry *registry, const char *what, int r)
{
	if (!registry->in_batch) {
		if (r == 0)
			return transaction_commit(registry, what);
		transaction_undo(registry);
		return r;
	}
	if (r == 0)
		return registry_run(registry, what, "RELEASE change", "");
	if (!sqlite3_get_autocommit(registry->db))
		sqlite3_exec(registry->db, "ROLLBACK TO change; RELEASE change", NULL, NULL, NULL);
	return r;
}

int registry_batch_begin(struct registry *registry)
{
	int r = transaction_begin(registry, "change");

	registry->in_batch = r == 0;
	return r;
}

int registry_batch_end(struct registry *registry, bool keep)
{
	registry->in_batch = false;
	if (!keep) {
		transaction_undo(registry);
		return 0;
	}
	return transaction_commit(registry, "change");
}

bool registry_failed_whole(int code)
{
	return code == REGISTRY_E_LOCKED || code == REGISTRY_E_CORRUPT ||
	       code == REGISTRY_E_NOT_A_DATABASE || code == REGISTRY_E_READ_ONLY ||
	       code == REGISTRY_E_DENIED || code == REGISTRY_E_DISK_FULL || code == REGISTRY_E_IO ||
	       code == -ENOMEM;
}

/* ---- Checks ---------------------------------------------------------------------- */

/* A row with a bad value is that row's problem; this is about the file. */
static bool check_line_is_damage(const char *line)
{
	return strcmp(line, "ok") != 0 && !strstr(line, " value in ") &&
	       !strstr(line, "CHECK constraint failed");
}

static int check_with(struct registry *registry, const char *pragma)
{
	CLEANUP(statement_freep) sqlite3_stmt *statement = NULL;
	bool row;
	int r;

	r = registry_prepare(registry, &statement, "check", pragma, "");
	while (r == 0) {
		const char *line;

		r = registry_step(registry, statement, "check", &row);
		if (r != 0 || !row)
			break;
		line = (const char *)sqlite3_column_text(statement, 0);
		if (line && check_line_is_damage(line))
			return registry_fail(registry, REGISTRY_E_CORRUPT,
			                     "registry %s is damaged (%s); move it away and "
			                     "restore a backup of it",
			                     registry->path, line);
	}
	return r;
}

int registry_check(struct registry *registry)
{
	return check_with(registry, "PRAGMA integrity_check");
}

int registry_backup(struct registry *registry, const char *path)
{
	CLEANUP(freep) char *part = NULL;
	struct stat existing;

	if (asprintf(&part, "%s.part", path) < 0) {
		part = NULL;
		return -ENOMEM;
	}
	if (lstat(path, &existing) == 0)
		return registry_fail(registry, REGISTRY_E_EXISTS,
		                     "%s exists and is not overwritten; name another file", path);
	if (lstat(part, &existing) == 0)
		return registry_fail(registry, REGISTRY_E_EXISTS,
		                     "%s exists and is not overwritten; remove it, if a backup "
		                     "was broken off there, or name another file",
		                     part);
	return copy_database(registry, path, part);
}

/* ---- Opening --------------------------------------------------------------------- */

/* The plain reasons, in plain words, before SQLite says "unable to open". */
static int path_check(struct registry *registry)
{
	CLEANUP(freep) char *copy = strdup(registry->path);
	struct stat found;
	const char *directory;

	if (!copy)
		return -ENOMEM;
	/* To SQLite that would be a file without a name, gone when it is closed. */
	if (!*copy)
		return registry_fail(registry, REGISTRY_E_NOT_A_DATABASE,
		                     "the path of the registry is empty; say which file it is");
	if (stat(registry->path, &found) == 0)
		return S_ISREG(found.st_mode)
		               ? 0
		               : registry_fail(registry, REGISTRY_E_NOT_A_DATABASE,
		                               "registry %s is no regular file; check the path",
		                               registry->path);
	if (errno != ENOENT && errno != ENOTDIR)
		return registry_fail(registry, REGISTRY_E_DENIED,
		                     "cannot open registry %s: %s; check the path, and owner and "
		                     "mode of its directories",
		                     registry->path, strerror(errno));
	directory = dirname(copy);
	if (stat(directory, &found) < 0 || !S_ISDIR(found.st_mode))
		return registry_fail(registry, REGISTRY_E_NO_DIRECTORY,
		                     "cannot open registry %s: there is no directory %s; create it "
		                     "or check the path",
		                     registry->path, directory);
	if (registry->mode == REGISTRY_READ)
		return registry_fail(registry, REGISTRY_E_MISSING,
		                     "there is no registry %s yet; check the path, or register a "
		                     "VM or start vgpu-mediator to create it",
		                     registry->path);
	return 0;
}

/* Another process has the file: tells SQLite whether to try again. */
static int on_busy(void *arg, int attempts)
{
	static const struct timespec pause = {.tv_nsec = BUSY_POLL_NS};
	struct registry *registry = arg;
	int64_t now_ns = clock_monotonic_ns();
	int64_t until_ns;

	if (attempts == 0)
		registry->busy_since_ns = now_ns;
	until_ns = registry->busy_since_ns + BUSY_TIMEOUT_MS * NS_PER_MS;
	if (registry->give_up_ns)
		until_ns = min_i64(until_ns, atomic_load(registry->give_up_ns));
	if (now_ns >= until_ns)
		return 0;
	nanosleep(&pause, NULL);
	return 1;
}

static int open_file(struct registry *registry)
{
	int flags = SQLITE_OPEN_READWRITE;
	int code, r;

	r = registry->in_memory ? 0 : path_check(registry);
	if (r != 0)
		return r;
	if (registry->mode == REGISTRY_WRITE)
		flags |= SQLITE_OPEN_CREATE;
	code = sqlite3_open_v2(registry->in_memory ? ":memory:" : registry->path, &registry->db,
	                       flags, NULL);
	if (code != SQLITE_OK)
		return registry_fail_sql(registry, code, "open");
	sqlite3_busy_handler(registry->db, on_busy, registry);
	return registry_run(registry, "open", "PRAGMA synchronous = FULL", "");
}

static int open_schema(struct registry *registry)
{
	enum schema_state state;
	int r;

	r = schema_state(registry, &state);
	if (r == 0)
		r = check_with(registry, "PRAGMA quick_check");
	if (r != 0)
		return r;
	if (registry->mode == REGISTRY_WRITE) {
		if (sqlite3_db_readonly(registry->db, "main") == 1)
			return registry_fail_sql(registry, SQLITE_READONLY, "write");
		/* Only matters for a file that somebody else has set to WAL. */
		r = registry_run(registry, "open", "PRAGMA journal_mode = DELETE", "");
		if (r == 0 && state != SCHEMA_STATE_CURRENT)
			r = schema_upgrade(registry);
	}
	return r == 0 ? schema_inspect(registry) : r;
}

int registry_open(struct registry **out, const char *path, const struct registry_options *options,
                  struct registry_error *why)
{
	CLEANUP(registry_freep) struct registry *registry = calloc(1, sizeof(*registry));
	int r;

	if (!registry)
		return -ENOMEM;
	/* What the message is when there is not even memory for one. */
	registry_fail(registry, 0, "out of memory");
	registry->mode = options->mode;
	registry->give_up_ns = options->give_up_ns;
	registry->in_memory = strcmp(path, ":memory:") == 0;
	registry->path =
		strdup(registry->in_memory && options->stands_for ? options->stands_for : path);
	if (!registry->path)
		return -ENOMEM;
	r = open_file(registry);
	if (r == 0)
		r = open_schema(registry);
	if (r == 0)
		r = file_identify(registry);
	if (r != 0) {
		if (why)
			*why = registry->message;
		return r;
	}
	registry->foreign_change = false;
	*out = TAKE_PTR(registry);
	return 0;
}

void registry_free(struct registry *registry)
{
	if (!registry)
		return;
	sqlite3_close(registry->db);
	free(registry->path);
	free(registry->upgrade_backup);
	free(registry);
}

const char *registry_path(const struct registry *registry)
{
	return registry->path;
}

const char *registry_message(const struct registry *registry)
{
	return registry->message.text;
}

const char *registry_warning(const struct registry *registry)
{
	return registry->warning.text[0] ? registry->warning.text : NULL;
}

const char *registry_upgrade_backup(const struct registry *registry)
{
	return registry->upgrade_backup;
}

bool registry_uuid_valid(const char *text)
{
	for (int i = 0; i < REGISTRY_UUID_BYTES - 1; i++) {
		if (i == 8 || i == 13 || i == 18 || i == 23) {
			if (text[i] != '-')
				return false;
		} else if (!((text[i] >= '0' && text[i] <= '9') ||
		             (text[i] >= 'a' && text[i] <= 'f'))) {
			return false;
		}
	}
	return text[REGISTRY_UUID_BYTES - 1] == '\0';
}
