/* SPDX-License-Identifier: MIT */
/*
 * The registry's VMs become ports and VMs of the core.
 *
 * Applying a snapshot compares it with what is served: new rows get a socket, changed
 * ones new settings, missing ones go. A row with a problem is not served, and nobody
 * else notices.
 */
#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "mediator/internal.h"

const char *vm_entry_label(char to[static VM_LABEL_BYTES], const struct vm_entry *entry)
{
	snprintf(to, VM_LABEL_BYTES, "VM %.60s (%s)", entry->name ? entry->name : "without a name",
	         entry->uuid);
	return to;
}

static void report_line(json_t *lines, const char *text)
{
	json_array_append_new(lines, admin_text(text));
}

static struct guest_identity identity_of(const struct vm_entry *entry)
{
	return (struct guest_identity){
		.vm_id = entry->vm_id,
		.pool = pool_letter(entry->settings.pool),
		.priority = (uint8_t)entry->settings.priority,
	};
}

static bool same_settings(const struct vm_settings *a, const struct vm_settings *b)
{
	for (size_t i = 0; i < SETTING_COUNT; i++) {
		if (setting_get(a, &setting_fields[i]) != setting_get(b, &setting_fields[i]))
			return false;
	}
	return a->priority == b->priority && a->pool == b->pool;
}

