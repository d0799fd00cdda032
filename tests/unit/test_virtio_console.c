/* SPDX-License-Identifier: Apache-2.0
 *
 * The console and, being as small, the entropy device. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/loop.h"
#include "lib/vdriver.h"
#include "virtio/virtio_console.h"
#include "virtio/virtio_rng.h"

enum { IN, OUT };

struct fixture {
	struct vdriver d;
	struct loop *loop;
	struct loop_timer timer;
	struct virtio_device *dev;
	int peer;
};

static void stop_loop(struct loop_timer *timer)
{
	struct fixture *f = container_of(timer, struct fixture, timer);

	loop_stop(f->loop, 0);
}

static void run_loop(struct fixture *f)
{
	f->timer.expired = stop_loop;
	loop_timer_arm(f->loop, &f->timer, 20);
	assert_int_equal(loop_run(f->loop), 0);
}

static int setup(void **state)
{
	static struct fixture f;
	int pair[2];

	memset(&f, 0, sizeof(f));
	vdriver_init(&f.d);
	assert_int_equal(loop_create(&f.loop), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	f.peer = pair[1];
	assert_int_equal(virtio_console_create(&f.dev, f.loop, pair[0], NULL), 0);
	vdriver_start(&f.d, f.dev, 0);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	vdriver_stop(&f->d);
	f->dev->ops->destroy(f->dev);
	vdriver_finish(&f->d);
	loop_destroy(f->loop);
	close(f->peer);
	return 0;
}

static void say(struct fixture *f, const void *text, size_t len)
{
	struct vdriver_buf buf = {vdriver_put(&f->d, text, len), (uint32_t)len, false};
	struct vring_used_elem used;

	vdriver_add(&f->d, OUT, &buf, 1);
	vdriver_kick(&f->d, OUT);
	assert_true(vdriver_used(&f->d, OUT, &used)); /* always at once */
}

static void test_output_arrives_and_is_remembered(void **state)
{
	struct fixture *f = *state;
	char got[64] = "", tail[VIRTIO_CONSOLE_TAIL_BYTES + 1];

	say(f, "hello\n", 6);
	assert_int_equal(read(f->peer, got, sizeof(got)), 6);
	assert_string_equal(got, "hello\n");
	say(f, "panic", 5);
	assert_int_equal(virtio_console_tail(f->dev, tail, sizeof(tail)), 11);
	assert_string_equal(tail, "hello\npanic");
	assert_int_equal(virtio_console_tail(f->dev, tail, 4), 3);
	assert_string_equal(tail, "nic");
}

static void test_a_stuck_reader_costs_output_not_the_guest(void **state)
{
	struct fixture *f = *state;
	static char block[4096], got[4096];
	size_t total = 0;
	ssize_t n;

	for (int i = 0; i < 256; i++) {
		memset(block, 'a' + i % 26, sizeof(block));
		say(f, block, sizeof(block));
		f->d.next_gpa = VDRIVER_BUFFERS_GPA;
	}
	assert_true(virtio_console_dropped(f->dev) > 0);
	for (int i = 0; i < 200; i++) {
		while ((n = recv(f->peer, got, sizeof(got), MSG_DONTWAIT)) > 0)
			total += (size_t)n;
		if (total == sizeof(block) * 256 - virtio_console_dropped(f->dev))
			break;
		run_loop(f);
	}
	assert_int_equal(total, sizeof(block) * 256 - virtio_console_dropped(f->dev));
	say(f, "!", 1);
	assert_int_equal(read(f->peer, got, 1), 1);
	assert_int_equal(got[0], '!');
}

static void test_a_file_is_not_the_guests_to_fill(void **state)
{
	struct fixture *f = *state;
	static char block[VIRTIO_CONSOLE_BUFFER_BYTES], tail[8];
	FILE *file = tmpfile();

	vdriver_stop(&f->d);
	f->dev->ops->destroy(f->dev);
	assert_int_equal(virtio_console_create(&f->dev, f->loop, dup(fileno(file)), NULL), 0);
	vdriver_start(&f->d, f->dev, 0);
	memset(block, 'x', sizeof(block));
	for (size_t i = 0; i < 2 * VIRTIO_CONSOLE_FILE_BYTES / sizeof(block); i++) {
		say(f, block, sizeof(block));
		f->d.next_gpa = VDRIVER_BUFFERS_GPA;
	}
	say(f, "panic", 5);
	fseek(file, 0, SEEK_END);
	assert_int_equal(ftell(file), VIRTIO_CONSOLE_FILE_BYTES);
	assert_int_equal(virtio_console_dropped(f->dev), VIRTIO_CONSOLE_FILE_BYTES + 5);
	virtio_console_tail(f->dev, tail, 6);
	assert_string_equal(tail, "panic");
	fclose(file);
}

static void test_a_reader_that_left_is_no_harm(void **state)
{
	struct fixture *f = *state;

	close(f->peer);
	run_loop(f);
	say(f, "to nobody", 9);
	say(f, "again", 5);
	run_loop(f);
	f->peer = -1;
	assert_int_equal(f->d.broken, 0);
}

