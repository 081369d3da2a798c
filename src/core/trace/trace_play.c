/* SPDX-License-Identifier: MIT */
/*
 * Recorded events happen again. A recording is only a file: what cannot have happened is
 * refused before the core, which trusts its caller, sees it.
 */
#include <errno.h>

#include "base/units.h"
#include "core/internal.h"
#include "core/trace/trace.h"
#include "core/trace/trace_values.h"

enum {
	RECORDS_MAX = 1024, /* of one RESTORE; the registry keeps fewer */
	VMS_MAX = 65536,
};

/* So late no event comes after the time that the core asked to be called at. */
#define LATE_MAX_NS (86400 * NS_PER_SEC)

struct trace_player {
	struct core *core;
	bool over; /* nothing comes after ABANDON */
	uint64_t hash;
	const struct trace_onlooker *onlooker;
	void *context;
	struct core_store records[RECORDS_MAX]; /* told since the last RESTORE */
	size_t record_count;
};

int trace_player_new(struct trace_player **out, const struct trace_onlooker *onlooker,
                     void *context)
{
	struct trace_player *player = calloc(1, sizeof(*player));

	if (!player)
		return -ENOMEM;
	player->onlooker = onlooker;
	player->context = context;
	*out = player;
	return 0;
}

void trace_player_free(struct trace_player *player)
{
	if (!player)
		return;
	core_free(player->core);
	free(player);
}

struct core *trace_player_core(const struct trace_player *player)
{
	return player->core;
}

uint64_t trace_player_hash(const struct trace_player *player)
{
	return player->hash;
}

/* ---- Events ----------------------------------------------------------------------- */

/* Unpacks the configuration and looks whether a core may have it. */
static int read_config(struct core_config *config, enum core_event event, const int64_t *values)
{
	if (trace_unpack(config, event, values) < 0)
		return -EINVAL;
	for (uint32_t i = 0; i < POOL_COUNT; i++)
		if ((config->pools[i].gpu_mask & ((1u << config->gpu_count) - 1)) == 0)
			return -EINVAL;
	return 0;
}

static int play_new(struct trace_player *player, const int64_t *values)
{
	struct core_config config;

	core_config_default(&config);
	if (player->core || read_config(&config, CORE_EVENT_NEW, values + 1) < 0)
		return -EINVAL;
	return core_new(&player->core, &config, values[0]);
}

static int play_config_set(struct trace_player *player, const int64_t *values)
{
	struct core_config config = player->core->config;

	if (read_config(&config, CORE_EVENT_CONFIG_SET, values + 1) < 0 ||
	    config.gpu_count != player->core->config.gpu_count)
		return -EINVAL;
	core_config_set(player->core, values[0], &config);
	return 0;
}

static int play_vm_add(struct trace_player *player, const int64_t *values)
{
	struct vm_settings settings;
	uint32_t vm;
	int r;

	if (trace_unpack(&settings, CORE_EVENT_VM_ADD, values + 3) < 0 || values[1] >= VMS_MAX)
		return -EINVAL;
	r = core_vm_add(player->core, values[0], &vm, &settings, values[2] != 0, NULL);
	if (r < 0)
		return r;
	return vm == values[1] ? 0 : -EINVAL;
}

static int play_vm_set(struct trace_player *player, const int64_t *values)
{
	struct vm_settings settings;

	if (trace_unpack(&settings, CORE_EVENT_VM_SET, values + 3) < 0)
		return -EINVAL;
	core_vm_set(player->core, values[0], (uint32_t)values[1], &settings, values[2] != 0);
	return 0;
}

static int play_vm_remove(struct trace_player *player, const int64_t *values)
{
	core_vm_remove(player->core, values[0], (uint32_t)values[1]);
	return 0;
}

static int play_record(struct trace_player *player, const int64_t *values)
{
	struct core_store record = {.ticket = 0};

	if (player->record_count == RECORDS_MAX ||
	    trace_unpack(&record, CORE_EVENT_RECORD, values + 1) < 0)
		return -EINVAL;
	player->records[player->record_count++] = record;
	return 0;
}

static int play_restore(struct trace_player *player, const int64_t *values)
{
	core_vm_restore(player->core, values[0], (uint32_t)values[1], player->records,
	                player->record_count);
	player->record_count = 0;
	return 0;
}

static int play_job_submitted(struct trace_player *player, const int64_t *values)
{
	struct core_submission submission = {.payload = NULL};

	if (trace_unpack(&submission, CORE_EVENT_JOB_SUBMITTED, values + 2) < 0 ||
	    submission.client == CORE_NO_CLIENT)
		return -EINVAL;
	return core_job_submitted(player->core, values[0], (uint32_t)values[1], &submission);
}

static int play_job_done(struct trace_player *player, const int64_t *values)
{
	struct core_result result = {.result = NULL};

	if (trace_unpack(&result, CORE_EVENT_JOB_DONE, values + 4) < 0)
		return -EINVAL;
	/* One of a worker of the past is dropped now as it was then. */
	core_job_done(player->core, values[0], (uint32_t)values[1], (uint64_t)values[2],
	              (uint64_t)values[3], &result);
	return 0;
}

static int play_job_cancel(struct trace_player *player, const int64_t *values)
{
	core_job_cancel(player->core, values[0], (uint64_t)values[1]);
	return 0;
}

static int play_client_gone(struct trace_player *player, const int64_t *values)
{
	if (values[2] == CORE_NO_CLIENT)
		return -EINVAL;
	core_client_gone(player->core, values[0], (uint32_t)values[1], (uint64_t)values[2]);
	return 0;
}

