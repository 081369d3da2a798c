/* SPDX-License-Identifier: MIT */
/*
 * When to try a refused request again.
 *
 * Before retry n a guest sleeps a random time between half of d and d, d growing from
 * 0.2 to 5 s, so that many refused guests come back spread out; and never less than
 * the mediator's own hint, before which a try is sure to be refused.
 */
#ifndef GUEST_RETRY_H
#define GUEST_RETRY_H

#include <stdint.h>

/*
 * Microseconds to sleep before retry @attempt (1..VGPU_RETRIES_MAX) of a request that
 * was refused with the hint @retry_after_us. @random: 32 uniform bits.
 */
int64_t retry_delay_us(unsigned int attempt, uint32_t retry_after_us, uint32_t random);

#endif
