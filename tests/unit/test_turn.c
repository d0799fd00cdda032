/* SPDX-License-Identifier: Apache-2.0
 *
 * Turns and accounts: who goes next, by a clock of our own, and what becomes of a bill. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "exec/account.h"
#include "exec/turn.h"

static int setup(void **state)
{
	struct card *card;

	assert_int_equal(card_create(&card, -1, 0, NULL), 0);
	*state = card;
	return 0;
}

static int teardown(void **state)
{
	card_destroy(*state);
	return 0;
}

static struct ledger_machine *row_of(struct account *a)
{
	return &a->card->ledger.map->machines[a->row];
}

static int64_t clock_of(struct account *a)
{
	return ledger_clock(row_of(a));
}

/* ---- the rule, a million microseconds after nothing ---- */

#define NOW INT64_C(1000000)

struct two { /* "behind" is ahead of nobody, "ahead" waits */
	struct card *card;
	struct ledger *map;
	struct account *behind, *ahead;
	struct turn turn;
};

static struct two make_two(struct card *card)
{
	struct two t = {.card = card,
			.map = card->ledger.map,
			.behind = account_get(card, "behind", 0),
			.ahead = account_get(card, "ahead", 0)};

	row_of(t.ahead)->virtual_us = 500000;
	return t;
}

static void start_waiting(struct turn *turn, struct account *account)
{
	struct ledger *map = account->card->ledger.map;

	assert_int_equal(turn_init(turn, account), 0);
	row_of(account)->n_turns = 1;
	map->turns[turn->slot].state = LEDGER_TURN_WAITS;
	map->turns[turn->slot].order = map->order++;
	map->n_waiting++;
}

static void finish_two(struct two *t)
{
	turn_finish(&t->turn);
	account_put(t->behind);
	account_put(t->ahead);
}

static void test_card_is_kept_for_a_moment_for_who_is_behind(void **state)
{
	struct two t = make_two(*state);
	uint32_t awaited;
	int64_t again;

	start_waiting(&t.turn, t.ahead);
	row_of(t.behind)->active_us = NOW;
	assert_int_equal(turn_pick(t.card, NOW, &again, &awaited), LEDGER_TURNS);
	assert_int_equal(awaited, t.behind->row);
	assert_int_equal(again, NOW + TURN_RETURN_US);
	assert_int_equal(turn_pick(t.card, again - 1, &again, &awaited), LEDGER_TURNS);
	assert_int_equal(turn_pick(t.card, NOW + TURN_RETURN_US, &again, &awaited), t.turn.slot);
	finish_two(&t);
}

static void test_card_is_not_kept_for_who_is_ahead_or_has_left(void **state)
{
	struct two t = make_two(*state);
	struct ledger_machine *behind = row_of(t.behind), *ahead = row_of(t.ahead);
	uint32_t awaited;
	int64_t again;

	start_waiting(&t.turn, t.ahead);
	behind->active_us = NOW;
	behind->virtual_us = ahead->virtual_us - TURN_AHEAD_US;
	assert_int_equal(turn_pick(t.card, NOW, &again, &awaited), t.turn.slot);
	behind->virtual_us = 0;
	t.map->virtual_us = ahead->virtual_us; /* it would not be behind when it came */
	assert_int_equal(turn_pick(t.card, NOW, &again, &awaited), t.turn.slot);
	t.map->virtual_us = 0;
	assert_int_equal(turn_pick(t.card, NOW, &again, &awaited), LEDGER_TURNS);
	behind->of[0].n_sessions = 0;
	assert_int_equal(turn_pick(t.card, NOW, &again, &awaited), t.turn.slot);
	behind->of[0].n_sessions = 1;
	finish_two(&t);
}

static void test_lowest_clock_goes_next_and_of_equals_the_first(void **state)
{
	struct two t = make_two(*state);
	struct turn other, third;
	uint32_t awaited;
	int64_t again;

	start_waiting(&t.turn, t.ahead);
	start_waiting(&third, t.behind);
	turn_finish(&third); /* its place, before that of the next, is free */
	start_waiting(&other, t.behind);
	start_waiting(&third, t.behind);
	assert_int_equal(turn_pick(t.card, NOW, &again, &awaited), other.slot);
	t.map->turns[other.slot].order = 100;
	assert_int_equal(turn_pick(t.card, NOW, &again, &awaited), third.slot);
	turn_finish(&other);
	turn_finish(&third);
	finish_two(&t);
}

