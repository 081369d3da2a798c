/* SPDX-License-Identifier: MIT */
/*
 * Backups: a consistent copy of the open file under a name that was free, complete
 * and on the disk before that name exists.
 */
#ifndef REGISTRY_COPY_H
#define REGISTRY_COPY_H

#include "registry/handle.h"

/* Copies to @part first, which is replaced, and then gives it the name @to. */
int copy_database(struct registry *registry, const char *to, const char *part);

/* A free name "<path>.backup-v<version>-<UTC time>" is found, filled and returned in *@out. */
int copy_before_upgrade(struct registry *registry, int64_t version, char **out);

/* Takes that copy away, if there is one: the upgrade does not happen. */
void copy_remove(char **name);

/*
 * Makes what was done to names in the directory of @path survive a power cut. It is done
 * already, so that a failure is no more than the registry's warning.
 */
void copy_sync_directory(struct registry *registry, const char *path);

#endif
