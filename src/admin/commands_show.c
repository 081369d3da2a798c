/* SPDX-License-Identifier: MIT */
/*
 * What the registry says about pools, shares and limits.
 */
#include <string.h>

#include "admin/commands.h"
#include "admin/link.h"
#include "admin/record.h"
#include "admin/select.h"

static const struct column weight_columns[] = {
	{"vm_name", "NAME", COLUMN_TEXT},
	{"pool", "POOL", COLUMN_TEXT},
	{"priority", "PRIORITY", COLUMN_TEXT},
	{"weight", "WEIGHT", COLUMN_WEIGHT},
	{"share_if_all_busy", "IF ALL BUSY", COLUMN_PERCENT},
	{"share", "SHARE NOW", COLUMN_PERCENT},
	{"vm_uuid", "UUID", COLUMN_TEXT},
	{NULL, NULL, COLUMN_TEXT},
};

static const struct column limit_columns[] = {
	{"vm_name", "NAME", COLUMN_TEXT},
	{"max_jobs_per_sec", "JOBS/S", COLUMN_LIMIT},
	{"burst", "BURST", COLUMN_LIMIT},
	{"max_queue_depth", "DEPTH", COLUMN_LIMIT},
	{"gpu_seconds_per_sec", "GPU S/S", COLUMN_LIMIT},
	{"job_timeout_ms", "TIMEOUT MS", COLUMN_LIMIT},
	{"memory_quota_mib", "MEMORY MIB", COLUMN_LIMIT},
	{"vm_uuid", "UUID", COLUMN_TEXT},
	{NULL, NULL, COLUMN_TEXT},
};

static enum admin_exit pools_read(struct admin *admin, struct registry_pools *pools)
{
	enum admin_exit status = admin_open(admin, REGISTRY_READ);
	int r;

	memset(pools, 0, sizeof(*pools));
	if (status != ADMIN_DONE)
		return status;
	r = registry_pool_list(admin->registry, pools);
	return r == 0 ? ADMIN_DONE : admin_fail_registry(admin, r);
}

enum admin_exit command_list_pools(struct admin *admin)
{
	CLEANUP(registry_pools_clear) struct registry_pools pools;
	enum admin_exit status = pools_read(admin, &pools);
	json_t *rows;

	if (status != ADMIN_DONE)
		return status;
	rows = json_array();
	for (size_t i = 0; i < POOL_COUNT; i++)
		json_array_append_new(rows, record_pool(&pools.items[i]));
	return admin_answer_table(admin, json_pack("{s:o}", "pools", rows), "pools",
	                          record_pool_columns);
}

static const struct column pool_vm_columns[] = {
	{"vm_id", "ID", COLUMN_NUMBER},        {"vm_name", "NAME", COLUMN_TEXT},
	{"priority", "PRIORITY", COLUMN_TEXT}, {"weight", "WEIGHT", COLUMN_WEIGHT},
	{"vm_uuid", "UUID", COLUMN_TEXT},      {NULL, NULL, COLUMN_TEXT},
};

enum admin_exit command_show_pool(struct admin *admin)
{
	CLEANUP(registry_vms_clear) struct registry_vms vms = {.items = NULL};
	CLEANUP(registry_pools_clear) struct registry_pools pools;
	enum admin_exit status;
	uint32_t pool = 0;
	json_t *record;

	memset(&pools, 0, sizeof(pools));
	status = select_pool(admin, &pool);
	if (status == ADMIN_DONE)
		status = pools_read(admin, &pools);
	if (status == ADMIN_DONE)
		status = select_vms(admin, &vms);
	if (status != ADMIN_DONE)
		return status;
	record = record_pool(&pools.items[pool]);
	json_object_set_new(record, "members", record_vms(&vms));
	status = admin_answer(admin, record);
	if (status == ADMIN_DONE && !admin->json) {
		table_print_record(stdout, record, record_pool_columns);
		fputc('\n', stdout);
		table_print(stdout, json_object_get(record, "members"), pool_vm_columns);
	}
	return status;
}

/* All VMs, or those that the options choose. */
static enum admin_exit vms_read(struct admin *admin, struct registry_vms *vms)
{
	enum admin_exit status = admin_open(admin, REGISTRY_READ);

	if (!admin_given(admin, OPTION_POOL) && !admin_given(admin, OPTION_VM_UUID) &&
	    !admin_given(admin, OPTION_VM_NAME))
		admin->values[OPTION_ALL] = "";
	if (status == ADMIN_DONE)
		status = select_vms(admin, vms);
	if (status == ADMIN_DONE)
		record_note_problems(vms);
	return status;
}

enum admin_exit command_show_rate_limits(struct admin *admin)
{
	CLEANUP(registry_vms_clear) struct registry_vms vms = {.items = NULL};
	enum admin_exit status = vms_read(admin, &vms);

	if (status != ADMIN_DONE)
		return status;
	return admin_answer_table(admin, json_pack("{s:o}", "vms", record_vms(&vms)), "vms",
	                          limit_columns);
}

/* ---- Weights --------------------------------------------------------------------- */

/* Weight times the factor of its priority; 0 for a VM that is not served. */
static int64_t vm_claim(const struct registry_vm *vm, const struct registry_pools *pools)
{
	if (vm->problem || vm->quarantined || !pools->items[vm->settings.pool].enabled)
		return 0;
	return vm->settings.weight_hundredths << vm->settings.priority;
}

/* The share of each VM now, by its UUID, as a running mediator has it; empty without one. */
static json_t *shares_now(struct admin *admin)
{
	CLEANUP(json_freep) json_t *status = NULL;
	json_t *shares = json_object();
	struct link_error why;
	json_t *vm;
	size_t i;

	if (link_call(&status, admin->socket_path, "status", NULL, &why) != 0)
		return shares;
	json_array_foreach (json_object_get(status, "vms"), i, vm) {
		const char *uuid = json_string_value(json_object_get(vm, "vm_uuid"));

		if (uuid)
			json_object_set(shares, uuid, json_object_get(vm, "share"));
	}
	return shares;
}

enum admin_exit command_show_weights(struct admin *admin)
{
	CLEANUP(registry_vms_clear) struct registry_vms all = {.items = NULL};
	CLEANUP(registry_vms_clear) struct registry_vms vms = {.items = NULL};
	CLEANUP(registry_pools_clear) struct registry_pools pools;
	CLEANUP(json_freep) json_t *shares = NULL;
	enum admin_exit status;
	int64_t claims = 0;
	json_t *rows;
	int r;

	status = pools_read(admin, &pools);
	if (status == ADMIN_DONE)
		status = vms_read(admin, &vms);
	if (status != ADMIN_DONE)
		return status;
	r = registry_vm_list(admin->registry, &all);
	if (r != 0)
		return admin_fail_registry(admin, r);
	for (size_t i = 0; i < all.count; i++)
		claims += vm_claim(&all.items[i], &pools);
	shares = shares_now(admin);
	rows = json_array();
	for (size_t i = 0; i < vms.count; i++) {
		json_t *row = record_vm(&vms.items[i]);
		json_t *share = json_object_get(shares, vms.items[i].uuid);
		double claim = (double)vm_claim(&vms.items[i], &pools);

		json_object_set_new(row, "share_if_all_busy",
		                    json_real(claims ? claim / (double)claims : 0));
		json_object_set_new(row, "share", share ? json_incref(share) : json_null());
		json_array_append_new(rows, row);
	}
	return admin_answer_table(admin, json_pack("{s:o}", "vms", rows), "vms", weight_columns);
}
