/* SPDX-License-Identifier: MIT */
/*
 * Changes of what is registered. All go the same way: check the values, choose the
 * VMs, do it to each in one transaction, say what was done and what could not be.
 */
#include <pwd.h>
#include <stdio.h>
#include <string.h>

#include "admin/commands.h"
#include "admin/options.h"
#include "admin/record.h"
#include "admin/select.h"

/* Does it to one VM; returns what the registry returns. */
typedef int (*vm_action)(struct admin *admin, const char *uuid, const void *context);

struct outcome {
	json_t *changed;
	json_t *failed;
};

static json_t *outcome_row(const struct registry_vm *vm)
{
	return json_pack("{s:o, s:o}", "vm_uuid", record_text(vm->stored_uuid), "vm_name",
	                 record_text(vm->name));
}

/* @r is what came of it. */
static enum admin_exit outcome_add(struct admin *admin, const struct registry_vm *vm, int r,
                                   struct outcome *outcome)
{
	json_t *row = outcome_row(vm);

	if (r == 0) {
		json_array_append_new(outcome->changed, row);
		return ADMIN_DONE;
	}
	json_object_set_new(row, "message", record_text(registry_message(admin->registry)));
	json_array_append_new(outcome->failed, row);
	return admin_fail(admin, admin_registry_status(r), "VM %s: %s", vm->stored_uuid,
	                  registry_message(admin->registry));
}

static enum admin_exit outcome_answer(struct admin *admin, struct outcome *outcome,
                                      const char *done)
{
	json_t *row;
	size_t i;

	json_array_foreach (outcome->changed, i, row) {
		admin_say(admin, "VM %s: %s", json_string_value(json_object_get(row, "vm_uuid")),
		          done);
	}
	if (json_array_size(outcome->changed) == 0 && json_array_size(outcome->failed) == 0)
		admin_say(admin, "no VM is registered there: nothing to do");
	return admin_answer(admin, json_pack("{s:O, s:O}", "changed", outcome->changed, "failed",
	                                     outcome->failed));
}

static enum admin_exit apply_all(struct admin *admin, const struct registry_vms *vms,
                                 vm_action action, const void *context, const char *done)
{
	CLEANUP(json_freep) json_t *changed = json_array();
	CLEANUP(json_freep) json_t *failed = json_array();
	struct outcome outcome = {.changed = changed, .failed = failed};
	enum admin_exit worst = ADMIN_DONE, status;
	int r;

	r = registry_batch_begin(admin->registry);
	if (r != 0)
		return admin_fail_registry(admin, r);
	for (size_t i = 0; i < vms->count; i++) {
		r = action(admin, vms->items[i].stored_uuid, context);
		if (registry_failed_whole(r)) {
			registry_batch_end(admin->registry, false);
			return admin_fail_registry(admin, r);
		}
		status = outcome_add(admin, &vms->items[i], r, &outcome);
		if (status != ADMIN_DONE)
			worst = vms->count == 1 ? status : ADMIN_FAILED;
	}
	r = registry_batch_end(admin->registry, true);
	if (r != 0)
		return admin_fail_registry(admin, r);
	admin->changed = json_array_size(changed) > 0;
	status = outcome_answer(admin, &outcome, done);
	return worst != ADMIN_DONE ? worst : status;
}

static enum admin_exit apply(struct admin *admin, vm_action action, const void *context,
                             const char *done)
{
	CLEANUP(registry_vms_clear) struct registry_vms vms = {.items = NULL};
	enum admin_exit status;

	status = admin_open(admin, REGISTRY_WRITE);
	if (status == ADMIN_DONE)
		status = select_vms(admin, &vms);
	if (status == ADMIN_DONE)
		status = apply_all(admin, &vms, action, context, done);
	return status;
}

static int action_change(struct admin *admin, const char *uuid, const void *context)
{
	return registry_vm_update(admin->registry, uuid, context);
}

enum admin_exit command_change_vms(struct admin *admin)
{
	struct registry_vm_change change;
	enum admin_exit status = record_change_from_options(admin, &change);

	return status == ADMIN_DONE ? apply(admin, action_change, &change, "changed") : status;
}

