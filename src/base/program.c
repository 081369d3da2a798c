/* SPDX-License-Identifier: MIT */
/* See program.h. */
#include "base/program.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

int program_beside(char *to, size_t size, const char *name)
{
	char self[PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (length < 0)
		return -errno;
	self[length] = '\0';
	return snprintf(to, size, "%s/%s", dirname(self), name) < (int)size ? 0 : -ENAMETOOLONG;
}

bool program_exists(const char *path)
{
	struct stat entry;

	return stat(path, &entry) == 0 && S_ISREG(entry.st_mode) && access(path, X_OK) == 0;
}
