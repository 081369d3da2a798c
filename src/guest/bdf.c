/* SPDX-License-Identifier: MIT */
/*
 * See bdf.h.
 */
#include "guest/bdf.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

bool bdf_parse(struct vgpu_device_name *name, const char *text)
{
	static const char pattern[] = "hhhh:hh:hh.h";
	const char *domain = strlen(text) == strlen("hh:hh.h") ? "0000:" : "";
	struct vgpu_device_name whole = {0};

	if (strlen(domain) + strlen(text) != strlen(pattern))
		return false;
	snprintf(whole.bdf, sizeof(whole.bdf), "%s%s", domain, text);
	for (size_t i = 0; pattern[i]; i++) {
		unsigned char c = (unsigned char)whole.bdf[i];

		if (pattern[i] == 'h' ? !isxdigit(c) : whole.bdf[i] != pattern[i])
			return false;
		whole.bdf[i] = (char)tolower(c);
	}
	*name = whole;
	return true;
}
