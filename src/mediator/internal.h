/* SPDX-License-Identifier: MIT */
/*
 * What the files of the daemon's glue share; nobody else includes it.
 *
 *   mediator.c       start, events and actions of the core, end
 *   vm_table.c       the registry's VMs become ports and VMs of the core
 *   admin_methods.c  what the admin socket offers
 */
#ifndef MEDIATOR_INTERNAL_H
#define MEDIATOR_INTERNAL_H

#include <sys/queue.h>

#include <uthash.h>

#include "mediator/admin_server.h"
#include "mediator/gpus.h"
#include "mediator/guest_server.h"
#include "mediator/mediator.h"
#include "mediator/store.h"
#include "mediator/worker_host.h"

struct vm_entry {
	TAILQ_ENTRY(vm_entry) link; /* in mediator.vms */
	UT_hash_handle by_uuid;     /* until it is being removed */
	struct mediator *mediator;
	char uuid[REGISTRY_UUID_BYTES];
	char *name; /* or NULL */
	uint32_t vm_id;
	struct vm_settings settings;
	bool removing; /* VM_GONE is awaited */
	bool seen;     /* in the snapshot that is being applied */
	bool full;     /* its connections are paused for want of room */
	uint32_t core_vm;
	struct guest_port *port;
};

TAILQ_HEAD(vm_entry_list, vm_entry);

/* A `reload` of the admin socket that waits for the registry. */
struct pending_reload {
	TAILQ_ENTRY(pending_reload) link;
	uint64_t tag;
	struct admin_call *call; /* NULL: SIGHUP */
	json_t *changed;         /* lines about the configuration */
	json_t *errors;
};

struct mediator {
	struct event_base *base;
	struct config config;
	const struct config_source *source;
	int64_t started_ns;

	struct core_config core_config;
	struct core *core;
	bool pumping; /* actions are being carried out */
	int timer_fd;
	struct event *timer;
	int64_t armed_ns; /* what timer_fd is set to; SCHED_NEVER = off */

	struct gpu_table gpus;
	struct vm_entry_list vms;
	struct vm_entry *by_uuid;
	TAILQ_HEAD(, pending_reload) reloads;
	uint64_t last_tag;

	struct guest_server *guests;
	struct worker_host *workers;
	struct store *store;
	struct admin_server *admin;
	struct event *signals[3];
	struct event *shutdown_check; /* polls for the end of a shutdown */
	int64_t shutdown_deadline_ns; /* 0 = not shutting down */
};

/* mediator.c */
/* Carries out what the core wants and sets the timer. To be called after every event. */
void mediator_pump(struct mediator *mediator);
/* Reads configuration and registry again; the outcome goes to @call, which may be NULL. */
void mediator_reload(struct mediator *mediator, struct admin_call *call);

/* vm_table.c */
struct vm_table_report {
	uint32_t added;
	uint32_t removed;
	json_t *changed; /* array of lines; owned */
	json_t *errors;
};

/* Makes what is served equal to @snapshot, adding to @report. */
void vm_table_apply(struct mediator *mediator, const struct store_snapshot *snapshot,
                    struct vm_table_report *report);
/* VM_GONE has come. */
void vm_table_forget(struct mediator *mediator, struct vm_entry *entry);
void vm_table_free(struct mediator *mediator);
/* "name (uuid)" for the log; returns @to. */
const char *vm_entry_label(char *to, size_t size, const struct vm_entry *entry);

/* admin_methods.c */
extern const struct admin_method admin_methods[];

#endif
