/* SPDX-License-Identifier: Apache-2.0
 *
 * ledger.h -- the broker's hand on the ledger of a card (wire/ledger.h): it makes it, gives each
 * executor a number in it, and clears what one left that has ended.  It never waits for its lock.
 */
#ifndef PIL_BROKER_LEDGER_H
#define PIL_BROKER_LEDGER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"
#include "wire/ledger.h"

struct ledger_file {
	int fd; /* -1: none */
	struct ledger *map;
	pid_t pids[LEDGER_EXECUTORS]; /* who has which number; 0: nobody */
};

/* A sealed memfd of zeroes.  ledger_file_finish() is for the zeroed one with fd -1, too. */
int ledger_file_create(struct ledger_file *l, struct pil_err *err) PIL_MUST_CHECK;
void ledger_file_finish(struct ledger_file *l);

/* A number that nobody has and nobody has left traces in, with @n_spare others left; or -EBUSY.  It
 * belongs to @pid once ledger_file_take() says so. */
int ledger_file_free_number(const struct ledger_file *l, int n_spare);
void ledger_file_take(struct ledger_file *l, int number, pid_t pid);

/* Process @pid has ended: what it held is free, and its turn goes on.  False: it has no number. */
bool ledger_file_bury(struct ledger_file *l, pid_t pid);

/* Has entries of numbers that nobody has cleared; call every few seconds. */
void ledger_file_check(struct ledger_file *l);

/* What the executors say that machines hold together; UINT64_MAX: too much. */
uint64_t ledger_file_held_bytes(const struct ledger_file *l);

#endif
