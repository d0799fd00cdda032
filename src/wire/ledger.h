/* SPDX-License-Identifier: Apache-2.0
 *
 * ledger.h -- what each machine has of one card, in memory that the broker and all executors of the
 * card share: a sealed memfd that the broker makes (broker/ledger.c).  exec/ledger.c says how it is
 * used and what a hostile executor can do with it.
 *
 * The layout is private to one build of pillion.  Zeroes are an empty ledger.
 *
 * Every field may change at any time, to any value.  So all are atomic, each is read once, checked
 * and then used; LEDGER_GET() and LEDGER_SET() are plain moves. */
#ifndef PIL_LEDGER_LAYOUT_H
#define PIL_LEDGER_LAYOUT_H

#include <assert.h>
#include <stdatomic.h>
#include <stdint.h>

#include "wire/control.h"

enum {
	LEDGER_EXECUTORS = 64, /* processes on one card at a time: a bit of ledger::dead each */
	LEDGER_MACHINES = 256, /* with a session or a bill */
	LEDGER_TURNS = 1024,   /* sessions */
	LEDGER_NAME_WORDS = CONTROL_NAME_BYTES / 8,
};

/* ledger::lock: who has it, 1 + the executor's number; 0: nobody. */
#define LEDGER_LOCK_WAITED UINT32_C(0x80000000) /* others sleep on it */

enum ledger_turn_state {
	LEDGER_TURN_FREE,
	LEDGER_TURN_IDLE, /* a session has it, and does not want the card */
	LEDGER_TURN_WAITS,
	LEDGER_TURN_RUNS,
};

struct ledger_turn { /* of one session */
	_Atomic(uint32_t) state;
	_Atomic(uint32_t) executor, machine; /* numbers of theirs */
	_Atomic(uint32_t) wake;              /* a futex: counted up to wake the session */
	_Atomic(uint32_t) overdue;           /* others wait, and it has lasted too long */
	_Atomic(uint32_t) reserved;
	_Atomic(uint64_t) order;     /* of those who wait: lower came first */
	_Atomic(int64_t) started_us; /* of the turn that runs */
};

struct ledger_holding { /* what one executor holds for one machine; that executor writes it */
	_Atomic(uint64_t) charged_bytes;
	_Atomic(uint32_t) n_sessions;
	_Atomic(uint32_t) reserved;
};

struct ledger_machine {
	_Atomic(uint64_t) name[LEDGER_NAME_WORDS]; /* its bytes; [0] is 0: a free row */
	_Atomic(int64_t) virtual_us; /* card time used, kept comparable between machines */
	_Atomic(int64_t) used_us;    /* the same as it was, and the time outside of turns */
	_Atomic(int64_t) active_us;  /* when its last turn ended */
	_Atomic(uint32_t) n_turns;   /* that run or wait */
	_Atomic(uint32_t) weight;    /* of the time it uses, see account_weigh() */
	struct ledger_holding of[LEDGER_EXECUTORS];
};

struct ledger {
	_Atomic(uint32_t) lock;       /* a futex, see above */
	_Atomic(uint32_t) n_machines; /* rows from here on have never been used */
	_Atomic(uint32_t) n_turns;    /* the same of @turns */
	_Atomic(uint32_t) n_waiting;
	_Atomic(uint64_t) dead;      /* executors whose entries are to be cleared: a bit of each */
	_Atomic(uint32_t) running;   /* 1 + the number of the turn that runs; 0: none does */
	_Atomic(uint32_t) awaited;   /* 1 + the number of the machine the card is kept idle for */
	_Atomic(int64_t) idle_us;    /* since when */
	_Atomic(int64_t) virtual_us; /* clock of the last turn given */
	_Atomic(uint64_t) order;     /* of the next that waits */
	_Atomic(uint64_t)
		committed_bytes[LEDGER_EXECUTORS]; /* what can come to be used of memory */
	struct ledger_turn turns[LEDGER_TURNS];
	struct ledger_machine machines[LEDGER_MACHINES];
};
static_assert(sizeof(struct ledger_turn) == 40, "ledger_turn");
static_assert(sizeof(struct ledger_machine) == 104 + 16 * LEDGER_EXECUTORS, "ledger_machine");
static_assert(LEDGER_EXECUTORS <= 64, "ledger::dead");
static_assert(LEDGER_NAME_WORDS * 8 == CONTROL_NAME_BYTES, "ledger_machine::name");

#define LEDGER_GET(field)        atomic_load_explicit(&(field), memory_order_relaxed)
#define LEDGER_SET(field, value) atomic_store_explicit(&(field), value, memory_order_relaxed)

#endif