/* ---- bills ---- */

static unsigned n_machines(struct card *card)
{
	unsigned n = 0;

	for (uint32_t i = 0; i < ledger_n_machines(&card->ledger); i++)
		n += ledger_machine_used(&card->ledger.map->machines[i]);
	return n;
}

static void test_bill_waits_for_who_connects_anew(void **state)
{
	struct card *card = *state;
	struct account *a = account_get(card, "hog", 0);

	row_of(a)->virtual_us = 700000;
	account_put(a);
	a = account_get(card, "hog", 0);
	assert_int_equal(clock_of(a), 700000);
	account_put(a);
	card->ledger.map->virtual_us = 700000; /* others have caught up */
	account_put(account_get(card, "other", 0));
	assert_int_equal(n_machines(card), 0);
}

static void test_bills_left_behind_are_bounded(void **state)
{
	struct card *card = *state;

	for (int i = 0; i < LEDGER_MAX_LEFT * 3; i++) {
		char name[32];
		struct account *a;

		snprintf(name, sizeof(name), "m%d", i);
		a = account_get(card, name, 0);
		row_of(a)->virtual_us = 1000 + i;
		account_put(a);
	}
	assert_int_equal(n_machines(card), LEDGER_MAX_LEFT);
}

static void test_time_outside_of_turns_is_booked(void **state)
{
	struct account *a = account_get(*state, "m", 0);
	struct turn turn;

	assert_int_equal(turn_init(&turn, a), 0);
	turn_bill(&turn, 123456); /* nobody else wants the card: no wait */
	assert_int_equal(clock_of(a), 123456);
	assert_int_equal(account_used_us(a), 123456);
	turn_finish(&turn);
	account_put(a);
}

static void test_clock_goes_by_the_weight(void **state)
{
	struct account *a = account_get(*state, "heavy", 0), *b = account_get(*state, "light", 0);
	struct turn turn;

	account_weigh(a, 200);
	account_weigh(b, 1000);
	turn_book(a, 100001);
	assert_int_equal(clock_of(a), 50001);
	assert_int_equal(account_used_us(a), 100001);
	turn_book(b, 5); /* and not by nothing */
	assert_int_equal(clock_of(b), 1);
	account_weigh(b, 0);
	assert_int_equal(b->weight, ACCOUNT_WEIGHT);
	account_weigh(b, UINT32_MAX);
	assert_int_equal(b->weight, ACCOUNT_MAX_WEIGHT);
	assert_int_equal(turn_init(&turn, a), 0);
	turn_begin(&turn);
	turn.started_us -= 1000000;
	turn_yield(&turn);
	assert_in_range(clock_of(a), 550001, 600000);
	turn_end(&turn);
	turn_finish(&turn);
	account_put(a);
	account_put(b);
}

static void test_a_card_has_so_many_turns_and_no_more(void **state)
{
	struct account *a = account_get(*state, "m", 0);
	struct turn *turns = calloc(LEDGER_TURNS, sizeof(*turns)), more;

	for (int i = 0; i < LEDGER_TURNS; i++)
		assert_int_equal(turn_init(&turns[i], a), 0);
	assert_int_equal(turn_init(&more, a), -EBUSY);
	turn_finish(&more);
	turn_finish(&turns[7]);
	assert_int_equal(turn_init(&more, a), 0);
	turn_finish(&more);
	for (int i = 0; i < LEDGER_TURNS; i++)
		turn_finish(&turns[i]);
	free(turns);
	account_put(a);
}

/* ---- with threads ---- */

struct worker {
	struct card *card;
	const char *machine;
	unsigned weight; /* 0: the usual one */
	int64_t turn_us, pause_us, end_us, used_us, longest_wait_us;
	pthread_t thread;
};

