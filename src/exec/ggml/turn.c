/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: sessions compute one at a time.  A device runs one graph fastest when it
 * runs it alone (a CPU's caches, a GPU's queues), so time is shared by turns and not by overlap.
 *
 * Fairness is start-time fair queueing over machines: each account has a clock of the device time
 * it used, divided by its weight; the waiting turn with the lowest clock goes next.  A machine that
 * was idle does not save up: on arrival its clock is set forward to that of the last turn given.
 *
 * A program that generates text sends its next graph only after the answer to the last one, so it
 * never waits at the moment when a turn ends.  If the device then went to whoever does wait, a
 * machine with long graphs would have one for each short one of the other.  So the device is left
 * idle for a moment (TURN_RETURN_US) when the only ones waiting are ahead of a machine that was
 * here just now.  The idle time is charged to the machine it was left idle for: one that keeps the
 * device from others without using it pays for that as if it had used it.
 *
 * A long graph is run in slices (run.c), with device_turn_yield() between them, so a turn is not
 * as long as a program likes.  Where a back end takes too long all the same, who waits looks at the
 * clock: after @max_us the turn is overdue, which a back end that can be stopped obeys; @grace_us
 * later the device is lost to everybody, and stuck() is to end the process.
 *
 * Work outside of turns (checking graphs, moving data) may overlap with others' turns; it is booked
 * on the same clock, and a machine that is ahead by more than TURN_CREDIT_US waits for a turn
 * before it goes on.
 *
 * An account outlives its sessions while its clock is ahead of the device's (account_put()): who
 * leaves and comes back finds the bill. */
#include "exec/ggml/turn.h"

#include <stdatomic.h>
#include <time.h>

#include "exec/ggml/device.h"

static int64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

void turn_init(struct turn *turn, struct account *account)
{
	pthread_condattr_t attr;

	*turn = (struct turn){.account = account};
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&turn->granted_cond, &attr);
	pthread_condattr_destroy(&attr);
}

void turn_finish(struct turn *turn)
{
	pthread_cond_destroy(&turn->granted_cond);
}

/* ---- the rule ---- */

/* Its clock as it would be if it came now. */
static int64_t clock_of(const struct turns *turns, const struct account *a)
{
	return a->virtual_us < turns->virtual_us ? turns->virtual_us : a->virtual_us;
}

/* The machine that is worth waiting for before one with clock @virtual_us goes; NULL: none. */
static struct account *worth_waiting_for(struct gg_device *device, int64_t virtual_us, int64_t now)
{
	struct account *a, *best = NULL;

	list_for_each (a, &device->accounts, link) {
		if (a->n_turns || !a->n_sessions || now - a->active_us >= TURN_RETURN_US ||
		    clock_of(&device->turns, a) + TURN_AHEAD_US >= virtual_us)
			continue;
		if (!best || a->active_us > best->active_us)
			best = a;
	}
	return best;
}

struct turn *turn_pick(struct gg_device *device, int64_t now, int64_t *again_us,
		       struct account **awaited)
{
	struct turn *next = NULL, *t;

	*again_us = INT64_MAX;
	*awaited = NULL;
	list_for_each (t, &device->turns.waiting, link)
		if (!next || t->account->virtual_us < next->account->virtual_us)
			next = t;
	if (!next)
		return NULL;
	*awaited = worth_waiting_for(device, next->account->virtual_us, now);
	if (!*awaited)
		return next;
	*again_us = (*awaited)->active_us + TURN_RETURN_US;
	return NULL;
}

/* ---- with gg_device::lock held ---- */

/* By what its clock goes forward; never by nothing. */
static int64_t weighed(const struct account *a, int64_t used_us)
{
	return (used_us * ACCOUNT_WEIGHT + a->weight - 1) / a->weight;
}

static void book(struct gg_device *device, struct account *a, int64_t used_us)
{
	a->virtual_us = clock_of(&device->turns, a) + weighed(a, used_us);
	a->used_us += used_us;
}

static void grant(struct gg_device *device, struct turn *turn, int64_t now)
{
	device->turns.running = turn;
	turn->started_us = now;
	atomic_store(&turn->overdue, false);
	device->turns.virtual_us = turn->account->virtual_us;
}

static void book_idle(struct turns *turns, int64_t now)
{
	struct account *a = turns->awaited;

	if (a)
		a->virtual_us = clock_of(turns, a) + weighed(a, now - turns->idle_us);
	turns->idle_us = now;
}

/* Gives the turn on.  Returns when to look again. */
static int64_t settle(struct gg_device *device, int64_t now)
{
	struct turns *turns = &device->turns;
	struct turn *next;
	int64_t again;

	book_idle(turns, now);
	next = turn_pick(device, now, &again, &turns->awaited);
	if (!next)
		return again;
	list_remove(&next->link);
	grant(device, next, now);
	next->granted = true;
	pthread_cond_signal(&next->granted_cond);
	return INT64_MAX;
}

