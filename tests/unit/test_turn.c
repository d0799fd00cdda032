/* SPDX-License-Identifier: Apache-2.0
 *
 * Turns and accounts: who goes next, by a clock of our own, and what becomes of a bill. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"

#include "lib/fake_ggml.h"

static int setup(void **state)
{
	*state = fake_device_new();
	return 0;
}

static int teardown(void **state)
{
	fake_device_free(*state);
	return 0;
}

/* ---- the rule, a million microseconds after nothing ---- */

#define NOW INT64_C(1000000)

struct two { /* "behind" is ahead of nobody, "ahead" waits */
	struct gg_device *device;
	struct account *behind, *ahead;
	struct turn turn;
};

static struct two make_two(struct gg_device *device)
{
	struct two t = {.device = device,
			.behind = account_get(device, "behind", 0),
			.ahead = account_get(device, "ahead", 0)};

	t.ahead->virtual_us = 500000;
	return t;
}

static void start_waiting(struct two *t)
{
	turn_init(&t->turn, t->ahead);
	t->ahead->n_turns = 1;
	list_append(&t->device->turns.waiting, &t->turn.link);
}

static void finish_two(struct two *t)
{
	list_remove(&t->turn.link);
	turn_finish(&t->turn);
	account_put(t->device, t->behind);
	account_put(t->device, t->ahead);
}

static void test_device_is_kept_for_a_moment_for_who_is_behind(void **state)
{
	struct two t = make_two(*state);
	struct account *awaited;
	int64_t again;

	start_waiting(&t);
	t.behind->active_us = NOW;
	assert_null(turn_pick(t.device, NOW, &again, &awaited));
	assert_ptr_equal(awaited, t.behind);
	assert_int_equal(again, NOW + TURN_RETURN_US);
	assert_null(turn_pick(t.device, again - 1, &again, &awaited));
	assert_ptr_equal(turn_pick(t.device, NOW + TURN_RETURN_US, &again, &awaited), &t.turn);
	finish_two(&t);
}

static void test_device_is_not_kept_for_who_is_ahead_or_has_left(void **state)
{
	struct two t = make_two(*state);
	struct account *awaited;
	int64_t again;

	start_waiting(&t);
	t.behind->active_us = NOW;
	t.behind->virtual_us = t.ahead->virtual_us - TURN_AHEAD_US;
	assert_ptr_equal(turn_pick(t.device, NOW, &again, &awaited), &t.turn);
	t.behind->virtual_us = 0;
	t.device->turns.virtual_us = t.ahead->virtual_us; /* it would not be behind when it came */
	assert_ptr_equal(turn_pick(t.device, NOW, &again, &awaited), &t.turn);
	t.device->turns.virtual_us = 0;
	assert_null(turn_pick(t.device, NOW, &again, &awaited));
	t.behind->n_sessions = 0;
	assert_ptr_equal(turn_pick(t.device, NOW, &again, &awaited), &t.turn);
	t.behind->n_sessions = 1;
	finish_two(&t);
}

static void test_lowest_clock_goes_next(void **state)
{
	struct two t = make_two(*state);
	struct turn other;
	struct account *awaited;
	int64_t again;

	start_waiting(&t);
	turn_init(&other, t.behind);
	t.behind->n_turns = 1;
	list_append(&t.device->turns.waiting, &other.link);
	assert_ptr_equal(turn_pick(t.device, NOW, &again, &awaited), &other);
	list_remove(&other.link);
	turn_finish(&other);
	finish_two(&t);
}

/* ---- bills ---- */

static unsigned n_accounts(struct gg_device *device)
{
	struct account *a;
	unsigned n = 0;

	list_for_each (a, &device->accounts, link)
		n++;
	return n;
}

static void test_bill_waits_for_who_connects_anew(void **state)
{
	struct gg_device *device = *state;
	struct account *a = account_get(device, "hog", 0);

	a->virtual_us = 700000;
	account_put(device, a);
	a = account_get(device, "hog", 0);
	assert_int_equal(a->virtual_us, 700000);
	account_put(device, a);
	device->turns.virtual_us = 700000; /* others have caught up */
	account_put(device, account_get(device, "other", 0));
	assert_int_equal(n_accounts(device), 0);
}

static void test_bills_left_behind_are_bounded(void **state)
{
	struct gg_device *device = *state;

	for (int i = 0; i < DEVICE_MAX_LEFT * 3; i++) {
		char name[32];
		struct account *a;

		snprintf(name, sizeof(name), "m%d", i);
		a = account_get(device, name, 0);
		a->virtual_us = 1000 + i;
		account_put(device, a);
	}
	assert_int_equal(n_accounts(device), DEVICE_MAX_LEFT);
}

