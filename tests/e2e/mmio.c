/* SPDX-License-Identifier: MIT */
/*
 * Pokes a vgpu-stub's BAR0 from a guest's user space, one operation per argument,
 * for tests that want an exact access and not a library's idea of it.
 *
 *   rW OFFSET          read W = 1, 2, 4 or 8 bytes, print them as hex on a line
 *   wW OFFSET VALUE    write W bytes
 *   put OFFSET HEX     write bytes one by one
 *   get OFFSET COUNT   read COUNT bytes one by one, print them as hex on a line
 *   memset OFFSET BYTE COUNT
 *                      libc's memset on the mapping, whatever accesses it uses
 *   wait MS            until STATUS is not BUSY; fails when MS are over
 *   until OFFSET VALUE MS
 *                      until the 32 bits there are VALUE; fails when MS are over
 *   oldclient A B      the whole way of a client that knows no extension: prints the sum
 *
 * Numbers are decimal, or hex with 0x. The device is the first one with the IDs.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "vgpu/protocol.h"
#include "vgpu/wire.h"

#define PCI_DEVICES "/sys/bus/pci/devices"

struct mmio {
	volatile uint8_t *bar;
};

static void fail(const char *what, const char *detail)
{
	fprintf(stderr, "mmio: %s: %s\n", what, detail);
	exit(1);
}

static unsigned long long number(const char *text)
{
	char *end;
	unsigned long long value = strtoull(text, &end, 0);

	if (!*text || *end)
		fail("not a number", text);
	return value;
}

static unsigned long read_id(const char *device, const char *file)
{
	char path[512], text[32] = "";
	FILE *f;

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/%s", device, file);
	f = fopen(path, "r");
	if (!f)
		return 0;
	if (!fgets(text, sizeof(text), f))
		text[0] = '\0';
	fclose(f);
	return strtoul(text, NULL, 0);
}

static void device_map(struct mmio *mmio)
{
	char path[512];
	struct dirent *entry;
	void *bar;
	DIR *dir;
	int fd;

	dir = opendir(PCI_DEVICES);
	if (!dir)
		fail(PCI_DEVICES, strerror(errno));
	while ((entry = readdir(dir))) {
		if (read_id(entry->d_name, "vendor") == VGPU_PCI_VENDOR_ID &&
		    read_id(entry->d_name, "device") == VGPU_PCI_DEVICE_ID)
			break;
	}
	if (!entry)
		fail(PCI_DEVICES, "no vgpu-stub");
	snprintf(path, sizeof(path), PCI_DEVICES "/%s/resource0", entry->d_name);
	closedir(dir);

	fd = open(path, O_RDWR | O_SYNC);
	if (fd < 0)
		fail(path, strerror(errno));
	bar = mmap(NULL, VGPU_BAR0_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (bar == MAP_FAILED)
		fail(path, strerror(errno));
	close(fd);
	mmio->bar = bar;
}

static uint32_t reg_read(struct mmio *mmio, size_t offset)
{
	return *(volatile uint32_t *)(mmio->bar + offset);
}

static void reg_write(struct mmio *mmio, size_t offset, uint32_t value)
{
	*(volatile uint32_t *)(mmio->bar + offset) = value;
}

/* Waits until the register is (or, with @other, is not) @value. */
static void reg_wait(struct mmio *mmio, size_t offset, uint32_t value, int other, long ms)
{
	const struct timespec pause = {.tv_nsec = 1000000};

	while ((reg_read(mmio, offset) == value) == !!other) {
		if (ms-- <= 0)
			fail("waited in vain", "the register did not change");
		nanosleep(&pause, NULL);
	}
}

static void do_read(struct mmio *mmio, char **args, unsigned bytes)
{
	volatile uint8_t *at = mmio->bar + number(args[0]);
	uint64_t value;

	if (bytes == 1)
		value = *at;
	else if (bytes == 2)
		value = *(volatile uint16_t *)at;
	else if (bytes == 4)
		value = *(volatile uint32_t *)at;
	else
		value = *(volatile uint64_t *)at;
	printf("0x%0*llx\n", (int)bytes * 2, (unsigned long long)value);
}

static void do_write(struct mmio *mmio, char **args, unsigned bytes)
{
	volatile uint8_t *at = mmio->bar + number(args[0]);
	uint64_t value = number(args[1]);

	if (bytes == 1)
		*at = (uint8_t)value;
	else if (bytes == 2)
		*(volatile uint16_t *)at = (uint16_t)value;
	else if (bytes == 4)
		*(volatile uint32_t *)at = (uint32_t)value;
	else
		*(volatile uint64_t *)at = value;
}

