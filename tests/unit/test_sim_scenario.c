/* SPDX-License-Identifier: MIT */
/*
 * Scenario files: what is written is what is read, and what is wrong is refused.
 */
#include "sim/scenario.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/units.h"
#include "vgpu/protocol.h"

struct file {
	char path[32];
	FILE *stream;
};

static void file_open(struct file *file)
{
	int fd;

	strcpy(file->path, "/tmp/vgpu-scenario-XXXXXX");
	fd = mkstemp(file->path);
	assert_true(fd >= 0);
	file->stream = fdopen(fd, "w+");
	assert_non_null(file->stream);
}

static void file_close(struct file *file)
{
	assert_int_equal(fclose(file->stream), 0);
	unlink(file->path);
}

/* Reads what was written and removes the file. */
static int file_read(struct file *file, struct scenario *out)
{
	int r;

	assert_int_equal(fflush(file->stream), 0);
	r = scenario_read(out, file->path);
	file_close(file);
	return r;
}

static int read_text(struct scenario *out, const char *text)
{
	struct file file;

	file_open(&file);
	fputs(text, file.stream);
	return file_read(&file, out);
}

/* What reading @text says on stderr; it must be refused. */
static void complaint(char *to, size_t size, const char *text)
{
	static struct scenario read;
	int kept = dup(STDERR_FILENO), r;
	struct file file;
	size_t length;

	file_open(&file);
	assert_true(kept >= 0);
	assert_true(dup2(fileno(file.stream), STDERR_FILENO) >= 0);
	r = read_text(&read, text);
	assert_true(dup2(kept, STDERR_FILENO) >= 0);
	close(kept);
	rewind(file.stream);
	length = fread(to, 1, size - 1, file.stream);
	to[length] = '\0';
	file_close(&file);
	if (r >= 0)
		fail_msg("accepted: %s", text);
}

/* One of each kind, those of the scenario first, as they are written. */
static void put_events(struct scenario *scenario)
{
	const struct scenario_number *quantum = scenario_rule_numbers;
	int64_t values[HAPPENS_COUNT] = {
		[HAPPENS_SETTING] = 425,  [HAPPENS_PRIORITY] = VGPU_PRIORITY_LOW,
		[HAPPENS_POOL] = 1,       [HAPPENS_DRAIN] = 1,
		[HAPPENS_QUARANTINE] = 0, [HAPPENS_RULE] = 1500 * NS_PER_US,
	};
	struct scenario_event *event = scenario->events;

	while (strcmp(quantum->key, "quantum-us") != 0)
		quantum++;
	*event++ = (struct scenario_event){
		.at_ns = 5 * NS_PER_US,
		.what = HAPPENS_RULE,
		.number = quantum,
		.value = values[HAPPENS_RULE],
	};
	for (int what = 0; what < HAPPENS_RULE; what++)
		*event++ = (struct scenario_event){
			.at_ns = 500 * NS_PER_US,
			.every_ns = what % 2 ? 20 * NS_PER_US : 0,
			.vm = 1,
			.what = (enum happening)what,
			.field = what == HAPPENS_SETTING ? setting_find("weight") : NULL,
			.value = values[what],
		};
	scenario->event_count = (uint32_t)(event - scenario->events);
}

/* All that an expectation has are ranges. */
static void assert_same_ranges(const struct scenario_expect *left,
                               const struct scenario_expect *right)
{
	const struct scenario_range *a = &left->busy_percent, *b = &right->busy_percent;

	for (size_t i = 0; i < SIM_POLICIES * sizeof(*left) / sizeof(*a); i++) {
		assert_int_equal(a[i].set, b[i].set);
		assert_true(a[i].least == b[i].least && a[i].most == b[i].most);
	}
}

static void test_round_trip(void **state UNUSED)
{
	static struct scenario written, read;
	struct file file;

	scenario_init(&written);
	strcpy(written.name, "all of it");
	written.seed = 77;
	written.gpus = 2;
	written.duration_ns = 1234 * NS_PER_MS;
	written.rules.core.sched.overlap_max = 3;
	written.rules.core.sched.quantum_ns = 1234567;
	written.rules.worker_reap_ns = 5 * NS_PER_MS;
	written.expect[0].share_error_percent = (struct scenario_range){0, 500, true};
	written.expect[2].wait_p99_ms = (struct scenario_range){1500, INT64_MAX, true};
	written.vm_count = 2;
	for (uint32_t i = 0; i < 2; i++)
		scenario_vm_init(&written.vms[i]);
	strcpy(written.vms[0].name, "plain");
	strcpy(written.vms[1].name, "o<th&er");
	written.vms[1].load = LOAD_POISSON;
	written.vms[1].settings.priority = VGPU_PRIORITY_HIGH;
	written.vms[1].settings.pool = 1;
	written.vms[1].settings.weight_hundredths = 250;
	written.vms[1].settings.rate_thousandths = 2500;
	written.vms[1].spread_percent = 60;
	written.vms[1].leave_ns = 900 * NS_PER_MS;
	written.vms[1].counts = COUNTS_WAIT;
	put_events(&written);
	file_open(&file);
	scenario_write(&written, file.stream);
	assert_int_equal(file_read(&file, &read), 0);
	assert_string_equal(read.name, written.name);
	assert_same_ranges(read.expect, written.expect);
	assert_memory_equal(&read.rules, &written.rules, sizeof(read.rules));
	assert_true(read.seed == written.seed && read.gpus == written.gpus);
	assert_true(read.duration_ns == written.duration_ns);
	assert_int_equal(read.vm_count, 2);
	assert_memory_equal(&read.vms, &written.vms, sizeof(read.vms));
	assert_int_equal(read.event_count, written.event_count);
	assert_memory_equal(&read.events, &written.events, sizeof(read.events));
}

