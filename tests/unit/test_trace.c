/* SPDX-License-Identifier: MIT */
/*
 * Events as numbers and as text, and the player among rows that no core has ever told of.
 * That the same events do the same to another core is looked at in test_core_random.c.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/units.h"
#include "core/trace/trace_line.h"
#include "core/trace/trace_values.h"

static const struct trace_onlooker nobody = {NULL, NULL};

/* ---- Every member has its number ------------------------------------------------------ */

/*
 * Without names, so that a new member of a struct is a warning here (missing initializer):
 * it needs a row in trace_values.c, if any decision depends on it. All are different.
 */
static const struct core_config config_told = {
	NULL, {4000000, 2300000, 3, 4, 5, 6, 7, 8},
	2,    {{true, 3, 11}, {false, 1, 13}},
	14,   15,
	16,   17,
	18,   19,
	20,   21,
	22,   23,
	24,   25,
	26,   27,
	28,
};
static const struct vm_settings settings_told = {2, 1, 300, 4, 5, 6, 7, 8, 9};
static const struct core_store record_told = {
	0, CORE_RECORD_RECOVERED, 2, CORE_FAULT_TIMEOUT, 0, 0, 5, false, false};
static const struct core_submission submission_told = {
	1, 2, 3, 4, true, VGPU_CODE_INVALID_REQUEST, NULL};
static const struct core_result result_told = {VGPU_CODE_CUDA, 2, 3, 4, true, NULL};

static const struct core_config config_untold;
static const struct vm_settings settings_untold;
static const struct core_store record_untold;
static const struct core_submission submission_untold;
static const struct core_result result_untold;

static void test_every_member_is_told(void **state UNUSED)
{
	static const struct {
		enum core_event event;
		const void *told, *untold;
		size_t bytes;
	} structs[] = {
		{CORE_EVENT_NEW, &config_told, &config_untold, sizeof(config_told)},
		{CORE_EVENT_VM_ADD, &settings_told, &settings_untold, sizeof(settings_told)},
		{CORE_EVENT_RECORD, &record_told, &record_untold, sizeof(record_told)},
		{CORE_EVENT_JOB_SUBMITTED, &submission_told, &submission_untold,
	         sizeof(submission_told)},
		{CORE_EVENT_JOB_DONE, &result_told, &result_untold, sizeof(result_told)},
	};

	for (size_t i = 0; i < ARRAY_LEN(structs); i++) {
		int64_t values[TRACE_VALUES_MAX];
		uint64_t copy[sizeof(struct core_config) / 8 + 1];

		memcpy(copy, structs[i].untold, structs[i].bytes);
		trace_pack(values, structs[i].event, structs[i].told);
		assert_int_equal(trace_unpack(copy, structs[i].event, values), 0);
		assert_memory_equal(copy, structs[i].told, structs[i].bytes);
	}
}

/* ---- Lines ---------------------------------------------------------------------------- */

static int parse(struct trace_line *line, const char *text)
{
	const char *why = NULL;
	int r = trace_line_parse(line, text, strlen(text), &why);

	assert_non_null(why);
	return r;
}

static void test_lines(void **state UNUSED)
{
	static const char *const wrong[] = {
		"",
		"tick",
		"tick ",
		"tick  1",
		" tick 1",
		"tick 1 ",
		"tick 1 2",
		"tick 01",
		"tick -0",
		"tick +1",
		"tick 1x",
		"tick 0x1",
		"tick -",
		"tick 9223372036854775808",
		"tick -9223372036854775809",
		"tick 99999999999999999999999999",
		"Tick 1",
		"tic 1",
		"tick\t1",
		"end 3",
		"end -1",
		"check",
		"vm_remove 1",
	};
	static const int64_t edges[] = {0, 7, -1, INT64_MAX, INT64_MIN};
	struct trace_line line;

	for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
		assert_int_equal(parse(&line, wrong[i]), -EINVAL);
	for (size_t i = 0; i < ARRAY_LEN(edges); i++) {
		char text[TRACE_LINE_BYTES];
		size_t length = trace_line_format(text, TRACE_CHECK, &edges[i], 1);

		text[length - 1] = '\0';
		assert_int_equal(parse(&line, text), 0);
		assert_int_equal(line.kind, TRACE_CHECK);
		assert_true(line.count == 1 && line.values[0] == edges[i]);
	}
	assert_int_equal(parse(&line, "client_gone 5 -6 7"), 0);
	assert_true(line.kind == CORE_EVENT_CLIENT_GONE && line.count == 3 && line.values[1] == -6);
}

