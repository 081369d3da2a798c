/* SPDX-License-Identifier: MIT */
/*
 * Messages from a socket, as the programs here that measure take them: what has come is read
 * at once, and whole messages are taken one by one.
 */
#ifndef BENCH_FRAMES_H
#define BENCH_FRAMES_H

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include "vgpu/wire.h"

enum {
	FRAME_BYTES_MAX = VGPU_SOCKET_HEADER_BYTES + VGPU_MESSAGE_BYTES,
};

/* All zero: nothing has come. */
struct frames {
	size_t have; /* bytes */
	size_t used; /* of these, by messages that were taken */
	uint8_t bytes[4 * FRAME_BYTES_MAX];
};

/* Reads once. Returns how many bytes, 0 when the peer has closed, or a negative errno. */
static inline ssize_t frames_read(struct frames *frames, int fd)
{
	ssize_t length;

	memmove(frames->bytes, frames->bytes + frames->used, frames->have - frames->used);
	frames->have -= frames->used;
	frames->used = 0;
	length = recv(fd, frames->bytes + frames->have, sizeof(frames->bytes) - frames->have, 0);
	if (length < 0)
		return -errno;
	frames->have += (size_t)length;
	return length;
}

/*
 * Takes one message: 1 with *@header and *@payload, which is behind its encoded header and
 * valid until the next frames_read(); 0 when none is whole; -EBADMSG for what is no message.
 */
static inline int frames_next(struct frames *frames, struct vgpu_socket_header *header,
                              const uint8_t **payload)
{
	const uint8_t *at = frames->bytes + frames->used;
	size_t left = frames->have - frames->used, length;

	if (left < VGPU_SOCKET_HEADER_BYTES)
		return 0;
	if (vgpu_socket_header_decode(header, at) != 0)
		return -EBADMSG;
	length = VGPU_SOCKET_HEADER_BYTES + (size_t)header->payload_bytes;
	if (left < length)
		return 0;
	*payload = at + VGPU_SOCKET_HEADER_BYTES;
	frames->used += length;
	return 1;
}

#endif
