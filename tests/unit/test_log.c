/* SPDX-License-Identifier: MIT */
/* Log lines: what may stand in one, and what becomes of them where nobody reads. */
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/units.h"

/* stderr is a small pipe for the time of a test. */
struct redirection {
	int before;
	int reader;
};

static int redirect(void **state)
{
	static struct redirection redirection;
	int ends[2];

	if (pipe(ends) < 0 || fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0 ||
	    fcntl(ends[1], F_SETPIPE_SZ, 4096) < 0)
		return -1;
	redirection.before = dup(STDERR_FILENO);
	redirection.reader = ends[0];
	dup2(ends[1], STDERR_FILENO);
	close(ends[1]);
	log_init("test", LOG_LEVEL_INFO);
	*state = &redirection;
	return 0;
}

static int restore(void **state)
{
	struct redirection *redirection = *state;

	dup2(redirection->before, STDERR_FILENO);
	close(redirection->before);
	close(redirection->reader);
	return 0;
}

/* What lies in the pipe. */
static const char *logged(void **state)
{
	const struct redirection *redirection = *state;
	static char text[8192];
	ssize_t n = read(redirection->reader, text, sizeof(text) - 1);

	text[n > 0 ? n : 0] = '\0';
	return text;
}

static void test_line(void **state)
{
	errno = ENOENT;
	log_warning("%d%c", 5, '%');
	assert_int_equal(errno, ENOENT);
	assert_string_equal(logged(state), "test: warning: 5%\n");
	log_debug("below the level");
	log_info("a\nb\033[2J\x7f");
	assert_string_equal(logged(state), "test: info: a?b?[2J?\n");
}

static void test_long_line(void **state)
{
	char text[3000];
	const char *line;

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	log_error("%s", text);
	line = logged(state);
	assert_in_range(strlen(line), 1000, 1024);
	assert_int_equal(line[strlen(line) - 1], '\n');
}

static void test_nobody_reads(void **state)
{
	const char *text;

	for (int i = 0; i < 1000; i++)
		log_info("line %d of many that fill the pipe", i);
	text = logged(state);
	assert_non_null(strstr(text, "test: info: line 0 of many"));
	assert_null(strstr(text, "lost"));
	log_info("read again");
	text = logged(state);
	assert_non_null(strstr(text, " log lines lost: not read in time\n"
	                             "test: info: read again\n"));
	log_info("as before");
	assert_string_equal(logged(state), "test: info: as before\n");
}

static void test_limit(void **state)
{
	struct log_limit limit = {.in_window = 0};
	uint64_t now_ns = NS_PER_SEC;
	unsigned int passed = 0;

	for (int i = 0; i < 10; i++)
		passed += log_limit_pass(&limit, "VM", now_ns++, 3, NS_PER_SEC);
	assert_int_equal(passed, 3);
	assert_string_equal(logged(state), "");
	now_ns += NS_PER_SEC;
	assert_true(log_limit_pass(&limit, "VM", now_ns, 3, NS_PER_SEC));
	assert_string_equal(logged(state), "test: warning: VM: 7 more such lines left out\n");
	now_ns += NS_PER_SEC;
	assert_true(log_limit_pass(&limit, "VM", now_ns, 3, NS_PER_SEC));
	assert_string_equal(logged(state), "");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, redirect, restore)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(test_line),
		TEST(test_long_line),
		TEST(test_nobody_reads),
		TEST(test_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
