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
	{"gpu", "GPU", COLUMN_NUMBER},
	{"priority", "PRIORITY", COLUMN_TEXT},
	{"weight", "WEIGHT", COLUMN_WEIGHT},
	{"share_target", "IF ALL BUSY", COLUMN_PERCENT},
	{"share", "SHARE NOW", COLUMN_PERCENT},
	{"vm_uuid", "UUID", COLUMN_TEXT},
	{NULL, NULL, COLUMN_TEXT},
};

/* With the parts of which the scheduler makes its order; docs/scheduling.md has the formula. */
static const struct column order_columns[] = {
	{"vm_name", "NAME", COLUMN_TEXT},
	{"gpu", "GPU", COLUMN_NUMBER},
	{"weight", "WEIGHT", COLUMN_WEIGHT},
	{"priority_factor", "FACTOR", COLUMN_NUMBER},
	{"phi", "PHI", COLUMN_WEIGHT},
	{"share_target", "IF ALL BUSY", COLUMN_PERCENT},
	{"share", "SHARE NOW", COLUMN_PERCENT},
	{"turn", "TURN", COLUMN_TEXT},
	{"in_flight", "RUNNING", COLUMN_NUMBER},
	{"queued", "QUEUED", COLUMN_NUMBER},
	{"head_wait_us", "OLDEST", COLUMN_US},
	{"start_ms", "START MS", COLUMN_MS},
	{"turn_average_us", "TURN COSTS", COLUMN_US},
	{"boost", "BOOST", COLUMN_PERCENT},
	{"key_ms", "KEY MS", COLUMN_MS},
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

static const json_t *find_by_uuid(const json_t *rows, const char *uuid)
{
	const json_t *row;
	size_t i;

	json_array_foreach (rows, i, row) {
		const char *found = json_string_value(json_object_get(row, "vm_uuid"));

		if (found && strcmp(found, uuid) == 0)
			return row;
	}
	return NULL;
}

/* What a running mediator knows; *@out is NULL without one, which only --verbose minds. */
static enum admin_exit weights_now(struct admin *admin, json_t **out)
{
	CLEANUP(json_freep) json_t *result = NULL;
	struct link_error why = {.text = "out of memory"};
	enum admin_exit status;
	int code;

	*out = NULL;
	if (admin_given(admin, OPTION_VERBOSE)) {
		status = admin_call(admin, "weights", NULL, &result);
		if (status != ADMIN_DONE)
			return status;
	} else {
		code = link_call(&result, admin->socket_path, "weights", NULL, &why);
		if (code != 0)
			admin_note("shares are those that one GPU for all pools would give (%s)",
			           code == LINK_E_NOT_RUNNING ? "the mediator is not running"
			                                      : why.text);
	}
	*out = json_incref(json_object_get(result, "weights"));
	return ADMIN_DONE;
}

/* phi of a VM; 0 for one whose jobs are refused. */
static int64_t claim_of(const struct registry_vm *vm, const struct registry_pools *pools)
{
	bool served = !vm->problem && !vm->quarantined && pools->items[vm->settings.pool].enabled;

	return served ? core_claim(&vm->settings) : 0;
}

/* The registry does not know which GPU serves whom, so that this takes it to be one. */
static enum admin_exit shares_guess(struct admin *admin, const struct registry_vms *vms,
                                    const struct registry_pools *pools, json_t *rows)
{
	CLEANUP(registry_vms_clear) struct registry_vms all = {.items = NULL};
	int64_t claims = 0;
	int r;

	r = registry_vm_list(admin->registry, &all);
	if (r != 0)
		return admin_fail_registry(admin, r);
	for (size_t i = 0; i < all.count; i++)
		claims += claim_of(&all.items[i], pools);
	for (size_t i = 0; i < vms->count; i++) {
		double claim = (double)claim_of(&vms->items[i], pools);

		json_object_set_new(json_array_get(rows, i), "share_target",
		                    json_real(claims ? claim / (double)claims : 0));
		json_object_set_new(json_array_get(rows, i), "share", json_null());
	}
	return ADMIN_DONE;
}

enum admin_exit command_show_weights(struct admin *admin)
{
	CLEANUP(registry_vms_clear) struct registry_vms vms = {.items = NULL};
	CLEANUP(registry_pools_clear) struct registry_pools pools;
	CLEANUP(json_freep) json_t *rows = NULL;
	CLEANUP(json_freep) json_t *now = NULL;
	enum admin_exit status;

	status = pools_read(admin, &pools);
	if (status == ADMIN_DONE)
		status = vms_read(admin, &vms);
	if (status == ADMIN_DONE)
		status = weights_now(admin, &now);
	if (status != ADMIN_DONE)
		return status;
	rows = record_vms(&vms);
	if (!now)
		status = shares_guess(admin, &vms, &pools, rows);
	for (size_t i = 0; now && i < vms.count; i++) {
		const json_t *live = find_by_uuid(now, vms.items[i].uuid);

		if (live)
			json_object_update(json_array_get(rows, i), (json_t *)(uintptr_t)live);
	}
	if (status != ADMIN_DONE)
		return status;
	return admin_answer_table(admin, json_pack("{s:O}", "vms", rows), "vms",
	                          admin_given(admin, OPTION_VERBOSE) ? order_columns
	                                                             : weight_columns);
}
