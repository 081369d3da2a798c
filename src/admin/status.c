/* SPDX-License-Identifier: MIT */
/*
 * status: is everything up, on one screen. It must say something useful in every
 * state, above all when the mediator or the registry is what is broken.
 */
#include <inttypes.h>
#include <stdio.h>

#include "admin/commands.h"
#include "admin/link.h"
#include "admin/live.h"
#include "admin/record.h"

static const struct column offline_columns[] = {
	{"vm_id", "ID", COLUMN_NUMBER},
	{"vm_name", "NAME", COLUMN_TEXT},
	{"pool", "POOL", COLUMN_TEXT},
	{"priority", "PRIORITY", COLUMN_TEXT},
	{"weight", "WEIGHT", COLUMN_WEIGHT},
	{"quarantined", "QUARANTINED", COLUMN_YES_NO},
	{"error_count", "FAULTS", COLUMN_NUMBER},
	{"vm_uuid", "UUID", COLUMN_TEXT},
	{NULL, NULL, COLUMN_TEXT},
};

static const struct column mediator_columns[] = {
	{"version", "Version", COLUMN_TEXT},
	{"pid", "Process", COLUMN_NUMBER},
	{"uptime_s", "Up for", COLUMN_SECONDS},
	{"backend", "Backend", COLUMN_TEXT},
	{"workers", "Workers", COLUMN_NUMBER},
	{"queue_depth", "Jobs waiting", COLUMN_NUMBER},
	{"longest_stall_us", "Longest stall", COLUMN_US},
	{NULL, NULL, COLUMN_TEXT},
};

/* The registry as this program can read it; *@vms is for showing them. */
static json_t *database_status(struct admin *admin, struct registry_vms *vms)
{
	const struct registry_options options = {.mode = REGISTRY_READ};
	struct registry_error why = {.text = "out of memory"};
	int quarantined = 0, problems = 0;
	const char *message = NULL;
	int r;

	r = registry_open(&admin->registry, admin->db_path, &options, &why);
	if (r != 0) {
		message = why.text;
	} else {
		r = registry_vm_list(admin->registry, vms);
		if (r != 0)
			message = registry_message(admin->registry);
	}
	for (size_t i = 0; i < vms->count; i++) {
		quarantined += vms->items[i].quarantined;
		problems += vms->items[i].problem != NULL;
	}
	return json_pack("{s:o, s:b, s:o, s:i, s:i, s:i}", "path", record_text(admin->db_path),
	                 "ok", r == 0, "message", record_text(message), "vms", (int)vms->count,
	                 "quarantined", quarantined, "problems", problems);
}

static void print_database(const struct admin *admin, const json_t *database,
                           const struct registry_vms *vms)
{
	const char *message = json_string_value(json_object_get(database, "message"));
	int64_t count = json_integer_value(json_object_get(database, "vms"));

	if (message) {
		admin_say(admin, "Registry: NOT READABLE");
		admin_say(admin, "  %s", message);
		return;
	}
	admin_say(admin, "Registry: ok, %s", admin->db_path);
	admin_say(admin,
	          "  %" PRId64 " VM%s, %" PRId64 " quarantined, %" PRId64
	          " not served for bad values",
	          count, plural_s(count),
	          (int64_t)json_integer_value(json_object_get(database, "quarantined")),
	          (int64_t)json_integer_value(json_object_get(database, "problems")));
	record_note_problems(vms);
}

static void print_section(const char *heading, const json_t *rows, const struct column *columns)
{
	if (json_array_size(rows) == 0)
		return;
	printf("\n%s:\n", heading);
	table_print(stdout, rows, columns);
}

static void print_status(const struct admin *admin, const struct registry_vms *vms, bool running,
                         const char *why)
{
	const json_t *answer = admin->result;
	const json_t *mediator = json_object_get(answer, "mediator");

	admin_say(admin, "Mediator: %s", running ? "running" : "NOT RUNNING");
	if (running)
		table_print_record(stdout, mediator, mediator_columns);
	else
		admin_say(admin, "  %s", why);
	print_database(admin, json_object_get(answer, "database"), vms);
	print_section("GPUs", json_object_get(answer, "gpus"), live_gpu_columns);
	print_section("VMs", json_object_get(answer, "vms"),
	              running ? live_vm_columns : offline_columns);
}

/* Everything of the mediator's answer but its arrays, which are sections of their own. */
static json_t *mediator_status(json_t *live)
{
	json_t *mediator = live ? json_copy(live) : json_object();

	json_object_set_new(mediator, "running", json_boolean(live != NULL));
	json_object_del(mediator, "gpus");
	json_object_del(mediator, "vms");
	return mediator;
}

enum admin_exit command_status(struct admin *admin)
{
	CLEANUP(registry_vms_clear) struct registry_vms vms = {.items = NULL};
	struct link_error why = {.text = "out of memory"};
	CLEANUP(json_freep) json_t *live = NULL;
	json_t *database, *gpus, *rows;
	enum admin_exit status;
	int code;

	code = link_call(&live, admin->socket_path, "status", NULL, &why);
	database = database_status(admin, &vms);
	gpus = json_object_get(live, "gpus");
	rows = json_object_get(live, "vms");
	status = admin_answer(admin, json_pack("{s:o, s:o, s:o, s:o}", "mediator",
	                                       mediator_status(live), "database", database, "gpus",
	                                       gpus ? json_incref(gpus) : json_array(), "vms",
	                                       rows ? json_incref(rows) : record_vms(&vms)));
	if (status != ADMIN_DONE)
		return status;
	if (!admin->json)
		print_status(admin, &vms, code == 0, why.text);
	if (code == LINK_E_NOT_RUNNING)
		return ADMIN_NO_MEDIATOR;
	return code == 0 && json_is_true(json_object_get(database, "ok")) ? ADMIN_DONE
	                                                                  : ADMIN_FAILED;
}
