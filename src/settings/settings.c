/* SPDX-License-Identifier: MIT */
/* See settings.h. A new setting is a member of struct vm_settings, a name in the enum, a row. */
#include "settings/settings.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"

#define AT(member) offsetof(struct vm_settings, member)

const struct setting_field setting_fields[SETTING_COUNT] = {
	[SETTING_WEIGHT] = {{"weight", "1.00 to 100.00", 100, 100, 10000, false},
                            "weight",
                            "weight",
                            "set-weight",
                            "W",
                            "its share of the GPU, 1.00 to 100.00",
                            AT(weight_hundredths)},
	[SETTING_RATE] = {{"rate", "0 (no limit) or 0.001 to 1000000 jobs per second", 1000, 1,
                           INT64_C(1000000000), true},
                          "max_jobs_per_sec",
                          "rate",
                          "set-rate-limit",
                          "R",
                          "jobs per second, 0 = no limit",
                          AT(rate_thousandths)},
	[SETTING_BURST] = {{"burst", "0 (one second's worth) or 1 to 1000000 jobs", 1, 1, 1000000,
                            true},
                           "burst",
                           "burst",
                           "set-rate-limit",
                           "N",
                           "jobs at once above the rate, 0 = one second's worth",
                           AT(burst_jobs)},
	[SETTING_QUEUE_DEPTH] = {{"queue-depth", "0 (no limit) or 1 to 65536 jobs", 1, 1, 65536,
                                  true},
                                 "max_queue_depth",
                                 "queue_depth",
                                 "set-rate-limit",
                                 "N",
                                 "jobs accepted and unanswered, 0 = no limit",
                                 AT(queue_depth)},
	[SETTING_GPU_SECONDS] = {{"gpu-seconds", "0 (no limit) or 0.001 to 1 GPU second per second",
                                  1000, 1, 1000, true},
                                 "gpu_seconds_per_sec",
                                 "gpu_seconds",
                                 "set-rate-limit",
                                 "S",
                                 "GPU seconds per second up to 1, 0 = no limit",
                                 AT(gpu_thousandths)},
	[SETTING_TIMEOUT] = {{"timeout", "0 (default) or 10 to 86400000 ms", 1, 10, 86400000, true},
                             "job_timeout_ms",
                             "timeout_ms",
                             "set-timeout",
                             "MS",
                             "a job's limit in ms, 0 = the default",
                             AT(job_timeout_ms)},
	[SETTING_MEMORY_QUOTA] = {{"memory-quota", "0 (no quota) or 1 to 1048576 MiB", 1, 1,
                                   1048576, true},
                                  "memory_quota_mib",
                                  "memory_quota_mib",
                                  "set-memory-quota",
                                  "MIB",
                                  "GPU memory in MiB, 0 = no quota",
                                  AT(memory_quota_mib)},
};

static const char *const priority_names[] = {
	[VGPU_PRIORITY_LOW] = "low",
	[VGPU_PRIORITY_MEDIUM] = "medium",
	[VGPU_PRIORITY_HIGH] = "high",
};

const struct setting_field *setting_find(const char *name)
{
	for (size_t i = 0; i < SETTING_COUNT; i++) {
		if (strcmp(setting_fields[i].number.name, name) == 0)
			return &setting_fields[i];
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
