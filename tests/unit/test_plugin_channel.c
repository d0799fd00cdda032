/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fd.h"
#include "lib/bound.h"
#include "lib/fake_exec.h"
#include "link/channel.h"
#include "link/upload.h"

static struct channel *open_fake(struct fake_exec *x)
{
	struct channel *chan = NULL;
	struct pil_err err = {0};

	assert_int_equal(channel_create_fd(&chan, &wire_api_ggml, fake_exec_start(x), &err), 0);
	return chan;
}

static void close_fake(struct channel *chan, struct fake_exec *x)
{
	channel_destroy(chan);
	fake_exec_finish(x);
	assert_false(x->bad);
}

static uint32_t alloc_buffer(struct channel *chan, uint64_t bytes)
{
	struct wire_buffer_alloc alloc = {.buffer = channel_slot_take(&chan->buffers),
					  .bytes = bytes};

	assert_int_equal(channel_call(chan, WIRE_OP_BUFFER_ALLOC, &alloc, NULL, 0, NULL, NULL),
			 WIRE_OK);
	return alloc.buffer;
}

/* Ends the first stream unheard, and answers the second. */
static void *deaf_at_first(void *arg)
{
	const struct wire_hello_answer answer = {.magic = WIRE_MAGIC, .version = WIRE_VERSION};
	int listen_fd = *(int *)arg, fd;
	struct wire_hello hello;

	close(accept(listen_fd, NULL, NULL));
	fd = accept(listen_fd, NULL, NULL);
	if (pil_read_all(fd, &hello, sizeof(hello)) || pil_write_all(fd, &answer, sizeof(answer)))
		abort();
	close(fd);
	return NULL;
}

static void test_broker_that_drops_us_is_asked_again(void **state)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct channel_target target = {.api = &wire_api_ggml};
	struct wire_device device;
	struct pil_err err = {0};
	pthread_t broker;
	uint32_t n = 7;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)state;
	snprintf(addr.sun_path, sizeof(addr.sun_path), "/tmp/pillion-test-%d", getpid());
	unlink(addr.sun_path);
	snprintf(target.broker, sizeof(target.broker), "%s", addr.sun_path);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(fd, 8), 0);
	assert_int_equal(pthread_create(&broker, NULL, deaf_at_first, &fd), 0);
	assert_int_equal(channel_list(&target, &device, 1, &n, &err), 0);
	assert_int_equal(n, 0);
	assert_int_equal(err.code, 0);
	pthread_join(broker, NULL);
	unlink(addr.sun_path);
	close(fd);
}

static void test_handles_are_never_zero_nor_used_twice(void **state)
{
	struct channel_slots slots = {.limit = 3, .generation = calloc(3, sizeof(uint16_t))};
	uint32_t a = channel_slot_take(&slots), b = channel_slot_take(&slots);

	(void)state;
	assert_true(a && b && a != b);
	assert_true(channel_slot_take(&slots));
	assert_int_equal(channel_slot_take(&slots), 0);
	for (int i = 0; i < 10000; i++) {
		uint32_t again;

		channel_slot_give(&slots, a);
		channel_slot_give(&slots, a); /* twice is harmless */
		again = channel_slot_take(&slots);
		assert_true(again && again != a);
		a = again;
	}
	free(slots.generation);
}

static void test_a_token_costs_one_write_and_one_wait(void **state)
{
	struct fake_exec x = {0};
	struct channel *chan = open_fake(&x);
	uint32_t buffer = alloc_buffer(chan, 4096);
	unsigned reads = x.reads;
	char out[16] = "";

	(void)state;
	for (int token = 0; token < 10; token++) {
		struct wire_get get = {.buffer = buffer, .offset = 64, .bytes = sizeof(out)};
		struct channel_dest dest = {out, 1, sizeof(out), 0};
		struct wire_graph_run run = {.graph = 1};

		for (uint64_t i = 0; i < 13; i++) {
			struct wire_set set = {.buffer = buffer, .offset = i * 16};

			channel_queue(chan, WIRE_OP_SET, &set, "0123456789abcde", 16);
		}
		chan->need = channel_queue(chan, GG_OP_GRAPH_RUN, &run, NULL, 0);
		chan->need = channel_queue(chan, WIRE_OP_GET, &get, NULL, 0);
		channel_expect(chan, WIRE_OP_GET, &dest, NULL);
		assert_int_equal(chan->sent + 15, chan->seq);
		assert_true(channel_synchronize(chan));
		assert_string_equal(out, "0123456789abcde");
	}
	assert_int_equal(x.reads - reads, 10);
	assert_int_equal(x.count[WIRE_OP_FENCE], 0);
	close_fake(chan, &x);
}

