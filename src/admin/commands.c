/* SPDX-License-Identifier: MIT */
/*
 * The table of commands: the only place that lists them. Dispatch, help and the tests
 * walk it.
 */
#include "admin/commands.h"

#include <stdio.h>

#include "admin/live.h"
#include "admin/options.h"

#define BIT(id)  OPTION_BIT(id)
#define ONE_VM   (BIT(VM_UUID) | BIT(VM_NAME))
#define ANY_POOL (BIT(POOL) | BIT(POOL_ID))
#define SOME_VMS (ONE_VM | BIT(ALL) | ANY_POOL)
#define LIMITS                                                               \
	(SETTING_BIT(RATE) | SETTING_BIT(BURST) | SETTING_BIT(QUEUE_DEPTH) | \
	 SETTING_BIT(GPU_SECONDS))
#define SETTINGS (SETTING_BIT(COUNT) - SETTING_BIT(WEIGHT))
#define FIELDS   (ANY_POOL | BIT(PRIORITY) | BIT(VM_ID) | BIT(NAME) | BIT(ALLOW_CUBIN) | SETTINGS)

static const char details_weights[] =
	"IF ALL BUSY is the share of its GPU that the VM has when all VMs of that GPU want it.\n"
	"Without a mediator all pools are taken to share one GPU. --verbose needs one, and shows\n"
	"what makes the order: KEY = START + TURN COSTS (64 ms at most) * (1 - BOOST) / PHI, and\n"
	"the least is next.";
static const char details_limits[] =
	"Each limit can be set on its own; 0 takes it away. A refused job is answered at\n"
	"once with the time after which a retry makes sense.";
static const char details_quarantine[] =
	"A quarantined VM's jobs are refused, across restarts, until clear-quarantine.";
static const char details_clear[] =
	"Its fault points are forgotten too; the count of its faults stays.";
static const char details_timeout[] =
	"With --pool it sets the limit of that pool, which holds for its VMs without their own.";
static const char details_import[] =
	"Reads what export wrote (\"-\" reads stdin): VMs are added or changed, none is\n"
	"removed, and fault histories are not part of it. All is imported or nothing.";

static const char details_drain[] =
	"Jobs that a worker has may end, queued and new ones are refused as busy, workers end.\n"
	"The GPU stays drained until resume.";

#define VIEW(word, text, what)                                                   \
	{                                                                        \
		.name = word, .summary = text, .run = command_live, .view = what \
	}
#define METRICS(word, text)                                                                       \
	{                                                                                         \
		.name = word, .summary = text, .options = BIT(PROMETHEUS), .run = command_metrics \
	}
#define CLEAR(word, text)                                                                       \
	{                                                                                       \
		.name = word, .summary = text, .options = SOME_VMS | BIT(REASON),               \
		.run = command_clear_quarantine, .details = details_clear, .pool_selects = true \
	}

