/* SPDX-License-Identifier: MIT */
/*
 * check: is the installation right? Each row looks at one thing and, where it is not
 * as it should be, says what to do.
 */
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "admin/commands.h"
#include "admin/link.h"
#include "admin/record.h"

enum check_result {
	CHECK_OK,
	CHECK_WARNING, /* something is missing that may not be needed */
	CHECK_FAILED,
};

struct finding {
	char text[1200];
};

struct check {
	const char *name;
	enum check_result (*run)(struct admin *admin, struct finding *finding);
	const char *remedy;
};

static enum check_result found(struct finding *finding, enum check_result result,
                               const char *format, ...) PRINTF(3, 4);

static enum check_result found(struct finding *finding, enum check_result result,
                               const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(finding->text, sizeof(finding->text), format, args);
	va_end(args);
	return result;
}

static enum check_result check_registry(struct admin *admin, struct finding *finding)
{
	const struct registry_options options = {.mode = REGISTRY_READ};
	struct registry_error why = {.text = "out of memory"};
	int r;

	r = registry_open(&admin->registry, admin->db_path, &options, &why);
	if (r != 0)
		return found(finding, r == REGISTRY_E_MISSING ? CHECK_WARNING : CHECK_FAILED, "%s",
		             why.text);
	if (registry_check(admin->registry) != 0)
		return found(finding, CHECK_FAILED, "%s", registry_message(admin->registry));
	return found(finding, CHECK_OK, "%s is sound", admin->db_path);
}

static enum check_result check_vms(struct admin *admin, struct finding *finding)
{
	CLEANUP(registry_vms_clear) struct registry_vms vms = {.items = NULL};
	size_t problems = 0;
	const char *first = NULL;

	if (!admin->registry)
		return found(finding, CHECK_WARNING, "there is no registry to look at");
	if (registry_vm_list(admin->registry, &vms) != 0)
		return found(finding, CHECK_FAILED, "%s", registry_message(admin->registry));
	for (size_t i = 0; i < vms.count; i++) {
		if (!vms.items[i].problem)
			continue;
		if (problems++ == 0)
			first = vms.items[i].problem;
	}
	if (problems > 0)
		return found(finding, CHECK_FAILED, "%zu of %zu VMs have bad values; the first: %s",
		             problems, vms.count, first);
	return found(finding, CHECK_OK, "%zu registered, all values in range", vms.count);
}

static enum check_result check_mediator(struct admin *admin, struct finding *finding)
{
	CLEANUP(json_freep) json_t *result = NULL;
	struct link_error why = {.text = "out of memory"};
	const char *version;

	if (link_call(&result, admin->socket_path, "ping", NULL, &why) != 0)
		return found(finding, CHECK_FAILED, "%s", why.text);
	version = json_string_value(json_object_get(result, "version"));
	if (!version || strcmp(version, VGPU_VERSION) != 0)
		return found(finding, CHECK_WARNING, "it answers, but has version %s and not %s",
		             version ? version : "unknown", VGPU_VERSION);
	return found(finding, CHECK_OK, "version %s answers at %s", version, admin->socket_path);
}

/* Is @name an executable in one of the directories of @list, joined by colons? */
static bool executable_in(const char *list, const char *name, struct finding *where)
{
	while (*list) {
		size_t length = strcspn(list, ":");
		struct stat entry;

		snprintf(where->text, sizeof(where->text), "%.*s/%s", (int)length, list, name);
		if (stat(where->text, &entry) == 0 && S_ISREG(entry.st_mode) &&
		    access(where->text, X_OK) == 0)
			return true;
		list += length + (list[length] == ':');
	}
	return false;
}

static enum check_result check_xe(struct admin *admin UNUSED, struct finding *finding)
{
	const char *path = getenv("PATH");

	if (path && executable_in(path, "xe", finding))
		return CHECK_OK;
	return found(
		finding, CHECK_WARNING,
		"xe is not in PATH: VMs can be named by UUID and by the registry's names only");
}

static enum check_result check_gpu(struct admin *admin UNUSED, struct finding *finding)
{
	struct stat device;

	if (stat("/dev/nvidia0", &device) == 0 && S_ISCHR(device.st_mode))
		return found(finding, CHECK_OK, "/dev/nvidia0 is there");
	return found(finding, CHECK_WARNING, "there is no /dev/nvidia0: jobs run on the CPU");
}

/* Beside this program, where the mediator looks too, or where packages put it. */
static enum check_result check_worker(struct admin *admin UNUSED, struct finding *finding)
{
	char self[PATH_MAX], list[PATH_MAX + 64];
	ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);

	self[length > 0 ? length : 0] = '\0';
	snprintf(list, sizeof(list), "%s:/usr/libexec/vgpu:/usr/bin:/usr/sbin", dirname(self));
	if (executable_in(list, "vgpu-worker", finding))
		return CHECK_OK;
	return found(finding, CHECK_FAILED, "vgpu-worker is not in %s", list);
}

static enum check_result check_listen_dir(struct admin *admin UNUSED, struct finding *finding)
{
	static const char path[] = "/run/vgpu/vm";
	struct stat entry;

	if (stat(path, &entry) < 0)
		return found(finding, CHECK_WARNING, "%s: %s", path, strerror(errno));
	if (!S_ISDIR(entry.st_mode))
		return found(finding, CHECK_FAILED, "%s is no directory", path);
	if (entry.st_mode & S_IWOTH)
		return found(finding, CHECK_FAILED, "%s can be written by everybody", path);
	return found(finding, CHECK_OK, "%s is there", path);
}

static const struct check checks[] = {
	{"registry", check_registry,
         "restore a backup, or correct --db; register-vm or vgpu-mediator create a missing one"},
	{"VMs", check_vms, "list-vms names every bad value and the command that repairs it"},
	{"mediator", check_mediator,
         "systemctl restart vgpu-mediator; journalctl -u vgpu-mediator"},
	{"xe", check_xe, "needed on an XCP-ng host only: run this in Dom0, as root"},
	{"GPU", check_gpu, "load NVIDIA's driver (nvidia-smi shows it) if there is to be a GPU"},
	{"worker", check_worker, "install vgpu-worker beside vgpu-mediator"},
	{"sockets", check_listen_dir,
         "started without --listen-dir, vgpu-mediator makes it; mode 0755 at most, owner root"},
};

enum admin_exit command_check(struct admin *admin)
{
	static const char *const words[] = {
		[CHECK_OK] = "ok", [CHECK_WARNING] = "warning", [CHECK_FAILED] = "failed"};
	json_t *rows = json_array();
	bool failed = false;

	for (size_t i = 0; i < ARRAY_LEN(checks); i++) {
		struct finding finding = {.text = ""};
		enum check_result result = checks[i].run(admin, &finding);
		const char *remedy = result == CHECK_OK ? NULL : checks[i].remedy;

		failed = failed || result == CHECK_FAILED;
		json_array_append_new(rows, json_pack("{s:s, s:s, s:o, s:o}", "check",
		                                      checks[i].name, "result", words[result],
		                                      "detail", record_text(finding.text), "remedy",
		                                      record_text(remedy)));
		if (admin->json)
			continue;
		printf("%-8s %-9s %s\n", words[result], checks[i].name, finding.text);
		if (remedy)
			printf("%-18s -> %s\n", "", remedy);
	}
	if (admin_answer(admin, json_pack("{s:o}", "checks", rows)) != ADMIN_DONE)
		return ADMIN_FAILED;
	return failed ? ADMIN_FAILED : ADMIN_DONE;
}
