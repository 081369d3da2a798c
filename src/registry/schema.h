/* SPDX-License-Identifier: MIT */
/*
 * The tables of the registry, and how an old file becomes one that has them.
 *
 * What is in the file decides, not only its version number: early trial files have
 * some of the columns but never set the number.
 */
#ifndef REGISTRY_SCHEMA_H
#define REGISTRY_SCHEMA_H

#include "registry/handle.h"

struct schema_column {
	const char *name;
	const char *declaration; /* after the name, in CREATE TABLE and ALTER TABLE */
	const char *fallback;    /* the number that DEFAULT must be; NULL = not looked at */
	bool required;           /* a file without it is no registry */
};

/* Of table vms, ended by a NULL name. Bit i of registry->vm_columns is entry i. */
extern const struct schema_column schema_vm_columns[];

/* Sets registry->vm_columns and the like from the file. */
int schema_inspect(struct registry *registry);

/*
 * What has to happen to the file: nothing, be created, be upgraded. REGISTRY_E_NEWER or
 * REGISTRY_E_NOT_A_DATABASE for a file that is not ours to touch.
 */
enum schema_state {
	SCHEMA_STATE_CURRENT,
	SCHEMA_STATE_EMPTY, /* no tables yet */
	SCHEMA_STATE_OLD,
};

int schema_state(struct registry *registry, enum schema_state *out);

/*
 * Creates or upgrades in one transaction, after a backup of what was there. Does nothing
 * when another process has done it meanwhile.
 */
int schema_upgrade(struct registry *registry);

#endif
