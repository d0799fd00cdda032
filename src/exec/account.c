/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: a machine has an account in each executor that it has sessions with, and a
 * row in the card's ledger, where each of those executors writes what it holds for the machine.
 * What counts against the quota is the sum of the row.  Adding to it and comparing it is one step
 * under the ledger's lock, so two executors cannot both grant the last byte.
 *
 * Our own part of the row is read only to see whether somebody has changed it (ledger.c says who
 * would); what we go by is the account, and it is written anew where it differs.
 *
 * The row is kept after the machine's last session while its clock is ahead of the card's: who
 * leaves and comes back, by whichever API, finds the bill.  There are at most LEDGER_MAX_LEFT of
 * these; the one that owes least goes first. */
#include "exec/account.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the ledger's side of it ---- */

static void publish(const struct account *a, struct ledger_machine *m)
{
	struct card *card = a->card;
	struct ledger_holding *own = &m->of[card->ledger.executor];

	if (ledger_n_machines(&card->ledger) <= a->row)
		LEDGER_SET(card->ledger.map->n_machines, a->row + 1);
	LEDGER_SET(own->charged_bytes, a->used_bytes);
	LEDGER_SET(own->n_sessions, a->n_sessions);
	LEDGER_SET(m->weight, a->weight);
	LEDGER_SET(card->ledger.map->committed_bytes[card->ledger.executor], card->committed_bytes);
}

/* Somebody has taken it from us. */
static struct ledger_machine *find_row(struct account *a)
{
	struct card *card = a->card;
	uint32_t row = ledger_machine_get(&card->ledger, a->machine);

	ledger_note_fault(&card->ledger);
	if (row < LEDGER_MACHINES)
		a->row = row;
	else
		ledger_machine_name(&card->ledger.map->machines[a->row], a->machine);
	return &card->ledger.map->machines[a->row];
}

struct ledger_machine *account_row_locked(struct account *a)
{
	struct card *card = a->card;
	struct ledger_machine *m = &card->ledger.map->machines[a->row];
	const struct ledger_holding *own = &m->of[card->ledger.executor];

	if (!ledger_machine_is(m, a->machine)) {
		m = find_row(a);
		publish(a, m);
	} else if (LEDGER_GET(own->charged_bytes) != a->used_bytes ||
		   LEDGER_GET(own->n_sessions) != a->n_sessions ||
		   ledger_n_machines(&card->ledger) <= a->row) {
		ledger_note_fault(&card->ledger);
		publish(a, m);
	}
	return m;
}

/* ---- machines ---- */

static struct account *find(struct card *card, const char *machine)
{
	struct account *a;

	list_for_each (a, &card->accounts, link)
		if (!strcmp(a->machine, machine))
			return a;
	return NULL;
}

static struct account *make(struct card *card, const char *machine)
{
	struct account *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	snprintf(a->machine, sizeof(a->machine), "%s", machine);
	a->card = card;
	a->weight = ACCOUNT_WEIGHT;
	a->row = ledger_machine_get(&card->ledger, a->machine);
	if (a->row == LEDGER_MACHINES) {
		free(a);
		return NULL;
	}
	list_append(&card->accounts, &a->link);
	return a;
}

struct account *account_get(struct card *card, const char *machine, uint64_t quota_bytes)
{
	struct account *a;

	card_lock(card);
	a = find(card, machine);
	if (!a)
		a = make(card, machine);
	if (a) {
		struct ledger_machine *m = account_row_locked(a);

		a->quota_bytes = quota_bytes;
		a->n_sessions++;
		card->n_sessions++;
		publish(a, m);
	}
	ledger_sweep(&card->ledger);
	card_unlock(card);
	return a;
}

void account_put(struct account *a)
{
	struct card *card = a->card;
	struct ledger_machine *m;

	card_lock(card);
	m = account_row_locked(a);
	card->n_sessions--;
	a->n_sessions--;
	publish(a, m);
	if (!a->n_sessions) {
		list_remove(&a->link);
		free(a);
	}
	ledger_sweep(&card->ledger);
	card_unlock(card);
}

unsigned account_n_sessions(struct card *card, const char *machine)
{
	unsigned n = 0;
	struct account *a;

	card_lock(card);
	a = find(card, machine);
	if (a)
		n = ledger_n_sessions(account_row_locked(a));
	else
		for (uint32_t i = 0; i < ledger_n_machines(&card->ledger); i++)
			if (ledger_machine_is(&card->ledger.map->machines[i], machine))
				n = ledger_n_sessions(&card->ledger.map->machines[i]);
	card_unlock(card);
	return n;
}

void account_weigh(struct account *account, unsigned weight)
{
	struct card *card = account->card;
	if (weight > ACCOUNT_MAX_WEIGHT)
		weight = ACCOUNT_MAX_WEIGHT;
	card_lock(card);
	account->weight = weight ? weight : ACCOUNT_WEIGHT;
	publish(account, account_row_locked(account));
	card_unlock(card);
}

int64_t account_used_us(struct account *account)
{
	struct card *card = account->card;
	int64_t used_us;

	card_lock(card);
	used_us = LEDGER_GET(account_row_locked(account)->used_us);
	card_unlock(card);
	return used_us;
}

/* ---- memory ---- */

/* @taken of @total are gone. */
static uint64_t left_of(uint64_t total, uint64_t taken)
{
	return taken < total ? total - taken : 0;
}

