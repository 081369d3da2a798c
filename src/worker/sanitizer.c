/* SPDX-License-Identifier: MIT */
/*
 * What AddressSanitizer must know of vgpu-worker; linked into it by sanitizer builds
 * only (meson.build).
 *
 * LeakSanitizer looks for leaks through ptrace and a process of its own, which the
 * worker's sandbox forbids, rightly: it would end every worker with an error. The
 * unit tests look for the leaks of the worker's parts instead. And a worker whose job
 * faults must die of SIGSEGV as it does without sanitizer, since tests ask for that.
 *
 * The names and their meaning are the sanitizer's.
 */
int __lsan_is_turned_off(void);
const char *__asan_default_options(void);

int __lsan_is_turned_off(void)
{
	return 1;
}

const char *__asan_default_options(void)
{
	return "handle_segv=0";
}
