/* SPDX-License-Identifier: MIT */
/* See config.h. Each key is one row; a kind of value is one reader and one writer. */
#include "mediator/config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"
#include "base/util.h"
#include "settings/decimal.h"

enum kind {
	KIND_INTEGER,
	KIND_PERCENT, /* 0..1 with two decimals, kept as 0..100 */
	KIND_BOOL,
	KIND_PATH,
	KIND_GPUS,
	KIND_CHOICE,
};

struct key {
	const char *name;
	enum kind kind;
	size_t offset;
	int64_t min, max;           /* KIND_INTEGER */
	const char *const *choices; /* KIND_CHOICE: index is the value; ended by NULL */
	bool live;                  /* may change while the mediator runs */
};

static const char *const backends[] = {"auto", "cpu", "cuda", NULL};

#define AT(member) offsetof(struct config, member)
#define INTEGER(member, from, to, on)                                 \
	{                                                             \
#member, KIND_INTEGER, AT(member), from, to, NULL, on \
	}

static const struct key keys[] = {
	{"db", KIND_PATH, AT(db), 1, 0, NULL, false},
	{"listen_dir", KIND_PATH, AT(listen_dir), 1, 0, NULL, false},
	{"admin_socket", KIND_PATH, AT(admin_socket), 1, 0, NULL, false},
	{"legacy_socket", KIND_PATH, AT(legacy_socket), 0, 0, NULL, false},
	{"pool.A.gpus", KIND_GPUS, AT(gpus[0]), 0, 0, NULL, false},
	{"pool.B.gpus", KIND_GPUS, AT(gpus[1]), 0, 0, NULL, false},
	{"backend", KIND_CHOICE, AT(backend), 0, 0, backends, false},
	{"log_level", KIND_CHOICE, AT(log_level), 0, 0, log_level_names, false},
	{"allow_test_ops", KIND_BOOL, AT(allow_test_ops), 0, 0, NULL, false},
	INTEGER(job_timeout_ms, 10, 86400000, true),
	INTEGER(quantum_us, 100, 1000000, true),
	INTEGER(overlap_max, 0, 32, true),
	INTEGER(overlap_after_ms, 0, 10000, true),
	INTEGER(wake_lead_ms, 0, 10000, true),
	INTEGER(slice_us, 100, 100000, true),
	{"scheduler_boost", KIND_PERCENT, AT(scheduler_boost_percent), 0, 100, NULL, true},
	INTEGER(anticipation_us, 0, 10000, true),
	INTEGER(max_queue_per_vm, 1, 65536, true),
	INTEGER(max_queued_bytes_per_vm, 1024, 67108864, true),
	INTEGER(max_connections_per_vm, 1, 64, true),
	INTEGER(max_workers, 1, 1024, true),
	INTEGER(worker_idle_s, 1, 86400, true),
	INTEGER(quarantine_threshold, 1, 1000000, true),
	INTEGER(fault_points, 0, 1000000, true),
	INTEGER(timeout_points, 0, 1000000, true),
	INTEGER(fault_window_s, 1, 31536000, true),
	INTEGER(nvml_poll_ms, 100, 60000, false),
	{"reset_command", KIND_PATH, AT(reset_command), 0, 0, NULL, false},
	INTEGER(reset_timeout_s, 1, 3600, true),
	INTEGER(worker_uid_base, 0, 2000000000, false),
	{"event_log", KIND_PATH, AT(event_log), 0, 0, NULL, false},
	INTEGER(event_log_max_mb, 1, 1048576, false),
};

static void set_defaults(struct config *config)
{
	*config = (struct config){
		.db = "/etc/vgpu/vgpu_config.db",
		.listen_dir = "/run/vgpu/vm",
		.admin_socket = "/run/vgpu/admin.sock",
		.log_level = LOG_LEVEL_INFO,
		.job_timeout_ms = 30000,
		.quantum_us = sched_config_default.quantum_ns / NS_PER_US,
		.overlap_after_ms = sched_config_default.overlap_after_ns / NS_PER_MS,
		.wake_lead_ms = sched_config_default.wake_lead_ns / NS_PER_MS,
		.slice_us = sched_config_default.slice_ns / NS_PER_US,
		.scheduler_boost_percent = sched_config_default.boost_percent,
		.anticipation_us = sched_config_default.anticipation_ns / NS_PER_US,
		.max_queue_per_vm = 1024,
		.max_queued_bytes_per_vm = 262144,
		.max_connections_per_vm = 4,
		.max_workers = 64,
		.worker_idle_s = 300,
		.quarantine_threshold = 9,
		.fault_points = 1,
		.timeout_points = 3,
		.fault_window_s = 3600,
		.nvml_poll_ms = 1000,
		.reset_timeout_s = 120,
		.worker_uid_base = 400000,
		.event_log_max_mb = 256,
	};
}

static void *member(const struct config *config, const struct key *key)
{
	return (char *)(uintptr_t)config + key->offset;
}

static int64_t *integer(const struct config *config, const struct key *key)
{
	return (int64_t *)member(config, key);
}

