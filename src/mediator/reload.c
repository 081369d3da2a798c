/* SPDX-License-Identifier: MIT */
/*
 * Configuration and registry are read again: at the start, on SIGHUP, on the admin
 * socket's `reload`, after its `vm-set`, and when somebody else has changed the registry.
 *
 * The registry is read in its own thread, so that a reload is an object that waits for
 * the answer; several may be under way.
 */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "mediator/internal.h"

static void on_stored(void *owner, uint64_t ticket, bool stored)
{
	struct mediator *mediator = owner;

	core_store_done(mediator->core, clock_monotonic_ns(), ticket, stored);
	mediator_pump(mediator);
}

static struct pending_reload *find_reload(struct mediator *mediator, uint64_t tag)
{
	struct pending_reload *reload;

	TAILQ_FOREACH (reload, &mediator->reloads, link) {
		if (reload->tag == tag)
			return reload;
	}
	return NULL;
}

void reload_free(struct mediator *mediator, struct pending_reload *reload)
{
	TAILQ_REMOVE(&mediator->reloads, reload, link);
	json_decref(reload->changed);
	json_decref(reload->errors);
	free(reload);
}

/* Ends a reload: tells what came of it. */
static void reload_finish(struct mediator *mediator, struct pending_reload *reload,
                          const struct vm_table_report *report, const char *why)
{
	json_array_extend(reload->changed, report->changed);
	json_array_extend(reload->errors, report->errors);
	if (reload->call && why)
		admin_call_error(reload->call, ADMIN_E_FAILED, "%s", why);
	else if (reload->call)
		admin_call_result(reload->call,
		                  json_pack("{s:i, s:i, s:O, s:O}", "added", report->added,
		                            "removed", report->removed, "changed", reload->changed,
		                            "errors", reload->errors));
	reload_free(mediator, reload);
}

static void on_loaded(void *owner, uint64_t tag, const struct store_snapshot *snapshot,
                      const char *why)
{
	struct mediator *mediator = owner;
	struct pending_reload *reload = find_reload(mediator, tag);
	struct vm_table_report report = {.changed = json_array(), .errors = json_array()};

	/* Before the VMs: none of their jobs may meet a GPU that must not get work. */
	if (snapshot)
		gpu_watch_registry_read(mediator->watch, &snapshot->holds);
	if (snapshot && !mediator->shutdown_deadline_ns)
		vm_table_apply(mediator, snapshot, &report);
	if (report.added || report.removed || json_array_size(report.changed))
		log_info("registry: %u VM%s added, %u removed, %zu change%s", report.added,
		         plural_s(report.added), report.removed, json_array_size(report.changed),
		         plural_s(json_array_size(report.changed)));
	if (reload)
		reload_finish(mediator, reload, &report, snapshot ? NULL : why);
	json_decref(report.changed);
	json_decref(report.errors);
}

static void on_gpu_stored(void *owner, uint32_t gpu, bool stored)
{
	struct mediator *mediator = owner;

	gpu_watch_stored(mediator->watch, gpu, stored);
}

const struct store_ops mediator_store_ops = {
	.loaded = on_loaded,
	.stored = on_stored,
	.gpu_stored = on_gpu_stored,
};

static void report_config(void *context, const char *line)
{
	struct pending_reload *reload = context;

	log_info("configuration: %s", line);
	json_array_append_new(reload->changed, admin_text(line));
}

static void reload_config(struct mediator *mediator, struct pending_reload *reload)
{
	struct config_error error;
	struct config next;

	if (config_load(&next, mediator->source, &error) < 0) {
		log_error("configuration not reloaded: %s", error.text);
		json_array_append_new(reload->errors, admin_text(error.text));
		return;
	}
	config_apply(&mediator->config, &next, report_config, reload);
	config_to_core(&mediator->config, mediator->gpus.cuda, &mediator->core_config);
	core_config_set(mediator->core, clock_monotonic_ns(), &mediator->core_config);
	guest_server_set_limits(mediator->guests, config_guest_limits(&mediator->config));
	mediator_pump(mediator);
}

static struct pending_reload *reload_new(struct mediator *mediator, struct admin_call *call)
{
	struct pending_reload *reload = calloc(1, sizeof(*reload));

	if (!reload)
		return NULL;
	reload->tag = ++mediator->last_tag;
	reload->call = call;
	reload->changed = json_array();
	reload->errors = json_array();
	TAILQ_INSERT_TAIL(&mediator->reloads, reload, link);
	return reload;
}

int mediator_load_registry(struct mediator *mediator)
{
	struct pending_reload *reload = reload_new(mediator, NULL);

	return reload ? store_load(mediator->store, reload->tag) : -ENOMEM;
}

/* @r is what came of putting it in line; if nothing did, it ends here. */
static void reload_begun(struct mediator *mediator, struct pending_reload *reload,
                         struct admin_call *call, int r)
{
	if (r < 0 && call)
		admin_call_error(call, ADMIN_E_FAILED, "the registry is not read: %s",
		                 strerror(-r));
	if (r < 0 && reload)
		reload_free(mediator, reload);
}

void mediator_reload(struct mediator *mediator, struct admin_call *call)
{
	struct pending_reload *reload = reload_new(mediator, call);
	int r = -ENOMEM;

	if (reload) {
		reload_config(mediator, reload);
		r = store_load(mediator->store, reload->tag);
	}
	reload_begun(mediator, reload, call, r);
}

void mediator_change_vm(struct mediator *mediator, struct admin_call *call, const char *uuid,
                        const struct registry_vm_change *change)
{
	struct pending_reload *reload = reload_new(mediator, call);
	int r = reload ? store_change(mediator->store, reload->tag, uuid, change) : -ENOMEM;

	reload_begun(mediator, reload, call, r);
}
