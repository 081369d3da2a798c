/* SPDX-License-Identifier: MIT */
/*
 * vgpu-admin: the operator's tool. It changes the registry, which works whether the
 * mediator runs or not, tells a running mediator to look again, and shows what both know.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "admin/admin.h"
#include "admin/link.h"
#include "admin/options.h"
#include "admin/text.h"
#include "base/utf8.h"

enum { XE_TIMEOUT_DEFAULT_MS = 10000, XE_TIMEOUT_MAX_S = 3600 };

/* @message may be NULL: there was no memory for it. */
static void print_line(FILE *to, const char *prefix, const char *message)
{
	CLEANUP(freep) char *safe = message ? text_escape(message) : NULL;

	fprintf(to, "%s%s\n", prefix, safe ? safe : "out of memory");
}

/* The text, the caller's to free, or NULL. */
static char *formatted(const char *format, va_list args) __attribute__((format(printf, 1, 0)));

static char *formatted(const char *format, va_list args)
{
	char *text;

	return vasprintf(&text, format, args) < 0 ? NULL : text;
}

enum admin_exit admin_fail(struct admin *admin, enum admin_exit status, const char *format, ...)
{
	CLEANUP(freep) char *message = NULL;
	CLEANUP(freep) char *text = NULL;
	va_list args;

	va_start(args, format);
	message = formatted(format, args);
	va_end(args);
	print_line(stderr, "vgpu-admin: ", message);
	admin->failed = true;
	if (admin->json && message) {
		text = utf8_repair(message);
		if (!json_is_object(admin->result)) {
			json_decref(admin->result);
			admin->result = json_object();
		}
		json_object_set_new(admin->result, "error",
		                    json_pack("{s:i, s:s}", "exit_status", (int)status, "message",
		                              text ? text : ""));
	}
	return status;
}

void admin_note(const char *format, ...)
{
	CLEANUP(freep) char *message = NULL;
	va_list args;

	va_start(args, format);
	message = formatted(format, args);
	va_end(args);
	print_line(stderr, "vgpu-admin: note: ", message);
}

void admin_say(const struct admin *admin, const char *format, ...)
{
	CLEANUP(freep) char *message = NULL;
	va_list args;

	if (admin->json)
		return;
	va_start(args, format);
	message = formatted(format, args);
	va_end(args);
	print_line(stdout, "", message);
}

enum admin_exit admin_registry_status(int code)
{
	switch (code) {
	case 0:
		return ADMIN_DONE;
	case REGISTRY_E_NOT_FOUND:
		return ADMIN_NO_SUCH_VM;
	case REGISTRY_E_AMBIGUOUS:
		return ADMIN_SEVERAL_VMS;
	case REGISTRY_E_INVALID:
		return ADMIN_USAGE;
	default:
		return ADMIN_FAILED;
	}
}

enum admin_exit admin_fail_registry(struct admin *admin, int code)
{
	admin->useless |= registry_failed_whole(code);
	return admin_fail(admin, admin_registry_status(code), "%s",
	                  registry_message(admin->registry));
}

enum admin_exit admin_open_existing(struct admin *admin)
{
	const struct registry_options options = {.mode = REGISTRY_READ};
	struct registry_error why = {.text = "out of memory"};

	if (registry_open(&admin->registry, admin->db_path, &options, &why) != 0)
		return admin_fail(admin, ADMIN_FAILED, "%s", why.text);
	return ADMIN_DONE;
}

enum admin_exit admin_open(struct admin *admin, enum registry_mode mode)
{
	const struct registry_options options = {.mode = mode};
	const struct registry_options fresh = {.mode = REGISTRY_WRITE,
	                                       .stands_for = admin->db_path};
	struct registry_error why = {.text = "out of memory"};
	int r;

	if (admin->registry)
		return ADMIN_DONE;
	r = registry_open(&admin->registry, admin->db_path, &options, &why);
	if (r == REGISTRY_E_MISSING) {
		admin_note("%s", why.text);
		r = registry_open(&admin->registry, ":memory:", &fresh, &why);
	}
	if (r != 0)
		return admin_fail(admin, ADMIN_FAILED, "%s", why.text);
	if (registry_upgrade_backup(admin->registry))
		admin_note("upgraded %s to version %d; what it was is kept in %s", admin->db_path,
		           REGISTRY_VERSION, registry_upgrade_backup(admin->registry));
	return ADMIN_DONE;
}

