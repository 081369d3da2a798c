/* SPDX-License-Identifier: MIT */
/*
 * The mediator's configuration: one table of keys for the file, the command line and
 * --set, so that each can be given in all three.
 *
 * The file has `key = value` lines, `#` comments and no sections. Later settings win:
 * file, then options and --set in their order. A wrong key or value is an error that
 * names where it stands and what would be right.
 */
#ifndef MEDIATOR_CONFIG_H
#define MEDIATOR_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"
#include "core/core.h"
#include "mediator/guest_server.h"

enum config_backend {
	CONFIG_BACKEND_AUTO, /* cuda if a GPU answers, else cpu */
	CONFIG_BACKEND_CPU,
	CONFIG_BACKEND_CUDA,
};

enum {
	CONFIG_PATH_BYTES = 256,
	CONFIG_GPUS_BYTES = 1024,
};

struct config {
	char db[CONFIG_PATH_BYTES];
	char listen_dir[CONFIG_PATH_BYTES];
	char admin_socket[CONFIG_PATH_BYTES];
	char legacy_socket[CONFIG_PATH_BYTES];    /* "" = off */
	char gpus[POOL_COUNT][CONFIG_GPUS_BYTES]; /* comma-separated UUIDs or indexes */
	int64_t backend;                          /* enum config_backend */
	int64_t log_level;                        /* enum log_level */
	bool allow_test_ops;
	int64_t job_timeout_ms;
	int64_t quantum_us;
	int64_t overlap_max; /* 0 = by the backend */
	int64_t overlap_after_ms;
	int64_t wake_lead_ms;
	int64_t slice_us;
	int64_t scheduler_boost_percent;
	int64_t anticipation_us;
	int64_t max_queue_per_vm;
	int64_t max_queued_bytes_per_vm;
	int64_t max_connections_per_vm;
	int64_t max_workers;
	int64_t worker_idle_s;
	int64_t quarantine_threshold;
	int64_t fault_points;
	int64_t timeout_points;
	int64_t fault_window_s;
	int64_t nvml_poll_ms;
	char reset_command[CONFIG_PATH_BYTES]; /* "" = none */
	int64_t reset_timeout_s;
	int64_t worker_uid_base;           /* 0 = workers keep the mediator's user */
	char event_log[CONFIG_PATH_BYTES]; /* "" = off */
	int64_t event_log_max_mb;
};

/* What went wrong, for a person. */
struct config_error {
	char text[1024];
};

/* Where a configuration comes from, so that it can be read again. */
struct config_source {
	const char *path;
	bool required; /* a missing file is an error */
	struct config_override {
		const char *key;
		const char *value;
	} * overrides; /* of the command line, in their order */
	size_t override_count;
};

/* Defaults, file, overrides. Returns 0 or a negative errno with @error filled. */
int config_load(struct config *out, const struct config_source *source, struct config_error *error);

/*
 * Moves what may change at run time from @next to @config, and tells of each difference
 * by calling @report: "quantum_us: 4000 -> 8000", or that it needs a restart.
 */
void config_apply(struct config *config, const struct config *next,
                  void (*report)(void *context, const char *line), void *context);

/* Fills what of @core depends on the configuration. @cuda chooses the defaults. */
void config_to_core(const struct config *config, bool cuda, struct core_config *core);

/* What the configuration says of devices' connections. */
struct guest_limits config_guest_limits(const struct config *config);

/* Calls @each for every key with its value as text. */
void config_walk(const struct config *config,
                 void (*each)(void *context, const char *key, const char *value), void *context);

#endif
