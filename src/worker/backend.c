/* SPDX-License-Identifier: MIT */
/*
 * See backend.h. The list of backends, and the one way to say why a backend did
 * not start.
 */
#include "worker/backend.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"

const struct backend_ops *backend_find(const char *name)
{
	static const struct backend_ops *const backends[] = {&cpu_backend, &cuda_backend};

	for (size_t i = 0; i < ARRAY_LEN(backends); i++) {
		if (strcmp(backends[i]->name, name) == 0)
			return backends[i];
	}
	return NULL;
}

int backend_fail(struct backend_failure *failure, int error, uint32_t code, uint32_t detail,
                 const char *format, ...)
{
	va_list args;

	failure->code = code;
	failure->detail = detail;
	va_start(args, format);
	vsnprintf(failure->text, sizeof(failure->text), format, args);
	va_end(args);
	return error;
}
