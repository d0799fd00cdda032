/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: a command can post work and be over at once.  A thread of the session, the
 * worker, does what was posted in that order, each in a turn of the machine's.  A library that has
 * threads of its own reports through work_begin() and work_done() instead.
 *
 * An event is a slot that the program names.  It is pending until its work is over, then done, and
 * free again when the program has been told or has dropped it.  It is told only if it asked
 * (wanted).  Another thread, the sender, tells it: it may wait for the session's own peer, and then
 * neither the worker nor a library's thread waits with it.  The stream has a lock for its writers.
 *
 * Bounds: WIRE_MAX_EVENTS slots, and as much work under way; a command that posts more waits, and
 * so does the program behind the stream.  Both threads start when they are first needed. */
#include "exec/work.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

#include "exec/session.h"

enum event_state { EVENT_FREE, EVENT_PENDING, EVENT_DONE };

struct event {
	uint32_t handle;
	enum event_state state;
	bool wanted;
	enum wire_status status;
};

struct job {
	work_fn fn;
	uint64_t arg;
	uint32_t event;
};

struct work {
	struct session *s;
	struct turn turn; /* the worker's */
	pthread_t worker, sender;
	bool has_worker, has_sender;

	pthread_mutex_t lock; /* all below */
	pthread_cond_t changed;
	bool ending;
	unsigned n_pending; /* under way */
	struct event events[WIRE_MAX_EVENTS];
	struct job jobs[WIRE_MAX_EVENTS];
	unsigned first_job, n_jobs;
	enum wire_status failed;
	uint32_t used_us;
};

static struct work *work_get(struct session *s)
{
	pthread_condattr_t attr;

	if (s->work)
		return s->work;
	s->work = calloc(1, sizeof(*s->work));
	if (!s->work)
		return NULL;
	s->work->s = s;
	pthread_mutex_init(&s->work->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->work->changed, &attr);
	pthread_condattr_destroy(&attr);
	return s->work;
}

/* The event of this handle; NULL: there is none. */
static struct event *find_locked(struct work *w, uint32_t handle)
{
	uint32_t slot = wire_slot(handle);
	struct event *e = slot < WIRE_MAX_EVENTS ? &w->events[slot] : NULL;

	return handle && e && e->state != EVENT_FREE && e->handle == handle ? e : NULL;
}

/* Waits until at most @most are under way.  0, or -EPIPE: nobody reads what comes of it. */
static int wait_locked(struct work *w, unsigned most)
{
	while (w->n_pending > most) {
		struct timespec due;

		clock_gettime(CLOCK_MONOTONIC, &due);
		due.tv_sec++;
		if (pthread_cond_timedwait(&w->changed, &w->lock, &due) && session_peer_gone(w->s))
			return -EPIPE;
	}
	return 0;
}

/* ---- the threads ---- */