static void test_synchronize_without_work_sends_nothing(void **state)
{
	struct fake_exec x = {0};
	struct channel *chan = open_fake(&x);
	struct wire_set set = {.buffer = alloc_buffer(chan, 64)};

	(void)state;
	channel_queue(chan, WIRE_OP_SET, &set, "x", 1);
	assert_true(channel_synchronize(chan));
	assert_int_equal(chan->sent + 1, chan->seq);
	channel_flush(chan);
	close_fake(chan, &x);
}

static void test_a_run_without_a_read_is_waited_for(void **state)
{
	struct fake_exec x = {.run = WIRE_E_FAILED};
	struct channel *chan = open_fake(&x);
	struct wire_graph_run run = {.graph = 1};

	(void)state;
	chan->need = channel_queue(chan, GG_OP_GRAPH_RUN, &run, NULL, 0);
	assert_true(channel_synchronize(chan));
	assert_int_equal(x.count[WIRE_OP_FENCE], 1);
	assert_int_equal(chan->failed, WIRE_E_FAILED);
	close_fake(chan, &x);
}

static void test_much_in_both_directions_does_not_block(void **state)
{
	enum { BYTES = 4 << 20, ROUNDS = 24 };
	struct fake_exec x = {0};
	struct channel *chan = open_fake(&x);
	uint32_t buffer = alloc_buffer(chan, BYTES);
	char *data = malloc(BYTES), *back = malloc(BYTES);

	(void)state;
	for (int i = 0; i < ROUNDS; i++) {
		struct wire_set set = {.buffer = buffer};
		struct wire_get get = {.buffer = buffer, .bytes = BYTES};
		struct channel_dest dest = {back, 1, BYTES, 0};

		memset(data, i, BYTES);
		channel_queue(chan, WIRE_OP_SET, &set, data, BYTES);
		chan->need = channel_queue(chan, WIRE_OP_GET, &get, NULL, 0);
		channel_expect(chan, WIRE_OP_GET, &dest, NULL);
	}
	assert_true(channel_synchronize(chan));
	assert_memory_equal(data, back, BYTES);
	free(data);
	free(back);
	close_fake(chan, &x);
}

static void test_more_answers_than_the_ring_holds(void **state)
{
	struct fake_exec x = {0};
	struct channel *chan = open_fake(&x);
	static const struct wire_empty none;

	(void)state;
	for (int i = 0; i < 3 * CHANNEL_MAX_PENDING; i++) {
		chan->need = channel_queue(chan, WIRE_OP_FENCE, &none, NULL, 0);
		channel_expect(chan, WIRE_OP_FENCE, NULL, NULL);
	}
	assert_true(channel_synchronize(chan));
	assert_int_equal(x.count[WIRE_OP_FENCE], 3 * CHANNEL_MAX_PENDING);
	close_fake(chan, &x);
}

static void test_the_end_of_an_executor_is_noticed_at_once(void **state)
{
	struct fake_exec x = {.flags = WIRE_WELCOME_SHM | WIRE_WELCOME_REFERENCE};
	static const struct wire_empty none;
	struct channel *chan = open_fake(&x);
	int64_t start;

	(void)state;
	x.die_after = 1; /* with the first of these two, answered or not */
	start = clock_now_ms();
	channel_call(chan, WIRE_OP_FENCE, &none, NULL, 0, NULL, NULL);
	assert_int_equal(channel_call(chan, WIRE_OP_FENCE, &none, NULL, 0, NULL, NULL),
			 WIRE_E_EXECUTOR);
	assert_true(clock_now_ms() - start < bound_ms(2000));
	assert_true(chan->dead);
	close_fake(chan, &x);
}