const struct command admin_commands[] = {
	{.name = "status", .summary = "Is everything up, on one screen", .run = command_status},
	{.name = "check",
         .summary = "Is the installation right, and what to do where it is not",
         .run = command_check},
	{.name = "help",
         .summary = "Help, also about one command",
         .argument = "[COMMAND]",
         .run = command_help},

	{.name = "scan-vms",
         .summary = "The VMs that xe knows, and which are registered",
         .run = command_scan_vms},
	{.name = "register-vm",
         .summary = "Let a VM use the GPU",
         .options = ONE_VM | FIELDS,
         .run = command_register_vm},
	{.name = "show-vm",
         .summary = "Everything about one VM",
         .options = ONE_VM,
         .run = command_show_vm},
	{.name = "list-vms",
         .summary = "The registered VMs",
         .options = ANY_POOL,
         .run = command_list_vms,
         .pool_selects = true},
	{.name = "update-vm",
         .summary = "Change anything about one VM",
         .options = ONE_VM | FIELDS,
         .needs = FIELDS,
         .run = command_change_vms},
	{.name = "remove-vm",
         .summary = "Take the GPU from a VM and forget it",
         .options = ONE_VM,
         .run = command_remove_vm},
	{.name = "set-pool",
         .summary = "Move VMs to a pool",
         .options = SOME_VMS,
         .needs = ANY_POOL,
         .run = command_change_vms},
	{.name = "set-priority",
         .summary = "Set the priority of VMs",
         .options = SOME_VMS | BIT(PRIORITY),
         .needs = BIT(PRIORITY),
         .run = command_change_vms,
         .pool_selects = true},
	{.name = "set-vm-id",
         .summary = "Set the number of a VM",
         .options = ONE_VM | BIT(VM_ID),
         .needs = BIT(VM_ID),
         .run = command_change_vms},
	{.name = "set-weight",
         .summary = "Set the share of VMs",
         .options = SOME_VMS | SETTING_BIT(WEIGHT),
         .needs = SETTING_BIT(WEIGHT),
         .run = command_change_vms,
         .pool_selects = true},
	{.name = "show-weights",
         .summary = "Weights, what they come to, and the shares now",
         .options = ONE_VM | ANY_POOL | BIT(VERBOSE),
         .run = command_show_weights,
         .details = details_weights,
         .pool_selects = true},
	{.name = "set-rate-limit",
         .summary = "Set how much VMs may submit",
         .options = SOME_VMS | LIMITS,
         .needs = LIMITS,
         .run = command_change_vms,
         .details = details_limits,
         .pool_selects = true},
	{.name = "show-rate-limits",
         .summary = "The limits of all VMs",
         .options = ONE_VM | ANY_POOL,
         .run = command_show_rate_limits,
         .pool_selects = true},
	{.name = "set-timeout",
         .summary = "Set how long a job may run",
         .options = SOME_VMS | SETTING_BIT(TIMEOUT),
         .needs = SETTING_BIT(TIMEOUT),
         .run = command_set_timeout,
         .details = details_timeout},
	{.name = "set-memory-quota",
         .summary = "Set how much GPU memory VMs may hold",
         .options = SOME_VMS | SETTING_BIT(MEMORY_QUOTA),
         .needs = SETTING_BIT(MEMORY_QUOTA),
         .run = command_change_vms,
         .pool_selects = true},
	{.name = "quarantine-vm",
         .summary = "Refuse the jobs of VMs",
         .options = SOME_VMS | BIT(REASON),
         .run = command_quarantine_vm,
         .details = details_quarantine,
         .pool_selects = true},
	CLEAR("clear-quarantine", "Take jobs of VMs again"),
	CLEAR("unquarantine-vm", "The same as clear-quarantine"),

	{.name = "list-pools", .summary = "The pools", .run = command_list_pools},
	{.name = "show-pool",
         .summary = "One pool and its VMs",
         .options = ANY_POOL,
         .run = command_show_pool,
         .pool_selects = true},
	{.name = "set-enabled",
         .summary = "Let a pool take jobs or refuse them",
         .options = ANY_POOL | BIT(ENABLED),
         .needs = BIT(ENABLED),
         .run = command_set_enabled},

	METRICS("show-metrics", "What the VMs did"),
	METRICS("metrics", "The same as show-metrics"),
	VIEW("show-health", "The GPUs, and what is wrong with them", &live_health),
	VIEW("health", "The same as show-health", &live_health),
	{.name = "drain",
         .summary = "Take a GPU out of service",
         .options = BIT(GPU),
         .run = command_drain,
         .details = details_drain},
	{.name = "resume", .summary = "Give a GPU back", .options = BIT(GPU), .run = command_drain},
	VIEW("show-connections", "The connections of VMs", &live_connections),
	VIEW("list-jobs", "The jobs that wait or run", &live_jobs),
	{.name = "cancel-job",
         .summary = "Cancel a job",
         .options = BIT(JOB),
         .needs = BIT(JOB),
         .run = command_cancel_job},
	VIEW("list-workers", "The processes that run jobs", &live_workers),
	{.name = "show-config",
         .summary = "Every setting of the mediator and its value",
         .run = command_show_config},
	{.name = "reload-config",
         .summary = "Let the mediator read the registry and its settings again",
         .run = command_reload},

	{.name = "backup",
         .summary = "Copy the registry, while it is in use",
         .argument = "[FILE]",
         .run = command_backup},
	{.name = "export",
         .summary = "Write the registry as JSON",
         .argument = "[FILE]",
         .run = command_export},
	{.name = "import",
         .summary = "Read what export wrote",
         .argument = "FILE",
         .run = command_import,
         .details = details_import},
	{.name = NULL},
};

enum admin_exit command_help(struct admin *admin)
{
	const struct command *command = NULL;
	json_t *all;

	if (admin->argument) {
		command = options_find_command(admin->argument);
		if (!command)
			return admin_fail(admin, ADMIN_USAGE, "there is no command \"%s\"",
			                  admin->argument);
		if (!admin->json)
			options_help_command(stdout, command);
		return admin_answer(admin, options_describe(command));
	}
	if (!admin->json)
		options_help(stdout);
	all = json_array();
	for (command = admin_commands; command->name; command++)
		json_array_append_new(all, options_describe(command));
	return admin_answer(admin, json_pack("{s:o}", "commands", all));
}
