/* SPDX-License-Identifier: MIT */
/*
 * The registry as a whole: copies of the file, and its contents as JSON.
 *
 * An import is all or nothing: half of somebody's limits is worse than none of them.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "admin/commands.h"
#include "admin/record.h"

/* That of the registry when last something was added to what an export holds. */
enum { EXPORT_VERSION = 3 };

#define EXPORT_FORMAT (JSON_INDENT(2) | JSON_REAL_PRECISION(15))

static int pools_to_json(struct admin *admin, json_t *pools, enum admin_exit *status)
{
	struct registry_pools list;
	int r = registry_pool_list(admin->registry, &list);

	if (r != 0)
		return r;
	/* Bad values would come out as defaults. */
	for (size_t i = 0; i < POOL_COUNT; i++) {
		if (list.items[i].problem)
			*status = admin_fail(admin, ADMIN_FAILED, "not exported: %s",
			                     list.items[i].problem);
		else
			json_array_append_new(pools, record_pool(&list.items[i]));
	}
	registry_pools_clear(&list);
	return 0;
}

static int vms_to_json(struct admin *admin, json_t *rows, enum admin_exit *status)
{
	CLEANUP(registry_vms_clear) struct registry_vms vms = {.items = NULL};
	int r = registry_vm_list(admin->registry, &vms);

	for (size_t i = 0; i < vms.count; i++) {
		if (vms.items[i].problem)
			*status = admin_fail(admin, ADMIN_FAILED, "not exported: %s",
			                     vms.items[i].problem);
		else
			json_array_append_new(rows, record_vm(&vms.items[i]));
	}
	return r;
}

enum admin_exit command_backup(struct admin *admin)
{
	CLEANUP(freep) char *path = NULL;
	enum admin_exit status;
	time_t now = time(NULL);
	char stamp[32];
	struct tm utc;
	int r;

	gmtime_r(&now, &utc);
	strftime(stamp, sizeof(stamp), "%Y%m%dT%H%M%S", &utc);
	if (admin->argument)
		path = strdup(admin->argument);
	else if (asprintf(&path, "%s.backup-%s", admin->db_path, stamp) < 0)
		path = NULL;
	if (!path)
		return admin_fail(admin, ADMIN_FAILED, "out of memory");
	status = admin_open_existing(admin);
	if (status != ADMIN_DONE)
		return status;
	r = registry_backup(admin->registry, path);
	if (r != 0)
		return admin_fail_registry(admin, r);
	admin_say(admin, "%s is a copy of %s", path, admin->db_path);
	return admin_answer(admin, json_pack("{s:o}", "backup", record_text(path)));
}

/* ---- Export ---------------------------------------------------------------------- */

/* Complete and on the disk, or not there at all. */
static enum admin_exit export_to_file(struct admin *admin, const json_t *all)
{
	int fd = open(admin->argument, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	FILE *to = fd >= 0 ? fdopen(fd, "w") : NULL;
	bool failed;

	if (!to)
		return admin_fail(admin, ADMIN_FAILED, "cannot create %s: %s%s", admin->argument,
		                  strerror(errno),
		                  errno == EEXIST ? "; it is not overwritten: name another" : "");
	failed = json_dumpf(all, to, EXPORT_FORMAT) < 0 || fputc('\n', to) == EOF ||
	         fflush(to) != 0 || fsync(fd) < 0;
	if (failed)
		admin_fail(admin, ADMIN_FAILED, "cannot write %s: %s; nothing is left of it",
		           admin->argument, strerror(errno));
	fclose(to);
	if (failed)
		unlink(admin->argument);
	return failed ? ADMIN_FAILED : ADMIN_DONE;
}

static enum admin_exit export_to_stdout(struct admin *admin, const json_t *all)
{
	if (json_dumpf(all, stdout, EXPORT_FORMAT) < 0 || fputc('\n', stdout) == EOF ||
	    fflush(stdout) != 0)
		return admin_fail(admin, ADMIN_FAILED, "cannot write the export: %s",
		                  strerror(errno));
	return ADMIN_DONE;
}

enum admin_exit command_export(struct admin *admin)
{
	CLEANUP(json_freep) json_t *all = NULL;
	json_t *rows = json_array(), *pools = json_array();
	enum admin_exit status, written;
	int r;

	all = json_pack("{s:i, s:o, s:o}", "version", EXPORT_VERSION, "pools", pools, "vms", rows);
	status = admin_open_existing(admin);
	if (status != ADMIN_DONE)
		return status;
	r = pools_to_json(admin, pools, &status);
	if (r == 0)
		r = vms_to_json(admin, rows, &status);
	if (r != 0)
		return admin_fail_registry(admin, r);
	written = admin->argument ? export_to_file(admin, all) : export_to_stdout(admin, all);
	/* The export itself is JSON already. */
	json_decref(admin->result);
	admin->result = NULL;
	return written != ADMIN_DONE ? written : status;
}

/* ---- Import ---------------------------------------------------------------------- */

/* @now: is the VM quarantined? A clearing also forgives fault points, so it must be one. */
static int import_quarantine(struct admin *admin, const char *uuid, const json_t *row, bool now)
{
	const json_t *quarantined = json_object_get(row, "quarantined");
	const char *why = json_string_value(json_object_get(row, "quarantine_reason"));
	const char *by = json_string_value(json_object_get(row, "quarantined_by"));
	int64_t at_s = json_integer_value(json_object_get(row, "quarantined_at"));

	if (json_is_true(quarantined))
		return registry_quarantine_set(admin->registry, uuid, at_s, why ? why : "imported",
		                               by ? by : "import");
	if (json_is_false(quarantined) && now)
		return registry_quarantine_clear(admin->registry, uuid, "imported", "import");
	return 0;
}

static enum admin_exit import_vm(struct admin *admin, const json_t *row)
{
	const char *uuid = json_string_value(json_object_get(row, "vm_uuid"));
	struct registry_vm_change change;
	CLEANUP(freep) char *bad = NULL;
	struct registry_vm before;
	bool quarantined = false;
	int r;

