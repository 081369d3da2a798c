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
	file->stream = fdopen(fd, "w");
	assert_non_null(file->stream);
}

/* Reads what was written and removes the file. */
static int file_read(struct file *file, struct scenario *out)
{
	int r;

	assert_int_equal(fclose(file->stream), 0);
	r = scenario_read(out, file->path);
	unlink(file->path);
	return r;
}

static int read_text(struct scenario *out, const char *text)
{
	struct file file;

	file_open(&file);
	fputs(text, file.stream);
	return file_read(&file, out);
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
	written.sched.overlap_max = 3;
	written.expect.error_permille = 5;
	written.vm_count = 2;
	for (uint32_t i = 0; i < 2; i++)
		scenario_vm_init(&written.vms[i]);
	strcpy(written.vms[0].name, "plain");
	strcpy(written.vms[1].name, "other");
	written.vms[1].load = LOAD_POISSON;
	written.vms[1].settings.priority = VGPU_PRIORITY_HIGH;
	written.vms[1].settings.pool = 1;
	written.vms[1].settings.weight_hundredths = 250;
	written.vms[1].settings.rate_thousandths = 2500;
	written.vms[1].spread_percent = 60;
	written.vms[1].leave_ns = 900 * NS_PER_MS;
	written.vms[1].light = true;
	written.events[0] = (struct scenario_event){500 * NS_PER_US, 1, HAPPENS_WEIGHT, 400};
	written.event_count = 1;
	file_open(&file);
	scenario_write(&written, file.stream);
	assert_int_equal(file_read(&file, &read), 0);
	assert_string_equal(read.name, written.name);
	assert_memory_equal(&read.expect, &written.expect, sizeof(read.expect));
	assert_memory_equal(&read.sched, &written.sched, sizeof(read.sched));
	assert_true(read.seed == written.seed && read.gpus == written.gpus);
	assert_true(read.duration_ns == written.duration_ns);
	assert_int_equal(read.vm_count, 2);
	for (uint32_t i = 0; i < 2; i++) {
		assert_string_equal(read.vms[i].name, written.vms[i].name);
		assert_memory_equal(&read.vms[i].settings, &written.vms[i].settings,
		                    sizeof(read.vms[i].settings));
		assert_int_equal(read.vms[i].load, written.vms[i].load);
		assert_int_equal(read.vms[i].spread_percent, written.vms[i].spread_percent);
		assert_true(read.vms[i].leave_ns == written.vms[i].leave_ns);
		assert_true(read.vms[i].light == written.vms[i].light);
	}
	assert_int_equal(read.event_count, 1);
	assert_true(read.events[0].at_ns == written.events[0].at_ns);
	assert_int_equal(read.events[0].vm, 1);
	assert_int_equal(read.events[0].what, HAPPENS_WEIGHT);
	assert_int_equal(read.events[0].value, 400);
}

static void test_count_stands_for_several(void **state UNUSED)
{
	static struct scenario read;

	assert_int_equal(read_text(&read, "[a]\nweight = 2\ncount = 3\n[b]\nweight = 3\n"), 0);
	assert_int_equal(read.vm_count, 4);
	assert_int_equal(read.vms[2].settings.weight_hundredths, 200);
	assert_int_equal(read.vms[3].settings.weight_hundredths, 300);
	assert_string_equal(read.vms[2].name, "a-3");
	assert_string_equal(read.vms[3].name, "b");
}

static void test_wrong_files_are_refused(void **state UNUSED)
{
	static const char *const wrong[] = {
		"",
		"[a]\nweight = 0.5\n",
		"[a]\nload = sometimes\n",
		"[a]\nlength-us = -1\n",
		"[a]\nlength-us = 1x\n",
		"[a]\nno-such-key = 1\n",
		"[scenario]\nno-such-key = 1\n[a]\nweight = 1\n",
		"[scenario]\ngpus = 3\n[a]\nweight = 1\n",
		"[scenario]\noverlap-max = 0\n[a]\nweight = 1\n",
		"[a]\nevent = 5us nothing\n",
		"[a]\nevent = weight 5\n",
		"[a]\ncount = 65\n",
	};
	static struct scenario read;

	for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
		assert_true(read_text(&read, wrong[i]) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_count_stands_for_several),
		cmocka_unit_test(test_wrong_files_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
