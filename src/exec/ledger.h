/* SPDX-License-Identifier: Apache-2.0
 *
 * ledger.h -- an executor's end of the ledger of its card (wire/ledger.h): the lock, the rows of
 * machines, and what a dead executor left.
 *
 * All but ledger_open() and ledger_close() is for one thread at a time: card_lock(). */
#ifndef PIL_LEDGER_H
#define PIL_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "wire/ledger.h"

enum {
	LEDGER_PATIENCE_US = 2000000, /* with the one who has the lock */
	LEDGER_MAX_LEFT = 64,         /* machines without a session, whose bills are kept */
};

/* No clock goes beyond: sums of two stay within int64_t. */
#define LEDGER_MAX_US (INT64_C(1) << 60)

struct ledger_end {
	struct ledger *map;
	uint32_t executor;   /* our number, which is nobody else's */
	int64_t patience_us; /* LEDGER_PATIENCE_US */
	/* How often something was not as we had left it, or the lock was not given back: another
	 * executor wrote where it must not, or was killed or stopped. */
	_Atomic(uint32_t) n_faults;
};

/* Maps the ledger behind @fd (borrowed), in which we are number @executor.  -1: one of our own, for
 * a card that no other executor uses.  Refuses one that can be made shorter. */
int ledger_open(struct ledger_end *l, int fd, uint32_t executor,
		struct pil_err *err) PIL_MUST_CHECK;
void ledger_close(struct ledger_end *l);

/* Waits LEDGER_PATIENCE_US at most, then takes the lock from who has it.  No system call while
 * nobody else wants it. */
void ledger_lock(struct ledger_end *l);
void ledger_unlock(struct ledger_end *l);

/* ---- with the lock ---- */

void ledger_note_fault(struct ledger_end *l);

/* The row of machine @name, which is made if there is none.  LEDGER_MACHINES: no room. */
uint32_t ledger_machine_get(struct ledger_end *l, const char *name);
bool ledger_machine_is(const struct ledger_machine *m, const char *name);
void ledger_machine_name(struct ledger_machine *m, const char *name);

/* Forgets machines without a session that owe nothing, and those too many. */
void ledger_sweep(struct ledger_end *l);

uint32_t ledger_n_machines(const struct ledger_end *l); /* rows to look at */
bool ledger_machine_used(const struct ledger_machine *m);
uint32_t ledger_n_sessions(const struct ledger_machine *m);    /* of all executors */
uint64_t ledger_charged_bytes(const struct ledger_machine *m); /* the same; UINT64_MAX: too much */
uint64_t ledger_committed_bytes(const struct ledger_end *l);

/* Its clock, and that of the last turn given: within 0 and LEDGER_MAX_US. */
int64_t ledger_clock(const struct ledger_machine *m);
int64_t ledger_card_clock(const struct ledger_end *l);

/* ---- sleeping ---- */

/* Until @word is not @value any more, or ledger_wake(), or @timeout_us. */
void ledger_sleep(_Atomic(uint32_t) *word, uint32_t value, int64_t timeout_us);
void ledger_wake(_Atomic(uint32_t) *word);

#endif
