/* SPDX-License-Identifier: MIT */
/*
 * The bytes of one request or response on their way through the mediator: taken from
 * one socket, handed from owner to owner, freed after they went out of another.
 */
#ifndef MEDIATOR_MESSAGE_H
#define MEDIATOR_MESSAGE_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct message {
	uint32_t length; /* at most VGPU_MESSAGE_BYTES */
	uint8_t bytes[];
};

/* A copy; NULL when there is no memory. Freed with free(). */
static inline struct message *message_new(const void *bytes, uint32_t length)
{
	struct message *message = malloc(sizeof(*message) + length);

	if (message) {
		message->length = length;
		if (length)
			memcpy(message->bytes, bytes, length);
	}
	return message;
}

#endif
