/* SPDX-License-Identifier: MIT */
/*
 * The registry: which VMs may use the GPU, with what settings, and what went
 * wrong with them. One SQLite file, shared by the mediator, the command line and
 * the tools of its first version, any of which may write it at any time.
 *
 * Values are validated by the layer settings alone, when they are written and again
 * when they are read, because files are also edited by hand. A row that holds a bad
 * value is reported as it is and never changed or dropped: its VM is not served
 * until somebody repairs it, the others are.
 *
 * A handle belongs to one thread. Every function returns 0, a negative errno that is
 * fatal, or one of REGISTRY_E_*; a sentence for people that names the file, the
 * value and the remedy is then in registry_message(), or in @why when opening.
 * Every change is one transaction and on the disk when the call returns, unless it
 * is part of a batch.
 */
#ifndef REGISTRY_REGISTRY_H
#define REGISTRY_REGISTRY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/util.h"
#include "settings/settings.h"

enum {
	REGISTRY_VERSION = 4,           /* PRAGMA user_version */
	REGISTRY_UUID_BYTES = 37,       /* 36 characters and the end */
	REGISTRY_FAULTS_PER_VM = 256,   /* the newest are kept */
	REGISTRY_ORDERS_PER_VM = 64,    /* quarantines and their ends, likewise */
	REGISTRY_DETAIL_BYTES_MAX = 512 /* of a reason or a fault's detail; more is cut */
};

enum {
	REGISTRY_E_NOT_FOUND = 1,  /* no such VM */
	REGISTRY_E_AMBIGUOUS,      /* several VMs have that name */
	REGISTRY_E_EXISTS,         /* the uuid, the vm_id or the backup file is taken */
	REGISTRY_E_INVALID,        /* a value is out of range or no UUID */
	REGISTRY_E_MISSING,        /* there is no such file (reading only) */
	REGISTRY_E_NO_DIRECTORY,   /* the directory of the file is missing */
	REGISTRY_E_NEWER,          /* written by a newer version; left untouched */
	REGISTRY_E_LOCKED,         /* another process held it longer than the busy timeout */
	REGISTRY_E_CORRUPT,        /* damaged */
	REGISTRY_E_NOT_A_DATABASE, /* no SQLite file, or not a registry */
	REGISTRY_E_READ_ONLY,      /* the file or its file system cannot be written */
	REGISTRY_E_DENIED,         /* the file cannot be opened */
	REGISTRY_E_DISK_FULL,      /* no space left; nothing was changed */
	REGISTRY_E_IO,             /* the disk or a limit on file sizes refused; likewise */
	REGISTRY_E_REPLACED,       /* the file at the path is another one now: open again */
};

struct registry;

struct registry_error {
	char text[1024];
};

enum registry_mode {
	REGISTRY_READ,  /* never changes the file; an old version is read as it is */
	REGISTRY_WRITE, /* creates a missing file, upgrades an old one (with a backup) */
};

struct registry_options {
	enum registry_mode mode;
	const char *stands_for; /* with ":memory:": the path that messages name, or NULL */
	/*
	 * Another process that has the file is waited for 5 s, but not beyond this time of
	 * CLOCK_MONOTONIC, which another thread may change; NULL = no such time.
	 */
	const atomic_llong *give_up_ns;
};

/* @why may be NULL. The caller owns *@out and frees it with registry_free(). */
int registry_open(struct registry **out, const char *path, const struct registry_options *options,
                  struct registry_error *why);
void registry_free(struct registry *registry);
DEFINE_CLEANUP(registry)

const char *registry_path(const struct registry *registry);

/* About the last call that did not return 0; valid until the next call. */
const char *registry_message(const struct registry *registry);

/*
 * What the changes and backups made so far may lack although they are made, or NULL: a
 * directory that cannot be synced, so that a power cut could undo them.
 */
const char *registry_warning(const struct registry *registry);

/* The backup made by the upgrade in registry_open(), or NULL if none was needed. */
const char *registry_upgrade_backup(const struct registry *registry);

/*
 * Sets *@out when another process has changed the file since registry_open() or the last
 * call of this; own changes do not count. Cheap: reads 4 bytes. REGISTRY_E_REPLACED
 * when the path names another file now (a restored backup).
 */
int registry_changed(struct registry *registry, bool *out);

/* Reads everything and says what is damaged: 0 or REGISTRY_E_CORRUPT. */
int registry_check(struct registry *registry);

/* A consistent copy, on the disk when this returns. Never overwrites (REGISTRY_E_EXISTS). */
int registry_backup(struct registry *registry, const char *path);

