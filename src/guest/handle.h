/* SPDX-License-Identifier: MIT */
/*
 * The inside of struct vgpu that the ways of opening one, and unit tests, need.
 */
#ifndef GUEST_HANDLE_H
#define GUEST_HANDLE_H

#include "guest/env.h"
#include "guest/transport.h"

/*
 * A handle on @transport. It owns the transport from here on, also when the result is
 * not 0. Returns 0 or -ENOMEM; the caller gives *@out to vgpu_close().
 */
int handle_new(struct vgpu **out, struct transport *transport, const struct guest_env *env);

/*
 * Makes the response of an answer: decodes its bytes, if any, and joins them with what
 * came beside them. Returns 0 when @out is set (its code may be anything), or
 * VGPU_E_PROTOCOL when the bytes make no sense.
 */
int handle_read_answer(struct vgpu_response *out, const struct answer *answer);

#endif
