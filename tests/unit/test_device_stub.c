/* SPDX-License-Identifier: MIT */
/*
 * The device's life without QEMU: what a guest may still do to a device that goes away.
 * QEMU takes it off the bus, but an access that a virtual processor has begun holds the
 * object and is carried out afterwards. What is freed by then would be read again: the
 * test harness fills it with a pattern (MALLOC_PERTURB_), a sanitizer stops the test.
 */
#include "qemu/osdep.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "vgpu/protocol.h"

struct QEMUTimer {
	void (*run)(void *opaque);
	void *opaque;
	bool armed;
};

static const TypeInfo *type;
static MemoryRegion *bar0;
static unsigned int timers;

/* ---- What QEMU would do -------------------------------------------------------- */

void type_register_static(const TypeInfo *info)
{
	type = info;
}

void error_setg(Error **errp, const char *format, ...)
{
	*errp = (Error *)errp;
}

void error_setg_errno(Error **errp, int error, const char *format, ...)
{
	*errp = (Error *)errp;
}

void warn_report(const char *format, ...)
{
}

void info_report(const char *format, ...)
{
}

void memory_region_init_io(MemoryRegion *region, Object *owner, const MemoryRegionOps *ops,
                           void *opaque, const char *name, uint64_t size)
{
	region->ops = ops;
	region->opaque = opaque;
}

void pci_register_bar(PCIDevice *pci, int number, int bar_type, MemoryRegion *region)
{
	bar0 = region;
}

int64_t qemu_clock_get_ms(int clock)
{
	return 1;
}

int64_t qemu_clock_get_us(int clock)
{
	return 1000;
}

QEMUTimer *timer_new_ms(int clock, void (*run)(void *opaque), void *opaque)
{
	QEMUTimer *timer = calloc(1, sizeof(*timer));

	assert_non_null(timer);
	timer->run = run;
	timer->opaque = opaque;
	timers++;
	return timer;
}

void timer_mod(QEMUTimer *timer, int64_t at_ms)
{
	timer->armed = true;
}

void timer_del(QEMUTimer *timer)
{
	timer->armed = false;
}

void timer_free(QEMUTimer *timer)
{
	assert_false(timer->armed);
	timers--;
	free(timer);
}

void qemu_set_fd_handler(int fd, void (*readable)(void *opaque), void (*writable)(void *opaque),
                         void *opaque)
{
}

/* ---- Tests ----------------------------------------------------------------------- */

static PCIDeviceClass class;

static PCIDevice *make(void)
{
	PCIDevice *pci = calloc(1, type->instance_size);

	assert_non_null(pci);
	type->class_init(&class.parent_class.parent_class, NULL);
	return pci;
}

static PCIDevice *plug(void)
{
	PCIDevice *pci = make();
	Error *error = NULL;

	class.realize(pci, &error);
	assert_null(error);
	class.parent_class.reset(&pci->qdev);
	assert_int_equal(timers, 1);
	return pci;
}

/* Nobody holds the object any more. */
static void release(PCIDevice *pci)
{
	if (type->instance_finalize)
		type->instance_finalize(&pci->qdev.parent_obj);
	assert_int_equal(timers, 0);
	free(pci);
}

static uint32_t read_register(uint32_t offset)
{
	return (uint32_t)bar0->ops->read(bar0->opaque, offset, 4);
}

static void write_register(uint32_t offset, uint32_t value)
{
	bar0->ops->write(bar0->opaque, offset, value, 4);
}

static void test_access_after_unplug(void **state)
{
	PCIDevice *pci = plug();

	assert_int_equal(read_register(VGPU_REG_PROTOCOL_VER), VGPU_PROTOCOL_VERSION);
	write_register(VGPU_REG_SCRATCH, 0x12345678);
	class.exit(pci);
	assert_int_equal(read_register(VGPU_REG_PROTOCOL_VER), VGPU_PROTOCOL_VERSION);
	/* Nothing of the guest is left, and nothing new leads anywhere. */
	assert_int_equal(read_register(VGPU_REG_SCRATCH), 0);
	write_register(VGPU_REG_REQUEST_LEN, 32);
	write_register(VGPU_REG_DOORBELL, 1);
	assert_int_equal(read_register(VGPU_REG_STATUS), VGPU_STATUS_ERROR);
	assert_int_equal(read_register(VGPU_REG_ERROR_CODE), VGPU_CODE_UNAVAILABLE);
	release(pci);
}

/* QEMU makes an object to ask for its properties, and drops it again. */
static void test_never_plugged(void **state)
{
	release(make());
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_access_after_unplug),
		cmocka_unit_test(test_never_plugged),
	};

	fake_qemu_start();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