static int play_worker_ready(struct trace_player *player, const int64_t *values)
{
	core_worker_ready(player->core, values[0], (uint32_t)values[1], (uint64_t)values[2]);
	return 0;
}

static int play_worker_dead(struct trace_player *player, const int64_t *values)
{
	core_worker_dead(player->core, values[0], (uint32_t)values[1], (uint64_t)values[2],
	                 (uint32_t)values[3]);
	return 0;
}

static int play_store_done(struct trace_player *player, const int64_t *values)
{
	core_store_done(player->core, values[0], (uint64_t)values[1], values[2] != 0);
	return 0;
}

static int play_gpu_set_draining(struct trace_player *player, const int64_t *values)
{
	core_gpu_set_draining(player->core, values[0], (uint32_t)values[1], values[2] != 0);
	return 0;
}

static int play_gpu_set_faulty(struct trace_player *player, const int64_t *values)
{
	core_gpu_set_faulty(player->core, values[0], (uint32_t)values[1], values[2] != 0);
	return 0;
}

static int play_gpu_hardware_fault(struct trace_player *player, const int64_t *values)
{
	core_gpu_hardware_fault(player->core, values[0], (uint32_t)values[1]);
	return 0;
}

static int play_tick(struct trace_player *player, const int64_t *values)
{
	core_tick(player->core, values[0]);
	return 0;
}

static int play_shutdown(struct trace_player *player, const int64_t *values)
{
	core_shutdown(player->core, values[0]);
	return 0;
}

static int play_abandon(struct trace_player *player, const int64_t *values UNUSED)
{
	core_abandon(player->core);
	player->over = true;
	return 0;
}

/* How to play an event, and what its second value names. */
static const struct row {
	int (*play)(struct trace_player *player, const int64_t *values);
	enum { NAMES_NOTHING, NAMES_VM, NAMES_GPU } names;
} rows[CORE_EVENT_COUNT] = {
	[CORE_EVENT_NEW] = {play_new, NAMES_NOTHING},
	[CORE_EVENT_CONFIG_SET] = {play_config_set, NAMES_NOTHING},
	[CORE_EVENT_VM_ADD] = {play_vm_add, NAMES_NOTHING},
	[CORE_EVENT_VM_SET] = {play_vm_set, NAMES_VM},
	[CORE_EVENT_VM_REMOVE] = {play_vm_remove, NAMES_VM},
	[CORE_EVENT_RECORD] = {play_record, NAMES_NOTHING},
	[CORE_EVENT_RESTORE] = {play_restore, NAMES_VM},
	[CORE_EVENT_JOB_SUBMITTED] = {play_job_submitted, NAMES_VM},
	[CORE_EVENT_JOB_DONE] = {play_job_done, NAMES_NOTHING},
	[CORE_EVENT_JOB_CANCEL] = {play_job_cancel, NAMES_NOTHING},
	[CORE_EVENT_CLIENT_GONE] = {play_client_gone, NAMES_VM},
	[CORE_EVENT_WORKER_READY] = {play_worker_ready, NAMES_NOTHING},
	[CORE_EVENT_WORKER_DEAD] = {play_worker_dead, NAMES_NOTHING},
	[CORE_EVENT_STORE_DONE] = {play_store_done, NAMES_NOTHING},
	[CORE_EVENT_GPU_SET_DRAINING] = {play_gpu_set_draining, NAMES_GPU},
	[CORE_EVENT_GPU_SET_FAULTY] = {play_gpu_set_faulty, NAMES_GPU},
	[CORE_EVENT_GPU_HARDWARE_FAULT] = {play_gpu_hardware_fault, NAMES_GPU},
	[CORE_EVENT_TICK] = {play_tick, NAMES_NOTHING},
	[CORE_EVENT_SHUTDOWN] = {play_shutdown, NAMES_NOTHING},
	[CORE_EVENT_ABANDON] = {play_abandon, NAMES_NOTHING},
};

/* Whether an event can come at that time: the core goes through all that lies between. */
static bool can_be_now(const struct core *core, int64_t now_ns)
{
	int64_t deadline_ns = core ? core_deadline_ns(core) : SCHED_NEVER;

	if (now_ns < (core ? core->now_ns : 0) || now_ns > TRACE_TIME_MAX_NS)
		return false;
	return deadline_ns == SCHED_NEVER ||
	       now_ns - max_i64(deadline_ns, core->now_ns) <= LATE_MAX_NS;
}

/* Whether there is what the second value names. */
static bool is_there(const struct core *core, const struct row *row, const int64_t *values)
{
	switch (row->names) {
	case NAMES_VM:
		return values[1] >= 0 && values[1] < core->vm_slots && core->vms[values[1]];
	case NAMES_GPU:
		return values[1] >= 0 && values[1] < core->config.gpu_count;
	case NAMES_NOTHING:
		break;
	}
	return true;
}

int trace_play(struct trace_player *player, enum core_event event, const int64_t *values,
               size_t count)
{
	const struct trace_onlooker *onlooker = player->onlooker;
	const struct row *row = &rows[event];
	struct core_action action;
	int r;

	if (count != trace_value_count(event) || player->over ||
	    (event != CORE_EVENT_NEW && !player->core) || !can_be_now(player->core, values[0]) ||
	    !is_there(player->core, row, values))
		return -EINVAL;
	if (onlooker->before && player->core)
		onlooker->before(player->context, player->core, event, values);
	r = row->play(player, values);
	while (r == 0 && core_next_action(player->core, &action)) {
		player->hash = core_action_hash(player->hash, &action);
		if (onlooker->action)
			onlooker->action(player->context, &action);
	}
	return r;
}