	if (!uuid || !registry_uuid_valid(uuid))
		return admin_fail(admin, ADMIN_USAGE, "a VM has no vm_uuid that is a UUID");
	bad = record_change_from_json(row, &change);
	if (bad)
		return admin_fail(admin, ADMIN_USAGE, "VM %s: %s", uuid, bad);
	r = registry_vm_find(admin->registry, uuid, &before);
	if (r == 0) {
		quarantined = before.quarantined;
		registry_vm_clear(&before);
		r = registry_vm_update(admin->registry, uuid, &change);
	} else if (r == REGISTRY_E_NOT_FOUND) {
		r = registry_vm_insert(admin->registry, uuid, &change, NULL);
	}
	if (r == 0)
		r = import_quarantine(admin, uuid, row, quarantined);
	return r == 0 ? ADMIN_DONE : admin_fail_registry(admin, r);
}

/* Numbers may have changed places: a VM that gets one gives up its own before any gets its. */
static enum admin_exit release_vm_id(struct admin *admin, const json_t *row)
{
	const char *uuid = json_string_value(json_object_get(row, "vm_uuid"));
	int r = 0;

	if (uuid && json_object_get(row, "vm_id"))
		r = registry_vm_release_id(admin->registry, uuid);
	return r == 0 || r == REGISTRY_E_NOT_FOUND ? ADMIN_DONE : admin_fail_registry(admin, r);
}

static enum admin_exit import_pool(struct admin *admin, const json_t *row)
{
	const char *letter = json_string_value(json_object_get(row, "pool"));
	const json_t *enabled = json_object_get(row, "enabled");
	const json_t *timeout = json_object_get(row, "job_timeout_ms");
	uint32_t pool;
	int r = 0;

	if (!letter || pool_parse(&pool, letter) < 0)
		return admin_fail(admin, ADMIN_USAGE, "a pool is neither \"A\" nor \"B\"");
	if ((enabled && !json_is_boolean(enabled)) || (timeout && !json_is_integer(timeout)))
		return admin_fail(admin, ADMIN_USAGE,
		                  "pool %s: enabled must be true or false, job_timeout_ms a number",
		                  letter);
	if (enabled)
		r = registry_pool_set_enabled(admin->registry, pool, json_is_true(enabled));
	if (r == 0 && timeout)
		r = registry_pool_set_timeout(admin->registry, pool, json_integer_value(timeout));
	return r == 0 ? ADMIN_DONE : admin_fail_registry(admin, r);
}

static enum admin_exit import_rows(struct admin *admin, const json_t *rows,
                                   enum admin_exit (*one)(struct admin *, const json_t *))
{
	enum admin_exit worst = ADMIN_DONE, status;
	const json_t *row;
	size_t i;

	/* All of them, so that everything that is wrong is known after one try. */
	json_array_foreach (rows, i, row) {
		status = one(admin, row);
		if (status != ADMIN_DONE)
			worst = status;
		if (admin->useless)
			break;
	}
	return worst;
}

static enum admin_exit import_all(struct admin *admin, const json_t *all)
{
	const json_t *pools = json_object_get(all, "pools"), *vms = json_object_get(all, "vms");
	enum admin_exit status, pools_status;
	int r;

	if ((pools && !json_is_array(pools)) || (vms && !json_is_array(vms)))
		return admin_fail(admin, ADMIN_USAGE, "pools and vms must be arrays");
	status = admin_open(admin, REGISTRY_WRITE);
	if (status != ADMIN_DONE)
		return status;
	r = registry_batch_begin(admin->registry);
	if (r != 0)
		return admin_fail_registry(admin, r);
	pools_status = import_rows(admin, pools, import_pool);
	status = import_rows(admin, vms, release_vm_id);
	if (status == ADMIN_DONE)
		status = import_rows(admin, vms, import_vm);
	if (status == ADMIN_DONE)
		status = pools_status;
	r = registry_batch_end(admin->registry, status == ADMIN_DONE);
	if (r != 0)
		return admin_fail_registry(admin, r);
	if (status != ADMIN_DONE)
		admin_note("nothing was imported");
	return status;
}

enum admin_exit command_import(struct admin *admin)
{
	bool from_stdin = strcmp(admin->argument, "-") == 0;
	CLEANUP(json_freep) json_t *all = NULL;
	enum admin_exit status;
	json_error_t error;
	size_t count;

	all = from_stdin ? json_loadf(stdin, JSON_REJECT_DUPLICATES, &error)
	                 : json_load_file(admin->argument, JSON_REJECT_DUPLICATES, &error);
	if (!all)
		return error.line > 0
		               ? admin_fail(admin, ADMIN_FAILED, "cannot read %s: line %d: %s",
		                            admin->argument, error.line, error.text)
		               : admin_fail(admin, ADMIN_FAILED, "%s", error.text);
	if (!json_is_integer(json_object_get(all, "version")) ||
	    json_integer_value(json_object_get(all, "version")) != EXPORT_VERSION)
		return admin_fail(admin, ADMIN_FAILED, "%s is no export of version %d",
		                  admin->argument, EXPORT_VERSION);
	status = import_all(admin, all);
	if (status != ADMIN_DONE)
		return status;
	admin->changed = true;
	count = json_array_size(json_object_get(all, "vms"));
	admin_say(admin, "imported %zu VM%s", count, plural_s(count));
	return admin_answer(admin, json_pack("{s:i}", "imported", (int)count));
}