static bool same_name(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static int open_port(struct vm_entry *entry)
{
	const struct guest_identity identity = identity_of(entry);
	struct mediator *mediator = entry->mediator;
	char path[CONFIG_PATH_BYTES + REGISTRY_UUID_BYTES + 8], label[VM_LABEL_BYTES];
	int r;

	snprintf(path, sizeof(path), "%s/%s.sock", mediator->config.listen_dir, entry->uuid);
	vm_entry_label(label, entry);
	r = guest_port_open(mediator->guests, &entry->port, path, label, &identity, entry);
	if (r < 0)
		log_error("%s: cannot listen at %s: %s", label, path, strerror(-r));
	return r;
}

static void entry_free(struct vm_entry *entry)
{
	guest_port_close(entry->port);
	free(entry->name);
	free(entry);
}

/* The first of the VM's faults; @end is behind its last. NULL if it has none. */
static const struct registry_fault *find_faults(const struct registry_faults *faults,
                                                const char *uuid, const struct registry_fault **end)
{
	const struct registry_fault *all_end = faults->items + faults->count;
	size_t low = 0, high = faults->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (strcmp(faults->items[middle].vm_uuid, uuid) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	*end = faults->items + low;
	while (*end < all_end && strcmp((*end)->vm_uuid, uuid) == 0)
		(*end)++;
	return faults->items + low;
}

static enum core_fault fault_kind(const char *kind)
{
	enum core_fault fault = 0;

	while (fault < CORE_FAULT_COUNT && strcmp(kind, core_fault_name(fault)) != 0)
		fault++;
	return fault;
}

/*
 * What the registry remembers of the VM's faults: without it a restart would forgive, and
 * points that somebody has cleared would go on counting.
 */
static void restore_faults(const struct vm_entry *entry, const struct registry_vm *row,
                           const struct registry_faults *faults)
{
	struct core_store records[REGISTRY_FAULTS_PER_VM + REGISTRY_ORDERS_PER_VM];
	const struct registry_fault *end, *fault = find_faults(faults, entry->uuid, &end);
	size_t count = 0;

	for (; fault < end && count < ARRAY_LEN(records); fault++) {
		/* Whoever ended a quarantine, if only in the file, ended the points with it. */
		if (strcmp(fault->kind, REGISTRY_KIND_QUARANTINED) == 0) {
			count = row->quarantined ? count : 0;
			continue;
		}
		records[count++] = (struct core_store){
			.record = strcmp(fault->kind, REGISTRY_KIND_RECOVERED) == 0
		                          ? CORE_RECORD_RECOVERED
		                          : CORE_RECORD_FAULT,
			.fault = fault_kind(fault->kind),
			.at_ns = clock_monotonic_at_ns(fault->at_s),
			.points = fault->points,
		};
	}
	core_vm_restore(entry->mediator->core, clock_monotonic_ns(), entry->core_vm, records,
	                count);
}

static int add(struct mediator *mediator, const struct registry_vm *row, struct vm_entry **out)
{
	struct vm_entry *entry = calloc(1, sizeof(*entry));
	int r;

	if (!entry)
		return -ENOMEM;
	entry->mediator = mediator;
	entry->vm_id = row->vm_id;
	entry->settings = row->settings;
	entry->seen = true;
	entry->name = row->name ? strdup(row->name) : NULL;
	strcpy(entry->uuid, row->uuid);
	r = open_port(entry);
	if (r == 0)
		r = core_vm_add(mediator->core, clock_monotonic_ns(), &entry->core_vm,
		                &entry->settings, row->quarantined, entry);
	if (r < 0) {
		entry_free(entry);
		return r;
	}
	TAILQ_INSERT_TAIL(&mediator->vms, entry, link);
	HASH_ADD(by_uuid, mediator->by_uuid, uuid, strlen(entry->uuid), entry);
	*out = entry;
	return 0;
}

static bool is_quarantined(const struct vm_entry *entry)
{
	struct core_vm_stats stats;

	core_vm_stats(entry->mediator->core, clock_monotonic_ns(), entry->core_vm, &stats);
	return stats.quarantined;
}

static void change(struct mediator *mediator, struct vm_entry *entry, const struct registry_vm *row,
                   struct vm_table_report *report)
{
	char label[VM_LABEL_BYTES], line[VM_LABEL_BYTES + 32];
	struct guest_identity identity;

	entry->seen = true;
	if (same_settings(&entry->settings, &row->settings) &&
	    is_quarantined(entry) == row->quarantined && entry->vm_id == row->vm_id &&
	    same_name(entry->name, row->name))
		return;
	free(entry->name);
	entry->name = row->name ? strdup(row->name) : NULL;
	entry->vm_id = row->vm_id;
	entry->settings = row->settings;
	identity = identity_of(entry);
	guest_port_set_identity(entry->port, &identity);
	core_vm_set(mediator->core, clock_monotonic_ns(), entry->core_vm, &entry->settings,
	            row->quarantined);
	snprintf(line, sizeof(line), "%s changed", vm_entry_label(label, entry));
	report_line(report->changed, line);
	mediator_pump(mediator);
}

static void drop(struct mediator *mediator, struct vm_entry *entry)
{
	char label[VM_LABEL_BYTES];

	log_info("%s: removed", vm_entry_label(label, entry));
	HASH_DELETE(by_uuid, mediator->by_uuid, entry);
	entry->removing = true;
	entry->full = false; /* no answer makes it go on reading */
	guest_port_retire(entry->port);
	core_vm_remove(mediator->core, clock_monotonic_ns(), entry->core_vm);
	mediator_pump(mediator);
}

const struct vm_entry *vm_table_find(const struct mediator *mediator, uint32_t core_vm)
{
	const struct vm_entry *entry;

	TAILQ_FOREACH (entry, &mediator->vms, link) {
		if (entry->core_vm == core_vm)
			return entry;
	}
	return NULL;
}

void vm_table_forget(struct mediator *mediator, struct vm_entry *entry)
{
	TAILQ_REMOVE(&mediator->vms, entry, link);
	entry_free(entry);
}

void vm_table_free(struct mediator *mediator)
{
	struct vm_entry *entry;

	HASH_CLEAR(by_uuid, mediator->by_uuid);
	while ((entry = TAILQ_FIRST(&mediator->vms)))
		vm_table_forget(mediator, entry);
}

static void apply_pools(struct mediator *mediator, const struct registry_pools *pools,
                        struct vm_table_report *report)
{
	struct core_config config = mediator->core_config;
	bool changed = false;
	char line[64];

	for (uint32_t i = 0; i < POOL_COUNT; i++) {
		const struct registry_pool *pool = &pools->items[i];

		if (pool->problem)
			report_line(report->errors, pool->problem);
		if (config.pools[i].enabled != pool->enabled) {
			snprintf(line, sizeof(line), "pool %c %s", pool_letter(i),
			         pool->enabled ? "enabled" : "disabled");
			report_line(report->changed, line);
			changed = true;
		}
		changed |= config.pools[i].job_timeout_ns != pool->job_timeout_ms * NS_PER_MS;
		config.pools[i].enabled = pool->enabled;
		config.pools[i].job_timeout_ns = pool->job_timeout_ms * NS_PER_MS;
	}
	if (!changed)
		return;
	mediator->core_config = config;
	core_config_set(mediator->core, clock_monotonic_ns(), &config);
	mediator_pump(mediator);
}

static void apply_row(struct mediator *mediator, const struct registry_vm *row,
                      const struct registry_faults *faults, struct vm_table_report *report)
{
	struct vm_entry *entry;
	char line[256];
	int r;

	if (row->problem) {
		log_error("registry: %s", row->problem);
		report_line(report->errors, row->problem);
		return;
	}
	HASH_FIND(by_uuid, mediator->by_uuid, row->uuid, strlen(row->uuid), entry);
	if (entry) {
		change(mediator, entry, row, report);
	} else {
		r = add(mediator, row, &entry);
		if (r < 0) {
			snprintf(line, sizeof(line), "VM %s cannot be served: %s", row->uuid,
			         strerror(-r));
			report_line(report->errors, line);
			return;
		}
		report->added++;
	}
	restore_faults(entry, row, faults);
	mediator_pump(mediator);
}

void vm_table_apply(struct mediator *mediator, const struct store_snapshot *snapshot,
                    struct vm_table_report *report)
{
	struct vm_entry *entry, *next;

	apply_pools(mediator, &snapshot->pools, report);
	TAILQ_FOREACH (entry, &mediator->vms, link)
		entry->seen = false;
	for (size_t i = 0; i < snapshot->vms.count; i++)
		apply_row(mediator, &snapshot->vms.items[i], &snapshot->faults, report);
	for (entry = TAILQ_FIRST(&mediator->vms); entry; entry = next) {
		next = TAILQ_NEXT(entry, link);
		if (!entry->seen && !entry->removing) {
			drop(mediator, entry);
			report->removed++;
			/* Its neighbours in the list may have gone with it. */
			next = TAILQ_FIRST(&mediator->vms);
		}
	}
}