static void *work(void *arg)
{
	struct worker *w = arg;
	struct account *a = account_get(w->card, w->machine, 0);
	struct turn turn;

	if (w->weight)
		account_weigh(a, w->weight);
	assert_int_equal(turn_init(&turn, a), 0);
	while (clock_now_us() < w->end_us) {
		int64_t asked = clock_now_us(), waited;

		turn_begin(&turn);
		waited = clock_now_us() - asked;
		if (waited > w->longest_wait_us)
			w->longest_wait_us = waited;
		usleep((useconds_t)w->turn_us);
		w->used_us += turn_end(&turn);
		usleep((useconds_t)w->pause_us);
	}
	turn_finish(&turn);
	account_put(a);
	return NULL;
}

static void run_workers(struct worker *w, int n)
{
	for (int i = 0; i < n; i++)
		assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
	for (int i = 0; i < n; i++)
		pthread_join(w[i].thread, NULL);
}

static void test_short_graphs_have_their_share_beside_long_ones(void **state)
{
	int64_t end = clock_now_us() + 3000000;
	struct worker w[2] = {
		{.card = *state, .machine = "short", .turn_us = 5000, .pause_us = 500},
		{.card = *state, .machine = "long", .turn_us = 300000},
	};

	w[0].end_us = w[1].end_us = end;
	run_workers(w, 2);
	/* half, less where threads wake late; 2 without the wait (tests/integration/test_time.py)
	 */
	assert_in_range(100 * w[0].used_us / (w[0].used_us + w[1].used_us), 15, 75);
}

/* A machine that asks for next to nothing, time and again, keeps the device from nobody. */
static void test_keeping_the_device_idle_is_paid_for(void **state)
{
	int64_t end = clock_now_us() + 2000000;
	struct worker w[2] = {
		{.card = *state, .machine = "sly", .turn_us = 50, .pause_us = 4000},
		{.card = *state, .machine = "honest", .turn_us = 100000},
	};

	w[0].end_us = w[1].end_us = end;
	run_workers(w, 2);
	assert_true(w[1].used_us > 700000);
}

static void test_twice_the_weight_is_twice_the_time(void **state)
{
	int64_t end = clock_now_us() + 2000000;
	struct worker w[2] = {
		{.card = *state, .machine = "a", .turn_us = 10000, .weight = 200},
		{.card = *state, .machine = "b", .turn_us = 10000},
	};

	w[0].end_us = w[1].end_us = end;
	run_workers(w, 2);
	assert_in_range(100 * w[0].used_us / (w[1].used_us + 1), 135, 280);
}

static _Atomic(int) n_stuck;

static void note_stuck(void *ctx, const char *machine)
{
	(void)ctx;
	assert_string_equal(machine, "stuck");
	n_stuck++;
}

static void test_turn_without_end_is_told_of(void **state)
{
	struct card *card = *state;
	int64_t end = clock_now_us() + 200000;
	struct worker w[2] = {
		{.card = card, .machine = "stuck", .turn_us = 300000, .end_us = end},
		{.card = card, .machine = "other", .turn_us = 1000, .end_us = end},
	};

	n_stuck = 0;
	card->turn_max_us = 50000;
	card->turn_grace_us = 100000;
	card->stuck = note_stuck;
	run_workers(w, 2);
	assert_in_range(n_stuck, 1, w[0].used_us / card->turn_grace_us + 1); /* once per grace */
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_card_is_kept_for_a_moment_for_who_is_behind),
		TEST(test_card_is_not_kept_for_who_is_ahead_or_has_left),
		TEST(test_lowest_clock_goes_next_and_of_equals_the_first),
		TEST(test_bill_waits_for_who_connects_anew),
		TEST(test_bills_left_behind_are_bounded),
		TEST(test_time_outside_of_turns_is_booked),
		TEST(test_clock_goes_by_the_weight),
		TEST(test_a_card_has_so_many_turns_and_no_more),
		TEST(test_short_graphs_have_their_share_beside_long_ones),
		TEST(test_keeping_the_device_idle_is_paid_for),
		TEST(test_twice_the_weight_is_twice_the_time),
		TEST(test_turn_without_end_is_told_of),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
