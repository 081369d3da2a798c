/* SPDX-License-Identifier: MIT */
/*
 * Asking XCP-ng's toolstack about VMs through its program xe.
 *
 * No shell is involved; xe gets an environment of PATH alone, since it obeys
 * XE_EXTRA_ARGS and a ~/.xe of whoever calls; and it gets no name with control characters,
 * since it joins its arguments by newlines on their way to the toolstack.
 */
#ifndef ADMIN_XE_H
#define ADMIN_XE_H

#include <stddef.h>
#include <stdint.h>

enum {
	XE_E_UNAVAILABLE = 1, /* not installed, no answer in time, or it reports an error */
	XE_E_CONTROL,         /* the name has control characters */
};

enum { XE_OUTPUT_BYTES_MAX = 1 << 20 };

struct xe_error {
	char text[512];
};

struct xe_list {
	char **items;
	size_t count;
};

void xe_list_clear(struct xe_list *list);

/* The elements of what --minimal prints: joined by commas, `,` and `\` escaped by `\`. */
int xe_list_split(struct xe_list *out, const char *text);

/*
 * UUIDs of the VMs (no control domain, no template) of exactly that name, or of all with
 * @name NULL. No match is an empty list and no error. Returns 0, a negative errno, or
 * XE_E_* with a sentence in @why. The caller clears *@out.
 */
int xe_find_vms(struct xe_list *out, const char *name, int64_t timeout_ms, struct xe_error *why);

/* The name of one VM; *@out is NULL if there is no such VM. The caller frees it. */
int xe_vm_name(char **out, const char *uuid, int64_t timeout_ms, struct xe_error *why);

#endif