static int fail(struct config_error *error, const char *key, const char *value, const char *allowed)
{
	snprintf(error->text, sizeof(error->text), "%s = %s: must be %s", key, value, allowed);
	return -EINVAL;
}

static int read_integer(int64_t *out, const char *text, int64_t min, int64_t max)
{
	int64_t value = 0;

	if (!*text)
		return -EINVAL;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return -EINVAL;
		value = min_i64(value * 10 + (*text - '0'), INT64_MAX / 100);
	}
	if (value < min || value > max)
		return -ERANGE;
	*out = value;
	return 0;
}

static int set_integer(struct config *config, const struct key *key, const char *value,
                       struct config_error *error)
{
	char allowed[64];

	snprintf(allowed, sizeof(allowed), "a whole number from %" PRId64 " to %" PRId64, key->min,
	         key->max);
	if (read_integer(integer(config, key), value, key->min, key->max) < 0)
		return fail(error, key->name, value, allowed);
	return 0;
}

static int set_percent(struct config *config, const struct key *key, const char *value,
                       struct config_error *error)
{
	static const struct decimal fraction = {.scale = 100, .max = 100};

	if (decimal_parse(integer(config, key), &fraction, value) < 0)
		return fail(error, key->name, value, "0.00 to 1.00");
	return 0;
}

static int set_bool(struct config *config, const struct key *key, const char *value,
                    struct config_error *error)
{
	bool yes = strcmp(value, "yes") == 0;

	if (!yes && strcmp(value, "no") != 0)
		return fail(error, key->name, value, "yes or no");
	*(bool *)member(config, key) = yes;
	return 0;
}

static int set_path(struct config *config, const struct key *key, const char *value,
                    struct config_error *error)
{
	bool required = key->min;

	if (strlen(value) >= CONFIG_PATH_BYTES)
		return fail(error, key->name, value, "a path of at most 255 bytes");
	if (!required && (strcmp(value, "off") == 0 || strcmp(value, "none") == 0))
		value = "";
	else if (!*value)
		return fail(error, key->name, value, "a path");
	strcpy(member(config, key), value);
	return 0;
}

static int set_gpus(struct config *config, const struct key *key, const char *value,
                    struct config_error *error)
{
	static const char allowed[] =
		"GPU indexes or UUIDs as nvidia-smi -L prints them, separated by commas";

	if (strlen(value) >= CONFIG_GPUS_BYTES ||
	    strspn(value, "0123456789abcdefABCDEFGPUMIG-,") != strlen(value) || !*value)
		return fail(error, key->name, value, allowed);
	strcpy(member(config, key), value);
	return 0;
}

static int set_choice(struct config *config, const struct key *key, const char *value,
                      struct config_error *error)
{
	char allowed[128] = "one of";

	for (int64_t i = 0; key->choices[i]; i++) {
		if (strcmp(value, key->choices[i]) == 0) {
			*integer(config, key) = i;
			return 0;
		}
		snprintf(allowed + strlen(allowed), sizeof(allowed) - strlen(allowed), " %s",
		         key->choices[i]);
	}
	return fail(error, key->name, value, allowed);
}

static const char *value_text(char *to, size_t size, const struct config *config,
                              const struct key *key)
{
	switch (key->kind) {
	case KIND_INTEGER:
		snprintf(to, size, "%" PRId64, *integer(config, key));
		break;
	case KIND_PERCENT:
		snprintf(to, size, "%" PRId64 ".%02" PRId64, *integer(config, key) / 100,
		         *integer(config, key) % 100);
		break;
	case KIND_BOOL:
		snprintf(to, size, "%s", *(bool *)member(config, key) ? "yes" : "no");
		break;
	case KIND_CHOICE:
		snprintf(to, size, "%s", key->choices[*integer(config, key)]);
		break;
	case KIND_PATH:
	case KIND_GPUS:
		snprintf(to, size, "%s", (const char *)member(config, key));
		break;
	}
	return to;
}

/* Sets one key. Returns 0, or -EINVAL with @error filled. */
static int set_key(struct config *config, const char *name, const char *value,
                   struct config_error *error)
{
	static int (*const set[])(struct config *, const struct key *, const char *,
	                          struct config_error *) = {
		[KIND_INTEGER] = set_integer, [KIND_PERCENT] = set_percent,
		[KIND_BOOL] = set_bool,       [KIND_PATH] = set_path,
		[KIND_GPUS] = set_gpus,       [KIND_CHOICE] = set_choice,
	};
	char known[700] = ""; /* all of them: a test compares */

	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		if (strcmp(keys[i].name, name) == 0)
			return set[keys[i].kind](config, &keys[i], value, error);
		snprintf(known + strlen(known), sizeof(known) - strlen(known), " %s", keys[i].name);
	}
	snprintf(error->text, sizeof(error->text), "%.40s: no such key; there are:%s", name, known);
	return -EINVAL;
}

