/* SPDX-License-Identifier: MIT */
/*
 * What the files of the daemon's glue share; nobody else includes it.
 *
 *   mediator.c       start, signals, end
 *   bridge.c         events and actions of the core
 *   reload.c         configuration and registry are read again
 *   figures.c        what is known of the VMs at one moment
 *   vm_describe.c    the same as JSON
 *   vm_set.c         changes of VMs that the admin socket is asked for
 *   vm_table.c       the registry's VMs become ports and VMs of the core
 *   admin_methods.c  what the admin socket offers
 */
#ifndef MEDIATOR_INTERNAL_H
#define MEDIATOR_INTERNAL_H

#include <limits.h>
#include <sys/queue.h>

#include <uthash.h>

#include "mediator/admin_server.h"
#include "mediator/children.h"
#include "mediator/event_log.h"
#include "mediator/gpu_watch.h"
#include "mediator/gpus.h"
#include "mediator/guest_server.h"
#include "mediator/lag.h"
#include "mediator/mediator.h"
#include "mediator/rates.h"
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
	struct rate charged;           /* ns of GPU time */
	struct rate submitted;         /* jobs */
	struct log_limit worker_lines; /* what its workers print */
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
	struct event_log *event_log; /* or NULL */
	bool pumping;                /* actions are being carried out */
	int timer_fd;
	struct event *timer;
	int64_t armed_ns;           /* what timer_fd is set to; SCHED_NEVER = off */
	struct histogram decisions; /* what a call into the core takes */
	struct lag *lag;

	char worker_program[PATH_MAX];
	struct gpu_table gpus;
	struct vm_entry_list vms;
	struct vm_entry *by_uuid;
	TAILQ_HEAD(, pending_reload) reloads;
	uint64_t last_tag;

	struct guest_server *guests;
	struct children *children;
	struct worker_host *workers;
	struct gpu_watch *watch;
	struct store *store;
	struct admin_server *admin;
	struct event *signals[3];
	struct event *sampler;        /* once a second */
	struct event *watchdog;       /* tells the service manager that the loop turns; or NULL */
	struct event *shutdown_check; /* polls for the end of a shutdown */
	int64_t shutdown_deadline_ns; /* 0 = not shutting down */
};

/* bridge.c */
extern const struct guest_ops mediator_guest_ops;
extern const struct worker_host_ops mediator_worker_ops;
void mediator_on_timer(int fd, short what, void *mediator);
/* Carries out what the core wants and sets the timer. To be called after every event. */
void mediator_pump(struct mediator *mediator);
/* At the end: what waits to be stored again is handed to the store a last time. */
void mediator_store_rest(struct mediator *mediator);
/* reload.c */
extern const struct store_ops mediator_store_ops;
/* Asks for the registry; it is applied when it has been read. 0 or a negative errno. */
int mediator_load_registry(struct mediator *mediator);
void reload_free(struct mediator *mediator, struct pending_reload *reload);
/* Reads configuration and registry again; the outcome goes to @call, which may be NULL. */
void mediator_reload(struct mediator *mediator, struct admin_call *call);

/* Changes a VM in the registry and takes that over; the outcome goes to @call. */
void mediator_change_vm(struct mediator *mediator, struct admin_call *call, const char *uuid,
                        const struct registry_vm_change *change);

/* figures.c */
/* What is known of a VM at one moment. */
struct vm_figures {
	const struct vm_entry *entry;
	struct core_vm_stats stats;
	double share;           /* of what its GPU was charged in the last minute; 0..1 */
	double share_target;    /* of its GPU if all that may use it are busy; 0..1 */
	double submission_rate; /* jobs per second in the last minute, refused ones included */
	double job_average_ns;  /* mean execution time, as workers measured */
	uint64_t memory_bytes;  /* of GPU memory its worker holds; MEMORY_UNKNOWN */
	uint64_t memory_expected_bytes; /* and should, without an allowance; MEMORY_UNKNOWN */
};

int figures_start(struct mediator *mediator);
/* Of all VMs that are not being removed. The caller frees *@out. Returns 0 or -ENOMEM. */
int figures_gather(struct mediator *mediator, struct vm_figures **out, size_t *count);
/* vm_describe.c: for the admin socket; the caller owns the result, NULL without memory */
json_t *vm_describe_identity(const struct vm_entry *entry);
json_t *vm_describe_status(const struct vm_figures *vm);
/* Of the VM's worker what the core knows. */
json_t *vm_describe_worker(struct mediator *mediator, const struct vm_entry *entry);
json_t *vm_describe_weights(const struct mediator *mediator, const struct vm_figures *vm);
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
/* By the core's number; NULL: there is none. */
const struct vm_entry *vm_table_find(const struct mediator *mediator, uint32_t core_vm);
/* VM_GONE has come. */
void vm_table_forget(struct mediator *mediator, struct vm_entry *entry);
void vm_table_free(struct mediator *mediator);
enum { VM_LABEL_BYTES = 72 + REGISTRY_UUID_BYTES }; /* 60 of them for the name */

/* "name (uuid)" for the log; returns @to. */
const char *vm_entry_label(char to[static VM_LABEL_BYTES], const struct vm_entry *entry);

/* vm_set.c: a method of the admin socket */
void vm_set(void *owner, struct admin_call *call, const json_t *params);

/* admin_methods.c */
extern const struct admin_method admin_methods[];

#endif