static void do_put(struct mmio *mmio, char **args, unsigned unused)
{
	volatile uint8_t *at = mmio->bar + number(args[0]);
	const char *hex = args[1];
	char pair[3] = "";

	for (; hex[0] && hex[1]; hex += 2) {
		memcpy(pair, hex, 2);
		*at++ = (uint8_t)strtoul(pair, NULL, 16);
	}
}

static void do_get(struct mmio *mmio, char **args, unsigned unused)
{
	volatile uint8_t *at = mmio->bar + number(args[0]);
	unsigned long long i, count = number(args[1]);

	for (i = 0; i < count; i++)
		printf("%02x", at[i]);
	printf("\n");
}

static void do_memset(struct mmio *mmio, char **args, unsigned unused)
{
	memset((void *)(mmio->bar + number(args[0])), (int)number(args[1]), number(args[2]));
}

static void do_wait(struct mmio *mmio, char **args, unsigned unused)
{
	reg_wait(mmio, VGPU_REG_STATUS, VGPU_STATUS_BUSY, 1, (long)number(args[0]));
}

static void do_until(struct mmio *mmio, char **args, unsigned unused)
{
	reg_wait(mmio, number(args[0]), (uint32_t)number(args[1]), 0, (long)number(args[2]));
}

static void do_oldclient(struct mmio *mmio, char **args, unsigned unused)
{
	uint8_t request[VGPU_HEADER_BYTES + 8] = {0};
	size_t i;

	vgpu_put_le32(request + VGPU_REQUEST_VERSION, VGPU_PROTOCOL_VERSION);
	vgpu_put_le32(request + VGPU_REQUEST_OPCODE, VGPU_OP_CUDA_KERNEL);
	vgpu_put_le32(request + VGPU_REQUEST_PARAM_COUNT, 2);
	vgpu_put_le32(request + VGPU_REQUEST_DATA_OFFSET, sizeof(request));
	vgpu_put_le32(request + VGPU_HEADER_BYTES, (uint32_t)number(args[0]));
	vgpu_put_le32(request + VGPU_HEADER_BYTES + 4, (uint32_t)number(args[1]));

	memset((void *)(mmio->bar + VGPU_REG_REQUEST), 0, VGPU_MESSAGE_BYTES);
	for (i = 0; i < sizeof(request); i += 4)
		reg_write(mmio, VGPU_REG_REQUEST + i, vgpu_get_le32(request + i));
	reg_write(mmio, VGPU_REG_REQUEST_LEN, sizeof(request));
	reg_write(mmio, VGPU_REG_REQUEST_ID, 1);
	reg_write(mmio, VGPU_REG_DOORBELL, 1);
	reg_wait(mmio, VGPU_REG_STATUS, VGPU_STATUS_BUSY, 1, 10000);
	if (reg_read(mmio, VGPU_REG_STATUS) != VGPU_STATUS_DONE) {
		printf("error 0x%02x\n", reg_read(mmio, VGPU_REG_ERROR_CODE));
		return;
	}
	printf("%d\n", (int32_t)reg_read(mmio, VGPU_REG_RESPONSE + VGPU_HEADER_BYTES));
}

static const struct {
	const char *name;
	int args;
	unsigned bytes;
	void (*perform)(struct mmio *mmio, char **args, unsigned bytes);
} operations[] = {
	{"r1", 1, 1, do_read},       {"r2", 1, 2, do_read},
	{"r4", 1, 4, do_read},       {"r8", 1, 8, do_read},
	{"w1", 2, 1, do_write},      {"w2", 2, 2, do_write},
	{"w4", 2, 4, do_write},      {"w8", 2, 8, do_write},
	{"put", 2, 0, do_put},       {"get", 2, 0, do_get},
	{"memset", 3, 0, do_memset}, {"wait", 1, 0, do_wait},
	{"until", 3, 0, do_until},   {"oldclient", 2, 0, do_oldclient},
};

int main(int argc, char **argv)
{
	const size_t count = sizeof(operations) / sizeof(operations[0]);
	struct mmio mmio;
	size_t i;
	int at = 1;

	device_map(&mmio);
	while (at < argc) {
		for (i = 0; i < count && strcmp(argv[at], operations[i].name); i++)
			;
		if (i == count)
			fail("unknown operation", argv[at]);
		if (argc - at - 1 < operations[i].args)
			fail("arguments missing", argv[at]);
		operations[i].perform(&mmio, argv + at + 1, operations[i].bytes);
		at += 1 + operations[i].args;
	}
	return fflush(stdout) ? 1 : 0;
}
