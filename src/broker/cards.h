/* SPDX-License-Identifier: Apache-2.0
 *
 * cards.h -- the cards of this host: one row for each, however many devices of however many APIs
 * lead to it.  A row has the card's ledger, which all executors of the card share. */
#ifndef PIL_CARDS_H
#define PIL_CARDS_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/log.h"
#include "broker/ledger.h"
#include "wire/wire.h"

enum {
	CARDS_MAX_FAULTS = 16, /* that one executor finds in a ledger, before it is done with */
	CARDS_SHARED = 2 * WIRE_MAX_DEVICES, /* numbers, also for those that end and begin anew */
};

struct cards_row {
	char id[WIRE_CARD_BYTES];  /* see wire_device::card */
	struct ledger_file ledger; /* fd -1: no executor has needed it yet */
	struct log_limit complaints;
};

struct cards {
	struct cards_row rows[WIRE_MAX_DEVICES];
	int n;
};

/* Makes @device's card what wire.h says, from what its executor claims: a PCI address in lower
 * case, "cpu" for the reference device, or the device's name. */
void cards_name(struct wire_device *device);

/* The row of card @id, made when there is none; there is room for one per device. */
struct cards_row *cards_get(struct cards *cards, const char *id);
void cards_finish(struct cards *cards);

/* A number in the card's ledger for an executor of @device that is to be started, or -errno.  It is
 * ledger_file_take()n once the executor is there.  Executors of single programs do not get the last
 * CARDS_SHARED numbers: others, which serve all, find room. */
int cards_join(struct cards_row *row, const struct wire_device *device,
	       struct pil_err *err) PIL_MUST_CHECK;

/* Process @pid has ended.  False: it was no executor of these cards. */
bool cards_reaped(struct cards *cards, pid_t pid);

/* An executor has found @n_faults in the ledger.  True: too many, and all executors of the card
 * have been ended; the next one gets a new ledger. */
bool cards_judge(struct cards_row *row, unsigned n_faults);

void cards_check(struct cards *cards); /* call every few seconds */

#endif
