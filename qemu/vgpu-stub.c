/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The QEMU device "vgpu-stub": BAR0 on one side, a socket to the mediator on the
 * other, and vgpu-regs.c between them.
 *
 * The connection is the device's own rather than a chardev's, since it must never
 * be made in realize (the path means something else before QEMU's chroot) and never
 * wait: a timer attempts a non-blocking connect, at start and after every loss, and
 * what cannot be sent at once waits for the socket's fd handler. No MMIO access and
 * no start of a VM ever waits for the mediator.
 *
 * A request belongs to one connection. Reset and unplug therefore close it: no
 * answer to what ran before can reach what runs after.
 */
#include "qemu/osdep.h"

#include <sys/socket.h>
#include <sys/un.h>

#include "compat.h"
#include "vgpu-regs.h"

#define TYPE_VGPU_STUB  "vgpu-stub"
#define VGPU_STUB(obj)  OBJECT_CHECK(struct vgpu_stub, (obj), TYPE_VGPU_STUB)
#define RECEIVE_BYTES   4096
#define LOG_BURST       8 /* messages per LOG_INTERVAL_MS; a guest can cause them by resets */
#define LOG_INTERVAL_MS 60000

struct vgpu_stub {
	PCIDevice parent_obj;
	MemoryRegion bar0;
	struct vgpu_regs *regs;

	int fd; /* -1: not connected */
	QEMUTimer *connect_timer;
	bool absence_told; /* that nobody answers, since the last connection */

	int64_t log_since_ms;
	unsigned log_count;

	char *pool_id;
	char *priority;
	char *socket;
	uint32_t vm_id;
};

static const struct {
	const char *name;
	uint8_t value;
} priorities[] = {
	{"low", VGPU_PRIORITY_LOW},
	{"medium", VGPU_PRIORITY_MEDIUM},
	{"high", VGPU_PRIORITY_HIGH},
};

static uint64_t stub_now_us(void)
{
	return (uint64_t)qemu_clock_get_us(QEMU_CLOCK_VIRTUAL);
}

static const char *stub_socket(const struct vgpu_stub *stub)
{
	return stub->socket ? stub->socket : VGPU_SOCKET_DEFAULT;
}

static bool stub_may_log(struct vgpu_stub *stub)
{
	int64_t now_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);

	if (!stub->log_since_ms || now_ms - stub->log_since_ms >= LOG_INTERVAL_MS) {
		stub->log_since_ms = now_ms;
		stub->log_count = 0;
	}
	return stub->log_count++ < LOG_BURST;
}

/* ---- The connection ----------------------------------------------------- */

static void stub_schedule_connect(struct vgpu_stub *stub)
{
	timer_mod(stub->connect_timer,
	          qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + vgpu_regs_retry_ms(stub->regs));
}

static void stub_close(struct vgpu_stub *stub)
{
	if (stub->fd < 0)
		return;
	qemu_set_fd_handler(stub->fd, NULL, NULL, NULL);
	close(stub->fd);
	stub->fd = -1;
}

static void stub_lose_connection(struct vgpu_stub *stub, enum vgpu_regs_end why, const char *reason)
{
	stub_close(stub);
	vgpu_regs_disconnected(stub->regs, why, stub_now_us());
	stub_schedule_connect(stub);
	if (stub_may_log(stub))
		warn_report("vgpu-stub: vm_id %" PRIu32 ": connection to '%s' ended: %s",
		            stub->vm_id, stub_socket(stub), reason);
}

static void stub_receive(void *opaque);
static void stub_flush(void *opaque);

static void stub_watch(struct vgpu_stub *stub)
{
	const uint8_t *out;

	qemu_set_fd_handler(stub->fd, stub_receive,
	                    vgpu_regs_pending(stub->regs, &out) ? stub_flush : NULL, stub);
}

/* Sends what the socket takes now; the fd handler brings us back for the rest. */
static void stub_flush(void *opaque)
{
	struct vgpu_stub *stub = opaque;
	const uint8_t *out;
	size_t count;
	ssize_t sent;

	while ((count = vgpu_regs_pending(stub->regs, &out))) {
		sent = send(stub->fd, out, count, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno == EAGAIN)
			break;
		if (sent < 0) {
			stub_lose_connection(stub, VGPU_REGS_END_PEER, strerror(errno));
			return;
		}
		vgpu_regs_sent(stub->regs, (size_t)sent);
	}
	stub_watch(stub);
}