/*
 * Many changes in one transaction. Between the two calls a change that fails undoes
 * only itself. registry_batch_end() keeps everything when @keep, else nothing.
 */
int registry_batch_begin(struct registry *registry);
int registry_batch_end(struct registry *registry, bool keep);

/* Is @code about the file and not about what was asked for, so that asking for more is useless? */
bool registry_failed_whole(int code);

/* "0f2a..." in canonical form: 36 lower-case characters. */
bool registry_uuid_valid(const char *text);

/* ---- VMs ------------------------------------------------------------------------- */

struct registry_vm {
	uint32_t vm_id;
	char uuid[REGISTRY_UUID_BYTES]; /* canonical; "" if the row holds no UUID */
	char *stored_uuid;              /* as the row holds it; selects the row in any call */
	char *name;                     /* UTF-8 of any content, or NULL */
	struct vm_settings settings;
	bool allow_cubin;
	bool quarantined;
	int64_t quarantined_at_s; /* since the epoch; 0 = unknown */
	char *quarantine_reason;  /* or NULL */
	char *quarantined_by;     /* or NULL */
	int64_t error_count;      /* all faults, for good */
	char *created_at;         /* "YYYY-MM-DD HH:MM:SS" UTC, or NULL */
	char *updated_at;
	char *problem; /* NULL, or why this VM must not be served: column, value, range, remedy */
};

struct registry_vms {
	struct registry_vm *items; /* ordered by vm_id */
	size_t count;
};

void registry_vm_clear(struct registry_vm *vm);
void registry_vms_clear(struct registry_vms *vms);

/* All rows, those with a problem included. The caller clears *@out. */
int registry_vm_list(struct registry *registry, struct registry_vms *out);

/* By UUID in any case, or by a row's stored text. REGISTRY_E_NOT_FOUND. Caller clears *@out. */
int registry_vm_find(struct registry *registry, const char *uuid, struct registry_vm *out);

/*
 * All VMs of exactly that name. REGISTRY_E_NOT_FOUND if none; REGISTRY_E_AMBIGUOUS with
 * *@out filled if several: the caller clears it in both the good and this case.
 */
int registry_vm_find_name(struct registry *registry, const char *name, struct registry_vms *out);

enum registry_field {
	REGISTRY_FIELD_VM_ID = 1 << 0,
	REGISTRY_FIELD_NAME = 1 << 1,
	REGISTRY_FIELD_POOL = 1 << 2,
	REGISTRY_FIELD_PRIORITY = 1 << 3,
	REGISTRY_FIELD_ALLOW_CUBIN = 1 << 4,
};

/* What to change; only what a bit names is looked at. */
struct registry_vm_change {
	uint32_t fields;   /* of enum registry_field */
	uint32_t settings; /* bit i: enum setting i */
	uint32_t vm_id;
	const char *name; /* NULL = no name */
	bool allow_cubin;
	struct vm_settings values;
};

/*
 * A new VM with the defaults where @change names nothing; vm_id then is the next
 * after the highest. *@vm_id (may be NULL) tells it. REGISTRY_E_INVALID for a @uuid that
 * is not canonical or a value out of range, REGISTRY_E_EXISTS.
 */
int registry_vm_insert(struct registry *registry, const char *uuid,
                       const struct registry_vm_change *change, uint32_t *vm_id);

/* REGISTRY_E_NOT_FOUND, REGISTRY_E_EXISTS (vm_id), REGISTRY_E_INVALID. */
int registry_vm_update(struct registry *registry, const char *uuid,
                       const struct registry_vm_change *change);

/*
 * Gives the VM a vm_id that no VM can have, so that its own is free for another. Only
 * inside a batch that gives it a new one before it ends. REGISTRY_E_NOT_FOUND.
 */
int registry_vm_release_id(struct registry *registry, const char *uuid);

/* With its faults. REGISTRY_E_NOT_FOUND. */
int registry_vm_remove(struct registry *registry, const char *uuid);

/* ---- Faults and quarantine ------------------------------------------------------- */

/* What a VM's history holds beside its faults, whose kinds are the caller's. */
#define REGISTRY_KIND_QUARANTINED "quarantined"
#define REGISTRY_KIND_CLEARED     "cleared"
#define REGISTRY_KIND_RECOVERED   "recovered" /* a job succeeded after a timeout */

/* Who did it, where that was no person. */
#define REGISTRY_BY_MEDIATOR "vgpu-mediator"

