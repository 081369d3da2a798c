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

static int pools_to_json(struct admin *admin, json_t *pools)
{
	struct registry_pools list;
	int result = registry_pool_list(admin->registry, &list);

	if (result != 0)
		return result;
	for (size_t i = 0; i < POOL_COUNT; i++)
		json_array_append_new(pools, record_pool(&list.items[i]));
	registry_pools_clear(&list);
	return 0;
}

enum admin_exit command_backup(struct admin *admin)
{
	char *path CLEANUP(freep) = NULL;
	enum admin_exit status;
	time_t now = time(NULL);
	char stamp[32];
	struct tm utc;
	int result;

	gmtime_r(&now, &utc);
	strftime(stamp, sizeof(stamp), "%Y%m%dT%H%M%S", &utc);
	if (admin->argument)
		path = strdup(admin->argument);
	else if (asprintf(&path, "%s.backup-%s", admin->db_path, stamp) < 0)
		path = NULL;
	if (!path)
		return admin_fail(admin, ADMIN_FAILED, "out of memory");
	status = admin_open(admin, REGISTRY_READ);
	if (status != ADMIN_DONE)
		return status;
	result = registry_backup(admin->registry, path);
	if (result != 0)
		return admin_fail_registry(admin, result);
	if (!admin->json)
		printf("%s is a copy of %s\n", path, admin->db_path);
	return admin_answer(admin, json_pack("{s:o}", "backup", record_text(path)));
}

/* ---- export ---- */

static enum admin_exit export_write(struct admin *admin, const json_t *all)
{
	FILE *to = stdout;
	bool failed;

	if (admin->argument) {
		int fd = open(admin->argument, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

		to = fd >= 0 ? fdopen(fd, "w") : NULL;
		if (!to)
			return admin_fail(admin, ADMIN_FAILED, "cannot create %s: %s",
			                  admin->argument, strerror(errno));
	}
	failed = json_dumpf(all, to, JSON_INDENT(2) | JSON_REAL_PRECISION(15)) < 0 ||
	         fputc('\n', to) == EOF || fflush(to) != 0;
	if (admin->argument)
		failed = fsync(fileno(to)) < 0 || fclose(to) != 0 || failed;
	return failed ? admin_fail(admin, ADMIN_FAILED, "cannot write the export: %s",
	                           strerror(errno))
	              : ADMIN_DONE;
}

enum admin_exit command_export(struct admin *admin)
{
	struct registry_vms vms CLEANUP(registry_vms_clear) = {.items = NULL};
	json_t *all CLEANUP(json_freep) = NULL;
	json_t *rows = json_array(), *pools = json_array();
	enum admin_exit status, written;
	int result;

	all = json_pack("{s:i, s:o, s:o}", "version", EXPORT_VERSION, "pools", pools, "vms", rows);
	status = admin_open(admin, REGISTRY_READ);
	if (status != ADMIN_DONE)
		return status;
	result = pools_to_json(admin, pools);
	if (result == 0)
		result = registry_vm_list(admin->registry, &vms);
	if (result != 0)
		return admin_fail_registry(admin, result);
	for (size_t i = 0; i < vms.count; i++) {
		/* Its bad values would come out as defaults. */
		if (vms.items[i].problem)
			status = admin_fail(admin, ADMIN_FAILED, "not exported: %s",
			                    vms.items[i].problem);
		else
			json_array_append_new(rows, record_vm(&vms.items[i]));
	}
	written = export_write(admin, all);
	/* The export itself is JSON already. */
	json_decref(admin->result);
	admin->result = NULL;
	return written != ADMIN_DONE ? written : status;
}

/* ---- import ---- */

static enum admin_exit import_quarantine(struct admin *admin, const char *uuid, const json_t *row)
{
	const json_t *quarantined = json_object_get(row, "quarantined");
	const char *why = json_string_value(json_object_get(row, "quarantine_reason"));
	const char *by = json_string_value(json_object_get(row, "quarantined_by"));
	int64_t at_s = json_integer_value(json_object_get(row, "quarantined_at"));
	int result = 0;

	if (json_is_true(quarantined))
		result = registry_quarantine_set(admin->registry, uuid, at_s,
		                                 why ? why : "imported", by ? by : "import");
	else if (json_is_false(quarantined))
		result = registry_quarantine_clear(admin->registry, uuid);
	return result == 0 ? ADMIN_DONE : admin_fail_registry(admin, result);
}

static enum admin_exit import_vm(struct admin *admin, const json_t *row)
{
	const char *uuid = json_string_value(json_object_get(row, "vm_uuid"));
	struct registry_vm_change change;
	char *bad CLEANUP(freep) = NULL;
	int result;

