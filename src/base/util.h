/* SPDX-License-Identifier: MIT */
/*
 * The few macros that the whole project shares: ownership of locals made
 * visible, and nothing cleverer.
 *
 * A local that owns something is declared with CLEANUP(free_function); handing
 * it on is written TAKE_PTR(local) or TAKE_FD(local), so that every transfer of
 * ownership can be seen where it happens.
 */
#ifndef BASE_UTIL_H
#define BASE_UTIL_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

#define CLEANUP(function) __attribute__((cleanup(function)))
#define UNUSED            __attribute__((unused))
#define PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/* Declares `void <type>_freep(struct type **)` around `<type>_free(struct type *)`. */
#define DEFINE_CLEANUP(type)                                 \
	static inline void type##_freep(struct type **owner) \
	{                                                    \
		type##_free(*owner);                         \
	}

/* Empties the pointer variable @p and returns what it held: the caller owns it now. */
#define TAKE_PTR(p)                                 \
	__extension__({                             \
		__typeof__(p) take_ptr_value = (p); \
		(p) = NULL;                         \
		take_ptr_value;                     \
	})

/* The same for a file descriptor variable, which is left as -1. */
#define TAKE_FD(fd)                       \
	__extension__({                   \
		int take_fd_value = (fd); \
		(fd) = -1;                \
		take_fd_value;            \
	})

static inline void freep(void *owner)
{
	free(*(void **)owner);
}

/* Cleanup for `int fd = -1`. */
static inline void closep(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

#define CONTAINER_OF(pointer, type, member) \
	((type *)(void *)((char *)(pointer)-offsetof(type, member)))

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static inline int64_t min_i64(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static inline int64_t max_i64(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

/* What the noun behind a count ends in: printf("%u job%s", n, plural_s(n)). */
static inline const char *plural_s(int64_t count)
{
	return count == 1 ? "" : "s";
}

#endif
