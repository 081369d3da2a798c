/* SPDX-License-Identifier: MIT */
/*
 * One question to the running mediator over its admin socket: a line of JSON there,
 * a line of JSON back.
 */
#ifndef ADMIN_LINK_H
#define ADMIN_LINK_H

#include <jansson.h>

enum {
	LINK_E_NOT_RUNNING = 1, /* nobody listens at the path */
	LINK_E_REFUSED,         /* the mediator answered with an error */
	LINK_E_BROKEN,          /* no answer in time, or not one that makes sense */
};

enum { LINK_TIMEOUT_MS = 10000, LINK_ANSWER_BYTES_MAX = 64 << 20 };

struct link_error {
	char text[512];
};

/*
 * Calls @method. @params is taken over and may be NULL. The caller owns *@result. Returns 0,
 * a negative errno, or LINK_E_* with a sentence in @why.
 */
int link_call(json_t **result, const char *path, const char *method, json_t *params,
              struct link_error *why);

#endif
