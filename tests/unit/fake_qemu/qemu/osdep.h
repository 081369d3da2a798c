/* SPDX-License-Identifier: MIT */
/*
 * As much of QEMU as qemu/vgpu-stub.c needs to run in a unit test: the names are QEMU's,
 * what is behind them is test_device_stub.c. It stands in for compat.h as well, whose
 * guard is defined.
 */
#ifndef FAKE_QEMU_OSDEP_H
#define FAKE_QEMU_OSDEP_H

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

/* ---- Objects and devices ---- */

typedef struct Object {
	int unused;
} Object;
typedef struct ObjectClass {
	int unused;
} ObjectClass;
typedef struct DeviceState {
	Object parent_obj;
} DeviceState;
typedef struct PCIDevice {
	DeviceState qdev;
} PCIDevice;
typedef struct Error Error;
typedef struct VMStateDescription {
	const char *name;
	int unmigratable;
} VMStateDescription;
typedef struct Property {
	const char *name;
} Property;

typedef struct DeviceClass {
	ObjectClass parent_class;
	const char *desc;
	const VMStateDescription *vmsd;
	unsigned long categories[1];
	void (*reset)(DeviceState *device);
} DeviceClass;
typedef struct PCIDeviceClass {
	DeviceClass parent_class;
	void (*realize)(PCIDevice *pci, Error **errp);
	void (*exit)(PCIDevice *pci);
	uint16_t vendor_id;
	uint16_t device_id;
	uint8_t revision;
	uint16_t class_id;
} PCIDeviceClass;
typedef struct InterfaceInfo {
	const char *type;
} InterfaceInfo;
typedef struct TypeInfo {
	const char *name;
	const char *parent;
	size_t instance_size;
	void (*instance_init)(Object *object);
	void (*instance_finalize)(Object *object);
	void (*class_init)(ObjectClass *class, void *data);
	const InterfaceInfo *interfaces;
} TypeInfo;

#define TYPE_PCI_DEVICE                   "pci-device"
#define INTERFACE_CONVENTIONAL_PCI_DEVICE "conventional-pci-device"
#define OBJECT(object)                    ((Object *)(object))
#define OBJECT_CHECK(type, object, name)  ((type *)(object))
#define DEVICE_CLASS(class)               ((DeviceClass *)(class))
#define PCI_DEVICE_CLASS(class)           ((PCIDeviceClass *)(class))
#define DEVICE_CATEGORY_MISC              0
#define set_bit(number, bits)             ((bits)[0] |= 1ul << (number))

#define DEFINE_PROP_STRING(property, type, member) \
	{                                          \
		property                           \
	}
#define DEFINE_PROP_UINT32(property, type, member, initial) \
	{                                                   \
		property                                    \
	}
#define VGPU_PROPERTIES Property
#define VGPU_PROPERTIES_END \
	{                   \
		NULL        \
	}
#define VGPU_CLASS_DATA                              void
#define vgpu_class_set_reset(class, function)        ((class)->reset = (function))
#define vgpu_class_set_properties(class, properties) ((void)(properties))

void type_register_static(const TypeInfo *info);
#define type_init(function)         \
	void fake_qemu_start(void); \
	void fake_qemu_start(void)  \
	{                           \
		function();         \
	}

/* ---- Errors and the log ---- */

void error_setg(Error **errp, const char *format, ...) __attribute__((format(printf, 2, 3)));
void error_setg_errno(Error **errp, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void warn_report(const char *format, ...) __attribute__((format(printf, 1, 2)));
void info_report(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- Memory ---- */

typedef uint64_t hwaddr;

enum { DEVICE_LITTLE_ENDIAN, PCI_BASE_ADDRESS_SPACE_MEMORY };

typedef struct MemoryRegionOps {
	uint64_t (*read)(void *opaque, hwaddr offset, unsigned bytes);
	void (*write)(void *opaque, hwaddr offset, uint64_t value, unsigned bytes);
	int endianness;
	struct {
		unsigned min_access_size, max_access_size;
		bool unaligned;
	} valid, impl;
} MemoryRegionOps;
typedef struct MemoryRegion {
	const MemoryRegionOps *ops;
	void *opaque;
} MemoryRegion;

void memory_region_init_io(MemoryRegion *region, Object *owner, const MemoryRegionOps *ops,
                           void *opaque, const char *name, uint64_t size);
void pci_register_bar(PCIDevice *pci, int number, int type, MemoryRegion *region);

/* ---- Time and descriptors ---- */

typedef struct QEMUTimer QEMUTimer;

enum { QEMU_CLOCK_REALTIME, QEMU_CLOCK_VIRTUAL };

int64_t qemu_clock_get_ms(int clock);
int64_t qemu_clock_get_us(int clock);
QEMUTimer *timer_new_ms(int clock, void (*run)(void *opaque), void *opaque);
void timer_mod(QEMUTimer *timer, int64_t at_ms);
void timer_del(QEMUTimer *timer);
void timer_free(QEMUTimer *timer);
void qemu_set_fd_handler(int fd, void (*readable)(void *opaque), void (*writable)(void *opaque),
                         void *opaque);

void fake_qemu_start(void);

#endif
