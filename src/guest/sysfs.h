/* SPDX-License-Identifier: MIT */
/*
 * Finding vgpu devices in sysfs, and reaching the registers of one through resource0.
 *
 * The directory is a parameter, so that tests can show a tree of their own.
 */
#ifndef GUEST_SYSFS_H
#define GUEST_SYSFS_H

#include <stddef.h>

#include "guest/mmio.h"
#include "vgpu/vgpu.h"

#define SYSFS_PCI_DEVICES "/sys/bus/pci/devices"

/* Every vgpu device under @directory, as of vgpu_find_devices(). */
int sysfs_find_devices(const char *directory, struct vgpu_device_name *names, size_t capacity,
                       size_t *count);

/*
 * Checks that @bdf (domain:bus:device.function) under @directory is a vgpu device,
 * switches its memory space on if it is off and maps its BAR0. Returns 0, and the
 * caller owns *@context, which *@ops (free among them) are for; VGPU_E_NO_DEVICE; or a
 * negative errno. @why as of vgpu_open_device().
 */
int sysfs_open_device(const struct bar_ops **ops, void **context, const char *directory,
                      const char *bdf, char *why, size_t why_bytes);

#endif