static void test_input_reaches_the_guest(void **state)
{
	struct fixture *f = *state;
	struct vdriver_buf buf = {vdriver_alloc(&f->d, 4), 4, true};
	struct vring_used_elem used;

	assert_int_equal(write(f->peer, "abcdef", 6), 6);
	run_loop(f); /* no buffers yet: not polled */
	vdriver_add(&f->d, IN, &buf, 1);
	vdriver_kick(&f->d, IN);
	assert_true(vdriver_used(&f->d, IN, &used));
	assert_int_equal(used.len, 4);
	assert_memory_equal(vdriver_at(&f->d, buf.gpa), "abcd", 4);
	vdriver_add(&f->d, IN, &buf, 1);
	vdriver_add(&f->d, IN, &buf, 1);
	vdriver_kick(&f->d, IN);
	assert_true(vdriver_used(&f->d, IN, &used));
	assert_int_equal(used.len, 2);
	assert_false(vdriver_used(&f->d, IN, &used));
	assert_int_equal(write(f->peer, "gh", 2), 2);
	run_loop(f);
	assert_true(vdriver_used(&f->d, IN, &used));
	assert_memory_equal(vdriver_at(&f->d, buf.gpa), "gh", 2);
	assert_int_equal(shutdown(f->peer, SHUT_WR), 0);
	vdriver_add(&f->d, IN, &buf, 1);
	vdriver_kick(&f->d, IN);
	run_loop(f);
	assert_false(vdriver_used(&f->d, IN, &used)); /* and the buffer waits */
}

static void test_buffers_that_nothing_will_fill_are_left_alone(void **state)
{
	struct fixture *f = *state;
	struct vdriver_buf buf = {vdriver_alloc(&f->d, 4), 4, true};
	struct virtio_device *log_file;
	struct vdriver d;

	vdriver_add(&f->d, IN, &buf, 1);
	assert_int_equal(shutdown(f->peer, SHUT_WR), 0);
	run_loop(f);
	vdriver_again(&f->d);
	vdriver_add(&f->d, IN, &buf, 1);
	vdriver_kick(&f->d, IN);
	assert_false(vdriver_again(&f->d));

	/* a file cannot be polled, and is not read */
	vdriver_init(&d);
	assert_int_equal(virtio_console_create(&log_file, f->loop, memfd_create("log", MFD_CLOEXEC),
					       NULL),
			 0);
	vdriver_start(&d, log_file, 0);
	buf.gpa = vdriver_alloc(&d, 4);
	vdriver_add(&d, IN, &buf, 1);
	vdriver_kick(&d, IN);
	assert_false(vdriver_again(&d));
	vdriver_stop(&d);
	log_file->ops->destroy(log_file);
	vdriver_finish(&d);
}

static void test_misuse_breaks_the_console(void **state)
{
	struct fixture *f = *state;
	struct vdriver_buf buf = {vdriver_alloc(&f->d, 4), 4, false};

	vdriver_add(&f->d, IN, &buf, 1); /* readable, where we write */
	vdriver_kick(&f->d, IN);
	assert_int_equal(f->d.broken, 1);
	vdriver_kick(&f->d, IN);
	vdriver_kick(&f->d, OUT);
	assert_int_equal(f->d.broken, 1); /* said once */
}

static void test_random_bytes_are_bounded(void **state)
{
	static struct vdriver d;
	struct virtio_device *dev;
	struct vring_used_elem used;
	struct vdriver_buf big = {0, 65536, true}, none = {0, 8, false};
	struct vdriver_buf small = {0, 32, true};
	static const uint8_t zeroes[32];

	(void)state;
	vdriver_init(&d);
	assert_int_equal(virtio_rng_create(&dev, NULL), 0);
	vdriver_start(&d, dev, 0);
	big.gpa = vdriver_alloc(&d, big.len);
	none.gpa = vdriver_alloc(&d, none.len);
	small.gpa = vdriver_alloc(&d, small.len);
	vdriver_add(&d, 0, &big, 1);
	vdriver_add(&d, 0, &none, 1);
	vdriver_add(&d, 0, &small, 1);
	vdriver_kick(&d, 0);
	assert_true(vdriver_used(&d, 0, &used));
	assert_int_equal(used.len, VIRTIO_RNG_MAX_BYTES);
	assert_true(vdriver_used(&d, 0, &used));
	assert_int_equal(used.len, 0);
	assert_true(vdriver_used(&d, 0, &used));
	assert_int_equal(used.len, 32);
	assert_memory_not_equal(vdriver_at(&d, small.gpa), zeroes, 32);
	assert_int_equal(d.queues[0].interrupts, 1);
	vdriver_stop(&d);
	dev->ops->destroy(dev);
	vdriver_finish(&d);
}

#define T(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(output_arrives_and_is_remembered),
		T(a_stuck_reader_costs_output_not_the_guest),
		T(a_file_is_not_the_guests_to_fill),
		T(a_reader_that_left_is_no_harm),
		T(input_reaches_the_guest),
		T(buffers_that_nothing_will_fill_are_left_alone),
		T(misuse_breaks_the_console),
		cmocka_unit_test(test_random_bytes_are_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
