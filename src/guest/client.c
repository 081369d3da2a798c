/* SPDX-License-Identifier: MIT */
/*
 * vgpu-client: shows, tries and measures the virtual GPU of a guest.
 *
 * Here is what is the same for all commands: the command line, the way to a device or a
 * socket, and how a failure is told. The commands are in command.c and bench.c.
 */
#include "guest/client.h"

#include <inttypes.h>

void client_report_begin(const struct client *client, struct report *report, bool ok)
{
	report_begin(report, stdout, client->options.json);
	if (client->options.json) {
		report_text(report, "command", client->command->name);
		report_bool(report, "ok", ok);
	}
}

static void report_failure(const struct client *client, int result, const char *text,
                           const struct vgpu_response *response)
{
	struct vgpu_stats stats;
	struct report report;

	client_report_begin(client, &report, false);
	report_open(&report, "error");
	report_i64(&report, "code", result);
	report_text(&report, "text", text);
	if (response && result == VGPU_CODE_RATE_LIMITED) {
		report_text(&report, "reason", outcome_reason(response->reason));
		report_u64(&report, "retry_after_us", response->retry_after_us);
	}
	if (response && result == VGPU_CODE_CUDA)
		report_u64(&report, "detail", response->detail);
	report_close(&report);
	if (client->vgpu) {
		vgpu_get_stats(client->vgpu, &stats);
		report_u64(&report, "retries", stats.retries);
	}
	report_end(&report);
}

enum outcome_status client_fail(const struct client *client, int result,
                                const struct vgpu_response *response, const char *why)
{
	const char *remedy = why ? NULL : outcome_remedy(result);
	const char *text = why ? why : vgpu_strerror(result);
	struct vgpu_stats stats;

	fprintf(stderr, "vgpu-client: %s: %s", client->command->name, text);
	if (response && result == VGPU_CODE_RATE_LIMITED) {
		vgpu_get_stats(client->vgpu, &stats);
		fprintf(stderr, " (%s, retry after %" PRIu32 " us, retries made: %" PRIu64 ")",
		        outcome_reason(response->reason), response->retry_after_us, stats.retries);
	}
	if (response && result == VGPU_CODE_CUDA && response->detail)
		fprintf(stderr, " (CUresult %" PRIu32 ")", response->detail);
	else if (response && result == VGPU_CODE_CUDA)
		fprintf(stderr, " (CUresult not known: the worker may have died of it)");
	fprintf(stderr, "%s%s\n", remedy ? "; " : "", remedy ? remedy : "");
	if (client->options.json)
		report_failure(client, result, text, response);
	return outcome_status(result);
}

enum outcome_status client_fail_wrong(const struct client *client, const char *why)
{
	fprintf(stderr, "vgpu-client: %s: the answer is not right: %s\n", client->command->name,
	        why);
	if (client->options.json)
		report_failure(client, VGPU_E_PROTOCOL, why, NULL);
	return OUTCOME_FAILED;
}

int client_call(struct client *client, uint32_t opcode, const uint32_t *params,
                uint32_t param_count, struct vgpu_response *response, int64_t *round_trip_ns)
{
	struct vgpu_request request = {
		.opcode = opcode,
		.params = params,
		.param_count = param_count,
	};
	int64_t start_ns = guest_env_now_ns(&client->env);
	int r;

	r = vgpu_call(client->vgpu, &request, response);
	*round_trip_ns = guest_env_now_ns(&client->env) - start_ns;
	return r;
}

static void print_help(const struct command *command)
{
	if (command) {
		printf("Usage: vgpu-client [OPTION]... %s%s%s\n\n%s\n\nOptions:\n", command->name,
		       command->arguments[0] ? " " : "", command->arguments, command->details);
		options_help(stdout, command->options | OPTION_GENERAL);
		return;
	}
	printf("Usage: vgpu-client [OPTION]... COMMAND [ARGUMENT]...\n\n"
	       "Shows, tries and measures the virtual GPU of this guest.\n\nCommands:\n");
	command_list(stdout);
	printf("\nOptions:\n");
	options_help(stdout, OPTION_GENERAL);
	printf("\n'vgpu-client COMMAND --help' explains a command.\n"
	       "Exit status: 0 done, 64 usage, 69 no device or mediator, 70 the job failed,\n"
	       "75 rate limited after all retries, 77 quarantined, 124 timed out.\n");
}

