/* SPDX-License-Identifier: MIT */
/*
 * See sysfs.h. Nothing here is more than a file of a few bytes, except resource0: that
 * is BAR0, and is mapped.
 */
#include "guest/sysfs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/util.h"

struct bar {
	int fd; /* of resource0; also what processes lock */
	volatile uint32_t *words;
};

/* ---- Registers ------------------------------------------------------------------ */

static uint32_t bar_read32(void *context, uint32_t offset)
{
	const struct bar *bar = context;

	return bar->words[offset / 4];
}

static void bar_write32(void *context, uint32_t offset, uint32_t value)
{
	struct bar *bar = context;

	bar->words[offset / 4] = value;
}

static int bar_try_lock(void *context)
{
	const struct bar *bar = context;

	while (flock(bar->fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}

static void bar_unlock(void *context)
{
	const struct bar *bar = context;

	flock(bar->fd, LOCK_UN);
}

static void bar_free(void *context)
{
	struct bar *bar = context;

	munmap((void *)(uintptr_t)bar->words, VGPU_BAR0_BYTES);
	close(bar->fd);
	free(bar);
}

static const struct bar_ops bar_ops = {
	.read32 = bar_read32,
	.write32 = bar_write32,
	.try_lock = bar_try_lock,
	.unlock = bar_unlock,
	.free = bar_free,
};

/* ---- Files -------------------------------------------------------------------- */

static int open_attribute(const char *directory, const char *bdf, const char *name, int flags)
{
	char path[512];
	int fd;

	if ((size_t)snprintf(path, sizeof(path), "%s/%s/%s", directory, bdf, name) >= sizeof(path))
		return -ENAMETOOLONG;
	fd = open(path, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Reads a file that holds one number, as sysfs writes it: 0x1af4 or 1. */
static int read_number(const char *directory, const char *bdf, const char *name,
                       unsigned long *value)
{
	CLEANUP(closep) int fd = open_attribute(directory, bdf, name, O_RDONLY);
	char text[32], *end;
	ssize_t n;

	if (fd < 0)
		return fd;
	n = read(fd, text, sizeof(text) - 1);
	if (n < 0)
		return -errno;
	text[n] = '\0';
	errno = 0;
	*value = strtoul(text, &end, 0);
	return end == text || errno ? -EINVAL : 0;
}

static int is_vgpu(const char *directory, const char *bdf, bool *yes)
{
	static const struct {
		const char *name;
		unsigned int shift;
		unsigned long value;
	} rows[] = {
		{"vendor", 0, VGPU_PCI_VENDOR_ID},
		{"device", 0, VGPU_PCI_DEVICE_ID},
		{"class", 8, VGPU_PCI_CLASS},
	};
	unsigned long value;
	int r;

	*yes = false;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		r = read_number(directory, bdf, rows[i].name, &value);
		if (r < 0)
			return r;
		if (value >> rows[i].shift != rows[i].value)
			return 0;
	}
	*yes = true;
	return 0;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(((const struct vgpu_device_name *)a)->bdf,
	              ((const struct vgpu_device_name *)b)->bdf);
}

/* Inserts @bdf into the sorted @names, whose last one falls out when they are full. */
static void insert_name(struct vgpu_device_name *names, size_t capacity, size_t count,
                        const char *bdf)
{
	struct vgpu_device_name name = {0};
	size_t used = min_u64(count, capacity);

	memcpy(name.bdf, bdf, strlen(bdf));
	if (used == capacity) {
		if (capacity == 0 || compare_names(&names[used - 1], &name) < 0)
			return;
		used--;
	}
	names[used] = name;
	qsort(names, used + 1, sizeof(*names), compare_names);
}

int sysfs_find_devices(const char *directory, struct vgpu_device_name *names, size_t capacity,
                       size_t *count)
{
	const struct dirent *entry;
	size_t found = 0;
	DIR *stream;
	bool yes;

	stream = opendir(directory);
	if (!stream)
		return -errno;
	while ((entry = readdir(stream))) {
		if (entry->d_name[0] == '.' || strlen(entry->d_name) >= sizeof(names[0].bdf))
			continue;
		/* A device may be unplugged between these calls: then it is none. */
		if (is_vgpu(directory, entry->d_name, &yes) < 0 || !yes)
			continue;
		insert_name(names, capacity, found, entry->d_name);
		found++;
	}
	closedir(stream);
	*count = found;
	return 0;
}

/* ---- Opening ------------------------------------------------------------------ */

static int enable(const char *directory, const char *bdf)
{
	CLEANUP(closep) int fd = -1;
	unsigned long enabled;
	int r;

	/* The file counts: writing 1 where a driver already did would only add to it. */
	r = read_number(directory, bdf, "enable", &enabled);
	if (r < 0 || enabled)
		return r;
	fd = open_attribute(directory, bdf, "enable", O_WRONLY);
	if (fd < 0)
		return fd;
	return write(fd, "1", 1) < 0 ? -errno : 0;
}

static const char *remedy(int error)
{
	static const struct {
		int error;
		const char *text;
	} rows[] = {
		{EACCES, "run as root"},
		{EPERM, "run as root; if the kernel is locked down (Secure Boot), it forbids this"},
		{EBUSY, "a kernel driver has the device: unbind it"},
		{ENOENT, "is sysfs mounted on /sys?"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		if (rows[i].error == error)
			return rows[i].text;
	}
	return "is the device still there?";
}

static int fail(int r, char *why, size_t why_bytes, const char *directory, const char *bdf,
                const char *what)
{
	if (why)
		snprintf(why, why_bytes, "cannot %s %s/%s: %s; %s", what, directory, bdf,
		         strerror(-r), remedy(-r));
	return r;
}

static int map(struct bar **out, int resource)
{
	CLEANUP(closep) int fd = resource;
	struct stat status;
	struct bar *bar;
	void *words;

	if (fstat(fd, &status) < 0)
		return -errno;
	if (status.st_size < VGPU_BAR0_BYTES)
		return -EINVAL;
	words = mmap(NULL, VGPU_BAR0_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (words == MAP_FAILED)
		return -errno;
	bar = malloc(sizeof(*bar));
	if (!bar) {
		munmap(words, VGPU_BAR0_BYTES);
		return -ENOMEM;
	}
	bar->words = words;
	bar->fd = TAKE_FD(fd);
	*out = bar;
	return 0;
}

int sysfs_open_device(const struct bar_ops **ops, void **context, const char *directory,
                      const char *bdf, char *why, size_t why_bytes)
{
	struct bar *bar = NULL;
	bool yes;
	int fd, r;

	r = is_vgpu(directory, bdf, &yes);
	if (r == -ENOENT || (r == 0 && !yes)) {
		if (why)
			snprintf(why, why_bytes,
			         "%s is %s; 'lspci -nn -d %04x:%04x' lists the vgpu devices", bdf,
			         r ? "no PCI device of this guest" : "another kind of device",
			         VGPU_PCI_VENDOR_ID, VGPU_PCI_DEVICE_ID);
		return VGPU_E_NO_DEVICE;
	}
	if (r < 0)
		return fail(r, why, why_bytes, directory, bdf, "look at");
	r = enable(directory, bdf);
	if (r < 0)
		return fail(r, why, why_bytes, directory, bdf, "enable");
	fd = open_attribute(directory, bdf, "resource0", O_RDWR);
	if (fd < 0)
		return fail(fd, why, why_bytes, directory, bdf, "open resource0 of");
	r = map(&bar, fd);
	if (r != 0)
		return fail(r, why, why_bytes, directory, bdf, "map resource0 of");
	*ops = &bar_ops;
	*context = bar;
	return 0;
}
