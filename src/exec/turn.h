/* SPDX-License-Identifier: Apache-2.0
 *
 * turn.h -- whose turn it is to use a card, and what each machine owes for the turns it had.
 *
 * Thread-safe; all of it is under card_lock().  Never waited for while talking to a peer. */
#ifndef PIL_TURN_H
#define PIL_TURN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "exec/card.h"

struct account;

enum {
	TURN_AHEAD_US = 5000,   /* so far ahead of another, a machine has to wait for it */
	TURN_RETURN_US = 5000,  /* which may take as long to come back with its next graph */
	TURN_CREDIT_US = 50000, /* of processor time outside of turns, before it waits for one */
};

/* A session's place in the order of turns. */
struct turn {
	struct card *card;
	struct account *account;
	uint32_t slot;  /* ledger::turns */
	uint32_t state; /* LEDGER_TURN_*, as we know it */
	int64_t started_us;
	_Atomic(bool) overdue; /* see turn_is_overdue() */
	/* While it waits: which turn runs, and since when at the latest. */
	uint32_t seen;
	int64_t seen_started_us, seen_us;
};

/* -EBUSY: the card has as many sessions as it can. */
int turn_init(struct turn *turn, struct account *account) PIL_MUST_CHECK;
void turn_finish(struct turn *turn); /* zeroed is fine */

/* Waits until it is this machine's turn to compute; turn_end() gives it on and books the time.  The
 * machine that has used least goes first. */
void turn_begin(struct turn *turn);
int64_t turn_end(struct turn *turn); /* microseconds used */

/* In the middle of a turn, where it can be interrupted: the same as end and begin when somebody
 * else is to go first.  Returns the microseconds used since the last of them. */
int64_t turn_yield(struct turn *turn);

/* Others wait, and the turn has lasted too long: give it up.  Any thread; cheap. */
bool turn_is_overdue(const struct turn *turn);

/* Books @used_us of a processor's time outside of turns.  A machine that is ahead of others who
 * want the card waits for its turn before it may use more. */
void turn_bill(struct turn *turn, int64_t used_us);
/* The same, without a wait. */
void turn_book(struct account *account, int64_t used_us);

/* Looks whether a turn of this executor lasts too long while another executor's sessions wait for
 * it; those of its own look for themselves.  May call card::stuck. */
void turn_look(struct card *card);

/* The rule itself, with card_lock() held and nobody's turn: which of ledger::turns goes next at
 * @now_us.  LEDGER_TURNS: nobody waits, or nobody may before *@again_us, for the sake of row
 * *@awaited (LEDGER_MACHINES: none). */
uint32_t turn_pick(struct card *card, int64_t now_us, int64_t *again_us, uint32_t *awaited);

#endif
