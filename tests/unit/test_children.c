/* SPDX-License-Identifier: MIT */
/*
 * Child processes that hang, and the probe of a GPU that does.
 *
 * This program is its own child: called with --probe, it plays what --gpu names. A process
 * that hangs in a driver outlives SIGKILL; what can be had without one is a process that
 * another one traces and does not look at: killed, it can be reaped by nobody.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/time.h>
#include <sys/wait.h>

#include <cmocka.h>
#include <event2/event.h>

#include "mediator/children.h"
#include "mediator/gpu_probe.h"

static const char self[] = "/proc/self/exe";

/* ---- The child --------------------------------------------------------------------- */

static void hang(void)
{
	for (;;)
		pause();
}

/* Says a line once it is traced, and then hangs. The tracer ends with the test's process. */
static void hang_for_good(void)
{
	const pid_t traced = getpid();
	char byte;
	int ends[2];

	if (pipe(ends) < 0)
		exit(1);
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
	if (fork() == 0) {
		const char said = ptrace(PTRACE_SEIZE, traced, NULL, NULL) == 0;

		if (write(ends[1], &said, 1) < 0)
			exit(1);
		close(STDOUT_FILENO);
		/* The test's pipe: readable when that process has ended. */
		exit((int)read(STDIN_FILENO, &byte, 1));
	}
	if (read(ends[0], &byte, 1) != 1 || !byte)
		exit(1);
	puts("traced");
	fflush(stdout);
	hang();
}

static void answer(void)
{
	puts("{\"name\":\"a GPU\"}\nand more");
}

static void complain(void)
{
	puts("complaint");
	exit(69);
}

/* Its output has ended, but it has not: some exits hang, too. */
static void close_and_hang(void)
{
	puts("{}");
	fclose(stdout);
	hang();
}

static int play(const char *what)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} plays[] = {
		{"hang", hang},         {"hang_for_good", hang_for_good},   {"answer", answer},
		{"complain", complain}, {"close_and_hang", close_and_hang},
	};

	alarm(300); /* whatever becomes of the test */
	for (size_t i = 0; i < ARRAY_LEN(plays); i++) {
		if (strcmp(plays[i].name, what) == 0)
			plays[i].run();
	}
	return 0;
}

/* ---- The probe --------------------------------------------------------------------- */

static int probe(const char *what, int timeout_s, char line[64])
{
	return gpu_probe(self, "cuda", what, timeout_s, line, 64);
}

static void test_probe(void **state UNUSED)
{
	char line[64];

	assert_int_equal(probe("answer", 60, line), 0);
	assert_string_equal(line, "{\"name\":\"a GPU\"}");
	assert_int_equal(probe("complain", 60, line), -ENODEV);
	assert_string_equal(line, "complaint");
	assert_int_equal(gpu_probe("/nowhere", "cuda", "0", 60, line, sizeof(line)), -ENOENT);
	assert_non_null(strstr(line, "cannot run /nowhere"));
}

static void test_probe_hangs(void **state UNUSED)
{
	char line[64];

	assert_int_equal(probe("hang", 1, line), -ETIMEDOUT);
	assert_int_equal(probe("close_and_hang", 1, line), -ETIMEDOUT);
	/* Nothing is left. */
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

static void on_alarm(int number UNUSED)
{
}

static void test_probe_hangs_and_a_signal_comes(void **state UNUSED)
{
	const struct itimerval once = {.it_value.tv_usec = 100 * 1000};
	const struct sigaction action = {.sa_handler = on_alarm};
	char line[64];

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &once, NULL);
	assert_int_equal(probe("hang", 1, line), -ETIMEDOUT);
}

static void skip_without_ptrace(const char *line)
{
	if (strcmp(line, "traced") != 0) {
		print_message("no process can be traced here\n");
		skip();
	}
}

static void test_probe_survives_sigkill(void **state UNUSED)
{
	char line[64];
	int r = probe("hang_for_good", 1, line);

	if (r == -ENODEV)
		skip();
	assert_int_equal(r, -ETIMEDOUT);
}

/* ---- The others ------------------------------------------------------------------ */

static void not_called(void *owner UNUSED, pid_t pid UNUSED, int status UNUSED)
{
	fail_msg("called back");
}

static void test_free_does_not_wait_for_ever(void **state UNUSED)
{
	static const char *const argv[] = {self, "--probe", "--gpu", "hang_for_good", NULL};
	struct event_base *base = event_base_new();
	struct children *children;
	struct child_fd out = {.theirs = STDOUT_FILENO};
	int ends[2];
	char line[64];
	FILE *said;
	pid_t pid;

	assert_int_equal(pipe(ends), 0);
	out.ours = ends[1];
	assert_int_equal(children_new(&children, base), 0);
	assert_int_equal(children_spawn(&pid, argv, &out, 1), 0);
	assert_int_equal(children_watch(children, pid, not_called, NULL), 0);
	close(ends[1]);
	said = fdopen(ends[0], "r");
	assert_non_null(fgets(line, sizeof(line), said));
	line[strcspn(line, "\n")] = '\0';
	fclose(said);
	children_free(children);
	event_base_free(base);
	skip_without_ptrace(line);
	assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
}

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_probe),
		cmocka_unit_test(test_probe_hangs),
		cmocka_unit_test(test_probe_hangs_and_a_signal_comes),
		cmocka_unit_test(test_probe_survives_sigkill),
		cmocka_unit_test(test_free_does_not_wait_for_ever),
	};
	int ends[2];

	if (argc > 1 && strcmp(argv[1], "--probe") == 0)
		return play(argv[argc - 1]);
	/* Its writing end is ours alone. */
	if (pipe(ends) < 0 || dup2(ends[0], STDIN_FILENO) < 0 ||
	    fcntl(ends[1], F_SETFD, FD_CLOEXEC))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
