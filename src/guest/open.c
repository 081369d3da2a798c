/* SPDX-License-Identifier: MIT */
/*
 * The ways to a handle, and the texts for people when there is none.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "guest/bdf.h"
#include "guest/handle.h"
#include "guest/mmio.h"
#include "guest/socket_transport.h"
#include "guest/sysfs.h"

int vgpu_find_devices(struct vgpu_device_name *names, size_t capacity, size_t *count)
{
	return sysfs_find_devices(SYSFS_PCI_DEVICES, names, capacity, count);
}

/* Sets @name to the one device that @bdf means, the first found when it is NULL. */
static int choose_device(struct vgpu_device_name *name, const char *bdf, char *why,
                         size_t why_bytes)
{
	size_t count;
	int r;

	if (bdf) {
		if (bdf_parse(name, bdf))
			return 0;
		snprintf(why, why_bytes,
		         "'%.64s' is no PCI address; one looks like 0000:00:05.0, see lspci -D",
		         bdf);
		return VGPU_E_NO_DEVICE;
	}
	r = vgpu_find_devices(name, 1, &count);
	if (r != 0) {
		snprintf(why, why_bytes, "cannot read %s: %s; is sysfs mounted on /sys?",
		         SYSFS_PCI_DEVICES, strerror(-r));
		return r;
	}
	if (count > 0)
		return 0;
	snprintf(why, why_bytes,
	         "no vgpu device in this guest; the VM needs '-device vgpu-stub' and a restart");
	return VGPU_E_NO_DEVICE;
}

int vgpu_open_device(struct vgpu **out, const char *bdf, char *why, size_t why_bytes)
{
	struct guest_env env = guest_env_system();
	struct vgpu_device_name name;
	const struct bar_ops *ops;
	struct transport *transport;
	char unused[1];
	void *context;
	int r;

	if (!why) {
		why = unused;
		why_bytes = sizeof(unused);
	}
	r = choose_device(&name, bdf, why, why_bytes);
	if (r != 0)
		return r;
	r = sysfs_open_device(&ops, &context, SYSFS_PCI_DEVICES, name.bdf, why, why_bytes);
	if (r != 0)
		return r;
	r = mmio_new(&transport, ops, context, name.bdf, &env);
	if (r == 0)
		r = handle_new(out, transport, &env);
	if (r == VGPU_E_PROTOCOL)
		snprintf(why, why_bytes,
		         "device %s does not speak protocol 1.x; update this client", name.bdf);
	else if (r != 0)
		snprintf(why, why_bytes, "device %s does not answer: %s; rescan or restart the VM",
		         name.bdf, vgpu_strerror(r));
	return r;
}

int vgpu_open_socket(struct vgpu **out, const char *path, char *why, size_t why_bytes)
{
	static const struct {
		int error;
		const char *text;
	} remedies[] = {
		{-ENOENT, "is the mediator running, and the VM registered?"},
		{-ECONNREFUSED, "the mediator is not running: start vgpu-mediator"},
		{-EACCES, "run as root"},
		{-EAGAIN, "the mediator accepts no connections: is it stopped?"},
		{-ENAMETOOLONG, "a socket path has at most 107 bytes"},
	};
	struct guest_env env = guest_env_system();
	const char *remedy = "is it the mediator's socket?";
	struct transport *transport;
	int r;

	r = socket_transport_connect(&transport, path, &env);
	if (r == 0)
		r = handle_new(out, transport, &env);
	for (size_t i = 0; i < ARRAY_LEN(remedies); i++) {
		if (remedies[i].error == r)
			remedy = remedies[i].text;
	}
	if (r != 0 && why)
		snprintf(why, why_bytes, "cannot connect to '%.120s': %s; %s", path,
		         vgpu_strerror(r), remedy);
	return r;
}
