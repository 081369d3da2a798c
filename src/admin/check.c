/* SPDX-License-Identifier: MIT */
/*
 * check: is the installation right? Each row looks at one thing and, where it is not
 * as it should be, says what to do.
 */
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "admin/commands.h"
#include "admin/link.h"
#include "admin/record.h"
#include "base/program.h"

enum check_result {
	CHECK_OK,
	CHECK_WARNING, /* something is missing that may not be needed */
	CHECK_FAILED,
};

struct finding {
	char text[1200];
};

/* What all checks look at. */
struct subject {
	struct admin *admin;
	json_t *ping;   /* the mediator's answer; NULL = it does not answer */
	json_t *config; /* its configuration; NULL likewise */
	struct link_error why;
};

struct check {
	const char *name;
	enum check_result (*run)(struct subject *subject, struct finding *finding);
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

/* The value of a key of the running mediator, or NULL. */
static const char *configured(const struct subject *subject, const char *key)
{
	return json_string_value(json_object_get(subject->config, key));
}

static bool same_file(const char *a, const char *b)
{
	struct stat first, second;

	return stat(a, &first) == 0 && stat(b, &second) == 0 && first.st_dev == second.st_dev &&
	       first.st_ino == second.st_ino;
}

static enum check_result check_registry(struct subject *subject, struct finding *finding)
{
	const struct registry_options options = {.mode = REGISTRY_READ};
	struct registry_error why = {.text = "out of memory"};
	struct admin *admin = subject->admin;
	const char *served = configured(subject, "db");
	int r;

	r = registry_open(&admin->registry, admin->db_path, &options, &why);
	if (r != 0)
		return found(finding, r == REGISTRY_E_MISSING ? CHECK_WARNING : CHECK_FAILED, "%s",
		             why.text);
	if (registry_check(admin->registry) != 0)
		return found(finding, CHECK_FAILED, "%s", registry_message(admin->registry));
	if (served && !same_file(served, admin->db_path))
		return found(
			finding, CHECK_FAILED,
			"%s is sound, but the mediator that runs uses %s: what is changed here "
			"does not reach it",
			admin->db_path, served);
	return found(finding, CHECK_OK, "%s is sound", admin->db_path);
}

static enum check_result check_vms(struct subject *subject, struct finding *finding)
{
	struct admin *admin = subject->admin;
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
		return found(finding, CHECK_FAILED,
		             "%zu of %zu VM%s with bad values; the first: %s", problems, vms.count,
		             plural_s(vms.count), first);
	return found(finding, CHECK_OK, "%zu registered, all values in range", vms.count);
}

static enum check_result check_mediator(struct subject *subject, struct finding *finding)
{
	const char *version = json_string_value(json_object_get(subject->ping, "version"));

	if (!subject->ping)
		return found(finding, CHECK_FAILED, "%s", subject->why.text);
	if (!version || strcmp(version, VGPU_VERSION) != 0)
		return found(finding, CHECK_WARNING, "it answers, but has version %s and not %s",
		             version ? version : "unknown", VGPU_VERSION);
	return found(finding, CHECK_OK, "version %s answers at %s", version,
	             subject->admin->socket_path);
}

/* Is @name a program in one of the directories of @list, joined by colons? */
static bool program_in(const char *list, const char *name, struct finding *where)
{
	while (*list) {
		size_t length = strcspn(list, ":");

		snprintf(where->text, sizeof(where->text), "%.*s/%s", (int)length, list, name);
		if (program_exists(where->text))
			return true;
		list += length + (list[length] == ':');
	}
	return false;
}

static enum check_result check_xe(struct subject *subject UNUSED, struct finding *finding)
{
	const char *path = getenv("PATH");

	if (path && program_in(path, "xe", finding))
		return CHECK_OK;
	return found(
		finding, CHECK_WARNING,
		"xe is not in PATH: VMs can be named by UUID and by the registry's names only");
}

static enum check_result check_gpu(struct subject *subject, struct finding *finding)
{
	const char *backend = configured(subject, "backend");
	struct stat device;

	if (backend && strcmp(backend, "cpu") == 0)
		return found(finding, CHECK_OK, "backend = cpu: jobs are to run on the CPU");
	if (stat("/dev/nvidia0", &device) == 0 && S_ISCHR(device.st_mode))
		return found(finding, CHECK_OK, "/dev/nvidia0 is there");
	return found(finding, CHECK_WARNING, "there is no /dev/nvidia0: jobs run on the CPU");
}

/* Where the mediator that runs looks for it, or would look if it ran from here. */
static enum check_result check_worker(struct subject *subject, struct finding *finding)
{
	const char *path = json_string_value(json_object_get(subject->ping, "worker_program"));
	char beside[PATH_MAX] = "vgpu-worker";

	if (!path) {
		program_beside(beside, sizeof(beside), "vgpu-worker");
		path = beside;
	}
	if (program_exists(path))
		return found(finding, CHECK_OK, "%s is there", path);
	return found(finding, CHECK_FAILED, "%s is no program that can be run", path);
}

static enum check_result check_listen_dir(struct subject *subject, struct finding *finding)
{
	const char *path = configured(subject, "listen_dir");
	struct stat entry;

	if (!path)
		return found(finding, CHECK_WARNING,
		             "only a mediator that runs says where they are");
	if (stat(path, &entry) < 0)
		return found(finding, CHECK_FAILED, "%s: %s", path, strerror(errno));
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
         "vgpu-mediator makes the directory when it starts; mode 0755 at most, owner root"},
};

enum admin_exit command_check(struct admin *admin)
{
	static const char *const words[] = {
		[CHECK_OK] = "ok", [CHECK_WARNING] = "warning", [CHECK_FAILED] = "failed"};
	CLEANUP(json_freep) json_t *ping = NULL;
	CLEANUP(json_freep) json_t *config = NULL;
	struct subject subject = {.admin = admin, .why = {.text = "out of memory"}};
	struct link_error why;
	json_t *rows = json_array();
	bool failed = false;

	if (link_call(&ping, admin->socket_path, "ping", NULL, &subject.why) == 0 &&
	    link_call(&config, admin->socket_path, "show-config", NULL, &why) != 0)
		admin_note("%s", why.text);
	subject.ping = ping;
	subject.config = config;

	for (size_t i = 0; i < ARRAY_LEN(checks); i++) {
		struct finding finding = {.text = ""};
		enum check_result result = checks[i].run(&subject, &finding);
		const char *remedy = result == CHECK_OK ? NULL : checks[i].remedy;

		failed = failed || result == CHECK_FAILED;
		json_array_append_new(rows, json_pack("{s:s, s:s, s:o, s:o}", "check",
		                                      checks[i].name, "result", words[result],
		                                      "detail", record_text(finding.text), "remedy",
		                                      record_text(remedy)));
		admin_say(admin, "%-8s %-9s %s", words[result], checks[i].name, finding.text);
		if (remedy)
			admin_say(admin, "%-18s -> %s", "", remedy);
	}
	if (admin_answer(admin, json_pack("{s:o}", "checks", rows)) != ADMIN_DONE)
		return ADMIN_FAILED;
	return failed ? ADMIN_FAILED : ADMIN_DONE;
}