static void test_time_outside_of_turns_is_booked(void **state)
{
	struct gg_device *device = *state;
	struct account *a = account_get(device, "m", 0);
	struct turn turn;

	turn_init(&turn, a);
	device_bill(device, &turn, 123456); /* nobody else wants the device: no wait */
	assert_int_equal(a->virtual_us, 123456);
	assert_int_equal(a->used_us, 123456);
	turn_finish(&turn);
	account_put(device, a);
}

static void test_clock_goes_by_the_weight(void **state)
{
	struct gg_device *device = *state;
	struct account *a = account_get(device, "heavy", 0), *b = account_get(device, "light", 0);
	struct turn turn;

	account_weigh(device, a, 200);
	account_weigh(device, b, 1000);
	device_book(device, a, 100001);
	assert_int_equal(a->virtual_us, 50001);
	assert_int_equal(a->used_us, 100001);
	device_book(device, b, 5); /* and not by nothing */
	assert_int_equal(b->virtual_us, 1);
	account_weigh(device, b, 0);
	assert_int_equal(b->weight, ACCOUNT_WEIGHT);
	account_weigh(device, b, UINT32_MAX);
	assert_int_equal(b->weight, ACCOUNT_MAX_WEIGHT);
	turn_init(&turn, a);
	device_turn_begin(device, &turn);
	turn.started_us -= 1000000;
	device_turn_yield(device, &turn);
	assert_in_range(a->virtual_us, 550001, 600000);
	device_turn_end(device, &turn);
	turn_finish(&turn);
	account_put(device, a);
	account_put(device, b);
}

/* ---- with threads ---- */

struct worker {
	struct gg_device *device;
	const char *machine;
	unsigned weight; /* 0: the usual one */
	int64_t turn_us, pause_us, end_us, used_us, longest_wait_us;
	pthread_t thread;
};

static void *work(void *arg)
{
	struct worker *w = arg;
	struct account *a = account_get(w->device, w->machine, 0);
	struct turn turn;

	if (w->weight)
		account_weigh(w->device, a, w->weight);
	turn_init(&turn, a);
	while (clock_now_us() < w->end_us) {
		int64_t asked = clock_now_us(), waited;

		device_turn_begin(w->device, &turn);
		waited = clock_now_us() - asked;
		if (waited > w->longest_wait_us)
			w->longest_wait_us = waited;
		usleep((useconds_t)w->turn_us);
		w->used_us += device_turn_end(w->device, &turn);
		usleep((useconds_t)w->pause_us);
	}
	turn_finish(&turn);
	account_put(w->device, a);
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
		{.device = *state, .machine = "short", .turn_us = 5000, .pause_us = 500},
		{.device = *state, .machine = "long", .turn_us = 300000},
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
		{.device = *state, .machine = "sly", .turn_us = 50, .pause_us = 4000},
		{.device = *state, .machine = "honest", .turn_us = 100000},
	};

	w[0].end_us = w[1].end_us = end;
	run_workers(w, 2);
	assert_true(w[1].used_us > 700000);
}

static void test_twice_the_weight_is_twice_the_time(void **state)
{
	int64_t end = clock_now_us() + 2000000;
	struct worker w[2] = {
		{.device = *state, .machine = "a", .turn_us = 10000, .weight = 200},
		{.device = *state, .machine = "b", .turn_us = 10000},
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
	struct gg_device *device = *state;
	int64_t end = clock_now_us() + 200000;
	struct worker w[2] = {
		{.device = device, .machine = "stuck", .turn_us = 300000, .end_us = end},
		{.device = device, .machine = "other", .turn_us = 1000, .end_us = end},
	};

	n_stuck = 0;
	device->turns.max_us = 50000;
	device->turns.grace_us = 100000;
	device->turns.stuck = note_stuck;
	run_workers(w, 2);
	assert_in_range(n_stuck, 1, 3);
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_device_is_kept_for_a_moment_for_who_is_behind),
		TEST(test_device_is_not_kept_for_who_is_ahead_or_has_left),
		TEST(test_lowest_clock_goes_next),
		TEST(test_bill_waits_for_who_connects_anew),
		TEST(test_bills_left_behind_are_bounded),
		TEST(test_time_outside_of_turns_is_booked),
		TEST(test_clock_goes_by_the_weight),
		TEST(test_short_graphs_have_their_share_beside_long_ones),
		TEST(test_keeping_the_device_idle_is_paid_for),
		TEST(test_twice_the_weight_is_twice_the_time),
		TEST(test_turn_without_end_is_told_of),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