static void on_alarm(int signo)
{
	(void)signo;
}

/* Waits of a program with a timer are interrupted before they are over. */
static void test_signals_do_not_hide_the_end_of_an_executor(void **state)
{
	const struct itimerval often = {{0, 50000}, {0, 50000}}, off = {0};
	struct fake_exec x = {.flags = WIRE_WELCOME_SHM | WIRE_WELCOME_REFERENCE};
	static const struct wire_empty none;
	struct channel *chan = open_fake(&x);
	int64_t start;

	(void)state;
	signal(SIGALRM, on_alarm);
	x.die_after = 1;
	channel_call(chan, WIRE_OP_FENCE, &none, NULL, 0, NULL, NULL);
	chan->dead = false; /* sent before its end was known: only waiting is left */
	chan->failed = 0;
	chan->seq++;
	channel_expect(chan, WIRE_OP_FENCE, NULL, NULL);
	start = clock_now_ms();
	setitimer(ITIMER_REAL, &often, NULL);
	assert_false(channel_wait(chan, chan->seq));
	setitimer(ITIMER_REAL, &off, NULL);
	assert_true(clock_now_ms() - start < bound_ms(2000));
	close_fake(chan, &x);
}

static void upload_through(uint32_t flags, bool shared, bool whole)
{
	enum { BYTES = 70 << 20, WHOLE = 21 << 20 };
	struct fake_exec x = {.flags = flags};
	struct channel *chan = open_fake(&x);
	uint32_t buffer = alloc_buffer(chan, BYTES + 8);
	uint32_t *data = malloc(BYTES);
	struct wire_set set = {.buffer = buffer};
	struct upload up = {0};

	for (uint32_t i = 0; i < BYTES / 4; i++)
		data[i] = i * 2654435761u;
	for (uint64_t at = 0; at < BYTES; at += WHOLE) {
		set.offset = at + 8;
		upload_set(&up, chan, &set, (char *)data + at,
			   BYTES - at < WHOLE ? BYTES - at : WHOLE, whole);
	}
	assert_int_equal(up.shm != 0, shared);
	assert_true(channel_wait(chan, chan->seq));
	if (whole)
		assert_int_equal(x.count[WIRE_OP_SET_SHM], 4);
	assert_memory_equal(x.buffers[wire_slot(buffer)] + 8, data, BYTES);
	upload_finish(&up);
	free(data);
	close_fake(chan, &x);
}

static void test_uploads_arrive_whole(void **state)
{
	(void)state;
	upload_through(0, false, false);
	upload_through(WIRE_WELCOME_SHM, true, false);
	upload_through(WIRE_WELCOME_SHM, true, true);
}

/* ---- a peer that goes away or talks nonsense ---- */

struct script { /* the answers to ask_all() */
	struct fake_welcome welcome;
	struct wire_answer fence;
	struct wire_answer get;
	char data[24];
	struct wire_answer memory;
	struct wire_memory numbers;
};

static void script_init(struct script *s)
{
	memset(s, 0, sizeof(*s));
	fake_exec_welcome(&s->welcome, 0);
	s->fence.op = WIRE_OP_FENCE;
	s->get.op = WIRE_OP_GET;
	s->get.body_bytes = sizeof(s->data);
	memset(s->data, 'd', sizeof(s->data));
	s->memory.op = WIRE_OP_MEMORY;
	s->memory.body_bytes = sizeof(s->numbers);
	s->numbers = (struct wire_memory){7, 8};
}

