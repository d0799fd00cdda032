/* SPDX-License-Identifier: Apache-2.0
 *
 * A card's ledger, with several executors on it: here they are cards of one process, or processes
 * that are killed in the middle of their work. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fd.h"
#include "broker/ledger.h"
#include "exec/account.h"
#include "exec/turn.h"
#include "lib/bound.h"

#define QUOTA UINT64_C(1000)

/* Two executors of one card. */
struct two {
	struct ledger_file file;
	struct card *a, *b;
};

static struct card *join(struct ledger_file *file, pid_t pid)
{
	int number = ledger_file_free_number(file, 0);
	struct card *card;

	assert_true(number >= 0);
	assert_int_equal(card_create(&card, file->fd, (uint32_t)number, NULL), 0);
	ledger_file_take(file, number, pid);
	return card;
}

static int setup(void **state)
{
	struct two *t = calloc(1, sizeof(*t));

	assert_int_equal(ledger_file_create(&t->file, NULL), 0);
	t->a = join(&t->file, 1);
	t->b = join(&t->file, 2);
	*state = t;
	return 0;
}

static int teardown(void **state)
{
	struct two *t = *state;

	card_destroy(t->a);
	card_destroy(t->b);
	ledger_file_finish(&t->file);
	free(t);
	return 0;
}

static void assert_no_faults(const struct two *t)
{
	assert_int_equal(card_n_faults(t->a), 0);
	assert_int_equal(card_n_faults(t->b), 0);
}

/* ---- the memfd ---- */

