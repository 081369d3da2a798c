/* SPDX-License-Identifier: MIT */
/*
 * See copy.h. SQLite's own backup interface copies the pages, so that the copy is
 * consistent whatever other processes do. The database itself is never opened with
 * open() here: closing such a descriptor would drop SQLite's locks on it.
 */
#include "registry/copy.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { COPY_NAME_TRIES = 100, COPY_BUSY_TIMEOUT_MS = 5000 };

static void database_closep(sqlite3 **db)
{
	sqlite3_close(*db);
}

void copy_sync_directory(struct registry *registry, const char *path)
{
	CLEANUP(freep) char *copy = strdup(path);
	const char *directory = copy ? dirname(copy) : ".";
	CLEANUP(closep) int fd = copy ? open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

	/* Some file systems cannot sync directories and need not. */
	if (fd >= 0 && (fsync(fd) == 0 || errno == EINVAL || errno == EROFS))
		return;
	registry_warn(registry,
	              "%s is written, but a power cut could undo that: the directory %s cannot be "
	              "synced (%s)%s",
	              path, directory, strerror(errno),
	              errno == EACCES ? "; make it readable" : "");
}

static int fail_errno(struct registry *registry, const char *to, int error)
{
	if (error == ENOSPC || error == EDQUOT)
		return registry_fail(registry, REGISTRY_E_DISK_FULL,
		                     "cannot write the backup %s: the disk is full; free some "
		                     "space and try again",
		                     to);
	if (error == EROFS)
		return registry_fail(registry, REGISTRY_E_READ_ONLY,
		                     "cannot write the backup %s: the file system is read-only",
		                     to);
	if (error == ENOENT)
		return registry_fail(registry, REGISTRY_E_NO_DIRECTORY,
		                     "cannot write the backup %s: its directory does not exist",
		                     to);
	if (error == EACCES || error == EPERM)
		return registry_fail(registry, REGISTRY_E_DENIED,
		                     "cannot write the backup %s: permission denied", to);
	return registry_fail(registry, -error, "cannot write the backup %s: %s", to,
	                     strerror(error));
}

/* Same owner and mode as the original, so that nobody can read more than before. */
static int create_part(struct registry *registry, int *out, const char *part)
{
	struct stat original;
	CLEANUP(closep) int fd = -1;

	if (unlink(part) < 0 && errno != ENOENT)
		return -errno;
	fd = open(part, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (!registry->in_memory && stat(registry->path, &original) == 0) {
		if (fchown(fd, original.st_uid, original.st_gid) == 0 &&
		    fchmod(fd, original.st_mode & 0777) < 0)
			return -errno;
	}
	*out = TAKE_FD(fd);
	return 0;
}

/*
 * SQLite does not copy from a connection that is writing, which an upgrade's is. A
 * second connection reads beside it what the file holds before the upgrade.
 */
static int copy_source(struct registry *registry, sqlite3 **own, sqlite3 **source)
{
	int code;

	*source = registry->db;
	if (registry->in_memory)
		return SQLITE_OK;
	code = sqlite3_open_v2(registry->path, own, SQLITE_OPEN_READWRITE, NULL);
	if (code == SQLITE_OK)
		code = sqlite3_busy_timeout(*own, COPY_BUSY_TIMEOUT_MS);
	*source = *own;
	return code;
}

static int copy_pages(struct registry *registry, const char *part)
{
	CLEANUP(database_closep) sqlite3 *target = NULL;
	CLEANUP(database_closep) sqlite3 *own = NULL;
	sqlite3_backup *backup;
	sqlite3 *source;
	int step, finish;

	step = copy_source(registry, &own, &source);
	if (step != SQLITE_OK)
		return step;
	if (sqlite3_open_v2(part, &target, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK ||
	    /* The file is synced as a whole, and is no file of anybody before that. */
	    sqlite3_exec(target, "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;", NULL, NULL,
	                 NULL) != SQLITE_OK)
		return sqlite3_errcode(target);
	backup = sqlite3_backup_init(target, "main", source, "main");
	if (!backup)
		return sqlite3_errcode(target);
	step = sqlite3_backup_step(backup, -1);
	finish = sqlite3_backup_finish(backup);
	return step == SQLITE_DONE ? finish : step;
}

int copy_database(struct registry *registry, const char *to, const char *part)
{
	CLEANUP(closep) int fd = -1;
	int r, code;

	r = create_part(registry, &fd, part);
	if (r < 0)
		return fail_errno(registry, to, -r);
	code = copy_pages(registry, part);
	if (code != SQLITE_OK) {
		unlink(part);
		return code == SQLITE_FULL ? fail_errno(registry, to, ENOSPC)
		                           : registry_fail_sql(registry, code, "back up");
	}
	/* link() and not rename(): it never replaces a file. */
	if (fsync(fd) < 0 || link(part, to) < 0) {
		r = errno;
		unlink(part);
		if (r == EEXIST)
			return registry_fail(registry, REGISTRY_E_EXISTS,
			                     "%s exists and is not overwritten; name another file",
			                     to);
		return fail_errno(registry, to, r);
	}
	unlink(part);
	copy_sync_directory(registry, to);
	return 0;
}

int copy_before_upgrade(struct registry *registry, int64_t version, char **out)
{
	CLEANUP(freep) char *part = NULL;
	time_t now = time(NULL);
	char stamp[32];
	struct tm utc;

	gmtime_r(&now, &utc);
	strftime(stamp, sizeof(stamp), "%Y%m%dT%H%M%S", &utc);
	if (asprintf(&part, "%s.backup.part", registry->path) < 0) {
		part = NULL;
		return -ENOMEM;
	}
	for (int attempt = 0; attempt < COPY_NAME_TRIES; attempt++) {
		CLEANUP(freep) char *name = NULL;
		char suffix[16] = "";
		int r;

		if (attempt > 0)
			snprintf(suffix, sizeof(suffix), "-%d", attempt + 1);
		if (asprintf(&name, "%s.backup-v%" PRId64 "-%s%s", registry->path, version, stamp,
		             suffix) < 0) {
			name = NULL;
			return -ENOMEM;
		}
		r = copy_database(registry, name, part);
		if (r == REGISTRY_E_EXISTS)
			continue;
		if (r == 0)
			*out = TAKE_PTR(name);
		return r;
	}
	return registry_fail(registry, REGISTRY_E_EXISTS,
	                     "no free name for a backup beside %s; move old backups away",
	                     registry->path);
}

void copy_remove(char **name)
{
	if (*name)
		unlink(*name);
	free(*name);
	*name = NULL;
}
