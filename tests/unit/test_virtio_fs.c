/* SPDX-License-Identifier: Apache-2.0
 *
 * The fs device against a back end of our own, good and bad, and against virtiofsd where there is
 * one. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/loop.h"
#include "lib/bound.h"
#include "lib/vdriver.h"
#include "virtio/virtio_fs.h"

enum { REQUEST_QUEUE = 1, FEATURES = 1, PROTOCOL = 15, GET_BASE = 11, OUT = 4096 };

struct message {
	uint32_t request, flags, size;
	uint8_t payload[512];
};

struct fixture {
	struct vdriver d;
	struct loop *loop;
	struct loop_timer timer;
	struct virtio_device *dev;
	char dir[64], path[108];
	int listen_fd, fd;    /* of the back end; -1 */
	unsigned seen[32];    /* requests, by number */
	int kick_fd, call_fd; /* of the request queue, as the back end got them */
	int mem_fds;          /* how many came with the memory table */
	uint16_t base;        /* told for the request queue */
	uint64_t ring_addr;   /* desc, in the front end's address space */
	uint64_t back_features;
};

static void stop_loop(struct loop_timer *timer)
{
	struct fixture *f = container_of(timer, struct fixture, timer);

	loop_stop(f->loop, 0);
}

static void run_loop(struct fixture *f, int ms)
{
	f->timer.expired = stop_loop;
	loop_timer_arm(f->loop, &f->timer, ms);
	assert_int_equal(loop_run(f->loop), 0);
	vdriver_again(&f->d);
}

static void start_back_end(struct fixture *f)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", f->path);
	unlink(f->path);
	f->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(f->listen_fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(f->listen_fd, 4), 0);
}

static void close_fd(int *fd)
{
	pil_close_p(fd);
}

static void stop_back_end(struct fixture *f)
{
	close_fd(&f->fd);
	close_fd(&f->listen_fd);
	close_fd(&f->kick_fd);
	close_fd(&f->call_fd);
	memset(f->seen, 0, sizeof(f->seen));
}

static int setup(void **state)
{
	static struct fixture f;

	memset(&f, 0, sizeof(f));
	f.listen_fd = f.fd = f.kick_fd = f.call_fd = -1;
	f.back_features = 1ull << 32 | 1ull << 30 | 1ull << 29 | 1ull << 28;
	vdriver_init(&f.d);
	f.d.lends_fds = true;
	assert_int_equal(loop_create(&f.loop), 0);
	strcpy(f.dir, "/tmp/fs-XXXXXX");
	assert_non_null(mkdtemp(f.dir));
	snprintf(f.path, sizeof(f.path), "%s/socket", f.dir);
	assert_int_equal(virtio_fs_create(&f.dev, f.loop, "work", f.path, NULL), 0);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	if (f->d.dev)
		vdriver_stop(&f->d);
	f->dev->ops->destroy(f->dev);
	vdriver_finish(&f->d);
	loop_destroy(f->loop);
	stop_back_end(f);
	unlink(f->path);
	rmdir(f->dir);
	return 0;
}

static void answer(struct fixture *f, uint32_t request, uint64_t value)
{
	struct message m = {request, 1 | 4, 8, {0}};

	memcpy(m.payload, &value, 8);
	assert_int_equal(pil_write_all(f->fd, &m, 20), 0);
}

static void handle(struct fixture *f, const struct message *m, int *fds, int n_fds)
{
	uint64_t words[64];

	memcpy(words, m->payload, sizeof(words));
	assert_true(m->request < 32);
	assert_int_equal(m->flags, 1);
	f->seen[m->request]++;
	if (m->request == FEATURES)
		answer(f, FEATURES, f->back_features);
	if (m->request == PROTOCOL)
		answer(f, PROTOCOL, 0xffff);
	if (m->request == GET_BASE)
		answer(f, GET_BASE, words[0] | 7ull << 32);
	if (m->request == 5)
		f->mem_fds = n_fds;
	if (m->request == 9 && (uint32_t)words[0] == REQUEST_QUEUE)
		f->ring_addr = words[1];
	if (m->request == 10 && (uint32_t)words[0] == REQUEST_QUEUE)
		f->base = (uint16_t)(words[0] >> 32);
	if ((m->request == 12 || m->request == 13) && words[0] == REQUEST_QUEUE) {
		int *fd = m->request == 12 ? &f->kick_fd : &f->call_fd;

		assert_int_equal(n_fds, 1);
		close_fd(fd);
		*fd = fds[0];
		fds[0] = -1;
	}
	for (int i = 0; i < n_fds; i++)
		close_fd(&fds[i]);
}

