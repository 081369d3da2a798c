/* SPDX-License-Identifier: MIT */
/* Listening at a path: what may be in the way, and how long it may be. */
#include "base/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cmocka.h>

#include "base/util.h"

enum { PATH_BYTES_MAX = sizeof(((struct sockaddr_un *)0)->sun_path) - 1 };

static char directory[32];

static int setup(void **state UNUSED)
{
	strcpy(directory, "/tmp/vgpu-socket-XXXXXX");
	return mkdtemp(directory) ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *status UNUSED, int type UNUSED,
                      struct FTW *where UNUSED)
{
	return remove(path);
}

static int teardown(void **state UNUSED)
{
	return nftw(directory, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* A path in the directory, of that many bytes in all, or with that name. */
static const char *path_of(const char *name, size_t length)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	while (strlen(path) < length)
		strcat(path, "x");
	return path;
}

static int bind_at(int type, const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, type, 0);

	strcpy(address.sun_path, path);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static unsigned int files(void)
{
	char command[64];
	unsigned int count = 0;
	FILE *list;

	snprintf(command, sizeof(command), "ls -A %s | wc -l", directory);
	list = popen(command, "r");
	assert_int_equal(fscanf(list, "%u", &count), 1);
	pclose(list);
	return count;
}

static void test_listen(void **state UNUSED)
{
	const char *path = path_of("admin.sock", 0);
	CLEANUP(closep) int listener = -1;
	CLEANUP(closep) int client = -1;
	CLEANUP(closep) int second = -1;
	struct stat status;

	assert_int_equal(socket_listen_unix(&listener, path, 0640), 0);
	assert_int_equal(stat(path, &status), 0);
	assert_int_equal(status.st_mode & 0777, 0640);
	assert_int_equal(files(), 1);
	assert_int_equal(socket_connect_unix(&client, path, true), 0);
	assert_int_equal(socket_listen_unix(&second, path, 0600), -EADDRINUSE);
}

static void test_in_the_way(void **state UNUSED)
{
	CLEANUP(closep) int listener = -1;
	CLEANUP(closep) int other = -1;
	int fd;

	/* Left behind: nobody listens. */
	close(bind_at(SOCK_STREAM, path_of("stale.sock", 0)));
	assert_int_equal(socket_listen_unix(&listener, path_of("stale.sock", 0), 0600), 0);
	/* Somebody else's, which is alive but of another kind. */
	other = bind_at(SOCK_DGRAM, path_of("datagram.sock", 0));
	assert_int_equal(socket_listen_unix(&fd, path_of("datagram.sock", 0), 0600), -EADDRINUSE);
	/* No socket. */
	close(open(path_of("file.sock", 0), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	assert_int_equal(socket_listen_unix(&fd, path_of("file.sock", 0), 0600), -EEXIST);
	assert_int_equal(socket_listen_unix(&fd, path_of("nowhere/x.sock", 0), 0600), -ENOENT);
	assert_int_equal(socket_listen_unix(&fd, "", 0600), -EINVAL);
}

static void test_length(void **state UNUSED)
{
	CLEANUP(closep) int listener = -1;
	CLEANUP(closep) int client = -1;
	char deep[300];
	int fd;

	assert_int_equal(socket_listen_unix(&listener, path_of("l", PATH_BYTES_MAX), 0600), 0);
	assert_int_equal(socket_connect_unix(&client, path_of("l", PATH_BYTES_MAX), true), 0);
	assert_int_equal(socket_listen_unix(&fd, path_of("l", PATH_BYTES_MAX + 1), 0600),
	                 -ENAMETOOLONG);
	assert_int_equal(files(), 1);
	/* A long directory and the shortest name that always fits. */
	assert_int_equal(mkdir(path_of("d", PATH_BYTES_MAX - 9), 0700), 0);
	snprintf(deep, sizeof(deep), "%s/12345678", path_of("d", PATH_BYTES_MAX - 9));
	assert_int_equal(strlen(deep), PATH_BYTES_MAX);
	close(listener);
	listener = -1;
	assert_int_equal(socket_listen_unix(&listener, deep, 0600), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(test_listen),
		TEST(test_in_the_way),
		TEST(test_length),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
