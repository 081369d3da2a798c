/* SPDX-License-Identifier: MIT */
/*
 * See gpu_pattern.h. Keys are a table; everything random comes from one seed, so that two
 * runs of a pattern ask for the same jobs.
 */
#include "gpu_pattern.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/units.h"
#include "base/util.h"
#include "vgpu/protocol.h"

static const struct {
	const char *name;
	uint32_t opcode;
} operations[] = {
	{"nop", VGPU_OP_NOP},
	{"spin", VGPU_OP_SPIN},
	{"fault", VGPU_OP_FAULT},
	{"hang", VGPU_OP_HANG},
};

#define NUMBER(key, member, min, max)                           \
	{                                                       \
		key, offsetof(struct pattern, member), min, max \
	}

static const struct {
	const char *key;
	size_t offset; /* of an int64_t in struct pattern */
	int64_t min, max;
} numbers[] = {
	NUMBER("depth", depth, 1, PATTERN_DEPTH_MAX),
	NUMBER("period", period_us, 1, 60000000),
	NUMBER("jitter", jitter_percent, 0, 100),
	NUMBER("think", think_us, 0, 60000000),
	NUMBER("fault_every", fault_every, 1, 1000000),
	NUMBER("start", start_ms, 0, 3600000),
	NUMBER("stop", stop_ms, 0, 3600000),
	NUMBER("count", count, 1, 1000000000),
	NUMBER("kill", kill_ms, 0, 3600000),
	NUMBER("retry", retry, 0, 1),
	NUMBER("samples", samples, 0, 1),
};

static int fail(const char *key, const char *value)
{
	fprintf(stderr, "bench: %s=%s is no part of a load (see tests/bench/gpu_pattern.h)\n", key,
	        value);
	return -EINVAL;
}

static int read_number(int64_t *out, const char *text, char end_at, int64_t min, int64_t max,
                       const char **rest)
{
	char *end;
	long long value;

	errno = 0;
	value = strtoll(text, &end, 10);
	if (errno || end == text || (*end && *end != end_at) || value < min || value > max)
		return -EINVAL;
	*out = value;
	*rest = end;
	return 0;
}

static int read_length(struct pattern *pattern, const char *value)
{
	const char *rest;

	if (read_number(&pattern->min_us, value, '-', 0, 600000000, &rest) < 0)
		return -EINVAL;
	pattern->max_us = pattern->min_us;
	if (!*rest)
		return 0;
	return read_number(&pattern->max_us, rest + 1, '\0', pattern->min_us, 600000000, &rest);
}

static int read_text(char *to, size_t size, const char *value)
{
	return snprintf(to, size, "%s", value) < (int)size ? 0 : -EINVAL;
}

static int set(struct pattern *pattern, const char *key, const char *value)
{
	const char *rest;

	if (strcmp(key, "name") == 0)
		return read_text(pattern->name, sizeof(pattern->name), value);
	if (strcmp(key, "socket") == 0)
		return read_text(pattern->socket, sizeof(pattern->socket), value);
	if (strcmp(key, "us") == 0)
		return read_length(pattern, value);
	for (size_t i = 0; i < ARRAY_LEN(operations) && strcmp(key, "op") == 0; i++) {
		if (strcmp(operations[i].name, value) == 0) {
			pattern->opcode = operations[i].opcode;
			return 0;
		}
	}
	for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
		if (strcmp(numbers[i].key, key) == 0)
			return read_number((int64_t *)(void *)((char *)pattern + numbers[i].offset),
			                   value, '\0', numbers[i].min, numbers[i].max, &rest);
	}
	return -EINVAL;
}

int pattern_parse(struct pattern *out, char *text)
{
	char *save = NULL;

	*out = (struct pattern){
		.opcode = VGPU_OP_SPIN,
		.min_us = 1000,
		.max_us = 1000,
		.depth = 1,
		.start_ms = -1,
		.stop_ms = -1,
		.kill_ms = -1,
	};
	for (char *pair = strtok_r(text, ",", &save); pair; pair = strtok_r(NULL, ",", &save)) {
		char *value = strchr(pair, '=');

		if (!value)
			return fail(pair, "");
		*value++ = '\0';
		if (set(out, pair, value) < 0)
			return fail(pair, value);
	}
	return 0;
}

/* splitmix64, by Sebastiano Vigna's description. */
uint32_t actor_random(struct actor *actor)
{
	uint64_t z = actor->random += UINT64_C(0x9E3779B97F4A7C15);

	z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
	z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
	return (uint32_t)(z >> 32);
}

/* Uniform in @low..@high. */
static int64_t draw(struct actor *actor, int64_t low, int64_t high)
{
	return low + (int64_t)((uint64_t)(high - low + 1) * actor_random(actor) >> 32);
}

void actor_init(struct actor *actor, const struct pattern *pattern, uint64_t seed, int64_t ramp_ns,
                int64_t window_ns, int64_t end_ns)
{
	*actor = (struct actor){.pattern = pattern, .random = seed};
	actor->begin_ns = ramp_ns;
	actor->end_ns = end_ns;
	if (pattern->start_ms >= 0)
		actor->begin_ns = window_ns + pattern->start_ms * NS_PER_MS;
	if (pattern->stop_ms >= 0)
		actor->end_ns = min_i64(end_ns, window_ns + pattern->stop_ms * NS_PER_MS);
	actor->next_ns = actor->begin_ns;
	/* Several periodic VMs must not all come at the same instants. */
	if (pattern->period_us)
		actor->next_ns += draw(actor, 0, pattern->period_us) * NS_PER_US;
}

static void next_period(struct actor *actor)
{
	const struct pattern *pattern = actor->pattern;
	int64_t spread_us = pattern->period_us * pattern->jitter_percent / 100;

	actor->next_ns += (pattern->period_us + draw(actor, -spread_us, spread_us)) * NS_PER_US;
}

int64_t actor_due_ns(struct actor *actor, int64_t now_ns)
{
	const struct pattern *pattern = actor->pattern;

	if (pattern->count && actor->taken >= (uint64_t)pattern->count)
		return PATTERN_NEVER;
	while (pattern->period_us && actor->under_way >= pattern->depth &&
	       actor->next_ns <= now_ns && actor->next_ns < actor->end_ns) {
		actor->skipped++;
		next_period(actor);
	}
	if (max_i64(actor->next_ns, now_ns) >= actor->end_ns)
		return PATTERN_NEVER;
	if (!pattern->period_us && actor->under_way >= pattern->depth)
		return PATTERN_NEVER;
	return actor->next_ns;
}

struct actor_job actor_take(struct actor *actor, int64_t now_ns)
{
	const struct pattern *pattern = actor->pattern;
	struct actor_job job = {.opcode = pattern->opcode, .planned_ns = now_ns};

	actor->taken++;
	actor->under_way++;
	if (pattern->fault_every && actor->taken % (uint64_t)pattern->fault_every == 0)
		job.opcode = VGPU_OP_FAULT;
	if (job.opcode == VGPU_OP_SPIN)
		job.us = (uint32_t)draw(actor, pattern->min_us, pattern->max_us);
	if (pattern->period_us) {
		job.planned_ns = actor->next_ns;
		next_period(actor);
	}
	return job;
}

void actor_answered(struct actor *actor, int64_t now_ns)
{
	actor->under_way--;
	if (!actor->pattern->period_us)
		actor->next_ns =
			max_i64(actor->next_ns, now_ns + actor->pattern->think_us * NS_PER_US);
}