/*
 * Quarantines the VM, and puts that into its history. One that is quarantined already gets
 * this reason; nothing happens if all is so already. @by names the person or
 * REGISTRY_BY_MEDIATOR; @at_s 0 = now.
 */
int registry_quarantine_set(struct registry *registry, const char *uuid, int64_t at_s,
                            const char *reason, const char *by);

/*
 * Also the points of its faults become 0; error_count and the history stay. If there was
 * anything to clear, that is in the history too. @reason may be NULL.
 */
int registry_quarantine_clear(struct registry *registry, const char *uuid, const char *reason,
                              const char *by);

struct registry_fault_event {
	int64_t at_s;     /* since the epoch; 0 = now */
	const char *kind; /* "gpu_fault", "timeout", "worker_death" */
	int64_t points;
	uint32_t count;         /* so many faults in one; 0 = 1 */
	const char *detail;     /* or NULL */
	const char *quarantine; /* NULL, or the reason: quarantine it in the same transaction */
};

/* error_count + count, a row of history, and the quarantine if asked for: all or nothing. */
int registry_fault_record(struct registry *registry, const char *uuid,
                          const struct registry_fault_event *event);

/* A job of the VM has succeeded after a timeout: a row of history. */
int registry_recovery_record(struct registry *registry, const char *uuid, int64_t at_s);

/* Takes the points of the faults since @since_s away, and adds @why to their details. */
int registry_faults_forgive(struct registry *registry, const char *uuid, int64_t since_s,
                            const char *why);

/*
 * The host's clock was set back: what claims to happen after @now_s has happened by then, and is
 * to be forgotten as long after that as anything else.
 */
int registry_faults_not_after(struct registry *registry, int64_t now_s);

struct registry_fault {
	int64_t id;
	char *vm_uuid;
	int64_t at_s;
	char *kind; /* of a fault, or REGISTRY_KIND_... */
	int64_t points;
	char *detail; /* or NULL */
	char *by;     /* who did it, or NULL */
};

struct registry_faults {
	struct registry_fault *items;
	size_t count;
};

void registry_faults_clear(struct registry_faults *faults);

/* The history since @since_s of one VM or, with @uuid NULL, of all; oldest first. */
int registry_fault_list(struct registry *registry, const char *uuid, int64_t since_s,
                        struct registry_faults *out);

/*
 * Of all VMs what decides about their points and limits: faults with points, and rows of
 * REGISTRY_KIND_QUARANTINED and _RECOVERED. Ordered by VM (as strcmp() does), oldest first.
 */
int registry_fault_list_counting(struct registry *registry, struct registry_faults *out);

/* ---- GPUs ------------------------------------------------------------------------ */

/* One reason why a GPU must not get work, until it is taken away. */
struct registry_gpu_hold_event {
	const char *code;    /* which one; stable, for programs */
	int64_t at_s;        /* since the epoch; 0 = now */
	const char *message; /* for people, or NULL */
	const char *by;      /* the person who ordered it, or NULL */
};

/* From now on these are the GPU's, and no others. */
int registry_gpu_holds_set(struct registry *registry, const char *gpu_uuid,
                           const struct registry_gpu_hold_event *items, size_t count);

struct registry_gpu_hold {
	char *gpu_uuid;
	char *code;
	int64_t at_s;
	char *message; /* or NULL */
	char *by;      /* or NULL */
};

struct registry_gpu_holds {
	struct registry_gpu_hold *items; /* GPU by GPU, the oldest first */
	size_t count;
};

void registry_gpu_holds_clear(struct registry_gpu_holds *holds);

/* Of all GPUs. The caller clears *@out. */
int registry_gpu_hold_list(struct registry *registry, struct registry_gpu_holds *out);
/* ---- Pools ----------------------------------------------------------------------- */

struct registry_pool {
	uint32_t pool; /* 0 is A */
	char *name;
	char *description; /* or NULL */
	bool enabled;
	int64_t job_timeout_ms; /* 0 = the mediator's default */
	uint32_t vm_count;
	char *problem; /* NULL, or which value is bad; the default stands in for it */
};

struct registry_pools {
	struct registry_pool items[POOL_COUNT]; /* in order: items[0] is A */
};

void registry_pools_clear(struct registry_pools *pools);
int registry_pool_list(struct registry *registry, struct registry_pools *out);
int registry_pool_set_enabled(struct registry *registry, uint32_t pool, bool enabled);
/* REGISTRY_E_INVALID if out of the range of the setting "timeout". */
int registry_pool_set_timeout(struct registry *registry, uint32_t pool, int64_t job_timeout_ms);

#endif
