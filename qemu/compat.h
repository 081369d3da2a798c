/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every difference between the QEMU versions that the device builds in: 4.2.1 (as
 * shipped by XCP-ng 8), 7.2 (Debian 12), and on to 10.x. vgpu-stub.c is written for
 * the newest and knows no version.
 *
 * What needs no line here, because the old way still works everywhere: timers made
 * by timer_new_ms(), OBJECT_CHECK(), a type's interfaces as a plain array, a
 * MemoryRegion with io ops, qemu_set_fd_handler(), info_report() and warn_report().
 */
#ifndef VGPU_COMPAT_H
#define VGPU_COMPAT_H

#include "qemu/osdep.h"

#define VGPU_QEMU_IS_AT_LEAST(major, minor) \
	(QEMU_VERSION_MAJOR > (major) ||    \
	 (QEMU_VERSION_MAJOR == (major) && QEMU_VERSION_MINOR >= (minor)))

/* 8.0: struct PCIDevice has a header of its own, and pci.h does not bring it. */
#if VGPU_QEMU_IS_AT_LEAST(8, 0)
#include "hw/pci/pci_device.h"
#else
#include "hw/pci/pci.h"
#endif

/* 11.0: qdev's headers are below hw/core. */
#if VGPU_QEMU_IS_AT_LEAST(11, 0)
#include "hw/core/qdev-properties.h"
#else
#include "hw/qdev-properties.h"
#endif

#include "migration/vmstate.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/timer.h"

/* 10.1: the class data that class_init gets is const. */
#if VGPU_QEMU_IS_AT_LEAST(10, 1)
#define VGPU_CLASS_DATA const void
#else
#define VGPU_CLASS_DATA void
#endif

/* 10.0: arrays of properties are const, and counted instead of ended by an empty one. */
#if VGPU_QEMU_IS_AT_LEAST(10, 0)
#define VGPU_PROPERTIES const Property
#define VGPU_PROPERTIES_END
#else
#define VGPU_PROPERTIES     Property
#define VGPU_PROPERTIES_END DEFINE_PROP_END_OF_LIST(),
#endif

/* 9.2: the simple reset has a setter with "legacy" in its name; the field is going away. */
static inline void vgpu_class_set_reset(DeviceClass *class, void (*reset)(DeviceState *device))
{
#if VGPU_QEMU_IS_AT_LEAST(9, 2)
	device_class_set_legacy_reset(class, reset);
#else
	class->reset = reset;
#endif
}

/*
 * 5.0: properties are handed over by a function; from 10.0 on it is a macro that counts
 * them, so this must be a macro too.
 */
#if VGPU_QEMU_IS_AT_LEAST(5, 0)
#define vgpu_class_set_properties(class, properties) device_class_set_props(class, properties)
#else
#define vgpu_class_set_properties(class, properties) ((class)->props = (properties))
#endif

#endif
