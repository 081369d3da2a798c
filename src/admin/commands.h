/* SPDX-License-Identifier: MIT */
/*
 * What the rows of admin_commands[] run. Each has read options before it and leaves
 * its answer with admin_answer(); each returns the exit status.
 */
#ifndef ADMIN_COMMANDS_H
#define ADMIN_COMMANDS_H

#include "admin/admin.h"

/* commands_vm.c */
enum admin_exit command_scan_vms(struct admin *admin);
enum admin_exit command_register_vm(struct admin *admin);
enum admin_exit command_show_vm(struct admin *admin);
enum admin_exit command_list_vms(struct admin *admin);

/* commands_change.c */
enum admin_exit command_change_vms(struct admin *admin);
enum admin_exit command_remove_vm(struct admin *admin);
enum admin_exit command_quarantine_vm(struct admin *admin);
enum admin_exit command_clear_quarantine(struct admin *admin);
enum admin_exit command_set_timeout(struct admin *admin);
enum admin_exit command_set_enabled(struct admin *admin);
/* Who asks: behind sudo the person and not root. */
void admin_caller_name(char *to, size_t size);

/* commands_show.c */
enum admin_exit command_list_pools(struct admin *admin);
enum admin_exit command_show_pool(struct admin *admin);
enum admin_exit command_show_weights(struct admin *admin);
enum admin_exit command_show_rate_limits(struct admin *admin);

/* commands_file.c */
enum admin_exit command_backup(struct admin *admin);
enum admin_exit command_export(struct admin *admin);
enum admin_exit command_import(struct admin *admin);

/* live.c */
enum admin_exit command_live(struct admin *admin);
enum admin_exit command_show_config(struct admin *admin);
enum admin_exit command_metrics(struct admin *admin);
enum admin_exit command_cancel_job(struct admin *admin);
enum admin_exit command_drain(struct admin *admin);
enum admin_exit command_reload(struct admin *admin);

/* status.c, check.c */
enum admin_exit command_status(struct admin *admin);
enum admin_exit command_check(struct admin *admin);

enum admin_exit command_help(struct admin *admin);

#endif
