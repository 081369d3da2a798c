/* SPDX-License-Identifier: MIT */
/*
 * vgpu-worker: runs the jobs of one VM in a process of its own. The mediator starts
 * one per VM and talks to it over the socket of --fd; nobody else starts it except to
 * probe a backend or the sandbox.
 *
 * The order matters: give up privileges, open the device (which loads the driver's
 * library and compiles the built-in kernels), close the door, and only then look at
 * anything that came from a VM.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "base/log.h"
#include "base/util.h"
#include "worker/calibrate.h"
#include "worker/guard.h"
#include "worker/probe.h"
#include "worker/sandbox.h"
#include "worker/serve.h"

enum mode {
	MODE_SERVE,
	MODE_PROBE,
	MODE_PROBE_SANDBOX,
	MODE_CALIBRATE,
	MODE_GUARD,
};

struct options {
	enum mode mode;
	const struct backend_ops *backend_ops;
	struct backend_options backend;
	struct sandbox_options sandbox;
	enum log_level log_level;
	int socket;     /* -1: not given; with MODE_GUARD a lock */
	char **command; /* MODE_GUARD: what to run, ended by NULL */
};

static const char usage[] =
	"usage: vgpu-worker --backend cpu|cuda [--gpu INDEX|UUID] [--uid N] [--cpu N]\n"
	"                   [--allow-test-ops] [--blocking-sync] [--log-level LEVEL]\n"
	"                   --fd N --parent PID\n"
	"       vgpu-worker --probe --backend cpu|cuda [--gpu INDEX|UUID] [--parent PID]\n"
	"       vgpu-worker --probe-sandbox [--uid N]\n"
	"       vgpu-worker --calibrate [--gpu INDEX|UUID]\n"
	"       vgpu-worker --guard --fd N --parent PID -- COMMAND [ARGUMENT]...\n"
	"       vgpu-worker --help | --version\n"
	"\n"
	"Runs the jobs of one VM. Started by vgpu-mediator, with the socket to it as\n"
	"file descriptor --fd; ends when the process --parent does. --probe tells which\n"
	"device a backend would use, --probe-sandbox whether the sandbox that jobs run in\n"
	"holds, --calibrate which slice_us fits a GPU that nobody uses at the moment.\n"
	"--guard runs a command and sees that nothing of it outlives the mediator.\n";

/* Options are numbered by their place in this table. */
enum option_id {
	OPTION_BACKEND,
	OPTION_GPU,
	OPTION_UID,
	OPTION_CPU,
	OPTION_ALLOW_TEST_OPS,
	OPTION_BLOCKING_SYNC,
	OPTION_LOG_LEVEL,
	OPTION_FD,
	OPTION_PARENT,
	OPTION_PROBE,
	OPTION_PROBE_SANDBOX,
	OPTION_CALIBRATE,
	OPTION_GUARD,
	OPTION_HELP,
	OPTION_VERSION,
};

static const struct option long_options[] = {
	{"backend", required_argument, NULL, OPTION_BACKEND},
	{"gpu", required_argument, NULL, OPTION_GPU},
	{"uid", required_argument, NULL, OPTION_UID},
	{"cpu", required_argument, NULL, OPTION_CPU},
	{"allow-test-ops", no_argument, NULL, OPTION_ALLOW_TEST_OPS},
	{"blocking-sync", no_argument, NULL, OPTION_BLOCKING_SYNC},
	{"log-level", required_argument, NULL, OPTION_LOG_LEVEL},
	{"fd", required_argument, NULL, OPTION_FD},
	{"parent", required_argument, NULL, OPTION_PARENT},
	{"probe", no_argument, NULL, OPTION_PROBE},
	{"probe-sandbox", no_argument, NULL, OPTION_PROBE_SANDBOX},
	{"calibrate", no_argument, NULL, OPTION_CALIBRATE},
	{"guard", no_argument, NULL, OPTION_GUARD},
	{"help", no_argument, NULL, OPTION_HELP},
	{"version", no_argument, NULL, OPTION_VERSION},
	{NULL, 0, NULL, 0},
};

static int usage_error(const char *what, const char *value)
{
	fprintf(stderr, "vgpu-worker: %s%s%s (see --help)\n", what, value ? ": " : "",
	        value ? value : "");
	return -EINVAL;
}

