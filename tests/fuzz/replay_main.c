/* SPDX-License-Identifier: MIT */
/*
 * Replays a fuzz corpus as an ordinary test, with any compiler.
 *
 * A fuzz target is one function, LLVMFuzzerTestOneInput(). libFuzzer brings a main()
 * that invents inputs; this one feeds the target every file that is named on the
 * command line or lies in a directory named there, and fails if there was none.
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Returns 0, or 1 after telling what is wrong. */
static int replay_file(const char *path, unsigned *count)
{
	uint8_t *data = NULL;
	struct stat st;
	FILE *file;
	int r = 1;

	file = fopen(path, "rb");
	if (!file || fstat(fileno(file), &st)) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		goto out;
	}
	/* Exactly the size of the input, so that a sanitizer sees an access past its end. */
	data = malloc(st.st_size ? (size_t)st.st_size : 1);
	if (!data || fread(data, 1, (size_t)st.st_size, file) != (size_t)st.st_size) {
		fprintf(stderr, "%s: cannot read it\n", path);
		goto out;
	}
	LLVMFuzzerTestOneInput(data, (size_t)st.st_size);
	(*count)++;
	r = 0;
out:
	free(data);
	if (file)
		fclose(file);
	return r;
}

static int replay_directory(const char *path, unsigned *count)
{
	char file[4096];
	struct dirent *entry;
	int r = 0;
	DIR *dir;

	dir = opendir(path);
	if (!dir) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		return 1;
	}
	while (!r && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(file, sizeof(file), "%s/%s", path, entry->d_name);
		r = replay_file(file, count);
	}
	closedir(dir);
	return r;
}

int main(int argc, char **argv)
{
	unsigned count = 0;
	struct stat st;
	int i, r = 0;

	for (i = 1; i < argc && !r; i++) {
		if (!stat(argv[i], &st) && S_ISDIR(st.st_mode))
			r = replay_directory(argv[i], &count);
		else
			r = replay_file(argv[i], &count);
	}
	if (r)
		return 1;
	if (!count) {
		fprintf(stderr, "usage: %s FILE|DIRECTORY... (with at least one input)\n", argv[0]);
		return 1;
	}
	printf("%u inputs replayed\n", count);
	return 0;
}
