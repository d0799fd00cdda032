/* SPDX-License-Identifier: Apache-2.0
 *
 * card.h -- the card that this executor serves, as far as all APIs are alike: who has how much of
 * it (account.h), whose turn it is (turn.h), and how much memory there is.
 *
 * Thread-safe: sessions run in threads of their own and share the card. */
#ifndef PIL_CARD_H
#define PIL_CARD_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/list.h"
#include "base/log.h"
#include "exec/ledger.h"

struct turn;

struct card {
	/* Set once, before the first session. */
	bool reference; /* the host's CPU cores compute, and its memory is the card's */
	/* What the API says of the card's memory. */
	void (*memory)(void *ctx, uint64_t *free_bytes, uint64_t *total_bytes);
	void *memory_ctx;
	int64_t turn_max_us;   /* of a turn when others wait: what runs is given up */
	int64_t turn_grace_us; /* and when that does not end it, after as long, stuck() is called */
	/* The turn of @machine does not end.  It does not return, or the turn goes on. */
	void (*stuck)(void *ctx, const char *machine);
	void *stuck_ctx;

	pthread_mutex_t lock;     /* all below */
	struct list accounts;     /* account::link */
	uint64_t committed_bytes; /* what this executor's sessions can come to use of memory */
	unsigned n_sessions;      /* of this executor */
	struct turn *running;     /* one of this executor's, whose turn it is */
	struct log_limit complaints;
	struct ledger_end ledger;
};

/* A card whose ledger is behind @ledger_fd (borrowed), where this executor is number @executor; -1:
 * one that no other executor uses.  Released with card_destroy(), which must not happen while
 * sessions run. */
int card_create(struct card **out, int ledger_fd, uint32_t executor,
		struct pil_err *err) PIL_MUST_CHECK;
void card_destroy(struct card *card); /* NULL is fine */

/* Before the first session: how its API tells what memory there is, and whether it is the host's.
 */
void card_serve(struct card *card,
		void (*memory)(void *ctx, uint64_t *free_bytes, uint64_t *total_bytes), void *ctx,
		bool reference);

/* Both the threads of this process and the card's other executors are kept out; nothing that is
 * slow may be done meanwhile. */
void card_lock(struct card *card);
void card_unlock(struct card *card);

/* What there is now, for all machines together. */
void card_memory(struct card *card, uint64_t *free_bytes, uint64_t *total_bytes);

unsigned card_n_sessions(struct card *card);     /* of this executor, alive now */
unsigned card_n_faults(const struct card *card); /* ledger_end::n_faults */

#endif
