/* SPDX-License-Identifier: MIT */
/*
 * Where the programs are: all in one directory, wherever that is.
 */
#ifndef BASE_PROGRAM_H
#define BASE_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>

/* The path of the program @name beside the one that runs. Returns 0 or a negative errno. */
int program_beside(char *to, size_t size, const char *name);

/* Is that a file which can be run? */
bool program_exists(const char *path);

#endif
