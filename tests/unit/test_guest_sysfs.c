/* SPDX-License-Identifier: MIT */
/*
 * Finding and opening devices in a tree that looks like sysfs.
 */
#include "guest/sysfs.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/util.h"

static void write_file(const char *root, const char *bdf, const char *name, const char *text)
{
	char path[256];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s/%s", root, bdf, name);
	file = fopen(path, "w");
	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	fclose(file);
}

static void make_device(const char *root, const char *bdf, const char *device, const char *class)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", root, bdf);
	assert_int_equal(mkdir(path, 0755), 0);
	write_file(root, bdf, "vendor", "0x1af4\n");
	write_file(root, bdf, "device", device);
	write_file(root, bdf, "class", class);
	write_file(root, bdf, "enable", "0\n");
	write_file(root, bdf, "resource0", "");
	snprintf(path, sizeof(path), "%s/%s/resource0", root, bdf);
	assert_int_equal(truncate(path, VGPU_BAR0_BYTES), 0);
}

static int remove_entry(const char *path, const struct stat *status UNUSED, int type UNUSED,
                        struct FTW *ftw UNUSED)
{
	return remove(path);
}

static int set_up(void **state)
{
	char *root = strdup("/tmp/test_guest_sysfs.XXXXXX");

	*state = mkdtemp(root);
	return *state ? 0 : -1;
}

static int tear_down(void **state)
{
	nftw(*state, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
	free(*state);
	return 0;
}

static void test_find(void **state)
{
	struct vgpu_device_name names[2];
	size_t count;

	assert_int_equal(sysfs_find_devices(*state, names, 2, &count), 0);
	assert_int_equal(count, 0);
	make_device(*state, "0000:00:07.0", "0x1111\n", "0x120000\n");
	make_device(*state, "0000:00:05.0", "0x1111\n", "0x120000\n");
	make_device(*state, "0000:00:06.0", "0x1111\n", "0x120001\n");
	make_device(*state, "0000:00:03.0", "0x1000\n", "0x120000\n");
	make_device(*state, "0000:00:04.0", "0x1111\n", "0x030000\n");
	assert_int_equal(sysfs_find_devices(*state, names, 2, &count), 0);
	assert_int_equal(count, 3);
	assert_string_equal(names[0].bdf, "0000:00:05.0");
	assert_string_equal(names[1].bdf, "0000:00:06.0");
	assert_int_equal(sysfs_find_devices(*state, names, 1, &count), 0);
	assert_string_equal(names[0].bdf, "0000:00:05.0");
	assert_int_equal(sysfs_find_devices(*state, NULL, 0, &count), 0);
	assert_int_equal(count, 3);
	assert_int_equal(sysfs_find_devices("/nonexistent", NULL, 0, &count), -ENOENT);
}

static void test_open(void **state)
{
	const struct bar_ops *ops, *other_ops;
	void *context, *other;
	char path[256], text[8] = "";
	char why[VGPU_WHY_BYTES];
	FILE *file;

	make_device(*state, "0000:00:05.0", "0x1111\n", "0x120000\n");
	assert_int_equal(
		sysfs_open_device(&ops, &context, *state, "0000:00:05.0", why, sizeof(why)), 0);
	ops->write32(context, VGPU_REG_SCRATCH, 0xfeedf00d);
	assert_int_equal(ops->read32(context, VGPU_REG_SCRATCH), 0xfeedf00d);
	assert_int_equal(sysfs_open_device(&other_ops, &other, *state, "0000:00:05.0", NULL, 0), 0);
	assert_int_equal(other_ops->read32(other, VGPU_REG_SCRATCH), 0xfeedf00d);

	assert_int_equal(ops->try_lock(context), 0);
	assert_int_equal(other_ops->try_lock(other), -EWOULDBLOCK);
	ops->unlock(context);
	assert_int_equal(other_ops->try_lock(other), 0);
	other_ops->free(other);
	assert_int_equal(ops->try_lock(context), 0);
	ops->free(context);

	snprintf(path, sizeof(path), "%s/0000:00:05.0/enable", (const char *)*state);
	file = fopen(path, "r");
	assert_non_null(file);
	assert_non_null(fgets(text, sizeof(text), file));
	fclose(file);
	assert_int_equal(text[0], '1');
}

static void test_open_refuses(void **state)
{
	const struct bar_ops *ops;
	char why[VGPU_WHY_BYTES];
	char path[256];
	void *context;

	assert_int_equal(
		sysfs_open_device(&ops, &context, *state, "0000:00:05.0", why, sizeof(why)),
		VGPU_E_NO_DEVICE);
	assert_non_null(strstr(why, "0000:00:05.0 is no PCI device"));
	make_device(*state, "0000:00:05.0", "0x1000\n", "0x020000\n");
	assert_int_equal(
		sysfs_open_device(&ops, &context, *state, "0000:00:05.0", why, sizeof(why)),
		VGPU_E_NO_DEVICE);
	assert_non_null(strstr(why, "another kind"));

	make_device(*state, "0000:00:06.0", "0x1111\n", "0x120000\n");
	snprintf(path, sizeof(path), "%s/0000:00:06.0/resource0", (const char *)*state);
	assert_int_equal(truncate(path, 100), 0);
	assert_int_equal(
		sysfs_open_device(&ops, &context, *state, "0000:00:06.0", why, sizeof(why)),
		-EINVAL);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(
		sysfs_open_device(&ops, &context, *state, "0000:00:06.0", why, sizeof(why)),
		-ENOENT);
	assert_non_null(strstr(why, "resource0"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_find, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_open, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_open_refuses, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
