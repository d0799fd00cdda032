/* SPDX-License-Identifier: Apache-2.0
 *
 * A session of the executor that speaks null, and its program: what every API gets from exec/ and
 * link/, in particular events. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/null/null.h"
#include "base/compiler.h"
#include "base/fd.h"
#include "exec/card.h"
#include "exec/null/null.h"
#include "exec/session.h"
#include "guest/null/null_client.h"
#include "lib/bound.h"

static int start(struct card *card, uint64_t quota_bytes)
{
	struct wire_hello hello = {.program = "test"};
	struct session_opts opts = {.hello = &hello,
				    .machine = "m",
				    .quota_bytes = quota_bytes,
				    .shm_ok = true};
	struct timeval limit = {.tv_sec = bound_ms(5000) / 1000};
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	setsockopt(pair[1], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	opts.fd = pair[0];
	assert_int_equal(session_start(&exec_api_null, NULL, card, &opts, NULL), 0);
	return pair[1];
}

static struct channel *connect_program(struct card *card, uint64_t quota_bytes)
{
	struct channel *chan = NULL;

	assert_int_equal(channel_create_fd(&chan, &wire_api_null, start(card, quota_bytes), NULL),
			 0);
	return chan;
}

static int set_up(void **state)
{
	struct card *card;
	void *dev;

	if (card_create(&card, -1, 0, NULL) || exec_api_null.open(&dev, NULL, "null", card, NULL))
		return -1;
	*state = card;
	return 0;
}

/* Nothing is left of any session. */
static int tear_down(void **state)
{
	struct card *card = *state;

	for (int i = 0; i < bound_ms(5000) && card_n_sessions(card); i++)
		usleep(1000);
	if (card_n_sessions(card) || card->committed_bytes)
		return -1;
	card_destroy(card);
	return 0;
}

/* ---- memory and work ---- */

static void test_each_run_adds_one_to_every_byte(void **state)
{
	struct channel *chan = connect_program(*state, 0);
	uint8_t data[1000] = {7, 255}, back[1000];
	uint32_t buffer = mem_alloc(chan, sizeof(data));

	assert_int_not_equal(buffer, 0);
	mem_set(chan, buffer, 0, data, sizeof(data));
	assert_int_equal(channel_event_wait(chan, null_run(chan, buffer)), WIRE_OK);
	assert_int_equal(channel_event_wait(chan, null_run(chan, buffer)), WIRE_OK);
	assert_int_equal(mem_get(chan, buffer, 0, back, sizeof(back)), WIRE_OK);
	assert_int_equal(back[0], 9);
	assert_int_equal(back[1], 1);
	assert_int_equal(back[999], 2);
	mem_free(chan, buffer);
	channel_destroy(chan);
}

/* Without any event: what reads memory is after what was posted before. */
static void test_memory_commands_wait_for_posted_work(void **state)
{
	struct channel *chan = connect_program(*state, 0);
	const struct null_run run = {.buffer = mem_alloc(chan, 1 << 20)};
	uint8_t back = 0;

	for (int i = 0; i < 100; i++)
		channel_queue(chan, NULL_OP_RUN, &run, NULL, 0);
	assert_int_equal(mem_get(chan, run.buffer, (1 << 20) - 1, &back, 1), WIRE_OK);
	assert_int_equal(back, 100);
	for (int i = 0; i < 50; i++)
		channel_queue(chan, NULL_OP_RUN, &run, NULL, 0);
	mem_free(chan, run.buffer); /* none of them runs on freed memory */
	assert_int_equal(mem_alloc(chan, 8), wire_handle(1, 1));
	channel_destroy(chan);
}

/* More than may be under way: the stream is not read on, and nothing is lost. */
static void test_posted_work_is_bounded_by_waiting(void **state)
{
	enum { RUNS = 5 * WIRE_MAX_EVENTS / 2 };
	struct channel *chan = connect_program(*state, 0);
	const struct null_run slow = {.buffer = mem_alloc(chan, 1 << 18)},
			      fast = {.buffer = mem_alloc(chan, 8)};
	uint8_t back = 0;

	for (int i = 0; i < RUNS; i++)
		channel_queue(chan, NULL_OP_RUN, &slow, NULL, 0);
	for (int i = 0; i < RUNS; i++)
		channel_queue(chan, NULL_OP_RUN, &fast, NULL, 0);
	assert_int_equal(mem_get(chan, slow.buffer, 0, &back, 1), WIRE_OK);
	assert_int_equal(back, (uint8_t)RUNS);
	assert_int_equal(mem_get(chan, fast.buffer, 0, &back, 1), WIRE_OK);
	assert_int_equal(back, (uint8_t)RUNS);
	assert_int_equal(chan->failed, 0);
	channel_destroy(chan);
}

