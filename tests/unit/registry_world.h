/* SPDX-License-Identifier: MIT */
/*
 * A registry in a file of its own, of the current version.
 */
#ifndef TEST_REGISTRY_WORLD_H
#define TEST_REGISTRY_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "registry/registry.h"

#define UUID_A "aaaaaaaa-0000-4000-8000-000000000001"
#define UUID_B "bbbbbbbb-0000-4000-8000-000000000002"
#define UUID_C "cccccccc-0000-4000-8000-000000000003"

struct fixture {
	char directory[64];
	char path[96];
	struct registry *registry;
};

/* For cmocka: an empty registry, opened for writing. A copy.db beside it goes with it. */
int registry_world_new(void **state);
int registry_world_free(void **state);

#define TEST(name) cmocka_unit_test_setup_teardown(name, registry_world_new, registry_world_free)

/* As another program changes the file. */
void sql_by_hand(const struct fixture *f, const char *sql);

/* A VM with the defaults. */
void insert(struct fixture *f, const char *uuid, const char *name);

#endif