/* Others wait for the turn that runs.  Returns when to look again. */
static int64_t watch(struct turns *turns, int64_t now)
{
	struct turn *running = turns->running;
	int64_t due = running->started_us + turns->max_us;

	if (now < due)
		return due;
	atomic_store(&running->overdue, true);
	due += turns->grace_us;
	if (now < due)
		return due;
	if (turns->stuck)
		turns->stuck(turns->stuck_ctx, running->account->machine);
	return now + turns->grace_us;
}

static void await_turn(struct gg_device *device, struct turn *turn)
{
	struct turns *turns = &device->turns;

	turn->granted = false;
	list_append(&turns->waiting, &turn->link);
	for (;;) {
		int64_t now = now_us();
		int64_t due = turns->running ? watch(turns, now) : settle(device, now);
		struct timespec until;

		if (turn->granted)
			return;
		if (due == INT64_MAX) /* another one has been granted it */
			due = now + turns->max_us;
		until = (struct timespec){due / 1000000, due % 1000000 * 1000};
		pthread_cond_timedwait(&turn->granted_cond, &device->lock, &until);
		if (turn->granted)
			return;
	}
}

static void begin(struct gg_device *device, struct turn *turn)
{
	struct turns *turns = &device->turns;
	struct account *a = turn->account;
	int64_t now = now_us();

	a->n_turns++;
	a->virtual_us = clock_of(turns, a);
	if (!turns->running && list_empty(&turns->waiting) &&
	    !worth_waiting_for(device, a->virtual_us, now))
		grant(device, turn, now);
	else
		await_turn(device, turn);
}

static int64_t end(struct gg_device *device, struct turn *turn)
{
	struct turns *turns = &device->turns;
	int64_t now = now_us(), used_us = now - turn->started_us;
	struct turn *t;

	book(device, turn->account, used_us);
	turn->account->n_turns--;
	turn->account->active_us = now;
	turns->running = NULL;
	if (list_empty(&turns->waiting))
		return used_us;
	if (settle(device, now) == INT64_MAX)
		return used_us;
	t = list_entry(turns->waiting.next, struct turn, link);
	pthread_cond_signal(&t->granted_cond); /* to look again in time */
	return used_us;
}

/* ---- for sessions ---- */

void device_turn_begin(struct gg_device *device, struct turn *turn)
{
	pthread_mutex_lock(&device->lock);
	begin(device, turn);
	pthread_mutex_unlock(&device->lock);
}

int64_t device_turn_end(struct gg_device *device, struct turn *turn)
{
	int64_t used_us;

	pthread_mutex_lock(&device->lock);
	used_us = end(device, turn);
	pthread_mutex_unlock(&device->lock);
	return used_us;
}

/* Is one of those who wait to go before @account does?  Programs of one machine alternate. */
static bool is_to_yield(const struct turns *turns, const struct account *account)
{
	struct turn *t;

	list_for_each (t, &turns->waiting, link)
		if (t->account->virtual_us <= account->virtual_us)
			return true;
	return false;
}

int64_t device_turn_yield(struct gg_device *device, struct turn *turn)
{
	int64_t now = now_us(), used_us = now - turn->started_us;
	struct account *a = turn->account;
	int64_t before_us;

	pthread_mutex_lock(&device->lock);
	before_us = a->virtual_us;
	a->virtual_us += weighed(a, used_us);
	if (is_to_yield(&device->turns, a)) {
		a->virtual_us = before_us;
		used_us = end(device, turn);
		begin(device, turn);
	} else {
		a->used_us += used_us;
		turn->started_us = now;
	}
	pthread_mutex_unlock(&device->lock);
	return used_us;
}

static bool others_want(const struct turns *turns, const struct account *account)
{
	struct turn *t;

	if (turns->running && turns->running->account != account)
		return true;
	list_for_each (t, &turns->waiting, link)
		if (t->account != account)
			return true;
	return false;
}

void device_bill(struct gg_device *device, struct turn *turn, int64_t used_us)
{
	struct turns *turns = &device->turns;
	struct account *a = turn->account;

	pthread_mutex_lock(&device->lock);
	book(device, a, used_us);
	if (a->virtual_us > turns->virtual_us + TURN_CREDIT_US && others_want(turns, a)) {
		begin(device, turn);
		end(device, turn);
	}
	pthread_mutex_unlock(&device->lock);
}

void device_book(struct gg_device *device, struct account *account, int64_t used_us)
{
	pthread_mutex_lock(&device->lock);
	book(device, account, used_us);
	pthread_mutex_unlock(&device->lock);
}

int64_t account_used_us(struct gg_device *device, struct account *account)
{
	int64_t used_us;

	pthread_mutex_lock(&device->lock);
	used_us = account->used_us;
	pthread_mutex_unlock(&device->lock);
	return used_us;
}