static void test_count_stands_for_several(void **state UNUSED)
{
	static struct scenario read;

	assert_int_equal(read_text(&read, "[a]\ncount = 3\nweight = 2\n[b]\nweight = 3\n"), 0);
	assert_int_equal(read.vm_count, 4);
	assert_int_equal(read.vms[2].settings.weight_hundredths, 200);
	assert_int_equal(read.vms[3].settings.weight_hundredths, 300);
	assert_string_equal(read.vms[2].name, "a-3");
	assert_string_equal(read.vms[3].name, "b");
}

/* What is wrong, and a part of what is said about it. */
static const struct {
	const char *text, *said;
} wrong[] = {
	{"", "there is no VM"},
	{"[scenario]\n", "there is no VM"},
	{"weight = 1\n", ":1: weight = 1: belongs to no section"},
	{"[a\n", ":1: [a: no section"},
	{"[]\n", "no section"},
	{"[a]\nweight\n", ":2: weight: neither a section nor key = value"},
	{"[a]\n[b]\n[a]\n", ":3: [a]: there is a VM of this name"},
	{"[a]\n[a]\n", ":2: [a]: there is a VM of this name"},
	{"[a]\ncount = 2\n[a-2]\n", ":3: [a-2]: there is a VM of this name"},
	{"[scenario]\n[a]\n[scenario]\n", ":3: [scenario] comes twice"},
	{"[expect fair]\n[expect fair]\n[a]\n", ":2: [expect fair] comes twice"},
	{"[expect best]\n[a]\n", "no such policy"},
	{"[expect fair]\nbusy-percent = 5\n[a]\n", "must be LEAST..MOST"},
	{"[expect fair]\nbusy-percent = ..\n[a]\n", "must be LEAST..MOST"},
	{"[expect fair]\nbusy-percent = 5..4\n[a]\n", "must be LEAST..MOST"},
	{"[expect fair]\nbusy-percent = 5..4x\n[a]\n", "must be LEAST..MOST"},
	{"[expect fair]\nquickness = 1..2\n[a]\n", "no such key of [expect]"},
	{"[0123456789012345678901234567890123456789012345678]\n", "printable ASCII"},
	{"[a\001]\n", "printable ASCII"},
	{"[scenario]\nname =\n[a]\n", "printable ASCII"},
	{"[a]\nno-such-key = 1\n", "no such key of a VM"},
	{"[scenario]\nno-such-key = 1\n[a]\n", "no such key of [scenario]"},
	{"[a]\nload = sometimes\n", "backlogged, closed, periodic or poisson"},
	{"[a]\ncounts = yes\n", "share, excess, wait or nothing"},
	{"[a]\npriority = 9\n", "low, medium or high"},
	{"[a]\npool = 700\n", "A or B"},
	{"[a]\ncount = 65\n", "from 1 to 64"},
	{"[a]\ncount = 64\n[b]\n", "more than 64 VMs"},
	{"[scenario]\nwarmup-ms = 20000\n[a]\n", "warmup-ms must be less"},
	{"[a]\njoin-us = 5\nleave-us = 5\n", "leave-us must be more"},
	{"[a]\nevent = 5us nothing\n", "no such event"},
	{"[a]\nevent = 5us quantum-us 4000\n", "no such event"},
	{"[scenario]\nevent = 5us weight 2\n[a]\n", "no such event"},
	{"[scenario]\nevent = 5us hang\n[a]\n", "no such event"},
	{"[scenario]\nevent = 5us gpus 2\n[a]\n", "no such event"},
	{"[a]\nevent = weight 5\n", "begins with a moment"},
	{"[a]\nevent = us hang\n", "begins with a moment"},
	{"[a]\nevent = 5 hang\n", "begins with a moment"},
	{"[a]\nevent = -5us hang\n", "from 0 to 86400000000"},
	{"[a]\nevent = 5us every 0us hang\n", "must be later"},
	{"[a]\nevent = 5us every hang\n", "begins with a moment"},
	{"[a]\nevent = 5us hang 1\n", "too much: 1"},
	{"[a]\nevent = 5us drain 1\n", "on or off"},
	{"[a]\nevent = 5us quarantine\n", "on or off"},
	{"[a]\nevent = 5us priority 9\n", "low, medium or high"},
	{"[a]\nevent = 5us priority 1\n", "low, medium or high"},
	{"[a]\nevent = 5us pool 700\n", "A or B"},
	{"[a]\nevent = 5us pool B B\n", "too much: B"},
	{"[a]\nevent = 5us weight 2 trailing\n", "too much: trailing"},
	{"[a]\nevent = 5us weight\n", "1.00 to 100.00"},
};

