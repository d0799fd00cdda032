/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: epoll holds a pointer to each source.  A callback may remove any source, and
 * epoll_wait() may already have handed out an event for it, so loop_remove() also wipes the source
 * from the batch being delivered.
 *
 * Timers are few (one or two per daemon), so they sit on a plain list that is searched for the
 * earliest; a heap would buy nothing.  One timerfd, the clock, rings for all of them.  It is set
 * anew only for a timer that is due sooner: one that is cancelled or moved on costs no system call,
 * but a ring for nothing, and a loop that is busy beside a timer neither asks for the time nor has
 * the kernel set a timer each time it sleeps. */
#include "base/loop.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"

#define BATCH 64

struct loop {
	int epoll_fd;
	struct list timers;       /* loop_timer::link */
	struct loop_source clock; /* a timerfd */
	int64_t clock_due_ms;     /* when it rings; INT64_MAX: it is not set */
	struct epoll_event batch[BATCH];
	int n_batch; /* events of the batch not delivered yet lie in [next, n_batch) */
	bool stopped;
	int result;
};

int loop_left_ms(int64_t due_ms)
{
	int64_t left = due_ms - clock_now_ms();

	return left <= 0 ? 0 : left < INT_MAX ? (int)left : INT_MAX;
}

/* #syscalls: epoll_ctl */
int loop_add(struct loop *loop, struct loop_source *source, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = source};

	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, source->fd, &ev))
		return -errno;
	source->loop = loop;
	return 0;
}

int loop_modify(struct loop_source *source, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = source};

	return epoll_ctl(source->loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &ev) ? -errno : 0;
}

void loop_remove(struct loop_source *source)
{
	struct loop *loop = source->loop;

	if (!loop)
		return;
	epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
	for (int i = 0; i < loop->n_batch; i++)
		if (loop->batch[i].data.ptr == source)
			loop->batch[i].data.ptr = NULL;
	source->loop = NULL;
}

void loop_timer_arm(struct loop *loop, struct loop_timer *timer, int64_t delay_ms)
{
	loop_timer_cancel(timer);
	timer->due_ms = clock_now_ms() + delay_ms;
	timer->armed = true;
	list_append(&loop->timers, &timer->link);
}

void loop_timer_cancel(struct loop_timer *timer)
{
	if (!timer->armed)
		return;
	timer->armed = false;
	list_remove(&timer->link);
}

static struct loop_timer *earliest_timer(struct loop *loop)
{
	struct loop_timer *best = NULL, *t;

	list_for_each (t, &loop->timers, link)
		if (!best || t->due_ms < best->due_ms)
			best = t;
	return best;
}

/* Fires what is due.  #syscalls: read */
static void clock_rang(struct loop_source *source, uint32_t events)
{
	struct loop *loop = container_of(source, struct loop, clock);
	struct loop_timer *t;
	uint64_t times;

	(void)events;
	if (read(source->fd, &times, sizeof(times)) < 0)
		return;
	loop->clock_due_ms = INT64_MAX;
	while (!loop->stopped && (t = earliest_timer(loop)) && loop_left_ms(t->due_ms) == 0) {
		loop_timer_cancel(t);
		t->expired(t);
	}
}

/* #syscalls: timerfd_settime */
static int set_clock(struct loop *loop)
{
	struct loop_timer *t = earliest_timer(loop);
	struct itimerspec when = {0};

	if (!t || t->due_ms >= loop->clock_due_ms)
		return 0;
	when.it_value.tv_sec = t->due_ms / 1000;
	when.it_value.tv_nsec = t->due_ms % 1000 * 1000000;
	if (timerfd_settime(loop->clock.fd, TFD_TIMER_ABSTIME, &when, NULL))
		return -errno;
	loop->clock_due_ms = t->due_ms;
	return 0;
}

int loop_create(struct loop **out)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	int ret;

	if (!loop)
		return -ENOMEM;
	list_init(&loop->timers);
	loop->clock_due_ms = INT64_MAX;
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	loop->clock.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	loop->clock.ready = clock_rang;
	ret = loop->epoll_fd < 0 || loop->clock.fd < 0 ? -errno
						       : loop_add(loop, &loop->clock, EPOLLIN);
	if (ret) {
		loop_destroy(loop);
		return ret;
	}
	*out = loop;
	return 0;
}

void loop_destroy(struct loop *loop)
{
	if (!loop)
		return;
	pil_close_p(&loop->clock.fd);
	pil_close_p(&loop->epoll_fd);
	free(loop);
}

/* #syscalls: epoll_wait */
int loop_run(struct loop *loop)
{
	loop->stopped = false;
	while (!loop->stopped) {
		int ret = set_clock(loop), n;

		if (ret)
			return ret;
		n = epoll_wait(loop->epoll_fd, loop->batch, BATCH, -1);
		if (n < 0 && errno != EINTR)
			return -errno;
		loop->n_batch = n > 0 ? n : 0;
		for (int i = 0; i < loop->n_batch && !loop->stopped; i++) {
			struct loop_source *source = loop->batch[i].data.ptr;

			if (source)
				source->ready(source, loop->batch[i].events);
		}
		loop->n_batch = 0;
	}
	return loop->result;
}

void loop_stop(struct loop *loop, int result)
{
	loop->stopped = true;
	loop->result = result;
}
