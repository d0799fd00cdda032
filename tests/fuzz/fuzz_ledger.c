/* SPDX-License-Identifier: Apache-2.0
 *
 * An executor at work on a ledger that another one writes into: of each two bytes the first says
 * what is done, the second how much of it.  Whatever stands there, a machine gets no more than its
 * quota of this executor, the executor knows what it holds, and nothing lasts. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "exec/account.h"
#include "exec/turn.h"

#define QUOTA UINT64_C(1000)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct state {
	struct card *card;
	struct account *account[2];
	struct turn turn[2];
	uint64_t held[2];
};

static void must(bool ok)
{
	if (!ok)
		abort();
}

/* What a hostile executor writes: eight bytes, where a small ledger has its fields. */
static size_t scribble(struct state *s, const uint8_t *data, size_t size)
{
	uint32_t at = 0;
	uint64_t value = 0;

	memcpy(&at, data, size < 3 ? size : 3);
	if (size > 3)
		memcpy(&value, data + 3, size - 3 < 8 ? size - 3 : 8);
	at %= sizeof(struct ledger) / 8;
	if (at > 40) /* the first rows are the ones in use */
		at = at % 2 ? (uint32_t)offsetof(struct ledger, turns) / 8 + at % 12
			    : (uint32_t)offsetof(struct ledger, machines) / 8 + at / 2 % 200;
	memcpy((char *)s->card->ledger.map + (size_t)at * 8, &value, sizeof(value));
	return size < 11 ? size : 11;
}

static void memory(struct state *s, int who, uint8_t op, uint64_t bytes)
{
	struct account *a = s->account[who];
	uint64_t free_bytes, total_bytes;

	if (op == 0 && account_charge(a, bytes))
		s->held[who] += bytes;
	if (op == 1 && bytes <= s->held[who]) {
		account_refund(a, bytes);
		s->held[who] -= bytes;
	}
	account_memory(a, &free_bytes, &total_bytes);
	must(free_bytes <= total_bytes || !total_bytes);
	must(a->used_bytes == s->held[who] && s->held[who] <= QUOTA);
}

static void compute(struct state *s, int who, uint8_t op, int64_t us)
{
	struct turn *turn = &s->turn[who];

	if (op == 3) {
		turn_begin(turn);
		turn_is_overdue(turn);
		must(turn_yield(turn) >= 0);
		turn_look(s->card);
		must(turn_end(turn) >= 0);
	} else if (op == 4) {
		turn_bill(turn, us * 1000);
	} else {
		turn_book(s->account[who], us);
	}
	must(turn->state == LEDGER_TURN_IDLE && !s->card->running);
}

static void reopen(struct state *s, int who)
{
	static const char *const names[] = {"one", "two"};

	turn_finish(&s->turn[who]);
	if (s->account[who]) {
		account_refund(s->account[who], s->held[who]);
		account_put(s->account[who]);
	}
	s->held[who] = 0;
	s->account[who] = account_get(s->card, names[who], QUOTA);
	if (s->account[who] && turn_init(&s->turn[who], s->account[who])) {
		account_put(s->account[who]);
		s->account[who] = NULL;
	}
}

static void finish(struct state *s)
{
	for (int i = 0; i < 2; i++) {
		turn_finish(&s->turn[i]);
		if (s->account[i])
			account_put(s->account[i]);
	}
	must(card_n_sessions(s->card) == 0);
	card_destroy(s->card);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *end = data + size;
	struct state s = {0};

	setenv("PILLION_LOG", "err", 1);
	log_init("fuzz");
	if (card_create(&s.card, -1, 3, NULL))
		return 0;
	s.card->ledger.patience_us = 100;
	s.card->turn_max_us = s.card->turn_grace_us = 100;
	reopen(&s, 0);
	reopen(&s, 1);
	for (int n = 0; n < 64 && end - data >= 2; n++) {
		uint8_t op = data[0] % 8, much = data[1];
		int who = data[0] >> 7;

		data += 2;
		if (op == 7)
			data += scribble(&s, data, (size_t)(end - data));
		else if (op == 6)
			reopen(&s, who);
		else if (s.account[who] && op < 3)
			memory(&s, who, op, much * 8);
		else if (s.account[who])
			compute(&s, who, op, much);
	}
	finish(&s);
	return 0;
}
