/* SPDX-License-Identifier: Apache-2.0
 *
 * reclaim.h -- autoMemoryReclaim: clean pages of files go back to the host when a microVM rests. */
#ifndef PIL_GUEST_RECLAIM_H
#define PIL_GUEST_RECLAIM_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/init_options.h"
#include "base/loop.h"

struct reclaim {
	struct loop *loop;
	struct loop_timer timer;
	enum init_reclaim how;
	uint64_t busy, total; /* ticks of all processors when we looked last */
	int64_t idle_ms;      /* for so long there has been nothing to do */
	bool dropped;         /* since then */
};

/* Looks after the memory from now on. */
void reclaim_begin(struct reclaim *r, struct loop *loop, enum init_reclaim how);

/* The last command has ended: dropCache need not wait for a minute of rest. */
void reclaim_rest(struct reclaim *r);

/* For tests: what the first line of /proc/stat says; how much of the cache, of which /proc/meminfo
 * says how large it is, is to go now. */
bool reclaim_read_stat(const char *stat, uint64_t *busy, uint64_t *total);
uint64_t reclaim_step_bytes(const char *meminfo);

#endif
