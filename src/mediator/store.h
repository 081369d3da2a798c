/* SPDX-License-Identifier: MIT */
/*
 * The registry in a thread of its own, since SQLite blocks: on the disk, and on other
 * processes that hold the file.
 *
 * Requests are put in line by the event loop's thread and done one after the other;
 * what comes of them is told in the event loop's thread again, in the same order: a
 * snapshot holds exactly what was told to be stored before it. The thread also looks
 * every STORE_WATCH_S seconds whether somebody else has changed the file, and then
 * reads it without being asked.
 */
#ifndef MEDIATOR_STORE_H
#define MEDIATOR_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/core.h"
#include "registry/registry.h"

struct event_base;
struct store;

enum {
	STORE_WATCH_S = 2,
	STORE_STOP_MS = 5000,     /* at the end, for all that is in line */
	STORE_PENDING_MAX = 4096, /* requests in line; more are refused */
	STORE_HOLDS_MAX = 16,     /* of one GPU */
	STORE_BY_BYTES = 64,      /* a person's name */
};

/* What the registry holds. */
struct store_snapshot {
	struct registry_vms vms;
	struct registry_pools pools;
	struct registry_faults faults; /* those that count */
	struct registry_gpu_holds holds;
};

struct store_ops {
	/*
	 * The registry was read: @tag of the request, or 0 when it was found changed. On an
	 * error @snapshot is NULL and @why says what is wrong. The snapshot is the store's and
	 * valid during the call.
	 */
	void (*loaded)(void *owner, uint64_t tag, const struct store_snapshot *snapshot,
	               const char *why);
	/* A record was written, or not. */
	void (*stored)(void *owner, uint64_t ticket, bool stored);
	/* What holds a GPU was written, or not. */
	void (*gpu_stored)(void *owner, uint32_t gpu, bool stored);
};

/*
 * Opens the registry (creating or upgrading it) before it returns. Returns 0, or a
 * negative errno or REGISTRY_E_* with @why filled. The caller owns *@out.
 */
int store_new(struct store **out, struct event_base *base, const char *path,
              const struct store_ops *ops, void *owner, struct registry_error *why);

/*
 * Writes what is in line, as far as STORE_STOP_MS allow, and logs what is lost. Then ends
 * the thread. Nothing is told any more.
 */
void store_free(struct store *store);
DEFINE_CLEANUP(store)

/* Reads the registry; loaded() follows with @tag. Returns 0, -EBUSY (line full) or -ENOMEM. */
int store_load(struct store *store, uint64_t tag);

/*
 * Changes a VM's settings, all or none, and then reads the registry; loaded() follows with
 * @tag, or what was wrong with the change. @change holds no name. Returns 0, -EBUSY (line
 * full) or -ENOMEM.
 */
int store_change(struct store *store, uint64_t tag, const char *uuid,
                 const struct registry_vm_change *change);

/* Something that happened to a VM. */
struct store_record {
	enum core_record record;
	int64_t at_s;
	const char *kind; /* FAULT: a constant */
	int64_t points;   /* FAULT */
	uint32_t count;   /* FAULT */
	char detail[128];
	char quarantine[128]; /* FAULT: why; "" = it does not lead to a quarantine */
};

/*
 * Writes what happened to the VM, in one transaction; stored() follows with @ticket.
 * Returns 0, -EBUSY (line full) or -ENOMEM.
 */
int store_record(struct store *store, uint64_t ticket, const char *uuid,
                 const struct store_record *record);

/* Why a GPU must not get work. */
struct store_hold {
	const char *code; /* a constant */
	int64_t at_s;
	char message[160];
	char by[STORE_BY_BYTES]; /* "" = nobody ordered it */
};

struct store_holds {
	uint32_t count;
	struct store_hold items[STORE_HOLDS_MAX];
};

/*
 * Writes that these and no others hold GPU @gpu, whose uuid is @uuid; gpu_stored()
 * follows. Returns 0, -EBUSY (line full) or -ENOMEM.
 */
int store_gpu(struct store *store, uint32_t gpu, const char *uuid, const struct store_holds *holds);

/* False after the last access failed. */
bool store_ok(const struct store *store);

#endif
