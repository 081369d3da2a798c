/* SPDX-License-Identifier: MIT */
/*
 * PCI addresses as people write them.
 */
#ifndef GUEST_BDF_H
#define GUEST_BDF_H

#include <stdbool.h>

#include "vgpu/vgpu.h"

/*
 * Whether @text is a PCI address: "0000:00:05.0", or "00:05.0" in domain 0. Sets *@name
 * to it as sysfs writes it if so: with the domain, in lower case.
 */
bool bdf_parse(struct vgpu_device_name *name, const char *text);

#endif
