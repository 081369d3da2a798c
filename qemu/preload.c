/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Only in the shared object that is preloaded into a stock QEMU: what a device that
 * is compiled into QEMU has no need of.
 *
 * LD_PRELOAD is taken out of QEMU's environment again, since a program that QEMU starts
 * (a network script, an exec: migration) would load the device as well, miss QEMU's
 * symbols and die. And the structures that the device embeds must have the size that
 * QEMU was built with; otherwise each would write over the other's fields.
 */
#include "qemu/osdep.h"

#include "compat.h"

static void __attribute__((constructor)) preload_forget(void)
{
	unsetenv("LD_PRELOAD");
}

static void preload_check_layout(void)
{
	const struct {
		const char *type;
		size_t bytes;
	} embedded[] = {
		{TYPE_PCI_DEVICE, sizeof(PCIDevice)},
		{TYPE_MEMORY_REGION, sizeof(MemoryRegion)},
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(embedded); i++) {
		if (object_type_get_instance_size(embedded[i].type) == embedded[i].bytes)
			continue;
		/* QEMU's own reporting is not up yet. */
		fprintf(stderr,
		        "vgpu-stub: compiled for a QEMU whose '%s' has %zu bytes, but here it has "
		        "%zu: run tools/build\n",
		        embedded[i].type, embedded[i].bytes,
		        object_type_get_instance_size(embedded[i].type));
		exit(1);
	}
}

/* The first initialisation of modules that comes after all types are registered. */
migration_init(preload_check_layout)