/* One read a call, so that a mediator that never stops sending leaves QEMU its turns. */
static void stub_receive(void *opaque)
{
	struct vgpu_stub *stub = opaque;
	uint8_t bytes[RECEIVE_BYTES];
	ssize_t count;

	count = recv(stub->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
	if (count < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (count <= 0) {
		stub_lose_connection(stub, VGPU_REGS_END_PEER,
		                     count ? strerror(errno) : "closed by the mediator");
		return;
	}
	if (vgpu_regs_receive(stub->regs, bytes, (size_t)count, stub_now_us())) {
		stub_lose_connection(stub, VGPU_REGS_END_PROTOCOL, "malformed message");
		return;
	}
	stub_flush(stub);
}

/* Returns a connected socket, or -errno. Connecting to a local socket never takes time. */
static int stub_open_socket(const struct vgpu_stub *stub)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd, r;

	/* realize checked that the path fits, with the zero that ends it */
	memcpy(address.sun_path, stub_socket(stub), strlen(stub_socket(stub)));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&address, sizeof(address))) {
		r = -errno;
		close(fd);
		return r;
	}
	return fd;
}

static void stub_connect(void *opaque)
{
	struct vgpu_stub *stub = opaque;
	int fd;

	if (stub->fd >= 0)
		return;

	fd = stub_open_socket(stub);
	if (fd < 0) {
		if (!stub->absence_told && stub_may_log(stub))
			info_report("vgpu-stub: vm_id %" PRIu32 ": no mediator at '%s' yet (%s)",
			            stub->vm_id, stub_socket(stub), strerror(-fd));
		stub->absence_told = true;
		vgpu_regs_connect_failed(stub->regs);
		stub_schedule_connect(stub);
		return;
	}

	stub->fd = fd;
	stub->absence_told = false;
	if (stub_may_log(stub))
		info_report("vgpu-stub: vm_id %" PRIu32 ": connected to '%s'", stub->vm_id,
		            stub_socket(stub));
	vgpu_regs_connected(stub->regs);
	stub_flush(stub);
}

/* ---- BAR0 --------------------------------------------------------------- */

static uint64_t stub_bar0_read(void *opaque, hwaddr offset, unsigned bytes)
{
	struct vgpu_stub *stub = opaque;

	return vgpu_regs_read(stub->regs, offset, bytes);
}

static void stub_bar0_write(void *opaque, hwaddr offset, uint64_t value, unsigned bytes)
{
	struct vgpu_stub *stub = opaque;
	const uint8_t *out;

	vgpu_regs_write(stub->regs, offset, bytes, value, stub_now_us());
	if (stub->fd >= 0 && vgpu_regs_pending(stub->regs, &out))
		stub_flush(stub);
}

static const MemoryRegionOps stub_bar0_ops = {
	.read = stub_bar0_read,
	.write = stub_bar0_write,
	.endianness = DEVICE_LITTLE_ENDIAN,
	.valid = {.min_access_size = 1, .max_access_size = 8, .unaligned = true},
	.impl = {.min_access_size = 1, .max_access_size = 8, .unaligned = true},
};

/* ---- Life --------------------------------------------------------------- */

/*
 * The first reset comes before QEMU's chroot, so the new connection is left to the timer
 * here as well: timers run only once QEMU's main loop does.
 */
static void stub_reset(DeviceState *device)
{
	struct vgpu_stub *stub = VGPU_STUB(device);

	stub_close(stub);
	vgpu_regs_reset(stub->regs);
	stub_schedule_connect(stub);
}