/* Asks three things of a peer that says @bytes and no more.  True if all were answered. */
static bool ask_all(const void *bytes, size_t len, char *data, struct wire_memory *numbers)
{
	static const struct wire_empty none;
	struct wire_get get = {.buffer = 1, .bytes = 24};
	struct channel_dest dest = {data, 1, 24, 0}, mem = {numbers, 1, sizeof(*numbers), 0};
	struct channel *chan = NULL;
	int pair[2];
	bool ok;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(pil_write_all(pair[0], bytes, len), 0);
	shutdown(pair[0], SHUT_WR);
	if (channel_create_fd(&chan, &wire_api_ggml, pair[1], NULL)) {
		close(pair[0]);
		return false;
	}
	memset(data, 'x', 24);
	channel_queue(chan, WIRE_OP_FENCE, &none, NULL, 0);
	channel_expect(chan, WIRE_OP_FENCE, NULL, NULL);
	channel_queue(chan, WIRE_OP_GET, &get, NULL, 0);
	channel_expect(chan, WIRE_OP_GET, &dest, NULL);
	ok = channel_call(chan, WIRE_OP_MEMORY, &none, NULL, 0, &mem, NULL) == WIRE_OK;
	assert_int_equal(ok, !chan->dead);
	if (chan->dead) { /* nothing may wait or crash from here on */
		assert_int_equal(channel_queue(chan, WIRE_OP_FENCE, &none, NULL, 0), 0);
		channel_expect(chan, WIRE_OP_GET, &dest, NULL);
		assert_false(channel_synchronize(chan) && chan->need > chan->done);
		assert_int_equal(channel_shm_add(chan, 0, 1, WIRE_SHM_MEMORY), 0);
	}
	channel_destroy(chan);
	close(pair[0]);
	return ok;
}

static void test_an_end_at_any_byte_is_noticed(void **state)
{
	struct wire_memory numbers;
	struct script s;
	char data[24];

	(void)state;
	script_init(&s);
	for (size_t len = 0; len < sizeof(s); len += len < sizeof(s.welcome) ? 61 : 1) {
		static const char zero[24];
		bool got_data = len >= offsetof(struct script, memory);

		memset(data, 0, sizeof(data));
		assert_false(ask_all(&s, len, data, &numbers));
		if (!got_data)
			assert_memory_equal(data, zero, sizeof(data));
	}
	assert_true(ask_all(&s, sizeof(s), data, &numbers));
	assert_memory_equal(data, s.data, sizeof(data));
	assert_int_equal(numbers.total, 8);
}

static void test_wrong_answers_end_the_channel(void **state)
{
	struct wire_memory numbers;
	struct script s;
	char data[24];

	(void)state;
	script_init(&s);
	s.fence.op = WIRE_OP_GET;
	assert_false(ask_all(&s, sizeof(s), data, &numbers));
	script_init(&s);
	s.get.body_bytes = 25;
	assert_false(ask_all(&s, sizeof(s), data, &numbers));
	script_init(&s);
	s.get.body_bytes = 0xffffffff;
	assert_false(ask_all(&s, sizeof(s), data, &numbers));
	script_init(&s);
	s.fence.body_bytes = 8;
	assert_false(ask_all(&s, sizeof(s), data, &numbers));
	script_init(&s);
	s.fence.status = WIRE_NUM_STATUSES;
	assert_false(ask_all(&s, sizeof(s), data, &numbers));
	script_init(&s);
	s.fence.failed = 999;
	assert_false(ask_all(&s, sizeof(s), data, &numbers));
	script_init(&s);
	s.welcome.head.magic = 0;
	assert_false(ask_all(&s, sizeof(s), data, &numbers));
	script_init(&s);
	s.welcome.head.alignment = 48;
	assert_false(ask_all(&s, sizeof(s), data, &numbers));
	script_init(&s);
	s.welcome.head.body_bytes -= 8;
	assert_false(ask_all(&s, sizeof(s), data, &numbers));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_broker_that_drops_us_is_asked_again),
		cmocka_unit_test(test_handles_are_never_zero_nor_used_twice),
		cmocka_unit_test(test_a_token_costs_one_write_and_one_wait),
		cmocka_unit_test(test_synchronize_without_work_sends_nothing),
		cmocka_unit_test(test_a_run_without_a_read_is_waited_for),
		cmocka_unit_test(test_much_in_both_directions_does_not_block),
		cmocka_unit_test(test_more_answers_than_the_ring_holds),
		cmocka_unit_test(test_the_end_of_an_executor_is_noticed_at_once),
		cmocka_unit_test(test_signals_do_not_hide_the_end_of_an_executor),
		cmocka_unit_test(test_uploads_arrive_whole),
		cmocka_unit_test(test_an_end_at_any_byte_is_noticed),
		cmocka_unit_test(test_wrong_answers_end_the_channel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