/* ---- What cannot be ------------------------------------------------------------------- */

struct row {
	enum core_event event;
	int64_t values[TRACE_VALUES_MAX];
};

/* A core with one VM, whose job runs. */
static const struct row life[] = {
	{CORE_EVENT_VM_ADD, {1000, 0, 0, 1, 0, 100}},
	{CORE_EVENT_JOB_SUBMITTED, {2000, 0, 1, 77, 5, 64, 0}},
	{CORE_EVENT_WORKER_READY, {3000, 0, 1}},
};

static int play(struct trace_player *player, const struct row *row)
{
	/* Of exactly that size, so that a sanitizer sees what is read beyond. */
	size_t count = trace_value_count(row->event);
	int64_t *values = malloc(count * sizeof(*values));
	int r;

	assert_non_null(values);
	memcpy(values, row->values, count * sizeof(*values));
	r = trace_play(player, row->event, values, count);
	free(values);
	return r;
}

static struct row row_new(void)
{
	struct row row = {.event = CORE_EVENT_NEW, .values = {500}};
	struct core_config config;

	core_config_default(&config);
	config.gpu_count = 2;
	trace_pack(row.values + 1, CORE_EVENT_NEW, &config);
	return row;
}

static struct trace_player *player_alive(void)
{
	struct trace_player *player;
	struct row begin = row_new();

	assert_int_equal(trace_player_new(&player, &nobody, NULL), 0);
	assert_int_equal(play(player, &begin), 0);
	for (size_t i = 0; i < ARRAY_LEN(life); i++)
		assert_int_equal(play(player, &life[i]), 0);
	return player;
}

static void test_what_cannot_be(void **state UNUSED)
{
	static const struct row wrong[] = {
		{CORE_EVENT_TICK, {2999}},
		{CORE_EVENT_TICK, {-1}},
		{CORE_EVENT_TICK, {TRACE_TIME_MAX_NS}},
		{CORE_EVENT_VM_ADD, {4000, 3, 0, 1, 0, 100}},
		{CORE_EVENT_VM_ADD, {4000, 1, 0, 3, 0, 100}},
		{CORE_EVENT_VM_ADD, {4000, 1, 0, 1, 2, 100}},
		{CORE_EVENT_VM_ADD, {4000, 1, 0, 1, 0, 99}},
		{CORE_EVENT_VM_SET, {4000, 1, 0, 1, 0, 100}},
		{CORE_EVENT_VM_SET, {4000, 0, 0, 1, 0, 10001}},
		{CORE_EVENT_VM_REMOVE, {4000, 16}},
		{CORE_EVENT_VM_REMOVE, {4000, -1}},
		{CORE_EVENT_RECORD, {4000, 3, 0, 0, 0}},
		{CORE_EVENT_RECORD, {4000, 0, 0, CORE_FAULT_COUNT + 1, 0}},
		{CORE_EVENT_RESTORE, {4000, INT64_MAX}},
		{CORE_EVENT_JOB_SUBMITTED, {4000, 0, CORE_NO_CLIENT, 1, 1, 64, 0}},
		{CORE_EVENT_JOB_SUBMITTED, {4000, 0, 1, 1, 1, 64, VGPU_CODE_COUNT}},
		{CORE_EVENT_JOB_SUBMITTED, {4000, 0, 1, 1, 1, -1, 0}},
		{CORE_EVENT_JOB_DONE, {4000, 0, 1, 1, -1, 0, 0, 0, 0}},
		{CORE_EVENT_JOB_DONE, {4000, 0, 1, 1, 0, 0, 0, 0, 2}},
		{CORE_EVENT_CLIENT_GONE, {4000, 0, CORE_NO_CLIENT}},
		{CORE_EVENT_GPU_SET_DRAINING, {4000, 2, 1}},
		{CORE_EVENT_GPU_HARDWARE_FAULT, {4000, INT64_C(1) << 32}},
	};
	struct row again = row_new();
	struct trace_player *player;

	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		player = player_alive();
		assert_int_equal(play(player, &wrong[i]), -EINVAL);
		trace_player_free(player);
	}
	player = player_alive();
	assert_int_equal(trace_play(player, CORE_EVENT_VM_REMOVE, wrong[0].values, 1), -EINVAL);
	again.values[0] = 4000;
	assert_int_equal(play(player, &again), -EINVAL);
	again.event = CORE_EVENT_CONFIG_SET;
	assert_int_equal(play(player, &again), 0);
	/* Another number of GPUs: its place, and the time before it, are those of the table. */
	again.values[1 + 8] = 1;
	assert_int_equal(play(player, &again), -EINVAL);
	trace_player_free(player);
	assert_int_equal(trace_player_new(&player, &nobody, NULL), 0);
	assert_int_equal(play(player, &life[0]), -EINVAL);
	assert_null(trace_player_core(player));
	trace_player_free(player);
}

