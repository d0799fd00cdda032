/* SPDX-License-Identifier: Apache-2.0
 *
 * host_clock.h -- the wall clock of a microVM follows its host's: what the host says of the time on
 * the life connection (agent.h). */
#ifndef PIL_GUEST_HOST_CLOCK_H
#define PIL_GUEST_HOST_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

struct host_clock {
	uint8_t said[8 * sizeof(int64_t)]; /* and not looked at so far */
	unsigned have;
	int64_t back_ns; /* by so much the last message would have set it back; 0: it would not */
};

/* Reads what there is on @fd, and sets the clock if it is to be set.  False: the host has ended the
 * connection. */
bool host_clock_read(struct host_clock *clock, int fd);

/* By how many ns to set a clock that says @own_ns; 0: not at all, or not yet. */
int64_t host_clock_step_ns(struct host_clock *clock, int64_t own_ns, int64_t host_ns);

#endif