void account_memory(struct account *account, uint64_t *free_bytes, uint64_t *total_bytes)
{
	struct card *card = account->card;
	card_memory(card, free_bytes, total_bytes);
	card_lock(card);
	if (card->reference) {
		uint64_t left = left_of(*total_bytes, ledger_committed_bytes(&card->ledger));

		if (left < *free_bytes)
			*free_bytes = left;
	}
	if (account->quota_bytes && account->quota_bytes < *total_bytes) {
		uint64_t left = left_of(account->quota_bytes,
					ledger_charged_bytes(account_row_locked(account)));

		*total_bytes = account->quota_bytes;
		if (left < *free_bytes)
			*free_bytes = left;
	}
	card_unlock(card);
}

static bool charge_locked(struct account *a, uint64_t bytes, uint64_t free_bytes,
			  uint64_t total_bytes)
{
	struct card *card = a->card;
	struct ledger_machine *m = account_row_locked(a);
	bool ok = !a->quota_bytes || bytes <= left_of(a->quota_bytes, ledger_charged_bytes(m));

	/* malloc() would promise it, and the kernel would kill us for using it. */
	if (card->reference)
		ok = ok && bytes <= free_bytes &&
		     bytes <= left_of(total_bytes, ledger_committed_bytes(&card->ledger));
	ok = ok && bytes <= UINT64_MAX - a->used_bytes &&
	     bytes <= UINT64_MAX - card->committed_bytes;
	if (ok) {
		a->used_bytes += bytes;
		card->committed_bytes += bytes;
		publish(a, m);
	}
	return ok;
}

bool account_charge(struct account *account, uint64_t bytes)
{
	struct card *card = account->card;
	uint64_t free_bytes, total_bytes;
	bool ok;

	card_memory(card, &free_bytes, &total_bytes);
	card_lock(card);
	ok = charge_locked(account, bytes, free_bytes, total_bytes);
	card_unlock(card);
	return ok;
}

static void refund_locked(struct account *a, uint64_t bytes)
{
	struct card *card = a->card;
	struct ledger_machine *m = account_row_locked(a);

	a->used_bytes -= bytes;
	card->committed_bytes -= bytes;
	publish(a, m);
}

void account_refund(struct account *account, uint64_t bytes)
{
	struct card *card = account->card;
	card_lock(card);
	refund_locked(account, bytes);
	card_unlock(card);
}

/* Of @held_bytes, what is charged. */
static uint64_t held_charge(uint64_t held_bytes)
{
	return held_bytes > ACCOUNT_FREE_HELD_BYTES ? held_bytes - ACCOUNT_FREE_HELD_BYTES : 0;
}

bool account_hold(struct account *account, uint64_t bytes)
{
	struct card *card = account->card;
	uint64_t free_bytes, total_bytes, more;
	bool ok;

	pthread_mutex_lock(&card->lock); /* the free ones are no business of the ledger's */
	ok = account->held_bytes <= ACCOUNT_FREE_HELD_BYTES &&
	     bytes <= ACCOUNT_FREE_HELD_BYTES - account->held_bytes;
	if (ok)
		account->held_bytes += bytes;
	pthread_mutex_unlock(&card->lock);
	if (ok)
		return true;
	card_memory(card, &free_bytes, &total_bytes);
	card_lock(card);
	ok = bytes <= ACCOUNT_MAX_HELD_BYTES - account->held_bytes;
	more = held_charge(account->held_bytes + bytes) - held_charge(account->held_bytes);
	ok = ok && (!more || charge_locked(account, more, free_bytes, total_bytes));
	if (ok)
		account->held_bytes += bytes;
	card_unlock(card);
	return ok;
}

void account_unhold(struct account *account, uint64_t bytes)
{
	struct card *card = account->card;
	uint64_t less;

	card_lock(card);
	less = held_charge(account->held_bytes) - held_charge(account->held_bytes - bytes);
	account->held_bytes -= bytes;
	if (less)
		refund_locked(account, less);
	card_unlock(card);
}

void account_uncommit(struct account *account, uint64_t bytes)
{
	struct card *card = account->card;
	card_lock(card);
	card->committed_bytes -= bytes;
	LEDGER_SET(card->ledger.map->committed_bytes[card->ledger.executor], card->committed_bytes);
	card_unlock(card);
}

bool account_commit(struct account *account, uint64_t bytes)
{
	struct card *card = account->card;
	uint64_t free_bytes = 0, total_bytes = 0;
	bool ok;

	if (card->memory)
		card->memory(card->memory_ctx, &free_bytes, &total_bytes);
	card_lock(card);
	card->committed_bytes += bytes;
	LEDGER_SET(card->ledger.map->committed_bytes[card->ledger.executor], card->committed_bytes);
	ok = ledger_committed_bytes(&card->ledger) <= total_bytes;
	card_unlock(card);
	return ok;
}

bool account_share(struct account *account, uint64_t bytes)
{
	struct card *card = account->card;
	uint64_t free_bytes, total_bytes;
	bool ok;

	card_memory(card, &free_bytes, &total_bytes);
	pthread_mutex_lock(&card->lock);
	ok = bytes <= left_of(total_bytes, account->shared_bytes);
	if (ok)
		account->shared_bytes += bytes;
	pthread_mutex_unlock(&card->lock);
	return ok;
}

void account_unshare(struct account *account, uint64_t bytes)
{
	struct card *card = account->card;
	pthread_mutex_lock(&card->lock);
	account->shared_bytes -= bytes;
	pthread_mutex_unlock(&card->lock);
}