enum admin_exit admin_call(struct admin *admin, const char *method, json_t *params, json_t **result)
{
	struct link_error why = {.text = "out of memory"};
	int code = link_call(result, admin->socket_path, method, params, &why);

	if (code == 0)
		return ADMIN_DONE;
	return admin_fail(admin, code == LINK_E_NOT_RUNNING ? ADMIN_NO_MEDIATOR : ADMIN_FAILED,
	                  "%s", why.text);
}

enum admin_exit admin_answer(struct admin *admin, json_t *result)
{
	if (!result)
		return admin_fail(admin, ADMIN_FAILED, "out of memory");
	json_decref(admin->result);
	admin->result = result;
	return ADMIN_DONE;
}

enum admin_exit admin_answer_table(struct admin *admin, json_t *result, const char *key,
                                   const struct column *columns)
{
	enum admin_exit status = admin_answer(admin, result);

	if (status == ADMIN_DONE && !admin->json)
		table_print(stdout, key ? json_object_get(result, key) : result, columns);
	return status;
}

/* A running mediator reads the registry again; one that does not run will at its start. */
static void tell_mediator(struct admin *admin)
{
	CLEANUP(json_freep) json_t *result = NULL;
	struct link_error why = {.text = "out of memory"};
	const char *said = "reloaded";
	int code;
	size_t i;
	json_t *line;

	code = link_call(&result, admin->socket_path, "reload", NULL, &why);
	if (code == LINK_E_NOT_RUNNING) {
		said = "not running";
	} else if (code != 0) {
		said = "not reloaded";
		admin_note("the registry is changed, but the mediator has not taken it over: %s",
		           why.text);
	}
	json_array_foreach (json_object_get(result, "errors"), i, line) {
		if (json_is_string(line))
			admin_note("the mediator says: %s", json_string_value(line));
	}
	if (json_is_object(admin->result))
		json_object_set_new(admin->result, "mediator", json_string(said));
}

static bool settings_check(struct admin *admin, enum admin_exit *status)
{
	const struct decimal seconds = {.name = "xe-timeout",
	                                .scale = 1000,
	                                .min = 1,
	                                .max = XE_TIMEOUT_MAX_S * INT64_C(1000)};
	const char *text = admin->values[OPTION_XE_TIMEOUT];

	if (admin_given(admin, OPTION_DB))
		admin->db_path = admin->values[OPTION_DB];
	if (admin_given(admin, OPTION_ADMIN_SOCKET))
		admin->socket_path = admin->values[OPTION_ADMIN_SOCKET];
	if (!text || decimal_parse(&admin->xe_timeout_ms, &seconds, text) == 0)
		return true;
	*status = admin_fail(admin, ADMIN_USAGE,
	                     "--xe-timeout=%s is no number of seconds from 0.001 to %d", text,
	                     XE_TIMEOUT_MAX_S);
	return false;
}

static enum admin_exit finish(struct admin *admin, enum admin_exit status)
{
	if (admin->registry && registry_warning(admin->registry))
		admin_note("%s", registry_warning(admin->registry));
	if (admin->changed)
		tell_mediator(admin);
	if (admin->json && admin->result) {
		json_dumpf(admin->result, stdout,
		           JSON_INDENT(2) | JSON_REAL_PRECISION(15) | JSON_ENCODE_ANY);
		putchar('\n');
	}
	json_decref(admin->result);
	registry_free(admin->registry);
	/* A full disk or a closed pipe must not look like success. */
	if (fflush(stdout) != 0 && status == ADMIN_DONE) {
		fprintf(stderr, "vgpu-admin: cannot write the output: %s\n", strerror(errno));
		status = ADMIN_FAILED;
	}
	return status;
}

int main(int argc, char **argv)
{
	struct admin admin = {
		.db_path = "/etc/vgpu/vgpu_config.db",
		.socket_path = "/run/vgpu/admin.sock",
		.xe_timeout_ms = XE_TIMEOUT_DEFAULT_MS,
	};
	enum admin_exit status;

	/* A limit on the size of files is an error like any other. */
	signal(SIGXFSZ, SIG_IGN);
	if (options_read(&admin, argc, argv, &status) && settings_check(&admin, &status))
		status = admin.command->run(&admin);
	return (int)finish(&admin, status);
}
