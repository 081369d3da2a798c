/* SPDX-License-Identifier: MIT */
/*
 * What an operator can set for one VM: the table of settings, and the names of
 * priorities and pools.
 *
 * The command line, the admin socket, the database and scenario files all read
 * values through this table, so that a value refused in one place is refused in
 * all of them, with the same words.
 */
#ifndef SETTINGS_SETTINGS_H
#define SETTINGS_SETTINGS_H

#include "core/vm_settings.h"
#include "settings/decimal.h"
#include "vgpu/protocol.h"

enum setting {
	SETTING_WEIGHT,
	SETTING_RATE,
	SETTING_BURST,
	SETTING_QUEUE_DEPTH,
	SETTING_GPU_SECONDS,
	SETTING_TIMEOUT,
	SETTING_MEMORY_QUOTA,
	SETTING_COUNT,
};

struct setting_field {
	struct decimal number; /* its name is that of the option and of the scenario key */
	const char *column;    /* in the registry's table vms, and in JSON */
	const char *param;     /* of the admin socket's vm-set */
	const char *command;   /* of vgpu-admin, which sets it */
	const char *argument;  /* the option's, for help */
	const char *help;
	size_t offset; /* of the int64_t in struct vm_settings */
};

extern const struct setting_field setting_fields[SETTING_COUNT];

/* The field of that name, or NULL. */
const struct setting_field *setting_find(const char *name);

/* The value of @field in @settings, in stored units. */
int64_t setting_get(const struct vm_settings *settings, const struct setting_field *field);
void setting_put(struct vm_settings *settings, const struct setting_field *field, int64_t stored);

/* "low", "medium", "high" <-> enum vgpu_priority; -EINVAL for other text. */
int priority_parse(uint32_t *out, const char *text);
const char *priority_name(uint32_t priority);

/* "A", "B" <-> 0, 1; -EINVAL for other text. */
int pool_parse(uint32_t *out, const char *text);
char pool_letter(uint32_t pool);

#endif