static void test_nothing_comes_after_the_end(void **state UNUSED)
{
	static const struct row over = {CORE_EVENT_ABANDON, {4000}},
				more = {CORE_EVENT_TICK, {5000}};
	struct trace_player *player = player_alive();

	assert_int_equal(play(player, &over), 0);
	assert_int_equal(play(player, &more), -EINVAL);
	trace_player_free(player);
}

/* ---- The time of an event ------------------------------------------------------------------- */

static void take_time(void *context, enum core_event event UNUSED, const int64_t *values,
                      size_t count UNUSED)
{
	*(int64_t *)context = values[0];
}

static void test_told_is_when_it_happens(void **state UNUSED)
{
	struct core_vm_stats stats;
	struct core_config config;
	int64_t told_ns = 0;
	struct core *core;
	uint32_t vm;

	core_config_default(&config);
	assert_int_equal(core_new(&core, &config, 1000), 0);
	core_listen(core, take_time, &told_ns);
	assert_int_equal(told_ns, 1000);
	assert_int_equal(core_vm_add(core, 2000, &vm, &vm_settings_default, false, NULL), 0);
	assert_int_equal(told_ns, 2000);
	/* The event's time was taken before the figures were. */
	core_vm_stats(core, 5000, vm, &stats);
	core_tick(core, 4000);
	assert_int_equal(told_ns, 5000);
	core_listen(core, NULL, NULL);
	core_tick(core, 6000);
	assert_int_equal(told_ns, 5000);
	core_free(core);
}

/* ---- Other values do other things --------------------------------------------------------- */

static uint64_t hash_of(const struct row *last)
{
	struct trace_player *player = player_alive();
	uint64_t hash;

	assert_int_equal(play(player, last), 0);
	hash = trace_player_hash(player);
	trace_player_free(player);
	return hash;
}

static void test_a_changed_value_is_noticed(void **state UNUSED)
{
	const struct row done = {CORE_EVENT_JOB_DONE,
	                         {9000, 0, 1, 1, VGPU_CODE_CUDA, 5, 6, 4000, 0}};

	assert_true(hash_of(&done) == hash_of(&done));
	for (size_t i = 1; i < trace_value_count(done.event); i++) {
		struct row changed = done;

		changed.values[i] += i == 7 ? 1000 : 1; /* that is counted in whole microseconds */
		assert_true(hash_of(&changed) != hash_of(&done));
	}
}