static void test_what_work_takes_is_told_with_the_next_answer(void **state)
{
	struct channel *chan = connect_program(*state, 0);
	static const struct wire_empty none;
	struct wire_answer a = {0};

	channel_event_wait(chan, null_run(chan, mem_alloc(chan, NULL_MAX_BUFFER)));
	channel_call(chan, WIRE_OP_FENCE, &none, NULL, 0, NULL, &a);
	assert_true(a.device_us > 0);
	channel_destroy(chan);
}

static void test_the_highest_slot_is_one_of_a_million(void **state)
{
	struct channel *chan = connect_program(*state, 0);
	struct wire_buffer_alloc c = {.buffer = wire_handle(WIRE_MAX_SLOTS - 1, 1), .bytes = 8};

	assert_int_equal(wire_api_null.max_buffers, 1 << 20);
	assert_int_equal(channel_call(chan, WIRE_OP_BUFFER_ALLOC, &c, NULL, 0, NULL, NULL),
			 WIRE_OK);
	assert_int_equal(channel_call(chan, WIRE_OP_BUFFER_ALLOC, &c, NULL, 0, NULL, NULL),
			 WIRE_E_INVALID); /* in use */
	channel_destroy(chan);
}

static void test_many_thousand_buffers_are_freed_with_their_session(void **state)
{
	struct channel *chan = connect_program(*state, 0);
	struct wire_buffer_alloc c = {.bytes = 1};

	for (uint32_t i = 0; i < 20000; i++) {
		c.buffer = wire_handle(i, 1);
		channel_queue(chan, WIRE_OP_BUFFER_ALLOC, &c, NULL, 0);
		channel_expect(chan, WIRE_OP_BUFFER_ALLOC, NULL, NULL);
	}
	assert_true(channel_wait(chan, chan->seq));
	assert_int_equal(chan->failed, 0);
	channel_destroy(chan);
}

/* A table of handles is of the machine's memory as well: 16 MiB for the highest slot. */
static void test_quota_holds_for_buffers_and_for_the_table_of_handles(void **state)
{
	struct channel *chan = connect_program(*state, 1 << 20), *others[3];
	struct wire_buffer_alloc c = {.buffer = wire_handle(WIRE_MAX_SLOTS - 1, 1), .bytes = 8};
	uint32_t most = mem_alloc(chan, (1 << 20) - 64);

	assert_int_not_equal(most, 0);
	assert_int_equal(mem_alloc(chan, 64), 0);
	mem_free(chan, most);
	assert_int_equal(mem_alloc(chan, NULL_MAX_BUFFER + 1), 0);
	for (int i = 0; i < 3; i++) {
		others[i] = connect_program(*state, 1 << 20);
		assert_int_equal(channel_call(others[i], WIRE_OP_BUFFER_ALLOC, &c, NULL, 0, NULL,
					      NULL),
				 i < 2 ? WIRE_OK : WIRE_E_NO_MEMORY); /* see account.h */
	}
	assert_int_not_equal(mem_alloc(chan, 64), 0);
	for (int i = 0; i < 3; i++)
		channel_destroy(others[i]);
	channel_destroy(chan);
}

/* ---- events ---- */

/* Bytes as they come, below link/channel.h. */
static void send_op(int fd, uint16_t op, const void *fixed)
{
	uint32_t bytes = wire_op_find(&wire_api_null, op)->fixed_bytes;
	struct wire_frame f = {.op = op, .body_bytes = bytes};
	struct iovec iov[] = {{&f, sizeof(f)}, {(void *)fixed, bytes}};

	assert_int_equal(pil_sendv_all(fd, iov, 2), 0);
}

static struct wire_answer next(int fd)
{
	struct wire_answer a = {0};

	assert_int_equal(pil_read_all(fd, &a, sizeof(a)), 0);
	return a;
}