static int parse_number(long *out, long min, long max, const char *option, const char *text)
{
	char *end;
	long value;

	errno = 0;
	value = strtol(text, &end, 10);
	if (errno || end == text || *end || value < min || value > max) {
		fprintf(stderr, "vgpu-worker: --%s must be a number from %ld to %ld, not \"%s\"\n",
		        option, min, max, text);
		return -EINVAL;
	}
	*out = value;
	return 0;
}

static int parse_numeric_option(struct options *options, int id, const char *text)
{
	static const struct {
		int id;
		long min, max;
	} ranges[] = {
		{OPTION_UID, 1, 0x7ffffffe},
		{OPTION_CPU, 0, 1023},
		{OPTION_FD, 3, 1023},
		{OPTION_PARENT, 1, 0x7fffffff},
	};
	long value = 0;
	int r = 0;

	for (size_t i = 0; i < ARRAY_LEN(ranges); i++) {
		if (ranges[i].id == id)
			r = parse_number(&value, ranges[i].min, ranges[i].max,
			                 long_options[id].name, text);
	}
	if (r < 0)
		return r;
	switch (id) {
	case OPTION_UID:
		options->sandbox.change_uid = true;
		options->sandbox.uid = (uid_t)value;
		break;
	case OPTION_CPU:
		options->sandbox.cpu = (int)value;
		break;
	case OPTION_FD:
		options->socket = (int)value;
		options->sandbox.socket = (int)value;
		break;
	case OPTION_PARENT:
		options->sandbox.parent = (pid_t)value;
		break;
	}
	return 0;
}

static int parse_option(struct options *options, int id, const char *text)
{
	switch (id) {
	case OPTION_BACKEND:
		options->backend_ops = backend_find(text);
		return options->backend_ops
		               ? 0
		               : usage_error("--backend must be cpu or cuda, not", text);
	case OPTION_GPU:
		options->backend.gpu = text;
		return 0;
	case OPTION_ALLOW_TEST_OPS:
		options->backend.test_ops = true;
		return 0;
	case OPTION_BLOCKING_SYNC:
		options->backend.blocking = true;
		return 0;
	case OPTION_LOG_LEVEL:
		if (log_level_parse(&options->log_level, text) < 0)
			return usage_error("--log-level must be error, warning, info or debug, not",
			                   text);
		return 0;
	case OPTION_PROBE:
		options->mode = MODE_PROBE;
		return 0;
	case OPTION_PROBE_SANDBOX:
		options->mode = MODE_PROBE_SANDBOX;
		return 0;
	case OPTION_CALIBRATE:
		options->mode = MODE_CALIBRATE;
		return 0;
	case OPTION_GUARD:
		options->mode = MODE_GUARD;
		return 0;
	case OPTION_HELP:
		fputs(usage, stdout);
		exit(WORKER_EXIT_OK);
	case OPTION_VERSION:
		puts("vgpu-worker " VGPU_VERSION);
		exit(WORKER_EXIT_OK);
	default:
		return parse_numeric_option(options, id, text);
	}
}

static int parse_options(struct options *out, int argc, char **argv)
{
	int id, r;

	*out = (struct options){
		.sandbox = {.cpu = -1, .socket = -1},
		.log_level = LOG_LEVEL_INFO,
		.socket = -1,
	};
	while ((id = getopt_long(argc, argv, "", long_options, NULL)) >= 0) {
		if (id == '?')
			return -EINVAL;
		r = parse_option(out, id, optarg);
		if (r < 0)
			return r;
	}
	if (optind < argc && out->mode != MODE_GUARD)
		return usage_error("unexpected argument", argv[optind]);
	out->command = argv + optind;
	if (out->mode == MODE_GUARD && (optind == argc || out->socket < 0 || !out->sandbox.parent))
		return usage_error("--guard needs --fd, --parent and a command", NULL);
	if ((out->mode == MODE_SERVE || out->mode == MODE_PROBE) && !out->backend_ops)
		return usage_error("--backend is missing", NULL);
	if (out->mode == MODE_CALIBRATE && out->backend_ops && out->backend_ops != &cuda_backend)
		return usage_error("--calibrate is about the time slices of a GPU, there are none "
		                   "with --backend",
		                   out->backend_ops->name);
	if (out->mode == MODE_SERVE && (out->socket < 0 || out->sandbox.parent == 0))
		return usage_error("--fd and --parent are needed to serve jobs", NULL);
	return 0;
}

