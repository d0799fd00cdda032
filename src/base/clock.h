/* SPDX-License-Identifier: Apache-2.0
 *
 * clock.h -- what time it is, in three units: CLOCK_MONOTONIC, which nobody sets and which stands
 * still while the host is suspended.  Inline, because pauses of microseconds are measured with it.
 * Times of this clock are `due_ms`, `started_us` and so on: the unit is in the name. */
#ifndef PIL_CLOCK_H
#define PIL_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline int64_t clock_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static inline int64_t clock_now_us(void)
{
	return clock_now_ns() / 1000;
}

static inline int64_t clock_now_ms(void)
{
	return clock_now_ns() / 1000000;
}

#endif
