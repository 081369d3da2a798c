/* SPDX-License-Identifier: MIT */
/*
 * What an operator can set for one VM: the fields, their units and ranges, and
 * the only parser of their values.
 *
 * The command line, the admin socket, the database and scenario files all read
 * values through this table, so that a value refused in one place is refused in
 * all of them, with the same words. Numbers are kept as scaled integers: nothing
 * here or behind it computes in floating point.
 */
#ifndef CORE_SETTINGS_H
#define CORE_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vgpu/protocol.h"

struct vm_settings {
	uint32_t priority;         /* enum vgpu_priority */
	uint32_t pool;             /* 0 is A, 1 is B */
	int64_t weight_hundredths; /* 100..10000 */
	int64_t rate_thousandths;  /* jobs per 1000 s; 0 = no limit */
	int64_t burst_jobs;        /* 0 = one second's worth, at least 1 */
	int64_t queue_depth;       /* jobs; 0 = no limit of its own */
	int64_t gpu_thousandths;   /* ms of GPU time per second; 0 = no limit */
	int64_t job_timeout_ms;    /* 0 = the pool's or the mediator's default */
	int64_t memory_quota_mib;  /* 0 = no quota */
};

enum { POOL_COUNT = 2 };

/* A numeric setting: how people write it and what it may be. */
struct setting_field {
	const char *name;   /* of the option and of the scenario key: "weight" */
	const char *column; /* in the registry's table vms */
	const char *range;  /* for messages: "1.00 to 100.00" */
	int64_t scale;      /* stored = written * scale */
	int64_t min;        /* in stored units */
	int64_t max;
	bool zero_allowed; /* 0 = off, below min */
	size_t offset;     /* of the int64_t in struct vm_settings */
};

/* All of them, ended by a NULL name. */
extern const struct setting_field setting_fields[];

/* The field of that name, or NULL. */
const struct setting_field *setting_find(const char *name);

/* The value of @field in @settings, in stored units. */
int64_t setting_get(const struct vm_settings *settings, const struct setting_field *field);
void setting_put(struct vm_settings *settings, const struct setting_field *field, int64_t stored);

/*
 * Reads a decimal number as people write it: digits, at most one point, no more
 * decimals than the scale holds, no sign, exponent, blank or trailing text. Returns 0
 * and sets *@out in stored units, or -EINVAL for text that is no such number or
 * -ERANGE for one out of range.
 */
int setting_parse(int64_t *out, const struct setting_field *field, const char *text);

/* The same for a number that a database or a JSON text holds as a double. */
int setting_from_double(int64_t *out, const struct setting_field *field, double value);

/* Writes the value as people read it ("2.50"); returns @to. */
const char *setting_format(char *to, size_t size, const struct setting_field *field,
                           int64_t stored);

/* A new VM: weight 1.00, medium priority, pool A, no limits. */
extern const struct vm_settings vm_settings_default;

/* "low", "medium", "high" <-> enum vgpu_priority; -EINVAL for other text. */
int priority_parse(uint32_t *out, const char *text);
const char *priority_name(uint32_t priority);

/* "A", "B" <-> 0, 1; -EINVAL for other text. */
int pool_parse(uint32_t *out, const char *text);
char pool_letter(uint32_t pool);

#endif
