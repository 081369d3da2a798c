/* SPDX-License-Identifier: MIT */
/*
 * See select.h. A name is what the toolstack calls a VM now. The registry's copy of
 * names may be old, so it decides only while the toolstack cannot be asked, and the
 * operator is told.
 */
#include "admin/select.h"

#include <errno.h>
#include <string.h>

#include "admin/text.h"
#include "admin/xe.h"

/* Which they are, so that one can be chosen. */
static enum admin_exit fail_several(struct admin *admin, const char *name, const char *const *uuids,
                                    size_t count)
{
	CLEANUP(freep) char *list = NULL;
	size_t size;
	FILE *to = open_memstream(&list, &size);

	for (size_t i = 0; to && i < count; i++)
		fprintf(to, "%s%s", i ? ", " : "", uuids[i]);
	if (!to || fclose(to) != 0)
		return admin_fail(admin, ADMIN_FAILED, "out of memory");
	return admin_fail(admin, ADMIN_SEVERAL_VMS,
	                  "%zu VMs are named \"%s\"; choose one with --vm-uuid: %s", count, name,
	                  list);
}

/* The registry's own idea of a name, while xe cannot be asked. */
static enum admin_exit name_from_registry(struct admin *admin, const char *name, const char *reason,
                                          char **uuid)
{
	CLEANUP(registry_vms_clear) struct registry_vms vms = {.items = NULL};
	enum admin_exit status;
	int r;

	status = admin_open(admin, REGISTRY_READ);
	if (status != ADMIN_DONE)
		return status;
	r = registry_vm_find_name(admin->registry, name, &vms);
	if (r == REGISTRY_E_NOT_FOUND)
		return admin_fail(
			admin, ADMIN_NO_SUCH_VM,
			"no VM named \"%s\" in the registry, and xe cannot be asked (%s); "
			"name the VM with --vm-uuid",
			name, reason);
	if (r == REGISTRY_E_AMBIGUOUS) {
		CLEANUP(freep) const char **uuids = calloc(vms.count, sizeof(*uuids));

		for (size_t i = 0; uuids && i < vms.count; i++)
			uuids[i] = vms.items[i].stored_uuid;
		return uuids ? fail_several(admin, name, uuids, vms.count)
		             : admin_fail(admin, ADMIN_FAILED, "out of memory");
	}
	if (r != 0)
		return admin_fail_registry(admin, r);
	admin_note("xe cannot be asked (%s); using the registry's name of %s", reason,
	           vms.items[0].stored_uuid);
	*uuid = TAKE_PTR(vms.items[0].stored_uuid);
	return ADMIN_DONE;
}

static enum admin_exit name_resolve(struct admin *admin, const char *name, char **uuid)
{
	CLEANUP(xe_list_clear) struct xe_list found = {.items = NULL};
	struct xe_error why = {.text = "out of memory"};
	int r;

	if (*name == '\0')
		return admin_fail(admin, ADMIN_USAGE, "--vm-name is empty; use --vm-uuid");
	r = xe_find_vms(&found, name, admin->xe_timeout_ms, &why);
	if (r == XE_E_CONTROL)
		return admin_fail(
			admin, ADMIN_USAGE,
			"--vm-name=%s has control characters, which xe must not be given; "
			"use --vm-uuid",
			name);
	if (r == XE_E_UNAVAILABLE)
		return name_from_registry(admin, name, why.text, uuid);
	if (r != 0)
		return admin_fail(admin, ADMIN_FAILED, "%s", why.text);
	for (size_t i = 0; i < found.count; i++) {
		if (!registry_uuid_valid(found.items[i]))
			return admin_fail(admin, ADMIN_FAILED,
			                  "xe answered \"%s\", which is no UUID; use --vm-uuid",
			                  found.items[i]);
	}
	if (found.count == 0)
		return admin_fail(admin, ADMIN_NO_SUCH_VM,
		                  "xe knows no VM named \"%s\"; if it was renamed or deleted, use "
		                  "--vm-uuid",
		                  name);
	if (found.count > 1)
		return fail_several(admin, name, (const char *const *)found.items, found.count);
	*uuid = TAKE_PTR(found.items[0]);
	return ADMIN_DONE;
}

/* A UUID in any case; or what a broken row holds instead of one, if such a row is there. */
static enum admin_exit uuid_read(struct admin *admin, const char *text, char **uuid)
{
	struct registry_vm vm;
	enum admin_exit status;
	char *copy = strdup(text);

