/* SPDX-License-Identifier: Apache-2.0
 *
 * account.h -- what one machine uses of a card, over all of its sessions, whichever API they speak.
 *
 * Thread-safe. */
#ifndef PIL_ACCOUNT_H
#define PIL_ACCOUNT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/list.h"
#include "exec/card.h"
#include "wire/control.h"

enum {
	ACCOUNT_WEIGHT = 100, /* the usual one */
	ACCOUNT_MAX_WEIGHT = 1000,
};

/* What a machine may have this executor hold beside its data before that counts in its quota: what
 * a few ordinary programs need.  And at most, whatever its quota. */
#define ACCOUNT_FREE_HELD_BYTES (UINT64_C(32) << 20)
#define ACCOUNT_MAX_HELD_BYTES  (UINT64_C(2) << 30)

/* Of this executor.  What all executors of the card hold for the machine, and what it owes, is in
 * row @machine_row of the ledger. */
struct account {
	struct card *card; /* borrowed */
	char machine[CONTROL_NAME_BYTES];
	uint64_t quota_bytes; /* of the card; 0: all of it */
	unsigned weight;      /* of its turns; the time it uses counts less the more it is */
	uint64_t used_bytes;
	uint64_t held_bytes;            /* in our tables for it, see account_hold() */
	uint64_t shared_bytes;          /* of programs' memory that we have mapped */
	_Atomic(uint64_t) mapped_bytes; /* of their files, see file_map_open() */
	_Atomic(uint32_t) n_tensors;    /* of graphs */
	_Atomic(uint32_t) n_mappings;   /* of this process: buffers, files, memory; see mapping.h */
	unsigned n_sessions;
	uint32_t row;
	struct list link; /* card::accounts */
};

/* The account of a machine, created at its first session.  NULL: out of memory, or too many
 * machines.  What it owes outlives its last session while it is ahead of the others. */
struct account *account_get(struct card *card, const char *machine, uint64_t quota_bytes);
void account_put(struct account *account);

/* How many sessions machine @machine has here and at the card's other executors. */
unsigned account_n_sessions(struct card *card, const char *machine);

/* From now on it gets @weight / ACCOUNT_WEIGHT of the time of a usual one, while both ask.  0: it
 * is a usual one; too much: the most there is. */
void account_weigh(struct account *account, unsigned weight);

/* Takes @bytes from the machine's share; false when that would go over it, or, on a reference
 * device, when all machines together could come to use more than the host has. */
bool account_charge(struct account *account, uint64_t bytes);
void account_refund(struct account *account, uint64_t bytes);

/* Takes @bytes of this process's own memory: received frames, tables of graphs and of weights, and
 * the like.  What a machine holds beyond ACCOUNT_FREE_HELD_BYTES is charged as well.  False: no. */
bool account_hold(struct account *account, uint64_t bytes) PIL_MUST_CHECK;
void account_unhold(struct account *account, uint64_t bytes);

/* Of what has been charged, @bytes lie in a program's file for now, and take no memory.  Committing
 * them again may find that others have taken it: false. */
void account_uncommit(struct account *account, uint64_t bytes);
bool account_commit(struct account *account, uint64_t bytes);

/* Takes @bytes of memory that a program shares with us: at most as much as the card has. */
bool account_share(struct account *account, uint64_t bytes);
void account_unshare(struct account *account, uint64_t bytes);

/* What the machine is told: its own share, or the card, live. */
void account_memory(struct account *account, uint64_t *free_bytes, uint64_t *total_bytes);

/* Card time that it has used, and processor time, in all executors of the card. */
int64_t account_used_us(struct account *account);

/* ---- with card_lock() ---- */

/* Its row of the ledger, in which our part stands as we know it. */
struct ledger_machine *account_row_locked(struct account *account);

#endif