static void *worker_main(void *arg)
{
	struct work *w = arg;

	pthread_mutex_lock(&w->lock);
	while (!w->ending) {
		struct job job = w->jobs[w->first_job];
		enum wire_status status;
		int64_t used_us;

		if (!w->n_jobs) {
			pthread_cond_wait(&w->changed, &w->lock);
			continue;
		}
		w->first_job = (w->first_job + 1) % WIRE_MAX_EVENTS;
		w->n_jobs--;
		pthread_mutex_unlock(&w->lock);
		turn_begin(&w->turn);
		status = job.fn(w->s->state, job.arg);
		used_us = turn_end(&w->turn);
		pthread_mutex_lock(&w->lock);
		w->used_us += used_us < INT32_MAX ? (uint32_t)used_us : INT32_MAX;
		pthread_mutex_unlock(&w->lock);
		work_done(w->s, job.event, status);
		pthread_mutex_lock(&w->lock);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

/* One that is to be told, which is then free; NULL: none. */
static struct event *due_locked(struct work *w)
{
	for (int i = 0; i < WIRE_MAX_EVENTS; i++)
		if (w->events[i].state == EVENT_DONE && w->events[i].wanted)
			return &w->events[i];
	return NULL;
}

static void *sender_main(void *arg)
{
	struct work *w = arg;

	pthread_mutex_lock(&w->lock);
	while (!w->ending) {
		struct event *e = due_locked(w);
		struct wire_answer a = {.op = WIRE_OP_EVENT};

		if (!e) {
			pthread_cond_wait(&w->changed, &w->lock);
			continue;
		}
		a.status = (uint16_t)e->status;
		a.value = e->handle;
		*e = (struct event){0};
		pthread_mutex_unlock(&w->lock);
		if (stream_event(&w->s->stream, &a))
			return NULL; /* the session sees for itself that its peer has gone */
		pthread_mutex_lock(&w->lock);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

/* ---- posting ---- */

int work_begin(struct session *s, uint32_t event)
{
	struct work *w = work_get(s);
	int ret;

	if (!w)
		return WIRE_E_NO_MEMORY;
	if (event && wire_slot(event) >= WIRE_MAX_EVENTS)
		return -EPROTO;
	pthread_mutex_lock(&w->lock);
	ret = wait_locked(w, WIRE_MAX_EVENTS - 1);
	if (!ret && event && w->events[wire_slot(event)].state != EVENT_FREE)
		ret = -EPROTO;
	if (!ret) {
		w->n_pending++;
		if (event)
			w->events[wire_slot(event)] =
				(struct event){.handle = event, .state = EVENT_PENDING};
	}
	pthread_mutex_unlock(&w->lock);
	return ret;
}

void work_done(struct session *s, uint32_t event, enum wire_status status)
{
	struct work *w = s->work;
	struct event *e;

	pthread_mutex_lock(&w->lock);
	e = find_locked(w, event);
	if (e) {
		e->state = EVENT_DONE;
		e->status = status;
	} else if (w->failed == WIRE_OK) {
		w->failed = status;
	}
	w->n_pending--;
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

static bool start_worker(struct work *w)
{
	if (w->has_worker)
		return true;
	if (turn_init(&w->turn, w->s->account))
		return false;
	w->has_worker = pthread_create(&w->worker, NULL, worker_main, w) == 0;
	if (!w->has_worker)
		turn_finish(&w->turn);
	return w->has_worker;
}

int work_post(struct session *s, uint32_t event, work_fn fn, uint64_t arg)
{
	int ret = work_begin(s, event);
	struct work *w = s->work;

	if (ret)
		return ret;
	if (!start_worker(w)) {
		work_done(s, event, WIRE_E_BUSY);
		return WIRE_OK;
	}
	pthread_mutex_lock(&w->lock); /* there is room: a job is under way */
	w->jobs[(w->first_job + w->n_jobs++) % WIRE_MAX_EVENTS] = (struct job){fn, arg, event};
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
	return WIRE_OK;
}

/* ---- what the program asks ---- */

int work_want(struct session *s, uint32_t event)
{
	struct work *w = s->work;
	struct event *e;

	if (!w)
		return -EPROTO;
	if (!w->has_sender && pthread_create(&w->sender, NULL, sender_main, w))
		return WIRE_E_BUSY;
	w->has_sender = true;
	pthread_mutex_lock(&w->lock);
	e = find_locked(w, event);
	if (e && e->wanted)
		e = NULL;
	if (e)
		e->wanted = true;
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
	return e ? WIRE_OK : -EPROTO;
}

int work_drop(struct session *s, uint32_t event)
{
	struct work *w = s->work;
	struct event *e;

	if (!w)
		return -EPROTO;
	pthread_mutex_lock(&w->lock);
	e = find_locked(w, event);
	if (e && e->wanted) /* it may be on its way */
		e = NULL;
	if (e)
		*e = (struct event){0};
	pthread_mutex_unlock(&w->lock);
	return e ? WIRE_OK : -EPROTO;
}

int work_drain(struct session *s)
{
	int ret;

	pthread_mutex_lock(&s->work->lock);
	ret = wait_locked(s->work, 0);
	pthread_mutex_unlock(&s->work->lock);
	return ret;
}

enum wire_status work_failed(struct session *s)
{
	enum wire_status failed;

	pthread_mutex_lock(&s->work->lock);
	failed = s->work->failed;
	s->work->failed = WIRE_OK;
	pthread_mutex_unlock(&s->work->lock);
	return failed;
}

uint32_t work_used_us(struct session *s)
{
	uint32_t used_us;

	pthread_mutex_lock(&s->work->lock);
	used_us = s->work->used_us;
	s->work->used_us = 0;
	pthread_mutex_unlock(&s->work->lock);
	return used_us;
}

/* ---- the end ---- */

void work_stop(struct session *s)
{
	struct work *w = s->work;

	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	w->ending = true;
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
	shutdown(s->stream.fd, SHUT_RDWR); /* ends a write that waits */
	if (w->has_sender)
		pthread_join(w->sender, NULL);
	if (w->has_worker) {
		pthread_join(w->worker, NULL);
		turn_finish(&w->turn);
	}
}

void work_destroy(struct session *s)
{
	if (!s->work)
		return;
	pthread_cond_destroy(&s->work->changed);
	pthread_mutex_destroy(&s->work->lock);
	free(s->work);
	s->work = NULL;
}