	if (!copy)
		return admin_fail(admin, ADMIN_FAILED, "out of memory");
	for (char *p = copy; *p; p++) {
		if (*p >= 'A' && *p <= 'F')
			*p = (char)(*p - 'A' + 'a');
	}
	if (registry_uuid_valid(copy)) {
		*uuid = copy;
		return ADMIN_DONE;
	}
	free(copy);
	status = admin_open(admin, REGISTRY_READ);
	if (status != ADMIN_DONE)
		return status;
	if (registry_vm_find(admin->registry, text, &vm) != 0)
		return admin_fail(admin, ADMIN_USAGE,
		                  "--vm-uuid=%s is no UUID of the form "
		                  "01234567-89ab-cdef-0123-456789abcdef",
		                  text);
	*uuid = TAKE_PTR(vm.stored_uuid);
	registry_vm_clear(&vm);
	return ADMIN_DONE;
}

static enum admin_exit selectors_check(struct admin *admin)
{
	bool many = admin->command->options & OPTION_BIT(ALL);
	bool pool = admin->command->pool_selects;
	int given = admin_given(admin, OPTION_VM_UUID) + admin_given(admin, OPTION_VM_NAME) +
	            admin_given(admin, OPTION_ALL) + (pool && admin_given(admin, OPTION_POOL));

	if (given == 1)
		return ADMIN_DONE;
	return admin_fail(admin, ADMIN_USAGE, "%s: name %sVM with --vm-uuid or --vm-name%s%s",
	                  given ? "too many selections" : "which VM is meant",
	                  given || !many ? "one " : "a ", many ? ", or several with --all" : "",
	                  pool ? " or --pool" : "");
}

enum admin_exit select_uuid(struct admin *admin, char **uuid)
{
	enum admin_exit status = selectors_check(admin);

	if (status != ADMIN_DONE)
		return status;
	if (admin_given(admin, OPTION_VM_UUID))
		return uuid_read(admin, admin->values[OPTION_VM_UUID], uuid);
	return name_resolve(admin, admin->values[OPTION_VM_NAME], uuid);
}

static enum admin_exit select_one(struct admin *admin, struct registry_vms *out)
{
	CLEANUP(freep) char *uuid = NULL;
	enum admin_exit status;
	int r;

	status = select_uuid(admin, &uuid);
	if (status != ADMIN_DONE)
		return status;
	out->items = calloc(1, sizeof(*out->items));
	if (!out->items)
		return admin_fail(admin, ADMIN_FAILED, "out of memory");
	r = registry_vm_find(admin->registry, uuid, &out->items[0]);
	if (r != 0)
		return admin_fail_registry(admin, r);
	out->count = 1;
	return ADMIN_DONE;
}

enum admin_exit select_vms(struct admin *admin, struct registry_vms *out)
{
	enum admin_exit status = selectors_check(admin);
	uint32_t pool = 0;
	size_t kept = 0;
	int r;

	if (status != ADMIN_DONE)
		return status;
	if (admin_given(admin, OPTION_VM_UUID) || admin_given(admin, OPTION_VM_NAME))
		return select_one(admin, out);
	if (!admin_given(admin, OPTION_ALL))
		status = select_pool(admin, &pool);
	if (status != ADMIN_DONE)
		return status;
	r = registry_vm_list(admin->registry, out);
	if (r != 0)
		return admin_fail_registry(admin, r);
	for (size_t i = 0; !admin_given(admin, OPTION_ALL) && i < out->count; i++) {
		if (out->items[i].settings.pool == pool) {
			struct registry_vm vm = out->items[i];

			out->items[i] = out->items[kept];
			out->items[kept++] = vm;
		}
	}
	while (!admin_given(admin, OPTION_ALL) && out->count > kept)
		registry_vm_clear(&out->items[--out->count]);
	return ADMIN_DONE;
}

enum admin_exit select_pool(struct admin *admin, uint32_t *pool)
{
	const char *text = admin->values[OPTION_POOL];

	if (!text)
		return admin_fail(admin, ADMIN_USAGE, "which pool is meant: --pool=A or --pool=B");
	if (pool_parse(pool, text) < 0)
		return admin_fail(admin, ADMIN_USAGE, "--pool=%s is no pool; there are A and B",
		                  text);
	return ADMIN_DONE;
}