static enum outcome_status usage_hint(const struct command *command)
{
	fprintf(stderr, "vgpu-client: see 'vgpu-client %s%s--help'\n", command ? command->name : "",
	        command ? " " : "");
	return OUTCOME_USAGE;
}

static enum outcome_status open_vgpu(struct client *client)
{
	const struct options *options = &client->options;
	char why[VGPU_WHY_BYTES] = "";
	struct vgpu_info info;
	size_t count;
	int r;

	if (options->socket)
		r = vgpu_open_socket(&client->vgpu, options->socket, why, sizeof(why));
	else
		r = vgpu_open_device(&client->vgpu, options->device, why, sizeof(why));
	if (r != 0)
		return client_fail(client, r, NULL, why);
	vgpu_set_timeout(client->vgpu, options->timeout_ms * 1000);
	vgpu_set_retries(client->vgpu, (unsigned int)options->retries);
	if (!options->socket && !options->device && vgpu_find_devices(NULL, 0, &count) == 0 &&
	    count > 1 && vgpu_get_info(client->vgpu, &info) == 0)
		fprintf(stderr,
		        "vgpu-client: this guest has %zu vgpu devices; using %s, choose with "
		        "--device\n",
		        count, info.name);
	return OUTCOME_DONE;
}

/* Reads the command line up to the command. *@done: all is said and the status final. */
static enum outcome_status read_command(struct client *client, int argc, char **argv, int *at,
                                        bool *done)
{
	struct options *options = &client->options;
	int count;

	*done = true;
	if (!options_parse(options, OPTION_GENERAL, argc, argv, at, NULL, 0, &count))
		return usage_hint(NULL);
	if (options->version) {
		puts("vgpu-client " VGPU_VERSION);
		return OUTCOME_DONE;
	}
	if (*at == argc && options->help) {
		print_help(NULL);
		return OUTCOME_DONE;
	}
	if (*at == argc) {
		fprintf(stderr, "vgpu-client: no command given\n");
		return usage_hint(NULL);
	}
	client->command = command_find(argv[*at]);
	if (!client->command) {
		fprintf(stderr, "vgpu-client: there is no command '%s'\n", argv[*at]);
		return usage_hint(NULL);
	}
	(*at)++;
	*done = false;
	return OUTCOME_DONE;
}

/* Reads what follows the command. */
static enum outcome_status read_arguments(struct client *client, int argc, char **argv, int at,
                                          bool *done)
{
	const struct command *command = client->command;
	struct options *options = &client->options;
	int count;

	*done = true;
	if (!options_parse(options, command->options | OPTION_GENERAL, argc, argv, &at,
	                   client->arguments, command->argument_count, &count))
		return usage_hint(command);
	if (options->help) {
		print_help(command);
		return OUTCOME_DONE;
	}
	if (at < argc) {
		fprintf(stderr, "vgpu-client: %s: '%s' is one argument too many\n", command->name,
		        argv[at]);
		return usage_hint(command);
	}
	if (count < command->argument_count) {
		fprintf(stderr, "vgpu-client: %s needs %s\n", command->name, command->arguments);
		return usage_hint(command);
	}
	if (options->device && options->socket) {
		fprintf(stderr, "vgpu-client: --device and --socket exclude each other\n");
		return usage_hint(command);
	}
	*done = false;
	return OUTCOME_DONE;
}

int main(int argc, char **argv)
{
	struct client client = {.env = guest_env_system()};
	enum outcome_status status;
	bool done;
	int at = 1;

	/* Each answer is seen as it comes, and before what goes wrong next, in a pipe too. */
	setvbuf(stdout, NULL, _IOLBF, 0);
	options_init(&client.options);
	status = read_command(&client, argc, argv, &at, &done);
	if (!done)
		status = read_arguments(&client, argc, argv, at, &done);
	if (done)
		return status;
	status = client.command->check ? client.command->check(&client) : OUTCOME_DONE;
	if (status == OUTCOME_DONE)
		status = open_vgpu(&client);
	if (status == OUTCOME_DONE)
		status = client.command->run(&client);
	vgpu_close(client.vgpu);
	return status;
}