	if (!uuid || !registry_uuid_valid(uuid))
		return admin_fail(admin, ADMIN_USAGE, "a VM has no vm_uuid that is a UUID");
	bad = record_change_from_json(row, &change);
	if (bad)
		return admin_fail(admin, ADMIN_USAGE, "VM %s: %s", uuid, bad);
	result = registry_vm_update(admin->registry, uuid, &change);
	if (result == REGISTRY_E_NOT_FOUND)
		result = registry_vm_insert(admin->registry, uuid, &change, NULL);
	if (result != 0)
		return admin_fail_registry(admin, result);
	return import_quarantine(admin, uuid, row);
}

static enum admin_exit import_pool(struct admin *admin, const json_t *row)
{
	const char *letter = json_string_value(json_object_get(row, "pool"));
	const json_t *enabled = json_object_get(row, "enabled");
	const json_t *timeout = json_object_get(row, "job_timeout_ms");
	uint32_t pool;
	int result = 0;

	if (!letter || pool_parse(&pool, letter) < 0)
		return admin_fail(admin, ADMIN_USAGE, "a pool is neither \"A\" nor \"B\"");
	if ((enabled && !json_is_boolean(enabled)) || (timeout && !json_is_integer(timeout)))
		return admin_fail(admin, ADMIN_USAGE,
		                  "pool %s: enabled must be true or false, job_timeout_ms a number",
		                  letter);
	if (enabled)
		result = registry_pool_set_enabled(admin->registry, pool, json_is_true(enabled));
	if (result == 0 && timeout)
		result = registry_pool_set_timeout(admin->registry, pool,
		                                   json_integer_value(timeout));
	return result == 0 ? ADMIN_DONE : admin_fail_registry(admin, result);
}

static enum admin_exit import_rows(struct admin *admin, const json_t *rows,
                                   enum admin_exit (*one)(struct admin *, const json_t *))
{
	enum admin_exit worst = ADMIN_DONE, status;
	const json_t *row;
	size_t i;

	if (rows && !json_is_array(rows))
		return admin_fail(admin, ADMIN_USAGE, "pools and vms must be arrays");
	/* All of them, so that everything that is wrong is known after one try. */
	json_array_foreach (rows, i, row) {
		status = one(admin, row);
		if (status != ADMIN_DONE)
			worst = status;
	}
	return worst;
}

static enum admin_exit import_all(struct admin *admin, const json_t *all)
{
	enum admin_exit status, vms;
	int result;

	status = admin_open(admin, REGISTRY_WRITE);
	if (status != ADMIN_DONE)
		return status;
	result = registry_batch_begin(admin->registry);
	if (result != 0)
		return admin_fail_registry(admin, result);
	status = import_rows(admin, json_object_get(all, "pools"), import_pool);
	vms = import_rows(admin, json_object_get(all, "vms"), import_vm);
	if (status == ADMIN_DONE)
		status = vms;
	result = registry_batch_end(admin->registry, status == ADMIN_DONE);
	if (result != 0)
		return admin_fail_registry(admin, result);
	if (status != ADMIN_DONE)
		admin_note("nothing was imported");
	return status;
}

enum admin_exit command_import(struct admin *admin)
{
	bool from_stdin = strcmp(admin->argument, "-") == 0;
	json_t *all CLEANUP(json_freep) = NULL;
	enum admin_exit status;
	json_error_t error;
	size_t count;

	all = from_stdin ? json_loadf(stdin, JSON_REJECT_DUPLICATES, &error)
	                 : json_load_file(admin->argument, JSON_REJECT_DUPLICATES, &error);
	if (!all)
		return admin_fail(admin, ADMIN_FAILED, "cannot read %s: line %d: %s",
		                  admin->argument, error.line, error.text);
	if (!json_is_integer(json_object_get(all, "version")) ||
	    json_integer_value(json_object_get(all, "version")) != EXPORT_VERSION)
		return admin_fail(admin, ADMIN_FAILED, "%s is no export of version %d",
		                  admin->argument, EXPORT_VERSION);
	status = import_all(admin, all);
	if (status != ADMIN_DONE)
		return status;
	admin->changed = true;
	count = json_array_size(json_object_get(all, "vms"));
	if (!admin->json)
		printf("imported %zu VMs\n", count);
	return admin_answer(admin, json_pack("{s:i}", "imported", (int)count));
}
