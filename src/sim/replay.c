/* SPDX-License-Identifier: MIT */
/* See replay.h. */
#include "sim/replay.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "base/util.h"
#include "core/trace/trace_values.h"

struct replay {
	struct replay_figures figures;
	struct trace_player *player;
	uint32_t *numbers; /* by the core's number of a VM: which of figures.vms */
	uint32_t slots;
	uint32_t gpus;
	uint64_t checked; /* the line up to which all was equal */
};

static int problem(struct replay *replay, const char *format, ...) PRINTF(2, 3);

static int problem(struct replay *replay, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(replay->figures.problem, sizeof(replay->figures.problem), format, arguments);
	va_end(arguments);
	return -EPROTO;
}

/* ---- Figures ---------------------------------------------------------------------- */

static struct replay_vm *find_vm(const struct replay *replay, uint32_t slot)
{
	struct replay_vm *vm =
		slot < replay->slots ? &replay->figures.vms[replay->numbers[slot]] : NULL;

	return vm && vm->present ? vm : NULL;
}

static int add_vm(struct replay *replay, uint32_t slot)
{
	struct replay_figures *figures = &replay->figures;
	uint32_t slots = (uint32_t)max_u64(replay->slots, (uint64_t)slot + 1);
	struct replay_vm *vms =
		reallocarray(figures->vms, figures->vm_count + 1, sizeof(*figures->vms));
	uint32_t *numbers;

	if (!vms)
		return -ENOMEM;
	figures->vms = vms;
	numbers = reallocarray(replay->numbers, slots, sizeof(*numbers));
	if (!numbers)
		return -ENOMEM;
	/* It was the lowest that is free: no number between is missing. */
	replay->numbers = numbers;
	replay->slots = slots;
	numbers[slot] = figures->vm_count;
	vms[figures->vm_count++] = (struct replay_vm){.present = true};
	return 0;
}

/* What the VMs of one GPU that have work were charged together. */
struct pot {
	int64_t charged_ns;
	int64_t claims;
};

/* Nothing has changed since the last event: neither who has work, nor by what weight. */
static void on_event(void *context, struct core *core, enum core_event event UNUSED,
                     const int64_t *values)
{
	struct replay *replay = context;
	struct pot pots[CORE_MAX_GPUS] = {{0, 0}};

	for (uint32_t slot = 0; slot < replay->slots; slot++) {
		struct replay_vm *vm = find_vm(replay, slot);
		struct core_vm_stats stats;

		if (!vm)
			continue;
		core_vm_stats(core, values[0], slot, &stats);
		vm->newly_ns = stats.sched.charged_ns - vm->charged_ns;
		vm->works = stats.depth && stats.worker == CORE_WORKER_READY;
		vm->charged_ns = stats.sched.charged_ns;
		vm->gpu = stats.gpu;
		vm->phi = stats.sched.phi;
		pots[vm->gpu].charged_ns += vm->works ? vm->newly_ns : 0;
		pots[vm->gpu].claims += vm->works ? vm->phi : 0;
	}
	for (uint32_t slot = 0; slot < replay->slots; slot++) {
		struct replay_vm *vm = find_vm(replay, slot);

		if (vm && vm->works)
			vm->due_ns += (double)pots[vm->gpu].charged_ns * vm->phi /
			              (double)pots[vm->gpu].claims;
		else if (vm)
			vm->due_ns += (double)vm->newly_ns;
	}
}

static void on_action(void *context, const struct core_action *action)
{
	struct replay_vm *vm = find_vm(context, action->vm);

	if (!vm)
		return;
	if (action->type == CORE_ACTION_VM_GONE)
		vm->present = false;
	else if (action->type == CORE_ACTION_STORE && action->store.record == CORE_RECORD_FAULT)
		vm->faults += action->store.again ? 0 : action->store.count;
	else if (action->type != CORE_ACTION_ANSWER)
		return;
	else if (action->job == 0)
		vm->refused++;
	else if (action->answer.code == VGPU_CODE_OK)
		vm->done++;
	else
		vm->failed++;
}

static void take_totals(struct replay *replay)
{
	struct replay_figures *figures = &replay->figures;
	struct sched_stats stats;

	for (uint32_t gpu = 0; gpu < replay->gpus; gpu++) {
		core_gpu_stats(trace_player_core(replay->player), gpu, &stats);
		figures->decisions += stats.decisions;
		figures->turns += stats.turns;
		figures->switches += stats.context_switches;
	}
}

/* ---- Lines ------------------------------------------------------------------------ */

