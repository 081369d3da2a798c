/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Only in the shared object that is preloaded into a stock QEMU: takes LD_PRELOAD out
 * of QEMU's environment again. A program that QEMU starts (a network script, an exec:
 * migration) would load the device as well, miss QEMU's symbols and die.
 */
#include <stdlib.h>

static void __attribute__((constructor)) preload_forget(void)
{
	unsetenv("LD_PRELOAD");
}
