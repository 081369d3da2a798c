/* SPDX-License-Identifier: MIT */
/* See thread.h. */
#include "mediator/thread.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/util.h"

int thread_start(pthread_t *out, void *(*run)(void *arg), void *arg)
{
	sigset_t all, before;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(out, NULL, run, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -r;
}

void thread_cond_init(pthread_cond_t *out)
{
	pthread_condattr_t attributes;

	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(out, &attributes);
	pthread_condattr_destroy(&attributes);
}

struct timespec thread_deadline(int64_t ms)
{
	int64_t at_ns = clock_monotonic_ns() + ms * NS_PER_MS;

	return (struct timespec){.tv_sec = at_ns / NS_PER_SEC, .tv_nsec = at_ns % NS_PER_SEC};
}

bool thread_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, const bool *happened, int64_t ms)
{
	const struct timespec until = thread_deadline(ms);

	while (!*happened && pthread_cond_timedwait(cond, mutex, &until) != ETIMEDOUT)
		;
	return *happened;
}

int thread_bell_new(void)
{
	int bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	return bell < 0 ? -errno : bell;
}

void thread_bell_ring(int bell)
{
	const uint64_t one = 1;

	if (write(bell, &one, sizeof(one)) < 0)
		log_error("a thread cannot call the event loop: %s", strerror(errno));
}

void thread_bell_silence(int bell)
{
	ssize_t length UNUSED;
	uint64_t count;

	length = read(bell, &count, sizeof(count));
}