static void begin(struct replay *replay, const struct trace_line *line)
{
	struct core_config config;

	trace_unpack(&config, CORE_EVENT_NEW, line->values + 1);
	replay->gpus = config.gpu_count;
	replay->figures.first_ns = line->values[0];
}

static int play_event(struct replay *replay, const struct trace_line *line)
{
	struct replay_figures *figures = &replay->figures;
	const char *broken;
	int r = trace_play(replay->player, line->kind, line->values, line->count);

	if (r == -EINVAL)
		return problem(replay, "this cannot have happened here");
	if (r == 0 && line->kind == CORE_EVENT_VM_ADD)
		r = add_vm(replay, (uint32_t)line->values[1]);
	if (r < 0)
		return problem(replay, "%s", strerror(-r));
	if (line->kind == CORE_EVENT_NEW)
		begin(replay, line);
	figures->last_ns = line->values[0];
	/* An abandoned core is fit for nothing any more. */
	if (line->kind == CORE_EVENT_ABANDON)
		return 0;
	broken = core_check(trace_player_core(replay->player));
	return broken ? problem(replay, "after this event %s", broken) : 0;
}

static int play_check(struct replay *replay, const struct trace_line *line)
{
	if ((uint64_t)line->values[0] != trace_player_hash(replay->player))
		return problem(replay,
		               "the events since line %" PRIu64
		               " lead to other actions in vgpu-sim " VGPU_VERSION
		               " than in vgpu-mediator %s",
		               replay->checked, replay->figures.version);
	replay->checked = replay->figures.line;
	return 0;
}

static int play_line(struct replay *replay, const char *text, size_t length)
{
	struct replay_figures *figures = &replay->figures;
	struct trace_line line;
	const char *why;

	if (figures->end != TRACE_END_COUNT)
		return problem(replay, "there is more after the end");
	if (trace_line_parse(&line, text, length, &why) < 0)
		return problem(replay, "%s", why);
	figures->lines[line.kind]++;
	if (line.kind == TRACE_END)
		figures->end = (enum trace_end)line.values[0];
	else if (line.kind == TRACE_CHECK)
		return play_check(replay, &line);
	else
		return play_event(replay, &line);
	return 0;
}

static int read_header(struct replay *replay, const char *text, size_t length)
{
	const char *version = text + strlen(TRACE_HEADER);
	char *to = replay->figures.version;

	if (length <= strlen(TRACE_HEADER) ||
	    strncmp(text, TRACE_HEADER, strlen(TRACE_HEADER)) != 0)
		return problem(replay,
		               "this is no event log that vgpu-sim " VGPU_VERSION " can read");
	for (; isgraph((unsigned char)*version) && to < replay->figures.version + 31; version++)
		*to++ = *version;
	return 0;
}

/* Reads to the end, or to the first line that is wrong. A last line that is cut is none. */
static int play_lines(struct replay *replay, FILE *file)
{
	char text[TRACE_LINE_BYTES + 1];
	int r = 0;

	while (r == 0 && fgets(text, sizeof(text), file)) {
		size_t length = strlen(text);

		if ((length == 0 || text[length - 1] != '\n') && feof(file))
			break;
		replay->figures.line++;
		if (length == 0 || text[length - 1] != '\n')
			r = problem(replay, "this is no line of text, or it is too long");
		else if (replay->figures.line == 1)
			r = read_header(replay, text, length - 1);
		else
			r = play_line(replay, text, length - 1);
	}
	if (r == 0 && ferror(file))
		r = problem(replay, "%s", strerror(errno));
	if (r == 0 && !trace_player_core(replay->player))
		r = problem(replay, "there is no event in this file");
	return r;
}

int replay_run(FILE *to, const char *path, bool json)
{
	static const struct trace_onlooker onlooker = {on_event, on_action};
	struct replay replay = {.figures = {.end = TRACE_END_COUNT}};
	FILE *file = fopen(path, "re");
	int r = file ? trace_player_new(&replay.player, &onlooker, &replay) : -errno;

	if (r < 0) {
		fprintf(stderr, "vgpu-sim: %s: %s\n", path, strerror(-r));
	} else {
		r = play_lines(&replay, file);
		take_totals(&replay);
		(json ? replay_json : replay_table)(to, path, &replay.figures);
	}
	if (replay.figures.problem[0])
		fprintf(stderr, "vgpu-sim: %s:%" PRIu64 ": %s\n", path, replay.figures.line,
		        replay.figures.problem);
	if (file)
		fclose(file);
	trace_player_free(replay.player);
	free(replay.figures.vms);
	free(replay.numbers);
	return r;
}
