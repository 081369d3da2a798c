/* SPDX-License-Identifier: MIT */
/*
 * VMs and pools as JSON and back, and options as changes: the one place that knows
 * the names of all fields.
 */
#ifndef ADMIN_RECORD_H
#define ADMIN_RECORD_H

#include "admin/admin.h"

/* The caller owns the result; NULL without memory. */
json_t *record_vm(const struct registry_vm *vm);
json_t *record_pool(const struct registry_pool *pool);
json_t *record_fault(const struct registry_fault *fault);
json_t *record_vms(const struct registry_vms *vms);

/* A remark about every VM that is not served, whose bad values appear as defaults elsewhere. */
void record_note_problems(const struct registry_vms *vms);

/* A string that JSON can hold, whatever its bytes; null for NULL. */
json_t *record_text(const char *text);

/* Every field of a VM, for show-vm, and of a pool. */
extern const struct column record_vm_columns[];
extern const struct column record_pool_columns[];
extern const struct column record_fault_columns[];

/* The options that were given, as a change of a VM. Their values point into @admin. */
enum admin_exit record_change_from_options(struct admin *admin, struct registry_vm_change *out);

/*
 * The members of @object that record_vm() writes, as a change; what it lacks is not
 * changed. Values point into @object. Returns NULL, or the English reason, the caller's to free.
 */
char *record_change_from_json(const json_t *object, struct registry_vm_change *out);

/* "yes" or "no". */
enum admin_exit record_yes_no(struct admin *admin, enum option_id option, bool *out);

#endif