/* Without the white space around it. */
static char *strip(char *text)
{
	size_t length;

	text += strspn(text, " \t\r\n");
	length = strlen(text);
	while (length && strchr(" \t\r\n", text[length - 1]))
		length--;
	text[length] = '\0';
	return text;
}

/* One line of the file: `key = value`, a comment, or nothing. */
static int read_line(struct config *config, char *line, struct config_error *error)
{
	char *name = strip(line), *equals = strchr(name, '=');

	if (*name == '\0' || *name == '#')
		return 0;
	if (*name == '[') {
		snprintf(error->text, sizeof(error->text),
		         "%.80s: there are no sections; write key = value lines", name);
		return -EINVAL;
	}
	if (!equals) {
		snprintf(error->text, sizeof(error->text), "%.80s: not a key = value line", name);
		return -EINVAL;
	}
	*equals = '\0';
	return set_key(config, strip(name), strip(equals + 1), error);
}

/* By hand, since libraries for such files cut lines at 200 bytes or join indented ones. */
static int read_file(struct config *config, const char *path, bool required,
                     struct config_error *error)
{
	CLEANUP(freep) char *line = NULL;
	struct config_error cause = {""};
	FILE *file = fopen(path, "re");
	size_t capacity = 0;
	int number = 0, r = 0;

	if (!file) {
		if (errno == ENOENT && !required)
			return 0;
		snprintf(error->text, sizeof(error->text), "%s: %s", path, strerror(errno));
		return -errno;
	}
	while (r == 0 && getline(&line, &capacity, file) >= 0) {
		number++;
		r = read_line(config, line, &cause);
	}
	if (r < 0)
		snprintf(error->text, sizeof(error->text), "%.200s:%d: %.760s", path, number,
		         cause.text);
	if (ferror(file)) {
		snprintf(error->text, sizeof(error->text), "%s: cannot be read: %s", path,
		         strerror(errno));
		r = -EIO;
	}
	fclose(file);
	return r;
}

int config_load(struct config *out, const struct config_source *source, struct config_error *error)
{
	struct config config;
	int r;

	set_defaults(&config);
	r = read_file(&config, source->path, source->required, error);
	for (size_t i = 0; r == 0 && i < source->override_count; i++)
		r = set_key(&config, source->overrides[i].key, source->overrides[i].value, error);
	if (r == 0)
		*out = config;
	return r;
}

void config_apply(struct config *config, const struct config *next,
                  void (*report)(void *context, const char *line), void *context)
{
	char before[CONFIG_GPUS_BYTES], after[CONFIG_GPUS_BYTES];
	char line[2 * CONFIG_GPUS_BYTES + 128];

	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		const struct key *key = &keys[i];

		value_text(before, sizeof(before), config, key);
		value_text(after, sizeof(after), next, key);
		if (strcmp(before, after) == 0)
			continue;
		snprintf(line, sizeof(line), "%s: %s -> %s%s", key->name, before, after,
		         key->live ? "" : " (takes effect when the mediator is restarted)");
		report(context, line);
		if (key->live)
			*integer(config, key) = *integer(next, key);
	}
}

void config_to_core(const struct config *config, bool cuda, struct core_config *core)
{
	core->job_timeout_ns = config->job_timeout_ms * NS_PER_MS;
	core->worker_idle_ns = config->worker_idle_s * NS_PER_SEC;
	core->quarantine_threshold = config->quarantine_threshold;
	core->fault_points = config->fault_points;
	core->timeout_points = config->timeout_points;
	core->fault_window_ns = config->fault_window_s * NS_PER_SEC;
	core->max_workers = (uint32_t)config->max_workers;
	core->max_queue_per_vm = (uint32_t)config->max_queue_per_vm;
	core->max_queued_bytes_per_vm = (uint32_t)config->max_queued_bytes_per_vm;
	core->sched.quantum_ns = config->quantum_us * NS_PER_US;
	core->sched.slice_ns = config->slice_us * NS_PER_US;
	core->sched.overlap_after_ns = config->overlap_after_ms * NS_PER_MS;
	core->sched.wake_lead_ns = config->wake_lead_ms * NS_PER_MS;
	core->sched.anticipation_ns = config->anticipation_us * NS_PER_US;
	core->sched.boost_percent = (int32_t)config->scheduler_boost_percent;
	core->sched.overlap_max = config->overlap_max ? (int32_t)config->overlap_max
	                          : cuda              ? sched_config_default.overlap_max
	                                              : 1;
}

struct guest_limits config_guest_limits(const struct config *config)
{
	return (struct guest_limits){
		.max_connections_per_vm = (uint32_t)config->max_connections_per_vm,
		.max_queue_per_vm = (uint32_t)config->max_queue_per_vm,
	};
}

void config_walk(const struct config *config,
                 void (*each)(void *context, const char *key, const char *value), void *context)
{
	char value[CONFIG_GPUS_BYTES];

	for (size_t i = 0; i < ARRAY_LEN(keys); i++)
		each(context, keys[i].name, value_text(value, sizeof(value), config, &keys[i]));
}