static int probe_device(const struct options *options)
{
	struct backend_failure failure;
	struct backend *backend;

	/* A driver that hangs must not keep it longer than whoever asks. */
	if (sandbox_follow_parent(options->sandbox.parent) < 0)
		return WORKER_EXIT_UNAVAILABLE;
	if (options->backend_ops->start(&backend, &options->backend, &failure) < 0) {
		fprintf(stderr, "vgpu-worker: %s\n", failure.text);
		return WORKER_EXIT_UNAVAILABLE;
	}
	probe_print_device(backend);
	options->backend_ops->stop(backend);
	return WORKER_EXIT_OK;
}

static int probe_sandbox(const struct options *options)
{
	const char *what = "";
	int r;

	r = sandbox_enter(&options->sandbox, &what);
	if (r == 0)
		r = sandbox_seal(&options->sandbox, &what);
	if (r < 0) {
		fprintf(stderr, "vgpu-worker: %s: %s\n", what, strerror(-r));
		return WORKER_EXIT_UNAVAILABLE;
	}
	return probe_try_escapes() ? 1 : 0;
}

static int calibrate(const struct options *options)
{
	return calibrate_gpu(options->backend.gpu) < 0 ? WORKER_EXIT_UNAVAILABLE : WORKER_EXIT_OK;
}

/* Whatever a library prints or reads must not meet what the mediator has there. */
static int detach_stdio(void)
{
	int fd = open("/dev/null", O_RDWR);

	if (fd < 0)
		return -errno;
	if (dup2(fd, STDIN_FILENO) < 0 || dup2(fd, STDOUT_FILENO) < 0)
		return -errno;
	if (fd > STDERR_FILENO)
		close(fd);
	return 0;
}

/* Ends as the command has ended. */
static int guard(const struct options *options)
{
	int status = detach_stdio();

	if (status == 0)
		status = guard_run(options->command, options->sandbox.parent, options->socket);
	if (status < 0) {
		log_error("%s is not run: %s", options->command[0], strerror(-status));
		return WORKER_EXIT_UNAVAILABLE;
	}
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	signal(WTERMSIG(status), SIG_DFL);
	raise(WTERMSIG(status));
	return WORKER_EXIT_UNAVAILABLE;
}

static int fail_start(int socket, struct backend_failure *failure, int error, const char *what)
{
	if (what)
		backend_fail(failure, error, VGPU_CODE_UNAVAILABLE, (uint32_t)-error,
		             "the worker's sandbox failed at %s: %s", what, strerror(-error));
	serve_start_failed(socket, failure);
	return WORKER_EXIT_UNAVAILABLE;
}

static int serve(const struct options *options)
{
	struct backend_failure failure;
	struct backend *backend;
	enum worker_exit status;
	const char *what = "detaching from standard input and output";
	bool idle;
	int r;

	r = detach_stdio();
	if (r == 0)
		r = sandbox_enter(&options->sandbox, &what);
	if (r < 0)
		return fail_start(options->socket, &failure, r, what);
	r = options->backend_ops->start(&backend, &options->backend, &failure);
	if (r < 0)
		return fail_start(options->socket, &failure, r, NULL);
	r = sandbox_seal(&options->sandbox, &what);
	if (r < 0)
		return fail_start(options->socket, &failure, r, what);
	status = serve_jobs(options->socket, backend, &options->backend, &idle);
	/* With a job in flight there is nothing to wait for: the kernel ends it with us. */
	if (!idle)
		_exit(status);
	options->backend_ops->stop(backend);
	return status;
}

int main(int argc, char **argv)
{
	static int (*const modes[])(const struct options *options) = {
		[MODE_SERVE] = serve,
		[MODE_PROBE] = probe_device,
		[MODE_PROBE_SANDBOX] = probe_sandbox,
		[MODE_CALIBRATE] = calibrate,
		[MODE_GUARD] = guard,
	};
	struct options options;

	if (parse_options(&options, argc, argv) < 0)
		return WORKER_EXIT_USAGE;
	log_init("vgpu-worker", options.log_level);
	return modes[options.mode](&options);
}