static void test_wrong_files_are_refused(void **state UNUSED)
{
	char said[1024];

	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		complaint(said, sizeof(said), wrong[i].text);
		if (!strstr(said, wrong[i].said))
			fail_msg("%s: said: %s", wrong[i].text, said);
	}
}

/* What is a number nowhere, or in none of the ranges here. */
static const char *const no_numbers[] = {
	"",
	"-1",
	"-5",
	"nan",
	"inf",
	"1e999",
	"1e1",
	"0x10",
	"+1",
	"1,5",
	".",
	"1..5",
	"1.5.5",
	"99999999",
	"1 1",
	"1x",
	"one",
	"1 trailing",
	"99999999999999999999",
};

struct key {
	const char *before; /* what comes before the number */
	const char *after;  /* and behind it */
	const char *range;  /* what a person is told */
	const char *also_wrong[5];
};

static const struct key keys[] = {
	{"[a]\nweight = ", "\n", "1.00 to 100.00", {"0", "0.9", "100.1", "1.005", "99999999"}},
	{"[a]\nevent = 5us weight ",
         "\n",
         "1.00 to 100.00",
         {"0", "0.9", "100.1", "1.005", "99999999"}},
	{"[a]\nrate = ", "\n", "0.001 to 1000000 jobs", {"0.0009", "1000000.1"}},
	{"[a]\nevent = 5us rate ", "\n", "0.001 to 1000000 jobs", {"0.0009", "1000000.1"}},
	{"[a]\nburst = ", "\n", "1 to 1000000 jobs", {"0.5", "1000001"}},
	{"[a]\nqueue-depth = ", "\n", "1 to 65536 jobs", {"1.5", "65537"}},
	{"[a]\ngpu-seconds = ", "\n", "0.001 to 1 GPU second", {"0.0009", "1.001"}},
	{"[a]\ntimeout = ", "\n", "10 to 86400000 ms", {"9", "86400001"}},
	{"[a]\noutstanding = ", "\n", "from 1 to 1000", {"0", "1001"}},
	{"[a]\nlength-us = ", "\n", "from 0 to 1000000000", {"1000000001"}},
	{"[a]\nperiod-us = ", "\n", "from 1 to 1000000000", {"0", "0.9"}},
	{"[scenario]\ngpus = ", "\n[a]\n", "from 1 to 2", {"0", "3"}},
	{"[scenario]\nduration-ms = ", "\n[a]\n", "from 1 to 86400000", {"0", "86400001"}},
	{"[scenario]\noverlap-max = ", "\n[a]\n", "from 1 to 32", {"0", "33", "1.5"}},
	{"[scenario]\nslice-us = ", "\n[a]\n", "from 100 to 100000", {"0", "99.9999"}},
	{"[scenario]\nevent = 5us slice-us ", "\n[a]\n", "from 100 to 100000", {"0", "99"}},
	{"[scenario]\nboost-percent = ", "\n[a]\n", "from 0 to 100", {"101", "0.5"}},
};

static void refuse_number(const struct key *key, const char *number)
{
	char text[256], said[1024];

	snprintf(text, sizeof(text), "%s%s%s", key->before, number, key->after);
	complaint(said, sizeof(said), text);
	if (!strstr(said, key->range) && !strstr(said, "too much"))
		fail_msg("%s: said: %s", text, said);
}

static void test_wrong_numbers_are_refused_with_the_range(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		for (size_t k = 0; k < ARRAY_LEN(no_numbers); k++)
			if (strcmp(no_numbers[k], "99999999") != 0 ||
			    !strstr(keys[i].range, "000000"))
				refuse_number(&keys[i], no_numbers[k]);
		for (size_t k = 0; k < ARRAY_LEN(keys[i].also_wrong); k++)
			if (keys[i].also_wrong[k])
				refuse_number(&keys[i], keys[i].also_wrong[k]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_count_stands_for_several),
		cmocka_unit_test(test_wrong_files_are_refused),
		cmocka_unit_test(test_wrong_numbers_are_refused_with_the_range),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