/* Reads the properties into @config. Returns false and sets @errp if one is wrong. */
static bool stub_read_properties(const struct vgpu_stub *stub, struct vgpu_regs_config *config,
                                 Error **errp)
{
	const char *pool = stub->pool_id ? stub->pool_id : "A";
	const char *priority = stub->priority ? stub->priority : "medium";
	size_t i;

	if (strcmp(pool, "A") != 0 && strcmp(pool, "B") != 0) {
		error_setg(errp, "vgpu-stub: pool_id is '%s', but must be 'A' or 'B'", pool);
		return false;
	}
	for (i = 0; i < ARRAY_SIZE(priorities); i++) {
		if (!strcmp(priority, priorities[i].name))
			break;
	}
	if (i == ARRAY_SIZE(priorities)) {
		error_setg(errp,
		           "vgpu-stub: priority is '%s', but must be 'low', 'medium' or 'high'",
		           priority);
		return false;
	}
	if (!*stub_socket(stub) ||
	    strlen(stub_socket(stub)) >= sizeof(((struct sockaddr_un *)NULL)->sun_path)) {
		error_setg(errp, "vgpu-stub: socket is '%s', but must be a path of 1 to %zu bytes",
		           stub_socket(stub), sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1);
		return false;
	}

	config->vm_id = stub->vm_id;
	config->pool_id = pool[0];
	config->priority = priorities[i].value;
	return true;
}

static void stub_realize(PCIDevice *pci, Error **errp)
{
	struct vgpu_stub *stub = VGPU_STUB(pci);
	struct vgpu_regs_config config;
	int r;

	if (!stub_read_properties(stub, &config, errp))
		return;
	r = vgpu_regs_new(&stub->regs, &config);
	if (r) {
		error_setg_errno(errp, -r, "vgpu-stub: cannot make the device");
		return;
	}

	stub->fd = -1;
	stub->connect_timer = timer_new_ms(QEMU_CLOCK_REALTIME, stub_connect, stub);
	memory_region_init_io(&stub->bar0, OBJECT(stub), &stub_bar0_ops, stub, "vgpu-stub-bar0",
	                      VGPU_BAR0_BYTES);
	pci_register_bar(pci, 0, PCI_BASE_ADDRESS_SPACE_MEMORY, &stub->bar0);
	stub_schedule_connect(stub);
}

/*
 * The device is off the bus, but an access that a virtual processor began before that, and
 * for which it had to wait, is still to come: the registers stay until nobody holds the object.
 */
static void stub_exit(PCIDevice *pci)
{
	struct vgpu_stub *stub = VGPU_STUB(pci);

	stub_close(stub);
	timer_del(stub->connect_timer);
	timer_free(stub->connect_timer);
	vgpu_regs_reset(stub->regs);
}

static void stub_finalize(Object *object)
{
	vgpu_regs_free(VGPU_STUB(object)->regs);
}

static const VMStateDescription stub_vmstate = {
	.name = TYPE_VGPU_STUB,
	.unmigratable = 1,
};

static VGPU_PROPERTIES stub_properties[] = {
	DEFINE_PROP_STRING("pool_id", struct vgpu_stub, pool_id),
	DEFINE_PROP_STRING("priority", struct vgpu_stub, priority),
	DEFINE_PROP_UINT32("vm_id", struct vgpu_stub, vm_id, 0),
	DEFINE_PROP_STRING("socket", struct vgpu_stub, socket), VGPU_PROPERTIES_END};

static void stub_class_init(ObjectClass *class, VGPU_CLASS_DATA *data)
{
	DeviceClass *device = DEVICE_CLASS(class);
	PCIDeviceClass *pci = PCI_DEVICE_CLASS(class);

	pci->realize = stub_realize;
	pci->exit = stub_exit;
	pci->vendor_id = VGPU_PCI_VENDOR_ID;
	pci->device_id = VGPU_PCI_DEVICE_ID;
	pci->class_id = VGPU_PCI_CLASS;
	pci->revision = VGPU_PCI_REVISION;
	device->desc = "vGPU: a share of the host's GPU through vgpu-mediator";
	device->vmsd = &stub_vmstate;
	vgpu_class_set_reset(device, stub_reset);
	vgpu_class_set_properties(device, stub_properties);
	set_bit(DEVICE_CATEGORY_MISC, device->categories);
}

static InterfaceInfo stub_interfaces[] = {
	{INTERFACE_CONVENTIONAL_PCI_DEVICE},
	{},
};

static const TypeInfo stub_info = {
	.name = TYPE_VGPU_STUB,
	.parent = TYPE_PCI_DEVICE,
	.instance_size = sizeof(struct vgpu_stub),
	.instance_finalize = stub_finalize,
	.class_init = stub_class_init,
	.interfaces = stub_interfaces,
};

static void stub_register_types(void)
{
	type_register_static(&stub_info);
}

type_init(stub_register_types)