/* Lets both ends talk until they are quiet. */
static void converse(struct fixture *f)
{
	for (int idle = 0; idle < 5;) {
		struct message m;
		int fds[8], n_fds = 8;
		ssize_t n = -1;

		run_loop(f, 1);
		if (f->fd < 0)
			f->fd = accept4(f->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (f->fd >= 0)
			n = pil_recv_fds(f->fd, &m, 12, fds, &n_fds, 0);
		if (n <= 0) {
			idle++;
			continue;
		}
		idle = 0;
		assert_int_equal(n, 12);
		assert_true(m.size <= sizeof(m.payload));
		assert_int_equal(pil_read_all(f->fd, m.payload, m.size), 0);
		handle(f, &m, fds, n_fds);
	}
}

/* Offers a FUSE request with room for an answer; returns where the answer will be. */
static struct fuse_out_header *request(struct fixture *f, unsigned q, uint32_t opcode,
				       uint64_t unique, bool answered)
{
	struct fuse_in_header in = {.len = sizeof(in), .opcode = opcode, .unique = unique};
	uint64_t out = vdriver_alloc(&f->d, OUT);
	struct vdriver_buf bufs[] = {{vdriver_put(&f->d, &in, sizeof(in)), sizeof(in), false},
				     {out, OUT, true}};

	vdriver_add(&f->d, q, bufs, answered ? 2 : 1);
	return vdriver_at(&f->d, out);
}

static void expect_failure(struct fixture *f, struct fuse_out_header *out, uint64_t unique)
{
	struct vring_used_elem used;

	assert_true(vdriver_used(&f->d, REQUEST_QUEUE, &used));
	assert_int_equal(used.len, sizeof(*out));
	assert_int_equal(out->error, -ENOTCONN);
	assert_int_equal(out->unique, unique);
	assert_int_equal(out->len, sizeof(*out));
}

static void test_queues_are_handed_over(void **state)
{
	struct fixture *f = *state;
	const uint64_t ring = (uint64_t)(uintptr_t)f->d.ram;
	uint64_t count;

	start_back_end(f);
	vdriver_start(&f->d, f->dev, 0);
	converse(f);
	assert_true(virtio_fs_is_connected(f->dev));
	assert_int_equal(f->mem_fds, 2);
	assert_int_equal(f->seen[18], 2); /* both queues enabled */
	assert_int_equal(f->seen[3], 1);
	assert_int_equal(f->base, 0);
	assert_int_equal(f->ring_addr, ring + 0x10000);
	assert_int_equal(read(f->kick_fd, &count, 8), 8); /* look at what came before */
	request(f, REQUEST_QUEUE, FUSE_GETATTR, 1, true);
	vdriver_kick(&f->d, REQUEST_QUEUE);
	run_loop(f, 2); /* we leave it to the back end */
	assert_int_equal(read(f->kick_fd, &count, 8), 8);
	vdriver_stop(&f->d);
	f->d.dev = NULL;
}

static void test_without_a_back_end_requests_fail_at_once(void **state)
{
	struct fixture *f = *state;
	struct fuse_out_header *out;
	struct vring_used_elem used;

	vdriver_start(&f->d, f->dev, 0);
	out = request(f, REQUEST_QUEUE, FUSE_INIT, 77, true);
	vdriver_kick(&f->d, REQUEST_QUEUE);
	run_loop(f, 2);
	expect_failure(f, out, 77);
	request(f, 0, FUSE_FORGET, 78, false);
	vdriver_kick(&f->d, 0);
	run_loop(f, 2);
	assert_true(vdriver_used(&f->d, 0, &used));
	assert_int_equal(used.len, 0);
	assert_int_equal(f->d.broken, 0);
}

static void test_open_requests_fail_when_the_back_end_dies_and_another_takes_over(void **state)
{
	struct fixture *f = *state;
	struct fuse_out_header *out[3];
	struct vring_used_elem used;
	struct vring_used *ring;

	start_back_end(f);
	vdriver_start(&f->d, f->dev, 0);
	converse(f);
	for (unsigned i = 0; i < 3; i++)
		out[i] = request(f, REQUEST_QUEUE, FUSE_READ, 100 + i, true);
	vdriver_kick(&f->d, REQUEST_QUEUE);
	ring = f->d.queues[REQUEST_QUEUE].used; /* it answers the first and dies */
	ring->ring[0].id = 0;
	ring->ring[0].len = 16;
	ring->idx = 1;
	assert_true(vdriver_used(&f->d, REQUEST_QUEUE, &used));
	stop_back_end(f);
	run_loop(f, 5);
	assert_false(virtio_fs_is_connected(f->dev));
	expect_failure(f, out[1], 101);
	expect_failure(f, out[2], 102);
	assert_true(f->d.queues[REQUEST_QUEUE].interrupts > 0);
	out[0] = request(f, REQUEST_QUEUE, FUSE_READ, 103, true);
	vdriver_kick(&f->d, REQUEST_QUEUE);
	run_loop(f, 5);
	expect_failure(f, out[0], 103);
	start_back_end(f);
	run_loop(f, 1100); /* it is looked for every second */
	converse(f);
	assert_true(virtio_fs_is_connected(f->dev));
	assert_int_equal(f->base, 4);
}

/* It keeps the eventfds, makes them blocking, and has them full or empty as it likes. */
static void test_a_back_end_that_plays_with_the_eventfds_blocks_nothing(void **state)
{
	struct fixture *f = *state;
	struct fuse_out_header *out;
	uint64_t full = UINT64_MAX - 1, count;
	int kick_fd, call_fd;

	alarm((unsigned)bound_ms(20000) / 1000); /* instead of for ever */
	start_back_end(f);
	vdriver_start(&f->d, f->dev, 0);
	for (unsigned round = 0; round < 2; round++) {
		converse(f);
		assert_true(virtio_fs_is_connected(f->dev));
		kick_fd = dup(f->kick_fd);
		call_fd = dup(f->call_fd);
		assert_int_equal(fcntl(kick_fd, F_SETFL, 0), 0);
		assert_int_equal(fcntl(call_fd, F_SETFL, 0), 0);
		assert_int_equal(read(kick_fd, &count, 8), 8);
		if (round == 0)
			assert_int_equal(write(kick_fd, &full, 8), 8);
		stop_back_end(f);
		run_loop(f, 5);
		out = request(f, REQUEST_QUEUE, FUSE_READ, 100 + round, true);
		vdriver_kick(&f->d, REQUEST_QUEUE);
		run_loop(f, 5);
		expect_failure(f, out, 100 + round);
		start_back_end(f);
		run_loop(f, 1100);
		converse(f);
		/* what it still has is nobody's */
		assert_int_equal(fcntl(call_fd, F_SETFL, O_NONBLOCK), 0);
		assert_int_equal(write(call_fd, &full, 8), 8);
		assert_int_equal(read(f->call_fd, &count, 8), -1);
		assert_int_equal(read(f->kick_fd, &count, 8), 8);
		assert_true(count < 1000);
		assert_int_equal(write(f->kick_fd, &count, 8), 8);
		close_fd(&kick_fd);
		close_fd(&call_fd);
	}
	alarm(0);
}

static void test_the_connection_stays_over_a_reset(void **state)
{
	struct fixture *f = *state;
	pid_t pid;

	start_back_end(f);
	vdriver_start(&f->d, f->dev, 0);
	converse(f);
	/* reset() waits for answers: somebody else must give them */
	pid = fork();
	if (pid == 0) {
		for (int n = 0; n < 2;) {
			struct message m;

			if (pil_read_all(f->fd, &m, 12) || pil_read_all(f->fd, m.payload, m.size))
				usleep(1000);
			else if (m.request == GET_BASE && ++n)
				answer(f, GET_BASE, 0);
		}
		_exit(0);
	}
	vdriver_stop(&f->d);
	waitpid(pid, NULL, 0);
	memset(f->seen, 0, sizeof(f->seen));
	vdriver_start(&f->d, f->dev, 0);
	assert_true(virtio_fs_is_connected(f->dev));
	converse(f);
	assert_int_equal(f->seen[18], 2);
	assert_int_equal(f->seen[3], 0);
}

static void test_a_back_end_that_does_not_let_go_is_left(void **state)
{
	struct fixture *f = *state;
	int64_t before = clock_now_ms();

	start_back_end(f);
	vdriver_start(&f->d, f->dev, 0);
	converse(f);
	vdriver_stop(&f->d);
	assert_true(clock_now_ms() - before < bound_ms(3000));
	f->d.dev = NULL;
	run_loop(f, 2);
	assert_false(virtio_fs_is_connected(f->dev));
}

static void say_wrong(struct fixture *f, const void *bytes, size_t len)
{
	struct fuse_out_header *out;

	start_back_end(f);
	vdriver_start(&f->d, f->dev, 0);
	run_loop(f, 2);
	f->fd = accept4(f->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	assert_true(f->fd >= 0);
	assert_int_equal(write(f->fd, bytes, len), len);
	run_loop(f, 5);
	assert_false(virtio_fs_is_connected(f->dev));
	/* and it works like no back end at all */
	out = request(f, REQUEST_QUEUE, FUSE_INIT, 5, true);
	vdriver_kick(&f->d, REQUEST_QUEUE);
	run_loop(f, 5);
	expect_failure(f, out, 5);
	vdriver_stop(&f->d);
	f->d.dev = NULL;
	stop_back_end(f);
	run_loop(f, 2);
}

static void test_wrong_answers_end_the_connection(void **state)
{
	struct fixture *f = *state;
	struct message m = {FEATURES, 1 | 4, 8, {0}};

	m.request = 2; /* to another question */
	say_wrong(f, &m, 20);
	m.request = FEATURES;
	m.flags = 1; /* not an answer */
	say_wrong(f, &m, 20);
	m.flags = 2 | 4; /* of another version */
	say_wrong(f, &m, 20);
	m.flags = 1 | 4;
	m.size = UINT32_MAX;
	say_wrong(f, &m, 20);
	m.size = 8; /* no features at all: no virtio 1 */
	say_wrong(f, &m, 20);
	memset(&m, 0xff, sizeof(m));
	say_wrong(f, &m, sizeof(m));
}

static void test_a_back_end_without_indirect_descriptors_is_not_used(void **state)
{
	struct fixture *f = *state;

	f->back_features = 1ull << 32 | 1ull << 30;
	start_back_end(f);
	vdriver_start(&f->d, f->dev, 0);
	converse(f);
	assert_false(virtio_fs_is_connected(f->dev));
	vdriver_stop(&f->d);
	close_fd(&f->fd);
	f->d.no_indirect = f->d.no_event_idx = true;
	vdriver_start(&f->d, f->dev, 0);
	run_loop(f, 1100);
	converse(f);
	assert_true(virtio_fs_is_connected(f->dev));
	vdriver_stop(&f->d);
	f->d.dev = NULL;
}

static void test_bad_options_are_refused(void **state)
{
	struct fixture *f = *state;
	char path[200];

	memset(path, 'x', sizeof(path));
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(virtio_fs_create(NULL, f->loop, "", f->path, NULL), -EINVAL);
	assert_int_equal(virtio_fs_create(NULL, f->loop, path, f->path, NULL), -EINVAL);
	assert_int_equal(virtio_fs_create(NULL, f->loop, "t", path, NULL), -ENAMETOOLONG);
}

/* ---- virtiofsd itself */

static const char *find_virtiofsd(void)
{
	static const char *const where[] = {"/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"};

	for (size_t i = 0; i < ARRAY_SIZE(where); i++)
		if (access(where[i], X_OK) == 0)
			return where[i];
	return NULL;
}

static bool wait_answer(struct fixture *f)
{
	struct vring_used_elem used;

	for (int i = 0; i < 2000; i++) {
		if (vdriver_used(&f->d, REQUEST_QUEUE, &used))
			return true;
		run_loop(f, 1);
	}
	return false;
}

static void test_virtiofsd_answers(void **state)
{
	struct fixture *f = *state;
	const char *program = find_virtiofsd();
	char option[200], source[100], file[120];
	struct {
		struct fuse_in_header in;
		struct fuse_init_in init;
	} init = {{.len = sizeof(init), .opcode = FUSE_INIT, .unique = 2},
		  {.major = FUSE_KERNEL_VERSION, .minor = FUSE_KERNEL_MINOR_VERSION}};
	struct {
		struct fuse_in_header in;
		char name[8];
	} lookup = {{.len = sizeof(lookup), .opcode = FUSE_LOOKUP, .unique = 4, .nodeid = 1},
		    "hello"};
	struct fuse_out_header *out;
	struct fuse_entry_out *entry;
	uint64_t gpa = vdriver_alloc(&f->d, OUT);
	pid_t pid;

	if (!program || geteuid())
		skip();
	snprintf(source, sizeof(source), "%s/source", f->dir);
	snprintf(file, sizeof(file), "%s/hello", source);
	assert_int_equal(mkdir(source, 0755), 0);
	assert_int_equal(pil_write_file(file, 0644, "hi there", 8), 0);
	snprintf(option, sizeof(option), "--socket-path=%s", f->path);
	pid = fork();
	if (pid == 0) {
		char shared[150];

		snprintf(shared, sizeof(shared), "-osource=%s", source);
		close(open("/dev/null", O_RDWR));
		execl(program, program, option, shared, "-osandbox=chroot", (char *)NULL);
		_exit(127);
	}
	vdriver_start(&f->d, f->dev, 0);
	for (int i = 0; i < 40 && !virtio_fs_is_connected(f->dev) && !waitpid(pid, NULL, WNOHANG);
	     i++)
		run_loop(f, 100);
	if (!virtio_fs_is_connected(f->dev)) {
		kill(pid, SIGKILL);
		print_message("virtiofsd does not start here\n");
	} else {
		struct vdriver_buf bufs[] = {{vdriver_put(&f->d, &init, sizeof(init)), sizeof(init),
					      false},
					     {gpa, OUT, true}};

		out = vdriver_at(&f->d, gpa);
		vdriver_add_indirect(&f->d, REQUEST_QUEUE, bufs, 2);
		vdriver_kick(&f->d, REQUEST_QUEUE);
		assert_true(wait_answer(f));
		assert_int_equal(out->unique, 2);
		assert_int_equal(out->error, 0);
		bufs[0] = (struct vdriver_buf){vdriver_put(&f->d, &lookup, sizeof(lookup)),
					       sizeof(lookup.in) + 6, false};
		((struct fuse_in_header *)vdriver_at(&f->d, bufs[0].gpa))->len = bufs[0].len;
		vdriver_add(&f->d, REQUEST_QUEUE, bufs, 2);
		vdriver_kick(&f->d, REQUEST_QUEUE);
		assert_true(wait_answer(f));
		entry = (struct fuse_entry_out *)(out + 1);
		assert_int_equal(out->unique, 4);
		assert_int_equal(out->error, 0);
		assert_int_equal(entry->attr.size, 8);
		vdriver_stop(&f->d); /* it lets go of the queues, and stays */
		vdriver_start(&f->d, f->dev, 0);
		assert_true(virtio_fs_is_connected(f->dev));
		kill(pid, SIGKILL);
		run_loop(f, 100);
		assert_false(virtio_fs_is_connected(f->dev));
		out = request(f, REQUEST_QUEUE, FUSE_GETATTR, 9, true);
		vdriver_kick(&f->d, REQUEST_QUEUE);
		run_loop(f, 5);
		expect_failure(f, out, 9);
	}
	waitpid(pid, NULL, 0);
	unlink(file);
	rmdir(source);
}

#define T(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(queues_are_handed_over),
		T(without_a_back_end_requests_fail_at_once),
		T(open_requests_fail_when_the_back_end_dies_and_another_takes_over),
		T(a_back_end_that_plays_with_the_eventfds_blocks_nothing),
		T(the_connection_stays_over_a_reset),
		T(a_back_end_that_does_not_let_go_is_left),
		T(wrong_answers_end_the_connection),
		T(a_back_end_without_indirect_descriptors_is_not_used),
		T(bad_options_are_refused),
		T(virtiofsd_answers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
