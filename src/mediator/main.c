/* SPDX-License-Identifier: MIT */
/*
 * vgpu-mediator: shares GPUs between virtual machines. Options, then the loop.
 *
 * Runs in the foreground and logs to stderr. Exit status: 0 after SIGTERM or SIGINT,
 * 1 when it could not start, 2 for wrong options or configuration.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include <event2/event.h>

#include "mediator/mediator.h"
#include "mediator/notify.h"

enum {
	OPTION_KEY, /* sets the configuration key of the same meaning */
	OPTION_CONFIG,
	OPTION_SET,
	OPTION_SHOW_CONFIG,
	OPTION_HELP,
	OPTION_VERSION,
};

static const struct option long_options[] = {
	{"config", required_argument, NULL, OPTION_CONFIG},
	{"db", required_argument, NULL, OPTION_KEY},
	{"listen-dir", required_argument, NULL, OPTION_KEY},
	{"admin-socket", required_argument, NULL, OPTION_KEY},
	{"backend", required_argument, NULL, OPTION_KEY},
	{"set", required_argument, NULL, OPTION_SET},
	{"show-config", no_argument, NULL, OPTION_SHOW_CONFIG},
	{"help", no_argument, NULL, OPTION_HELP},
	{"version", no_argument, NULL, OPTION_VERSION},
	{NULL, 0, NULL, 0},
};

/* The keys behind the options above that are keys, in their order. */
static const char *const option_keys[] = {NULL, "db", "listen_dir", "admin_socket", "backend"};

static const char usage[] =
	"usage: vgpu-mediator [--config FILE] [--db FILE] [--listen-dir DIR]\n"
	"                     [--admin-socket PATH] [--backend auto|cpu|cuda]\n"
	"                     [--set KEY=VALUE]... [--show-config]\n"
	"       vgpu-mediator --help | --version\n"
	"\n"
	"Shares GPUs between virtual machines. Runs in the foreground, logs to stderr,\n"
	"prints a line `ready` once it serves, ends cleanly on SIGTERM, reads its\n"
	"configuration and registry again on SIGHUP.\n"
	"\n"
	"  --config FILE        default /etc/vgpu/mediator.conf, which may be missing\n"
	"  --db FILE            the registry, default /etc/vgpu/vgpu_config.db\n"
	"  --listen-dir DIR     one socket per VM here, default /run/vgpu/vm\n"
	"  --admin-socket PATH  default /run/vgpu/admin.sock\n"
	"  --backend B          auto (a GPU if one answers, else the CPU), cpu, cuda\n"
	"  --set KEY=VALUE      overrides any key of the configuration file\n"
	"  --show-config        prints all keys with their values and exits\n";

struct options {
	struct config_source source;
	bool show_config;
	int exit_status; /* -1 = go on */
};

static void add_override(struct options *options, const char *key, const char *value)
{
	options->source.overrides[options->source.override_count++] =
		(struct config_override){key, value};
}

/* Cuts "key=value" in two; the argument vector is ours to write to. */
static int add_set(struct options *options, char *argument)
{
	char *equals = strchr(argument, '=');

	if (!equals) {
		fprintf(stderr, "vgpu-mediator: --set %s: must be KEY=VALUE\n", argument);
		return -EINVAL;
	}
	*equals = '\0';
	add_override(options, argument, equals + 1);
	return 0;
}

/* Returns 0, or -EINVAL after a message. */
static int parse_options(struct options *options, int argc, char **argv)
{
	int option, index = 0;

	while ((option = getopt_long(argc, argv, "", long_options, &index)) != -1) {
		switch (option) {
		case OPTION_KEY:
			add_override(options, option_keys[index], optarg);
			break;
		case OPTION_CONFIG:
			options->source.path = optarg;
			options->source.required = true;
			break;
		case OPTION_SET:
			if (add_set(options, optarg) < 0)
				return -EINVAL;
			break;
		case OPTION_SHOW_CONFIG:
			options->show_config = true;
			break;
		case OPTION_HELP:
			fputs(usage, stdout);
			options->exit_status = 0;
			return 0;
		case OPTION_VERSION:
			puts("vgpu-mediator " VGPU_VERSION);
			options->exit_status = 0;
			return 0;
		default:
			return -EINVAL;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "vgpu-mediator: unexpected argument %s\n", argv[optind]);
		return -EINVAL;
	}
	return 0;
}

static void print_key(void *context UNUSED, const char *key, const char *value)
{
	printf("%s = %s\n", key, value);
}

/* As many descriptors as we may have: a connection and a worker each take one. */
static void raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static int run(const struct config *config, const struct config_source *source)
{
	CLEANUP(mediator_freep) struct mediator *mediator = NULL;
	struct event_base *base = event_base_new();
	int r;

	if (!base) {
		log_error("no event loop");
		return 1;
	}
	r = mediator_new(&mediator, base, config, source);
	if (r == 0) {
		log_info("ready");
		puts("ready");
		fflush(stdout);
		notify_service_manager("READY=1");
		event_base_dispatch(base);
	}
	mediator_free(TAKE_PTR(mediator));
	event_base_free(base);
	return r == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
	struct options options = {
		.source = {.path = "/etc/vgpu/mediator.conf"},
		.exit_status = -1,
	};
	struct config_error error;
	struct config config;

	options.source.overrides = calloc((size_t)argc, sizeof(*options.source.overrides));
	if (!options.source.overrides)
		return 1;
	log_init("vgpu-mediator", LOG_LEVEL_INFO);
	if (parse_options(&options, argc, argv) < 0) {
		fputs("Try vgpu-mediator --help.\n", stderr);
		options.exit_status = 2;
	}
	if (options.exit_status < 0 && config_load(&config, &options.source, &error) < 0) {
		log_error("configuration: %s", error.text);
		options.exit_status = 2;
	}
	if (options.exit_status < 0 && options.show_config) {
		config_walk(&config, print_key, NULL);
		options.exit_status = 0;
	}
	if (options.exit_status < 0) {
		log_init("vgpu-mediator", (enum log_level)config.log_level);
		signal(SIGPIPE, SIG_IGN);
		/* A limit on the size of files is the registry's error like any other. */
		signal(SIGXFSZ, SIG_IGN);
		raise_descriptor_limit();
		options.exit_status = run(&config, &options.source);
	}
	free(options.source.overrides);
	libevent_global_shutdown();
	return options.exit_status;
}