static int connect_raw(struct card *card)
{
	int fd = start(card, 0);
	struct wire_welcome w;

	assert_int_equal(pil_read_all(fd, &w, sizeof(w)), 0);
	assert_int_equal(w.status, WIRE_OK);
	assert_int_equal(w.body_bytes, 0);
	send_op(fd, WIRE_OP_BUFFER_ALLOC, &(struct wire_buffer_alloc){.buffer = 1, .bytes = 8});
	assert_int_equal(next(fd).status, WIRE_OK);
	return fd;
}

static void run(int fd, uint32_t event)
{
	send_op(fd, NULL_OP_RUN, &(struct null_run){.buffer = 1, .event = event});
}

static void want(int fd, uint32_t event)
{
	send_op(fd, WIRE_OP_EVENT_WANT, &(struct wire_event){.event = event});
}

static void get(int fd)
{
	uint8_t byte;

	send_op(fd, WIRE_OP_GET, &(struct wire_get){.buffer = 1, .bytes = 1});
	assert_int_equal(next(fd).op, WIRE_OP_GET);
	assert_int_equal(pil_read_all(fd, &byte, 1), 0);
}

static void test_events_are_told_to_those_who_ask_alone_and_once(void **state)
{
	int fd = connect_raw(*state);
	struct wire_answer a;

	run(fd, wire_handle(1, 1));
	run(fd, wire_handle(2, 1));
	get(fd); /* both are done, and nobody has been told */
	get(fd);
	want(fd, wire_handle(2, 1));
	a = next(fd);
	assert_int_equal(a.op, WIRE_OP_EVENT);
	assert_int_equal(a.value, wire_handle(2, 1));
	assert_int_equal(a.status, WIRE_OK);
	want(fd, wire_handle(1, 1)); /* in another order than they ended in */
	assert_int_equal(next(fd).value, wire_handle(1, 1));
	run(fd, wire_handle(1, 2)); /* the slot is free again */
	send_op(fd, WIRE_OP_EVENT_DROP, &(struct wire_event){.event = wire_handle(1, 2)});
	run(fd, wire_handle(1, 3));
	get(fd);
	close(fd);
}

/* The session ends, with whatever the command was. */
static void expect_ended(int fd)
{
	char c;

	assert_int_equal(read(fd, &c, 1), 0);
	close(fd);
}

static void test_events_that_are_none_end_the_session(void **state)
{
	int fd = connect_raw(*state);

	want(fd, wire_handle(1, 1)); /* nothing was ever posted */
	expect_ended(fd);

	fd = connect_raw(*state);
	run(fd, wire_handle(WIRE_MAX_EVENTS, 1)); /* no such slot */
	expect_ended(fd);

	fd = connect_raw(*state);
	run(fd, wire_handle(3, 1));
	run(fd, wire_handle(3, 2)); /* in use */
	expect_ended(fd);

	fd = connect_raw(*state);
	run(fd, wire_handle(3, 1));
	want(fd, wire_handle(3, 2)); /* another generation */
	expect_ended(fd);

	fd = connect_raw(*state);
	run(fd, wire_handle(3, 1));
	get(fd);
	want(fd, wire_handle(3, 1));
	assert_int_equal(next(fd).op, WIRE_OP_EVENT);
	want(fd, wire_handle(3, 1)); /* it has been told */
	expect_ended(fd);

	fd = connect_raw(*state);
	send_op(fd, NULL_OP_RUN, &(struct null_run){.buffer = 2}); /* no such buffer */
	expect_ended(fd);
}

/* Its worker and its sender are in the middle of something, and nobody reads. */
static void test_a_program_that_leaves_or_does_not_read_ends_alone(void **state)
{
	struct channel *good = connect_program(*state, 0);
	uint32_t buffer = mem_alloc(good, 64);

	for (int round = 0; round < 20; round++) {
		int fd = connect_raw(*state);

		for (uint32_t i = 0; i < (round % 2 ? WIRE_MAX_EVENTS : 3); i++) {
			run(fd, wire_handle(i, 1));
			want(fd, wire_handle(i, 1));
		}
		if (round % 3 == 0)
			want(fd, 99); /* ends it from its own side */
		close(fd);
		assert_int_equal(channel_event_wait(good, null_run(good, buffer)), WIRE_OK);
	}
	channel_destroy(good);
}