static int action_remove(struct admin *admin, const char *uuid, const void *context UNUSED)
{
	return registry_vm_remove(admin->registry, uuid);
}

enum admin_exit command_remove_vm(struct admin *admin)
{
	return apply(admin, action_remove, NULL, "removed");
}

/* ---- Quarantine ------------------------------------------------------------------ */

struct quarantine {
	const char *reason; /* NULL: none was given */
	char by[64];
};

void admin_caller_name(char *to, size_t size)
{
	const char *sudo_user = getenv("SUDO_USER");
	struct passwd *entry = getpwuid(getuid());

	if (sudo_user && *sudo_user)
		snprintf(to, size, "%s", sudo_user);
	else if (entry)
		snprintf(to, size, "%s", entry->pw_name);
	else
		snprintf(to, size, "uid %u", getuid());
}

static int action_quarantine(struct admin *admin, const char *uuid, const void *context)
{
	const struct quarantine *quarantine = context;

	return registry_quarantine_set(admin->registry, uuid, 0, quarantine->reason,
	                               quarantine->by);
}

enum admin_exit command_quarantine_vm(struct admin *admin)
{
	struct quarantine quarantine = {.reason = admin->values[OPTION_REASON]};

	if (!quarantine.reason)
		quarantine.reason = "by hand";
	admin_caller_name(quarantine.by, sizeof(quarantine.by));
	return apply(admin, action_quarantine, &quarantine, "quarantined");
}

static int action_clear(struct admin *admin, const char *uuid, const void *context)
{
	const struct quarantine *quarantine = context;

	return registry_quarantine_clear(admin->registry, uuid, quarantine->reason, quarantine->by);
}

enum admin_exit command_clear_quarantine(struct admin *admin)
{
	struct quarantine quarantine = {.reason = admin->values[OPTION_REASON]};

	admin_caller_name(quarantine.by, sizeof(quarantine.by));
	return apply(admin, action_clear, &quarantine, "not quarantined, no fault points");
}

/* ---- Pools ----------------------------------------------------------------------- */

static enum admin_exit pool_changed(struct admin *admin, uint32_t pool, int r)
{
	CLEANUP(registry_pools_clear) struct registry_pools pools;
	enum admin_exit status;

	memset(&pools, 0, sizeof(pools));
	if (r == 0)
		r = registry_pool_list(admin->registry, &pools);
	if (r != 0)
		return admin_fail_registry(admin, r);
	admin->changed = true;
	status = admin_answer(admin, record_pool(&pools.items[pool]));
	if (status == ADMIN_DONE)
		admin_say(admin, "pool %c: changed", pool_letter(pool));
	return status;
}

enum admin_exit command_set_enabled(struct admin *admin)
{
	enum admin_exit status;
	bool enabled = false;
	uint32_t pool = 0;

	status = select_pool(admin, &pool);
	if (status == ADMIN_DONE)
		status = record_yes_no(admin, OPTION_ENABLED, &enabled);
	if (status == ADMIN_DONE)
		status = admin_open(admin, REGISTRY_WRITE);
	if (status != ADMIN_DONE)
		return status;
	return pool_changed(admin, pool, registry_pool_set_enabled(admin->registry, pool, enabled));
}

/* A pool has a limit of its own, which holds for those of its VMs that have none. */
enum admin_exit command_set_timeout(struct admin *admin)
{
	struct registry_vm_change change;
	enum admin_exit status;
	uint32_t pool = 0;

	status = record_change_from_options(admin, &change);
	if (status != ADMIN_DONE)
		return status;
	if (!admin_given(admin, OPTION_POOL))
		return apply(admin, action_change, &change, "changed");
	if (admin_given(admin, OPTION_VM_UUID) || admin_given(admin, OPTION_VM_NAME) ||
	    admin_given(admin, OPTION_ALL))
		return admin_fail(admin, ADMIN_USAGE,
		                  "set-timeout sets the limit of a pool or of VMs, not of both");
	status = select_pool(admin, &pool);
	if (status == ADMIN_DONE)
		status = admin_open(admin, REGISTRY_WRITE);
	if (status != ADMIN_DONE)
		return status;
	return pool_changed(
		admin, pool,
		registry_pool_set_timeout(admin->registry, pool, change.values.job_timeout_ms));
}
