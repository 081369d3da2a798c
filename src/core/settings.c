/* SPDX-License-Identifier: MIT */
/*
 * See settings.h. Decimal text becomes a scaled integer digit by digit; that is
 * exact, and what does not fit is seen before it can overflow.
 */
#include "core/settings.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"

#define AT(member) offsetof(struct vm_settings, member)

const struct setting_field setting_fields[] = {
	{"weight", "weight", "1.00 to 100.00", 100, 100, 10000, false, AT(weight_hundredths)},
	{"rate", "max_jobs_per_sec", "0 (no limit) or 0.001 to 1000000 jobs per second", 1000, 1,
         INT64_C(1000000000), true, AT(rate_thousandths)},
	{"burst", "burst", "0 (one second's worth) or 1 to 1000000 jobs", 1, 1, 1000000, true,
         AT(burst_jobs)},
	{"queue-depth", "max_queue_depth", "0 (no limit) or 1 to 65536 jobs", 1, 1, 65536, true,
         AT(queue_depth)},
	{"gpu-seconds", "gpu_seconds_per_sec", "0 (no limit) or 0.001 to 1 GPU second per second",
         1000, 1, 1000, true, AT(gpu_thousandths)},
	{"timeout", "job_timeout_ms", "0 (default) or 10 to 86400000 ms", 1, 10, 86400000, true,
         AT(job_timeout_ms)},
	{"memory-quota", "memory_quota_mib", "0 (no quota) or 1 to 1048576 MiB", 1, 1, 1048576,
         true, AT(memory_quota_mib)},
	{NULL, NULL, NULL, 0, 0, 0, false, 0},
};

const struct vm_settings vm_settings_default = {
	.priority = VGPU_PRIORITY_MEDIUM,
	.weight_hundredths = 100,
};

static const char *const priority_names[] = {
	[VGPU_PRIORITY_LOW] = "low",
	[VGPU_PRIORITY_MEDIUM] = "medium",
	[VGPU_PRIORITY_HIGH] = "high",
};

const struct setting_field *setting_find(const char *name)
{
	for (const struct setting_field *field = setting_fields; field->name; field++) {
		if (strcmp(field->name, name) == 0)
			return field;
	}
	return NULL;
}

int64_t setting_get(const struct vm_settings *settings, const struct setting_field *field)
{
	return *(const int64_t *)(const void *)((const char *)settings + field->offset);
}

void setting_put(struct vm_settings *settings, const struct setting_field *field, int64_t stored)
{
	*(int64_t *)(void *)((char *)settings + field->offset) = stored;
}

static int range_check(const struct setting_field *field, int64_t stored)
{
	if (stored == 0 && field->zero_allowed)
		return 0;
	return stored < field->min || stored > field->max ? -ERANGE : 0;
}

int setting_parse(int64_t *out, const struct setting_field *field, const char *text)
{
	int64_t stored = 0, unit = field->scale;
	bool point = false, digits = false;

	for (const char *p = text; *p; p++) {
		if (*p == '.' && !point) {
			point = true;
			continue;
		}
		if (*p < '0' || *p > '9')
			return -EINVAL;
		digits = true;
		if (!point) {
			/* Saturate: it is out of any range, but the rest must still be digits. */
			stored = min_i64(stored * 10 + (*p - '0') * field->scale, INT64_MAX / 100);
		} else if (unit > 1) {
			unit /= 10;
			stored += (*p - '0') * unit;
		} else if (*p != '0') {
			return -EINVAL;
		}
	}
	if (!digits)
		return -EINVAL;
	if (range_check(field, stored) < 0)
		return -ERANGE;
	*out = stored;
	return 0;
}

int setting_from_double(int64_t *out, const struct setting_field *field, double value)
{
	double stored = value * (double)field->scale;

	if (!isfinite(stored))
		return -EINVAL;
	if (stored < 0 || stored > (double)field->max)
		return -ERANGE;
	if (fabs(stored - nearbyint(stored)) > 1e-6)
		return -EINVAL;
	/* Next to nothing must not become 0, which is "no limit". */
	if (nearbyint(stored) == 0 && value != 0)
		return -ERANGE;
	if (range_check(field, (int64_t)nearbyint(stored)) < 0)
		return -ERANGE;
	*out = (int64_t)nearbyint(stored);
	return 0;
}

const char *setting_format(char *to, size_t size, const struct setting_field *field, int64_t stored)
{
	int decimals = 0;

	for (int64_t unit = field->scale; unit > 1; unit /= 10)
		decimals++;
	if (decimals)
		snprintf(to, size, "%" PRId64 ".%0*d", stored / field->scale, decimals,
		         (int)(stored % field->scale));
	else
		snprintf(to, size, "%" PRId64, stored);
	return to;
}

int priority_parse(uint32_t *out, const char *text)
{
	for (uint32_t i = 0; i < ARRAY_LEN(priority_names); i++) {
		if (strcmp(text, priority_names[i]) == 0) {
			*out = i;
			return 0;
		}
	}
	return -EINVAL;
}

const char *priority_name(uint32_t priority)
{
	return priority < ARRAY_LEN(priority_names) ? priority_names[priority] : "unknown";
}

int pool_parse(uint32_t *out, const char *text)
{
	if (text[0] < 'A' || text[0] >= 'A' + POOL_COUNT || text[1] != '\0')
		return -EINVAL;
	*out = (uint32_t)(text[0] - 'A');
	return 0;
}

char pool_letter(uint32_t pool)
{
	return (char)('A' + pool);
}
