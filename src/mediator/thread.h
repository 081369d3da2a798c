/* SPDX-License-Identifier: MIT */
/*
 * What the threads beside the event loop's have in common. Each shares a mailbox with the
 * event loop behind a mutex: the loop wakes it by a condition, it calls the loop by a bell.
 */
#ifndef MEDIATOR_THREAD_H
#define MEDIATOR_THREAD_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

/* Starts a thread that gets no signals: they are the event loop's. 0 or a negative errno. */
int thread_start(pthread_t *out, void *(*run)(void *arg), void *arg);

/* Waits with a time for an end are by thread_deadline(): no change of the date matters. */
void thread_cond_init(pthread_cond_t *out);

/*
 * Waits until *@happened or @ms have passed, with @mutex locked, under which the other thread
 * sets it and signals @cond. Returns *@happened.
 */
bool thread_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, const bool *happened, int64_t ms);

/* @ms from now. */
struct timespec thread_deadline(int64_t ms);

/* A descriptor for the event loop, which becomes readable when the bell rings; -errno. */
int thread_bell_new(void);
void thread_bell_ring(int bell);
/* Until it rings again. */
void thread_bell_silence(int bell);

#endif
