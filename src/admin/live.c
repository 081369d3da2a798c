/* SPDX-License-Identifier: MIT */
/*
 * See live.h. A new view is a row here and one in commands.c.
 */
#include "admin/live.h"

#include <stdio.h>
#include <string.h>

#include "admin/commands.h"
#include "admin/health.h"
#include "admin/record.h"

const struct column live_vm_columns[] = {
	{"vm_name", "NAME", COLUMN_TEXT},
	{"pool", "POOL", COLUMN_TEXT},
	{"priority", "PRIORITY", COLUMN_TEXT},
	{"weight", "WEIGHT", COLUMN_WEIGHT},
	{"connected", "CONN", COLUMN_NUMBER},
	{"queue_depth", "QUEUED", COLUMN_NUMBER},
	{"in_flight", "RUNNING", COLUMN_NUMBER},
	{"worker", "WORKER", COLUMN_TEXT},
	{"submission_rate", "JOBS/S", COLUMN_RATE},
	{"job_average_us", "MEAN JOB", COLUMN_US},
	{"p50_us", "P50", COLUMN_US},
	{"p99_us", "P99", COLUMN_US},
	{"share", "SHARE", COLUMN_PERCENT},
	{"share_target", "TARGET", COLUMN_PERCENT},
	{"quarantined", "QUARANTINED", COLUMN_YES_NO},
	{NULL, NULL, COLUMN_TEXT},
};

const struct column live_gpu_columns[] = {
	{"index", "GPU", COLUMN_NUMBER},
	{"name", "NAME", COLUMN_TEXT},
	{"health", "HEALTH", COLUMN_TEXT},
	{"busy_s", "BUSY FOR", COLUMN_SECONDS},
	{"open", "TURNS", COLUMN_NUMBER},
	{"ready", "WAITING", COLUMN_NUMBER},
	{"temperature_c", "TEMP C", COLUMN_NUMBER},
	{"power_w", "POWER W", COLUMN_NUMBER},
	{"utilization", "UTIL", COLUMN_PERCENT},
	{"memory_used_mib", "USED MIB", COLUMN_NUMBER},
	{"memory_total_mib", "TOTAL MIB", COLUMN_NUMBER},
	{NULL, NULL, COLUMN_TEXT},
};

static const struct column connection_columns[] = {
	{"vm_name", "NAME", COLUMN_TEXT},        {"peer_pid", "PID", COLUMN_NUMBER},
	{"peer_uid", "UID", COLUMN_NUMBER},      {"since_s", "SINCE", COLUMN_SECONDS},
	{"requests", "REQUESTS", COLUMN_NUMBER}, {"paused", "PAUSED", COLUMN_YES_NO},
	{"vm_uuid", "UUID", COLUMN_TEXT},        {NULL, NULL, COLUMN_TEXT},
};

static const struct column job_columns[] = {
	{"job", "JOB", COLUMN_NUMBER},     {"vm_name", "NAME", COLUMN_TEXT},
	{"opcode", "OPCODE", COLUMN_TEXT}, {"state", "STATE", COLUMN_TEXT},
	{"age_us", "AGE", COLUMN_US},      {"vm_uuid", "UUID", COLUMN_TEXT},
	{NULL, NULL, COLUMN_TEXT},
};

static const struct column worker_columns[] = {
	{"vm_name", "NAME", COLUMN_TEXT},        {"pid", "PID", COLUMN_NUMBER},
	{"state", "STATE", COLUMN_TEXT},         {"backend", "BACKEND", COLUMN_TEXT},
	{"gpu", "GPU", COLUMN_NUMBER},           {"age_s", "AGE", COLUMN_SECONDS},
	{"in_flight", "RUNNING", COLUMN_NUMBER}, {"failed_starts", "FAILED STARTS", COLUMN_NUMBER},
	{"vm_uuid", "UUID", COLUMN_TEXT},        {NULL, NULL, COLUMN_TEXT},
};

static const struct column metric_columns[] = {
	{"vm_name", "NAME", COLUMN_TEXT},
	{"jobs_done", "DONE", COLUMN_NUMBER},
	{"jobs_failed", "FAILED", COLUMN_NUMBER},
	{"refused", "REFUSED", COLUMN_NUMBER},
	{"queue_depth", "QUEUED", COLUMN_NUMBER},
	{"submission_rate", "JOBS/S", COLUMN_RATE},
	{"job_average_us", "MEAN JOB", COLUMN_US},
	{"p50_us", "P50", COLUMN_US},
	{"p95_us", "P95", COLUMN_US},
	{"p99_us", "P99", COLUMN_US},
	{"charged_s", "GPU TIME", COLUMN_SECONDS},
	{"share", "SHARE", COLUMN_PERCENT},
	{"share_target", "TARGET", COLUMN_PERCENT},
	{NULL, NULL, COLUMN_TEXT},
};

const struct live_view live_connections = {"show-connections", "connections", connection_columns,
                                           "no VM is connected", NULL};
const struct live_view live_jobs = {"list-jobs", "jobs", job_columns,
                                    "no job is waiting or running", NULL};
const struct live_view live_workers = {"list-workers", "workers", worker_columns,
                                       "no worker is running", NULL};
