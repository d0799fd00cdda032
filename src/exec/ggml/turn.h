/* SPDX-License-Identifier: Apache-2.0
 *
 * turn.h -- whose turn it is to use a device, and what each machine owes for the turns it had.
 *
 * Thread-safe; all of it is under gg_device::lock.  Never waited for while talking to a peer. */
#ifndef PIL_TURN_H
#define PIL_TURN_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"

struct account;
struct gg_device;

enum {
	TURN_AHEAD_US = 5000,   /* so far ahead of another, a machine has to wait for it */
	TURN_RETURN_US = 5000,  /* which may take as long to come back with its next graph */
	TURN_CREDIT_US = 50000, /* of processor time outside of turns, before it waits for one */
};

/* A session's place in the order of turns. */
struct turn {
	struct account *account;
	int64_t started_us;
	_Atomic(bool) overdue; /* others wait, and it has lasted too long: give it up */
	bool granted;
	pthread_cond_t granted_cond;
	struct list link; /* turns::waiting */
};

struct turns {
	struct list waiting;  /* turn::link */
	struct turn *running; /* whose it is; NULL: nobody's */
	int64_t max_us;       /* of a turn when others wait: the graph is given up */
	int64_t grace_us;     /* and when that does not end it, after as long, stuck() is called */
	int64_t virtual_us;   /* account clock of the last turn given */
	struct account *awaited; /* the device is left idle for it, and it pays from @idle_us on */
	int64_t idle_us;
	/* The turn of @machine does not end.  It does not return, or the turn goes on. */
	void (*stuck)(void *ctx, const char *machine);
	void *stuck_ctx;
};

void turn_init(struct turn *turn, struct account *account);
void turn_finish(struct turn *turn);

/* Waits until it is this machine's turn to compute; device_turn_end() gives it on and books the
 * time.  The machine that has used least goes first. */
void device_turn_begin(struct gg_device *device, struct turn *turn);
int64_t device_turn_end(struct gg_device *device, struct turn *turn); /* microseconds used */

/* In the middle of a turn, where it can be interrupted: the same as end and begin when somebody
 * else is to go first.  Returns the microseconds used since the last of them. */
int64_t device_turn_yield(struct gg_device *device, struct turn *turn);

/* Books @used_us of a processor's time outside of turns.  A machine that is ahead of others who
 * want the device waits for its turn before it may use more. */
void device_bill(struct gg_device *device, struct turn *turn, int64_t used_us);
/* The same, without a wait. */
void device_book(struct gg_device *device, struct account *account, int64_t used_us);
int64_t account_used_us(struct gg_device *device, struct account *account);

/* The rule itself, with gg_device::lock held and nobody's turn: who goes next at @now_us.  NULL:
 * nobody waits, or nobody may before *@again_us, for the sake of *@awaited. */
struct turn *turn_pick(struct gg_device *device, int64_t now_us, int64_t *again_us,
		       struct account **awaited);

#endif
