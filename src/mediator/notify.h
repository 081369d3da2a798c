/* SPDX-License-Identifier: MIT */
/*
 * Tells the service manager how we are: the datagram protocol of sd_notify(3), which
 * is a handful of lines and stable, so that no library has to be linked for it.
 */
#ifndef MEDIATOR_NOTIFY_H
#define MEDIATOR_NOTIFY_H

#include <stdint.h>

/*
 * Sends @state ("READY=1", "STOPPING=1", ...) to $NOTIFY_SOCKET. Without that variable,
 * or when nobody listens, nothing happens.
 */
void notify_service_manager(const char *state);

/*
 * How often the service manager wants to hear "WATCHDOG=1" at least, in microseconds; 0 =
 * it does not watch us (sd_watchdog_enabled(3)).
 */
uint64_t notify_watchdog_us(void);

#endif