const struct live_view live_metrics = {"status", "vms", metric_columns, "no VM is registered",
                                       NULL};
const struct live_view live_health = {"health", "gpus", live_gpu_columns, "there is no GPU",
                                      health_print};

static enum admin_exit view_show(struct admin *admin, const struct live_view *view)
{
	json_t *result = NULL;
	enum admin_exit status;
	json_t *rows;

	status = admin_call(admin, view->method, NULL, &result);
	if (status != ADMIN_DONE)
		return status;
	rows = json_object_get(result, view->key);
	/* Only what was asked for, under its key, whatever else the method tells. */
	rows = json_is_array(rows) ? json_incref(rows) : json_array();
	json_decref(result);
	if (!admin->json && json_array_size(rows) == 0) {
		admin_say(admin, "%s", view->none);
		return admin_answer(admin, json_pack("{s:o}", view->key, rows));
	}
	status = admin_answer_table(admin, json_pack("{s:o}", view->key, rows), view->key,
	                            view->columns);
	if (status == ADMIN_DONE && !admin->json && view->below)
		view->below(rows);
	return status;
}

enum admin_exit command_live(struct admin *admin)
{
	return view_show(admin, admin->command->view);
}

/* The one answer that is no list of things alike: keys and their values. */
enum admin_exit command_show_config(struct admin *admin)
{
	json_t *result = NULL;
	enum admin_exit status = admin_call(admin, "show-config", NULL, &result);
	const char *key;
	json_t *value;

	if (status != ADMIN_DONE)
		return status;
	json_object_foreach (result, key, value) {
		if (json_is_string(value))
			admin_say(admin, "%s = %s", key, json_string_value(value));
	}
	return admin_answer(admin, result);
}

enum admin_exit command_metrics(struct admin *admin)
{
	json_t *result = NULL;
	enum admin_exit status;
	const char *text;

	if (!admin_given(admin, OPTION_PROMETHEUS))
		return view_show(admin, &live_metrics);
	status = admin_call(admin, "show-metrics", NULL, &result);
	if (status != ADMIN_DONE)
		return status;
	text = json_string_value(json_object_get(result, "text"));
	if (text && !admin->json)
		fputs(text, stdout);
	status = admin_answer(admin, result);
	return text ? status
	            : admin_fail(admin, ADMIN_FAILED, "the mediator answered without metrics");
}

enum admin_exit command_drain(struct admin *admin)
{
	const struct decimal whole = {.name = "gpu", .scale = 1, .max = 255, .zero_allowed = true};
	const char *text = admin->values[OPTION_GPU];
	const char *method = admin->command->name; /* drain or resume, there as here */
	json_t *params = json_object(), *result = NULL;
	enum admin_exit status;
	const char *health;
	int64_t gpu = 0;
	char by[64];

	if (text && decimal_parse(&gpu, &whole, text) < 0) {
		json_decref(params);
		return admin_fail(admin, ADMIN_USAGE, "--gpu=%s is no GPU; health numbers them",
		                  text);
	}
	if (text)
		json_object_set_new(params, "gpu", json_integer(gpu));
	admin_caller_name(by, sizeof(by));
	json_object_set_new(params, "by", record_text(by));
	status = admin_call(admin, method, params, &result);
	if (status != ADMIN_DONE)
		return status;
	health = json_string_value(json_object_get(result, "health"));
	admin_say(admin, "GPU %lld: %s", (long long)gpu, health ? health : "done");
	return admin_answer(admin, result);
}

enum admin_exit command_cancel_job(struct admin *admin)
{
	const struct decimal whole = {
		.name = "job", .scale = 1, .max = INT64_C(1) << 53, .zero_allowed = true};
	const char *text = admin->values[OPTION_JOB];
	json_t *result = NULL;
	enum admin_exit status;
	int64_t job;

	if (decimal_parse(&job, &whole, text) < 0)
		return admin_fail(admin, ADMIN_USAGE,
		                  "--job=%s is no job; list-jobs shows those there are", text);
	status = admin_call(admin, "cancel-job", json_pack("{s:I}", "job", (json_int_t)job),
	                    &result);
	if (status != ADMIN_DONE)
		return status;
	admin_say(admin, "job %s: cancelled", text);
	return admin_answer(admin, result);
}

static void say_lines(const struct admin *admin, const char *heading, const json_t *lines)
{
	const json_t *line;
	size_t i;

	json_array_foreach (lines, i, line) {
		if (json_is_string(line))
			admin_say(admin, "%s: %s", heading, json_string_value(line));
	}
}

enum admin_exit command_reload(struct admin *admin)
{
	json_t *result = NULL;
	enum admin_exit status = admin_call(admin, "reload", NULL, &result);
	bool errors;

	if (status != ADMIN_DONE)
		return status;
	errors = json_array_size(json_object_get(result, "errors")) > 0;
	admin_say(admin, "reloaded: %lld added, %lld removed",
	          (long long)json_integer_value(json_object_get(result, "added")),
	          (long long)json_integer_value(json_object_get(result, "removed")));
	say_lines(admin, "changed", json_object_get(result, "changed"));
	say_lines(admin, "error", json_object_get(result, "errors"));
	status = admin_answer(admin, result);
	return errors ? ADMIN_FAILED : status;
}