static void test_ledger_that_can_be_made_shorter_is_refused(void **state)
{
	_auto_fd int fd = memfd_create("ledger", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct pil_err err = {0};
	struct card *card;

	(void)state;
	assert_int_equal(ftruncate(fd, sizeof(struct ledger)), 0);
	assert_int_equal(card_create(&card, fd, 0, &err), -EINVAL);
	assert_int_equal(ftruncate(fd, sizeof(struct ledger) - 1), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	assert_int_equal(card_create(&card, fd, 0, &err), -EINVAL);
	assert_int_equal(card_create(&card, -1, LEDGER_EXECUTORS, &err), -EINVAL);
}

static void test_the_brokers_memfd_keeps_its_size(void **state)
{
	struct two *t = *state;

	assert_int_equal(ftruncate(t->file.fd, 0), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(ftruncate(t->file.fd, 2 * sizeof(struct ledger)), -1);
	assert_int_equal(fcntl(t->file.fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
}

/* ---- quota ---- */

static void test_quota_is_of_the_card_whichever_executor_is_asked(void **state)
{
	struct two *t = *state;
	struct account *a = account_get(t->a, "m", QUOTA), *b = account_get(t->b, "m", QUOTA),
		       *other = account_get(t->b, "n", QUOTA);
	uint64_t free_bytes, total_bytes;

	assert_true(account_charge(a, 600));
	assert_false(account_charge(b, 401));
	assert_true(account_charge(b, 400));
	assert_false(account_charge(a, 1));
	assert_true(account_charge(other, QUOTA));
	account_refund(a, 100);
	assert_true(account_charge(b, 100));
	t->a->memory = NULL;
	account_memory(a, &free_bytes, &total_bytes);
	assert_int_equal(ledger_file_held_bytes(&t->file), 2 * QUOTA);
	assert_no_faults(t);
	account_put(a);
	account_put(b);
	account_put(other);
}

static void ten_thousand(void *ctx, uint64_t *free_bytes, uint64_t *total_bytes)
{
	(void)ctx;
	*free_bytes = *total_bytes = 10000;
}

static void test_machine_is_told_what_its_sessions_elsewhere_have_left(void **state)
{
	struct two *t = *state;
	struct account *a = account_get(t->a, "m", QUOTA), *b = account_get(t->b, "m", QUOTA);
	uint64_t free_bytes, total_bytes;

	card_serve(t->b, ten_thousand, NULL, false);
	assert_true(account_charge(a, 700));
	account_memory(b, &free_bytes, &total_bytes);
	assert_int_equal(total_bytes, QUOTA);
	assert_int_equal(free_bytes, 300);
	account_put(a);
	account_put(b);
}

static void test_memory_of_the_host_is_promised_once(void **state)
{
	struct two *t = *state;
	struct account *a = account_get(t->a, "m", 0), *b = account_get(t->b, "n", 0);

	card_serve(t->a, ten_thousand, NULL, true);
	card_serve(t->b, ten_thousand, NULL, true);
	assert_true(account_charge(a, 6000));
	assert_false(account_charge(b, 4001));
	account_uncommit(a, 1000);
	assert_true(account_charge(b, 5000));
	assert_false(account_commit(a, 1000));
	account_put(a);
	account_put(b);
}

static void test_sessions_of_a_machine_are_counted_over_executors(void **state)
{
	struct two *t = *state;
	struct account *a = account_get(t->a, "m", 0), *b = account_get(t->b, "m", 0);

	assert_int_equal(account_n_sessions(t->a, "m"), 2);
	account_put(b);
	assert_int_equal(account_n_sessions(t->b, "m"), 1);
	account_put(a);
	assert_int_equal(account_n_sessions(t->b, "m"), 0);
	assert_no_faults(t);
}

/* Two threads that take and give back as fast as they can: the sum is looked at by a third. */
struct taker {
	struct card *card;
	_Atomic(bool) *stop;
	unsigned n_taken;
	pthread_t thread;
};

static void *take_and_give(void *arg)
{
	struct taker *t = arg;
	struct account *a = account_get(t->card, "m", QUOTA);
	uint64_t held = 0;

	while (!atomic_load(t->stop)) {
		if (account_charge(a, 30)) {
			held += 30;
			t->n_taken++;
		} else if (held) {
			account_refund(a, held);
			held = 0;
		}
	}
	account_refund(a, held);
	account_put(a);
	return NULL;
}

static void test_two_executors_never_grant_more_than_the_quota(void **state)
{
	struct two *t = *state;
	_Atomic(bool) stop = false;
	struct taker takers[] = {{t->a, &stop}, {t->a, &stop}, {t->b, &stop}, {t->b, &stop}};
	struct account *own = account_get(t->a, "m", QUOTA);
	const struct ledger_machine *row = &t->a->ledger.map->machines[own->row];
	int64_t end = clock_now_us() + 300000;
	uint64_t most = 0;

	for (size_t i = 0; i < ARRAY_SIZE(takers); i++)
		assert_int_equal(pthread_create(&takers[i].thread, NULL, take_and_give, &takers[i]),
				 0);
	while (clock_now_us() < end) {
		uint64_t sum;

		card_lock(t->a);
		sum = ledger_charged_bytes(row);
		card_unlock(t->a);
		if (sum > most)
			most = sum;
	}
	atomic_store(&stop, true);
	for (size_t i = 0; i < ARRAY_SIZE(takers); i++) {
		pthread_join(takers[i].thread, NULL);
		assert_true(takers[i].n_taken > 0);
	}
	assert_in_range(most, 1, QUOTA);
	assert_int_equal(ledger_charged_bytes(row), 0);
	account_put(own);
	assert_no_faults(t);
}

/* ---- turns ---- */

struct worker {
	struct card *card;
	const char *machine;
	int64_t turn_us, end_us, used_us;
	pthread_t thread;
};

static void *work(void *arg)
{
	struct worker *w = arg;
	struct account *a = account_get(w->card, w->machine, 0);
	struct turn turn;

	assert_int_equal(turn_init(&turn, a), 0);
	while (clock_now_us() < w->end_us) {
		turn_begin(&turn);
		usleep((useconds_t)w->turn_us);
		w->used_us += turn_end(&turn);
	}
	turn_finish(&turn);
	account_put(a);
	return NULL;
}

static void test_second_executor_does_not_double_a_machines_share(void **state)
{
	struct two *t = *state;
	struct worker w[] = {{t->a, "hog", 10000}, {t->b, "hog", 10000}, {t->a, "one", 10000}};
	int64_t hog, share;

	for (size_t i = 0; i < ARRAY_SIZE(w); i++) {
		w[i].end_us = clock_now_us() + 2000000;
		assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(w); i++)
		pthread_join(w[i].thread, NULL);
	hog = w[0].used_us + w[1].used_us;
	share = 100 * hog / (hog + w[2].used_us + 1);
	assert_in_range(share, 35, 60); /* two thirds if turns were shared by session or executor */
	assert_true(hog + w[2].used_us < 2600000); /* one at a time */
	assert_no_faults(t);
}

static void test_bill_of_one_executor_is_due_at_the_other(void **state)
{
	struct two *t = *state;
	struct account *a = account_get(t->a, "m", 0);

	turn_book(a, 5000000);
	account_put(a);
	a = account_get(t->b, "m", 0);
	assert_int_equal(account_used_us(a), 5000000);
	assert_int_equal(ledger_clock(&t->b->ledger.map->machines[a->row]), 5000000);
	account_put(a);
}

static _Atomic(int) n_stuck;

static void note_stuck(void *ctx, const char *machine)
{
	(void)ctx;
	assert_string_equal(machine, "stuck");
	n_stuck++;
}

/* The one that has the turn looks for itself, when it is asked; who waits elsewhere takes the turn
 * away at last. */
static void test_turn_that_does_not_end_is_ended_or_taken_away(void **state)
{
	struct two *t = *state;
	struct account *a = account_get(t->a, "stuck", 0);
	struct worker other = {t->b, "other", 1000, clock_now_us() + 1};
	struct turn turn;

	n_stuck = 0;
	t->a->turn_max_us = t->b->turn_max_us = 50000;
	t->a->turn_grace_us = t->b->turn_grace_us = 200000;
	t->a->stuck = note_stuck;
	assert_int_equal(turn_init(&turn, a), 0);
	turn_begin(&turn);
	turn_look(t->a);
	assert_false(turn_is_overdue(&turn));
	other.end_us = clock_now_us() + 10000000;
	t->b->ledger.map->machines[a->row].virtual_us = 100; /* the other goes first, once */
	assert_int_equal(pthread_create(&other.thread, NULL, work, &other), 0);
	for (int i = 0; i < bound_ms(5000) && !turn_is_overdue(&turn); i++)
		usleep(1000);
	assert_true(turn_is_overdue(&turn));
	for (int i = 0; i < bound_ms(5000) && !n_stuck; i++) {
		usleep(1000);
		turn_look(t->a);
	}
	assert_true(n_stuck > 0);
	other.end_us = 0;
	pthread_join(other.thread, NULL);
	assert_true(other.used_us > 0);
	turn_end(&turn);
	turn_finish(&turn);
	account_put(a);
	assert_true(card_n_faults(t->b) > 0);
}

/* ---- executors that are killed ---- */

enum { HOLDS, COMPUTES, HAS_LOCK };

/* In a child: an executor that tells by @ready_fd that it is at @what, and stays there. */
static void be_killed(struct ledger_file *file, int number, int what, int ready_fd)
{
	struct account *account;
	struct card *card;
	struct turn turn;

	if (card_create(&card, file->fd, (uint32_t)number, NULL))
		_exit(1);
	account = account_get(card, "m", QUOTA);
	if (!account || !account_charge(account, 900) || turn_init(&turn, account))
		_exit(2);
	if (what == COMPUTES)
		turn_begin(&turn);
	if (what == HAS_LOCK) {
		card_lock(card); /* and half a change is done */
		LEDGER_SET(card->ledger.map->n_waiting, 5);
		LEDGER_SET(card->ledger.map->turns[turn.slot].state, LEDGER_TURN_RUNS);
	}
	if (write(ready_fd, "", 1) != 1)
		_exit(3);
	for (;;)
		pause();
}

static pid_t start_and_kill(struct ledger_file *file, int what)
{
	int number = ledger_file_free_number(file, 0), pipe_fds[2];
	pid_t pid;
	char byte;

	assert_true(number >= 0);
	assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0)
		be_killed(file, number, what, pipe_fds[1]);
	ledger_file_take(file, number, pid);
	close(pipe_fds[1]);
	assert_int_equal(read(pipe_fds[0], &byte, 1), 1);
	close(pipe_fds[0]);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	return pid;
}

static void test_what_a_killed_executor_held_is_free(void **state)
{
	struct two *t = *state;
	struct account *a = account_get(t->a, "m", QUOTA);

	for (int i = 0; i < 2 * LEDGER_EXECUTORS;
	     i++) { /* and so is its number, once it is clear */
		pid_t pid = start_and_kill(&t->file, HOLDS);

		assert_false(account_charge(a, 200));
		assert_true(ledger_file_bury(&t->file, pid));
		assert_false(ledger_file_bury(&t->file, pid));
		assert_true(account_charge(a, 200));
		account_refund(a, 200);
		assert_int_equal(account_n_sessions(t->a, "m"), 1);
	}
	account_put(a);
	assert_int_equal(t->file.map->n_turns, 0);
	assert_no_faults(t);
}

static void test_executors_that_die_before_they_begin_use_up_no_numbers(void **state)
{
	struct ledger_file file;
	struct account *a;
	struct card *card;

	(void)state;
	assert_int_equal(ledger_file_create(&file, NULL), 0);
	for (int i = 0; i < 3 * LEDGER_EXECUTORS; i++) {
		int number = ledger_file_free_number(&file, 0);

		assert_true(number >= 0);
		ledger_file_take(&file, number, 1000 + i);
		assert_true(ledger_file_bury(&file, 1000 + i));
	}
	card = join(&file, 1);
	a = account_get(card, "m", QUOTA);
	assert_true(account_charge(a, QUOTA));
	turn_book(a, 5000000);
	ledger_file_bury(&file, 1); /* the last: its memory is free, its bill is not */
	assert_int_equal(file.map->machines[a->row].of[0].charged_bytes, 0);
	assert_int_equal(ledger_clock(&file.map->machines[a->row]), 5000000);
	card_destroy(card);
	ledger_file_finish(&file);
	free(a);
}

static void test_turn_of_a_killed_executor_goes_on(void **state)
{
	struct two *t = *state;
	struct worker other = {t->a, "other", 1000, clock_now_us() + 1};
	int64_t started;
	pid_t pid = start_and_kill(&t->file, COMPUTES);

	other.end_us = clock_now_us() + 1; /* one turn, for which it waits */
	assert_int_equal(pthread_create(&other.thread, NULL, work, &other), 0);
	for (int i = 0; i < bound_ms(5000) && !LEDGER_GET(t->file.map->n_waiting); i++)
		usleep(1000);
	assert_int_equal(other.used_us, 0);
	started = clock_now_us();
	ledger_file_bury(&t->file, pid);
	pthread_join(other.thread, NULL);
	assert_true(clock_now_us() - started < bound_ms(5000) * 1000);
	assert_no_faults(t);
}

static void test_lock_of_a_killed_executor_is_free_and_its_half_change_undone(void **state)
{
	struct two *t = *state;
	struct account *a;
	struct turn turn;

	ledger_file_bury(&t->file, start_and_kill(&t->file, HAS_LOCK));
	a = account_get(t->a, "m", QUOTA);
	assert_true(account_charge(a, QUOTA));
	assert_int_equal(t->file.map->n_waiting, 0);
	assert_int_equal(turn_init(&turn, a), 0);
	turn_begin(&turn);
	turn_end(&turn);
	turn_finish(&turn);
	account_put(a);
	assert_no_faults(t);
}

static void test_lock_that_nobody_gives_back_is_taken_in_time(void **state)
{
	struct two *t = *state;
	struct account *a;
	int64_t started;
	pid_t pid = start_and_kill(&t->file, HAS_LOCK); /* and there is no broker */

	t->a->ledger.patience_us = 100000;
	started = clock_now_us();
	a = account_get(t->a, "m", QUOTA);
	assert_true(clock_now_us() - started >= 100000);
	assert_int_equal(card_n_faults(t->a), 1);
	assert_false(account_charge(a, 200)); /* what it held is not known to be free */
	assert_int_equal(t->file.map->n_waiting, 0);
	assert_true(ledger_file_bury(&t->file, pid));
	assert_true(account_charge(a, 200));
	account_put(a);
}

/* Executors that work, and are killed at any point of it, again and again. */
static void work_until_killed(struct ledger_file *file, int number)
{
	struct account *account;
	struct card *card;
	struct turn turn;

	if (card_create(&card, file->fd, (uint32_t)number, NULL))
		_exit(1);
	account = account_get(card, "m", QUOTA);
	if (!account || turn_init(&turn, account))
		_exit(2);
	for (;;) {
		bool charged = account_charge(account, 30);

		turn_begin(&turn);
		turn_end(&turn);
		if (charged)
			account_refund(account, 30);
	}
}

static void test_executors_killed_anywhere_leave_the_ledger_in_order(void **state)
{
	struct two *t = *state;
	struct account *a = account_get(t->a, "m", QUOTA);
	struct turn turn;

	assert_int_equal(turn_init(&turn, a), 0);
	for (int round = 0; round < 100; round++) {
		int number = ledger_file_free_number(&t->file, 0);
		int64_t end;
		pid_t pid = fork();

		if (pid == 0)
			work_until_killed(&t->file, number);
		ledger_file_take(&t->file, number, pid);
		for (end = clock_now_us() + 1000 + 100 * round; clock_now_us() < end;) {
			turn_begin(&turn);
			turn_end(&turn);
		}
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		ledger_file_bury(&t->file, pid);
		assert_true(account_charge(a, QUOTA));
		account_refund(a, QUOTA);
	}
	turn_finish(&turn);
	account_put(a);
	assert_int_equal(t->file.map->n_waiting, 0);
	assert_int_equal(t->file.map->running, 0);
	assert_int_equal(t->file.map->lock, 0);
	assert_no_faults(t);
}

/* ---- executors that lie ---- */

static void test_what_others_write_over_an_account_is_put_right(void **state)
{
	struct two *t = *state;
	struct account *a = account_get(t->a, "m", QUOTA), *b = account_get(t->b, "m", QUOTA);
	struct ledger_machine *row = &t->file.map->machines[a->row];

	assert_true(account_charge(a, 600));
	LEDGER_SET(row->of[t->a->ledger.executor].charged_bytes, 0);
	assert_false(account_charge(a, 500)); /* it knows what it holds */
	assert_int_equal(card_n_faults(t->a), 1);
	assert_false(account_charge(b, 500)); /* and has said so */
	memset(row, 0, sizeof(*row));
	assert_false(account_charge(a, 500));
	assert_false(account_charge(b, 500));
	assert_true(account_charge(b, 400));
	atomic_fetch_or(&t->file.map->dead, UINT64_C(1) << t->a->ledger.executor);
	assert_false(account_charge(a, 1));
	assert_false(account_charge(b, 1));
	account_put(a);
	account_put(b);
}

static void test_lies_about_others_lock_nobody_out(void **state)
{
	struct two *t = *state;
	struct account *a = account_get(t->a, "m", QUOTA);
	struct turn turn;

	assert_int_equal(turn_init(&turn, a), 0);
	t->a->turn_max_us = t->a->turn_grace_us = 10000;
	LEDGER_SET(t->file.map->running, 4); /* somebody who is not there */
	LEDGER_SET(t->file.map->turns[3].state, LEDGER_TURN_RUNS);
	LEDGER_SET(t->file.map->turns[3].executor, UINT32_MAX);
	LEDGER_SET(t->file.map->turns[3].machine, UINT32_MAX);
	LEDGER_SET(t->file.map->turns[3].started_us, INT64_MAX);
	turn_begin(&turn);
	turn_end(&turn);
	LEDGER_SET(t->file.map->virtual_us, INT64_MIN);
	LEDGER_SET(t->file.map->machines[a->row].virtual_us, INT64_MAX);
	LEDGER_SET(t->file.map->machines[a->row].active_us, INT64_MIN);
	LEDGER_SET(t->file.map->n_machines, UINT32_MAX);
	LEDGER_SET(t->file.map->n_turns, UINT32_MAX);
	LEDGER_SET(t->file.map->n_waiting, UINT32_MAX);
	LEDGER_SET(t->file.map->idle_us, INT64_MIN);
	LEDGER_SET(t->file.map->awaited, UINT32_MAX);
	turn_begin(&turn);
	assert_int_equal(turn_yield(&turn) < 5000000, 1);
	turn_end(&turn);
	LEDGER_SET(t->file.map->n_machines, 0); /* and nobody sees us wait */
	LEDGER_SET(t->file.map->n_turns, 0);
	LEDGER_SET(t->file.map->n_waiting, UINT32_MAX);
	turn_begin(&turn);
	turn_end(&turn);
	turn_bill(&turn, 100000);
	turn_finish(&turn);
	account_put(a);
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_ledger_that_can_be_made_shorter_is_refused),
		TEST(test_the_brokers_memfd_keeps_its_size),
		TEST(test_quota_is_of_the_card_whichever_executor_is_asked),
		TEST(test_machine_is_told_what_its_sessions_elsewhere_have_left),
		TEST(test_memory_of_the_host_is_promised_once),
		TEST(test_sessions_of_a_machine_are_counted_over_executors),
		TEST(test_two_executors_never_grant_more_than_the_quota),
		TEST(test_second_executor_does_not_double_a_machines_share),
		TEST(test_bill_of_one_executor_is_due_at_the_other),
		TEST(test_turn_that_does_not_end_is_ended_or_taken_away),
		TEST(test_what_a_killed_executor_held_is_free),
		TEST(test_executors_that_die_before_they_begin_use_up_no_numbers),
		TEST(test_turn_of_a_killed_executor_goes_on),
		TEST(test_lock_of_a_killed_executor_is_free_and_its_half_change_undone),
		TEST(test_lock_that_nobody_gives_back_is_taken_in_time),
		TEST(test_executors_killed_anywhere_leave_the_ledger_in_order),
		TEST(test_what_others_write_over_an_account_is_put_right),
		TEST(test_lies_about_others_lock_nobody_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
