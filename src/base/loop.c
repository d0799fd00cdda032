/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: epoll holds a pointer to each source.  A callback may remove any source, and
 * epoll_wait() may already have handed out an event for it, so loop_remove() also wipes the source
 * from the batch being delivered.  Timers are few (one or two per daemon), so they sit on a plain
 * list that is searched for the earliest; a heap would buy nothing. */
#include "loop.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define BATCH 64

struct loop {
	int epoll_fd;
	struct list timers; /* loop_timer::link */
	struct epoll_event batch[BATCH];
	int n_batch; /* events of the batch not delivered yet lie in [next, n_batch) */
	bool stopped;
	int result;
};

int64_t loop_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int loop_left_ms(int64_t due_ms)
{
	int64_t left = due_ms - loop_now_ms();

	return left <= 0 ? 0 : left < INT_MAX ? (int)left : INT_MAX;
}

int loop_create(struct loop **out)
{
	struct loop *loop = calloc(1, sizeof(*loop));

	if (!loop)
		return -ENOMEM;
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll_fd < 0) {
		int err = -errno;

		free(loop);
		return err;
	}
	list_init(&loop->timers);
	*out = loop;
	return 0;
}

void loop_destroy(struct loop *loop)
{
	if (!loop)
		return;
	close(loop->epoll_fd);
	free(loop);
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
	timer->due_ms = loop_now_ms() + delay_ms;
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

/* Fires what is due and returns how long epoll may sleep, -1 for ever. */
static int run_timers(struct loop *loop)
{
	struct loop_timer *t;

	while ((t = earliest_timer(loop))) {
		int left = loop_left_ms(t->due_ms);

		if (left > 0)
			return left;
		loop_timer_cancel(t);
		t->expired(t);
		if (loop->stopped)
			return 0;
	}
	return -1;
}

/* #syscalls: epoll_wait */
int loop_run(struct loop *loop)
{
	loop->stopped = false;
	while (!loop->stopped) {
		int timeout_ms = run_timers(loop), n;

		if (loop->stopped)
			break;
		n = epoll_wait(loop->epoll_fd, loop->batch, BATCH, timeout_ms);
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
