/* SPDX-License-Identifier: MIT */
/*
 * Which VMs a command is about.
 */
#ifndef ADMIN_SELECT_H
#define ADMIN_SELECT_H

#include "admin/admin.h"

/*
 * The one VM of --vm-uuid or --vm-name, in the registry or not. *@uuid is canonical, or the
 * text of a row whose vm_uuid is no UUID; the caller frees it.
 */
enum admin_exit select_uuid(struct admin *admin, char **uuid);

/*
 * The registered VMs of --vm-uuid, --vm-name, and, where the command takes them, --all or
 * --pool. The registry must be open. The caller clears *@out.
 */
enum admin_exit select_vms(struct admin *admin, struct registry_vms *out);

/* The pool of --pool; there must be one. */
enum admin_exit select_pool(struct admin *admin, uint32_t *pool);

#endif