static void test_an_api_without_events_has_no_such_commands(void **state)
{
	struct wire_api deaf = wire_api_null;
	struct wire_frame f = {.op = WIRE_OP_EVENT_WANT, .body_bytes = sizeof(struct wire_event)};

	(void)state;
	assert_non_null(wire_frame_op(&deaf, &f));
	deaf.has_events = false;
	assert_null(wire_frame_op(&deaf, &f));
	f = (struct wire_frame){.op = WIRE_OP_GET, .body_bytes = sizeof(struct wire_get)};
	assert_non_null(wire_frame_op(&deaf, &f));
	deaf.has_mem = false;
	assert_null(wire_frame_op(&deaf, &f));
	f = (struct wire_frame){.op = WIRE_OP_EVENT, .body_bytes = sizeof(struct wire_event)};
	assert_null(wire_frame_op(&wire_api_null, &f)); /* comes from the executor alone */
}

/* ---- the program's side, with a hostile executor ---- */

/* What the program makes of @n answers after its run with event (0, 1). */
static enum wire_status told(const struct wire_answer *answers, size_t n)
{
	struct wire_welcome w = {.magic = WIRE_MAGIC, .version = WIRE_VERSION, .alignment = 8};
	struct channel *chan;
	enum wire_status status;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(pil_write_all(pair[0], &w, sizeof(w)), 0);
	assert_int_equal(pil_write_all(pair[0], answers, n * sizeof(*answers)), 0);
	shutdown(pair[0], SHUT_WR);
	assert_int_equal(channel_create_fd(&chan, &wire_api_null, pair[1], NULL), 0);
	status = channel_event_wait(chan, null_run(chan, 1));
	channel_destroy(chan);
	close(pair[0]);
	return status;
}

static void test_answers_that_are_not_the_event_end_the_channel(void **state)
{
	const uint32_t event = wire_handle(0, 1);
	const struct wire_answer good = {.op = WIRE_OP_EVENT,
					 .status = WIRE_E_FAILED,
					 .value = event},
				 bad[] = {
					 {.op = WIRE_OP_EVENT, .value = event + 1},
					 {.op = WIRE_OP_EVENT, .value = wire_handle(0, 2)},
					 {.op = WIRE_OP_EVENT, .value = UINT64_MAX},
					 {.op = WIRE_OP_EVENT, .value = (1ull << 32) | event},
					 {.op = WIRE_OP_EVENT, .status = 999, .value = event},
					 {.op = WIRE_OP_EVENT, .value = event, .body_bytes = 8},
					 {.op = WIRE_OP_FENCE},
				 };

	(void)state;
	assert_int_equal(told(&good, 1), WIRE_E_FAILED);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(told(&bad[i], 1), WIRE_E_EXECUTOR);
	assert_int_equal(told(NULL, 0), WIRE_E_EXECUTOR);
}

static void test_programs_run_out_of_events_and_get_them_back(void **state)
{
	struct channel *chan = connect_program(*state, 0);
	uint32_t buffer = mem_alloc(chan, 8), events[WIRE_MAX_EVENTS];

	for (int i = 0; i < WIRE_MAX_EVENTS; i++)
		assert_int_not_equal(events[i] = null_run(chan, buffer), 0);
	assert_int_equal(channel_event_new(chan), 0);
	for (int i = WIRE_MAX_EVENTS; i-- > 0;)
		assert_int_equal(channel_event_wait(chan, events[i]), WIRE_OK);
	assert_int_equal(channel_event_wait(chan, null_run(chan, buffer)), WIRE_OK);
	channel_destroy(chan);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_each_run_adds_one_to_every_byte),
		TEST(test_memory_commands_wait_for_posted_work),
		TEST(test_posted_work_is_bounded_by_waiting),
		TEST(test_what_work_takes_is_told_with_the_next_answer),
		TEST(test_the_highest_slot_is_one_of_a_million),
		TEST(test_many_thousand_buffers_are_freed_with_their_session),
		TEST(test_quota_holds_for_buffers_and_for_the_table_of_handles),
		TEST(test_events_are_told_to_those_who_ask_alone_and_once),
		TEST(test_events_that_are_none_end_the_session),
		TEST(test_a_program_that_leaves_or_does_not_read_ends_alone),
		TEST(test_programs_run_out_of_events_and_get_them_back),
		cmocka_unit_test(test_an_api_without_events_has_no_such_commands),
		cmocka_unit_test(test_answers_that_are_not_the_event_end_the_channel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