/* ---- Anything at all ------------------------------------------------------------------------ */

enum { LIVES = 4000 };

static uint64_t draw(uint64_t *random, uint64_t bound)
{
	*random ^= *random << 13;
	*random ^= *random >> 7;
	*random ^= *random << 17;
	return *random % bound;
}

static int64_t some_value(uint64_t *random)
{
	/* The last ones are as much as some members may be. */
	static const int64_t odd[] = {
		INT64_MIN,
		INT64_MAX,
		-1,
		UINT32_MAX,
		10000,
		1000000,
		10 * NS_PER_SEC,
		400 * 86400 * NS_PER_SEC,
	};

	if (draw(random, 200) == 0)
		return odd[draw(random, ARRAY_LEN(odd))];
	return (int64_t)draw(random, draw(random, 20) ? 2 : 50);
}

static enum core_event some_event(uint64_t *random)
{
	enum core_event event = (enum core_event)draw(random, CORE_EVENT_ABANDON);
	bool is_end = event == CORE_EVENT_NEW || event == CORE_EVENT_SHUTDOWN ||
	              event == CORE_EVENT_VM_REMOVE;

	return is_end && draw(random, 20) ? CORE_EVENT_JOB_SUBMITTED : event;
}

/* Mostly such as can be, among @vms VMs, so that it goes on for a while. */
static struct row some_row(uint64_t *random, int64_t now_ns, uint64_t vms)
{
	struct row row = {.event = some_event(random)};
	size_t count = trace_value_count(row.event);

	for (size_t i = 1; i < count; i++)
		row.values[i] = some_value(random);
	if (row.event == CORE_EVENT_CONFIG_SET)
		memcpy(row.values, row_new().values, sizeof(row.values));
	if (row.event == CORE_EVENT_VM_ADD || row.event == CORE_EVENT_VM_SET)
		trace_pack(row.values + 3, row.event, &vm_settings_default);
	if (row.event == CORE_EVENT_JOB_SUBMITTED || row.event == CORE_EVENT_CLIENT_GONE)
		row.values[2] = 1 + (int64_t)draw(random, 3);
	if (draw(random, 50) == 0)
		row.values[draw(random, count)] = some_value(random);
	if (trace_shapes[row.event].own > 1 && draw(random, 50))
		row.values[1] = (int64_t)(row.event == CORE_EVENT_VM_ADD ? vms : draw(random, vms));
	row.values[0] = now_ns;
	return row;
}

static void test_random_rows_do_no_harm(void **state UNUSED)
{
	uint64_t played[CORE_EVENT_COUNT] = {0}, random = 88172645463325252, lives = 0;

	while (lives < LIVES) {
		struct trace_player *player = player_alive();
		int64_t now_ns = 4000;
		uint64_t vms = 1;
		struct row row;

		for (;;) {
			const char *broken;

			now_ns += (int64_t)draw(&random, UINT64_C(1) << draw(&random, 34));
			row = some_row(&random, now_ns, vms);
			if (play(player, &row) < 0)
				break;
			broken = core_check(trace_player_core(player));
			if (broken)
				fail_msg("%s: %s", trace_kind_name(row.event), broken);
			vms += row.event == CORE_EVENT_VM_ADD;
			played[row.event]++;
		}
		trace_player_free(player);
		lives++;
	}
	for (int event = CORE_EVENT_CONFIG_SET; event < CORE_EVENT_ABANDON; event++)
		assert_true(played[event] > LIVES / 20);
	assert_true(played[CORE_EVENT_JOB_SUBMITTED] > 3 * LIVES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_member_is_told),
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_what_cannot_be),
		cmocka_unit_test(test_nothing_comes_after_the_end),
		cmocka_unit_test(test_told_is_when_it_happens),
		cmocka_unit_test(test_a_changed_value_is_noticed),
		cmocka_unit_test(test_random_rows_do_no_harm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
