/* SPDX-License-Identifier: Apache-2.0
 *
 * loop.h -- a single-threaded event loop on epoll.
 *
 * Sources are owned by the caller and embedded in its own objects; the loop only borrows them
 * between loop_add() and loop_remove().  A source may be removed (and freed) from any callback,
 * its own included: events already fetched for it are dropped. */
#ifndef PIL_LOOP_H
#define PIL_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/compiler.h"
#include "base/list.h"

struct loop;

struct loop_source {
	int fd; /* borrowed; not closed by the loop */
	void (*ready)(struct loop_source *source, uint32_t events); /* EPOLL* bits */
	struct loop *loop;                                          /* NULL while not added */
};

struct loop_timer {
	void (*expired)(struct loop_timer *timer);
	int64_t due_ms;   /* CLOCK_MONOTONIC; private */
	struct list link; /* loop::timers; private */
	bool armed;
};

int loop_create(struct loop **out) PIL_MUST_CHECK;
void loop_destroy(struct loop *loop); /* NULL is fine */

/* Watches @source->fd for @events (EPOLLIN, EPOLLOUT, ...).  0 or -errno. */
int loop_add(struct loop *loop, struct loop_source *source, uint32_t events) PIL_MUST_CHECK;
int loop_modify(struct loop_source *source, uint32_t events) PIL_MUST_CHECK;
void loop_remove(struct loop_source *source); /* not added is fine */

/* One shot; arming again moves the due time. */
void loop_timer_arm(struct loop *loop, struct loop_timer *timer, int64_t delay_ms);
void loop_timer_cancel(struct loop_timer *timer); /* not armed is fine */

/* Runs until loop_stop(); returns the value given there, or -errno. */
int loop_run(struct loop *loop);
void loop_stop(struct loop *loop, int result);

static inline int64_t loop_now_ms(void) /* the clock of its timers */
{
	return clock_now_ms();
}

/* How long poll() may wait for what is due at @due_ms: 0 when that is past. */
int loop_left_ms(int64_t due_ms);

#endif
