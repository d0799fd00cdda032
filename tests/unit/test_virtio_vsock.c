/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_vsock.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
#include "base/loop.h"
#include "lib/vdriver.h"
#include "virtio/virtio_vsock.h"

enum {
	RX,
	TX,
	HDR = sizeof(struct virtio_vsock_hdr),
	RX_BYTES = 4096,
	TX_SLOTS = 64,
	TX_BYTES = 32 << 10,
	GUEST_PORT = 1024,
	HOST_PORT = 1025,
	ROOM = 256 << 10, /* of the guest, per connection */
	BOTH = VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND,
};

struct packet {
	struct virtio_vsock_hdr hdr;
	uint8_t data[RX_BYTES];
};

struct fixture {
	struct vdriver d;
	struct loop *loop;
	struct loop_timer timer;
	struct virtio_device *dev;
	uint64_t tx_gpa;
	unsigned tx_next;
	char dir[64], host_path[108], guest_path[108];
	int host_listen_fd; /* what the guest reaches at HOST_PORT */
	struct packet p;    /* the last one received */
};

static void stop_loop(struct loop_timer *timer)
{
	struct fixture *f = container_of(timer, struct fixture, timer);

	loop_stop(f->loop, 0);
}

static void run_loop(struct fixture *f)
{
	f->timer.expired = stop_loop;
	loop_timer_arm(f->loop, &f->timer, 1);
	assert_int_equal(loop_run(f->loop), 0);
	vdriver_again(&f->d);
}

static int unix_socket(const char *path, bool listening)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	if (listening) {
		assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
		assert_int_equal(listen(fd, 1024), 0);
	} else {
		assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	}
	return fd;
}

static void post_rx(struct fixture *f, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct vdriver_buf buf = {vdriver_alloc(&f->d, RX_BYTES), RX_BYTES, true};

		vdriver_add(&f->d, RX, &buf, 1);
	}
	vdriver_kick(&f->d, RX);
}

static int setup_empty(void **state)
{
	static struct fixture f;

	memset(&f, 0, sizeof(f));
	vdriver_init(&f.d);
	assert_int_equal(loop_create(&f.loop), 0);
	strcpy(f.dir, "/tmp/vsock-XXXXXX");
	assert_non_null(mkdtemp(f.dir));
	snprintf(f.host_path, sizeof(f.host_path), "%s/host", f.dir);
	snprintf(f.guest_path, sizeof(f.guest_path), "%s/guest", f.dir);
	f.host_listen_fd = unix_socket(f.host_path, true);
	assert_int_equal(virtio_vsock_create(&f.dev, f.loop, NULL), 0);
	assert_int_equal(virtio_vsock_connect(f.dev, HOST_PORT, f.host_path, NULL), 0);
	assert_int_equal(virtio_vsock_listen(f.dev, unix_socket(f.guest_path, true), GUEST_PORT,
					     NULL),
			 0);
	vdriver_start(&f.d, f.dev, 0);
	f.tx_gpa = vdriver_alloc(&f.d, (size_t)TX_SLOTS * (TX_BYTES + HDR));
	*state = &f;
	return 0;
}

static int setup(void **state)
{
	setup_empty(state);
	post_rx(*state, 256);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	vdriver_stop(&f->d);
	f->dev->ops->destroy(f->dev);
	vdriver_finish(&f->d);
	loop_destroy(f->loop);
	close(f->host_listen_fd);
	unlink(f->host_path);
	unlink(f->guest_path);
	rmdir(f->dir);
	return 0;
}

static bool tx_room(struct fixture *f)
{
	return (uint16_t)(f->d.queues[TX].avail->idx - f->d.queues[TX].used->idx) < TX_SLOTS;
}

/* Puts a packet into the ring; @fix is what the header says beyond the usual. */
static void put(struct fixture *f, struct virtio_vsock_hdr fix, const void *data, size_t len)
{
	uint64_t gpa = f->tx_gpa + (uint64_t)(f->tx_next++ % TX_SLOTS) * (TX_BYTES + HDR);
	struct vdriver_buf bufs[] = {{gpa, HDR, false}, {gpa + HDR, (uint32_t)len, false}};
	struct virtio_vsock_hdr hdr = fix;

	if (!hdr.src_cid)
		hdr.src_cid = VIRTIO_VSOCK_GUEST_CID;
	if (!hdr.dst_cid)
		hdr.dst_cid = 2;
	if (!hdr.type)
		hdr.type = VIRTIO_VSOCK_TYPE_STREAM;
	if (!hdr.buf_alloc)
		hdr.buf_alloc = ROOM;
	if (!hdr.len)
		hdr.len = (uint32_t)len;
	memcpy(vdriver_at(&f->d, gpa), &hdr, HDR);
	if (len)
		memcpy(vdriver_at(&f->d, gpa + HDR), data, len);
	vdriver_add(&f->d, TX, bufs, len ? 2 : 1);
}

static void tell(struct fixture *f, uint32_t guest_port, uint32_t host_port, uint16_t op,
		 uint32_t flags)
{
	put(f,
	    (struct virtio_vsock_hdr){
		    .src_port = guest_port, .dst_port = host_port, .op = op, .flags = flags},
	    NULL, 0);
	vdriver_kick(&f->d, TX);
}

static void send_data(struct fixture *f, uint32_t guest_port, uint32_t host_port, const void *data,
		      size_t len)
{
	put(f,
	    (struct virtio_vsock_hdr){.src_port = guest_port,
				      .dst_port = host_port,
				      .op = VIRTIO_VSOCK_OP_RW},
	    data, len);
	vdriver_kick(&f->d, TX);
}

/* Takes the next packet into f->p and gives its buffer back. */
static bool receive_now(struct fixture *f)
{
	struct vring_used_elem used;
	const struct vring_desc *desc;

	if (!vdriver_used(&f->d, RX, &used))
		return false;
	desc = &f->d.queues[RX].desc[used.id];
	assert_true(used.len >= HDR && used.len <= RX_BYTES);
	memcpy(&f->p, vdriver_at(&f->d, desc->addr), used.len);
	assert_int_equal(f->p.hdr.len + HDR, used.len);
	vdriver_offer(&f->d, RX, (uint16_t)used.id);
	return true;
}

static bool receive(struct fixture *f)
{
	for (int i = 0; i < 2000; i++) {
		if (receive_now(f)) {
			vdriver_kick(&f->d, RX);
			return true;
		}
		run_loop(f);
	}
	return false;
}

static void expect(struct fixture *f, uint16_t op)
{
	assert_true(receive(f));
	assert_int_equal(f->p.hdr.op, op);
	assert_int_equal(f->p.hdr.dst_cid, VIRTIO_VSOCK_GUEST_CID);
}

static void expect_nothing(struct fixture *f)
{
	for (int i = 0; i < 5; i++)
		run_loop(f);
	assert_false(receive_now(f));
}

/* A connection of the guest; returns the host's end. */
static int guest_connects(struct fixture *f, uint32_t guest_port)
{
	int fd;

	tell(f, guest_port, HOST_PORT, VIRTIO_VSOCK_OP_REQUEST, 0);
	expect(f, VIRTIO_VSOCK_OP_RESPONSE);
	assert_int_equal(f->p.hdr.src_port, HOST_PORT);
	assert_int_equal(f->p.hdr.dst_port, guest_port);
	assert_true(f->p.hdr.buf_alloc > 0);
	fd = accept(f->host_listen_fd, NULL, NULL);
	assert_true(fd >= 0);
	return fd;
}

static void test_guest_connects_talks_and_closes(void **state)
{
	struct fixture *f = *state;
	char buf[64];
	int fd = guest_connects(f, 5000);

	send_data(f, 5000, HOST_PORT, "hello", 5);
	assert_int_equal(read(fd, buf, sizeof(buf)), 5);
	assert_memory_equal(buf, "hello", 5);
	assert_int_equal(write(fd, "world!", 6), 6);
	expect(f, VIRTIO_VSOCK_OP_RW);
	assert_int_equal(f->p.hdr.len, 6);
	assert_int_equal(f->p.hdr.fwd_cnt, 5);
	assert_memory_equal(f->p.data, "world!", 6);
	tell(f, 5000, HOST_PORT, VIRTIO_VSOCK_OP_SHUTDOWN, BOTH);
	expect(f, VIRTIO_VSOCK_OP_RST);
	assert_int_equal(read(fd, buf, sizeof(buf)), 0);
	close(fd);
	expect_nothing(f);
	assert_int_equal(virtio_vsock_stats(f->dev)->open_from_guest, 0);
	assert_int_equal(virtio_vsock_stats(f->dev)->copied, 0);
}

static void test_host_connects_to_a_port_of_the_guest(void **state)
{
	struct fixture *f = *state;
	int fd = unix_socket(f->guest_path, false);
	char buf[8];
	uint32_t port;

	assert_int_equal(write(fd, "early", 5), 5);
	expect(f, VIRTIO_VSOCK_OP_REQUEST);
	assert_int_equal(f->p.hdr.dst_port, GUEST_PORT);
	port = f->p.hdr.src_port;
	expect_nothing(f); /* data waits for the answer */
	tell(f, GUEST_PORT, port, VIRTIO_VSOCK_OP_RESPONSE, 0);
	expect(f, VIRTIO_VSOCK_OP_RW);
	assert_memory_equal(f->p.data, "early", 5);
	send_data(f, GUEST_PORT, port, "ok", 2);
	assert_int_equal(read(fd, buf, sizeof(buf)), 2);
	close(fd);
	expect(f, VIRTIO_VSOCK_OP_SHUTDOWN);
	assert_int_equal(f->p.hdr.flags, BOTH);
	tell(f, GUEST_PORT, port, VIRTIO_VSOCK_OP_RST, 0);
	expect_nothing(f);
	assert_int_equal(virtio_vsock_stats(f->dev)->open_from_host, 0);
}

static void test_what_was_written_before_a_hang_up_arrives(void **state)
{
	struct fixture *f = *state;
	int fd = unix_socket(f->guest_path, false);
	uint32_t port;

	assert_int_equal(write(fd, "fire and forget", 15), 15);
	close(fd);
	expect(f, VIRTIO_VSOCK_OP_REQUEST);
	port = f->p.hdr.src_port;
	tell(f, GUEST_PORT, port, VIRTIO_VSOCK_OP_RESPONSE, 0);
	expect(f, VIRTIO_VSOCK_OP_RW);
	assert_memory_equal(f->p.data, "fire and forget", 15);
	expect(f, VIRTIO_VSOCK_OP_SHUTDOWN);
	assert_int_equal(f->p.hdr.flags, BOTH);
}

static void test_a_guest_that_refuses_ends_the_socket(void **state)
{
	struct fixture *f = *state;
	int fd = unix_socket(f->guest_path, false);
	char c;

	expect(f, VIRTIO_VSOCK_OP_REQUEST);
	tell(f, GUEST_PORT, f->p.hdr.src_port, VIRTIO_VSOCK_OP_RST, 0);
	assert_int_equal(read(fd, &c, 1), 0);
	close(fd);
	expect_nothing(f);
}

static void test_half_close_goes_both_ways(void **state)
{
	struct fixture *f = *state;
	int fd = guest_connects(f, 5000);
	char buf[8];

	shutdown(fd, SHUT_WR);
	expect(f, VIRTIO_VSOCK_OP_SHUTDOWN);
	assert_int_equal(f->p.hdr.flags, VIRTIO_VSOCK_SHUTDOWN_SEND);
	send_data(f, 5000, HOST_PORT, "still", 5); /* the other way is open */
	assert_int_equal(read(fd, buf, sizeof(buf)), 5);
	close(fd);
	expect(f, VIRTIO_VSOCK_OP_SHUTDOWN);
	assert_int_equal(f->p.hdr.flags, BOTH);
	tell(f, 5000, HOST_PORT, VIRTIO_VSOCK_OP_RST, 0);

	fd = guest_connects(f, 5001);
	tell(f, 5001, HOST_PORT, VIRTIO_VSOCK_OP_SHUTDOWN, VIRTIO_VSOCK_SHUTDOWN_SEND);
	assert_int_equal(read(fd, buf, sizeof(buf)), 0);
	assert_int_equal(write(fd, "answer", 6), 6);
	close(fd); /* what was written arrives before the end */
	expect(f, VIRTIO_VSOCK_OP_RW);
	assert_memory_equal(f->p.data, "answer", 6);
	expect(f, VIRTIO_VSOCK_OP_SHUTDOWN);
	assert_int_equal(f->p.hdr.flags, BOTH);
	tell(f, 5001, HOST_PORT, VIRTIO_VSOCK_OP_SHUTDOWN, BOTH);
	expect(f, VIRTIO_VSOCK_OP_RST);

	fd = guest_connects(f, 5002);
	tell(f, 5002, HOST_PORT, VIRTIO_VSOCK_OP_SHUTDOWN, VIRTIO_VSOCK_SHUTDOWN_RCV);
	assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), -1);
	assert_int_equal(errno, EPIPE);
	send_data(f, 5002, HOST_PORT, "yes", 3);
	assert_int_equal(read(fd, buf, sizeof(buf)), 3);
	send_data(f, 5002, HOST_PORT, "yes", 3);
	tell(f, 5002, HOST_PORT, VIRTIO_VSOCK_OP_SHUTDOWN, VIRTIO_VSOCK_SHUTDOWN_SEND);
	expect(f, VIRTIO_VSOCK_OP_RST);
	assert_int_equal(read(fd, buf, sizeof(buf)), 3);
	close(fd);
}

static void test_senseless_packets_are_answered_with_resets(void **state)
{
	struct fixture *f = *state;
	struct virtio_vsock_hdr h = {.src_port = 9, .dst_port = 10, .op = VIRTIO_VSOCK_OP_RW};
	int fd;

	tell(f, 5000, 99, VIRTIO_VSOCK_OP_REQUEST, 0); /* no such port */
	expect(f, VIRTIO_VSOCK_OP_RST);
	assert_int_equal(f->p.hdr.src_port, 99);
	assert_int_equal(f->p.hdr.dst_port, 5000);
	for (uint16_t op = 0; op < 20; op++) {
		tell(f, 9, 10, op, 0);
		if (op == VIRTIO_VSOCK_OP_RST)
			expect_nothing(f); /* resets do not breed */
		else
			expect(f, VIRTIO_VSOCK_OP_RST);
	}
	h.type = VIRTIO_VSOCK_TYPE_SEQPACKET;
	put(f, h, "x", 1);
	vdriver_kick(&f->d, TX);
	expect(f, VIRTIO_VSOCK_OP_RST);
	assert_int_equal(f->p.hdr.type, VIRTIO_VSOCK_TYPE_SEQPACKET);
	h.type = 0;
	h.dst_cid = 4;
	put(f, h, "x", 1);
	vdriver_kick(&f->d, TX);
	expect(f, VIRTIO_VSOCK_OP_RST);
	assert_int_equal(f->p.hdr.src_cid, 4);
	h.dst_cid = 0;
	h.src_cid = 5; /* somebody else's name: no answer */
	put(f, h, "x", 1);
	vdriver_kick(&f->d, TX);
	expect_nothing(f);

	fd = guest_connects(f, 5000);
	h = (struct virtio_vsock_hdr){.src_port = 5000,
				      .dst_port = HOST_PORT,
				      .op = VIRTIO_VSOCK_OP_RW,
				      .len = 1000};
	put(f, h, "x", 1); /* says more than it has */
	vdriver_kick(&f->d, TX);
	expect(f, VIRTIO_VSOCK_OP_RST);
	assert_int_equal(read(fd, &h, 1), 0);
	close(fd);
	fd = guest_connects(f, 5000);
	tell(f, 5000, HOST_PORT, VIRTIO_VSOCK_OP_REQUEST, 0); /* twice */
	expect(f, VIRTIO_VSOCK_OP_RST);
	close(fd);
	fd = guest_connects(f, 5000);
	tell(f, 5000, HOST_PORT, VIRTIO_VSOCK_OP_RESPONSE, 0);
	expect(f, VIRTIO_VSOCK_OP_RST);
	close(fd);
	fd = guest_connects(f, 5000);
	tell(f, 5000, HOST_PORT, VIRTIO_VSOCK_OP_SHUTDOWN, VIRTIO_VSOCK_SHUTDOWN_SEND);
	send_data(f, 5000, HOST_PORT, "after all", 9);
	expect(f, VIRTIO_VSOCK_OP_RST);
	close(fd);
	assert_int_equal(f->d.broken, 0);
	assert_int_equal(virtio_vsock_stats(f->dev)->open_from_guest, 0);
}

static void test_the_guests_credit_is_kept(void **state)
{
	struct fixture *f = *state;
	static char block[ROOM];
	struct virtio_vsock_hdr update = {.src_port = 5000,
					  .dst_port = HOST_PORT,
					  .op = VIRTIO_VSOCK_OP_CREDIT_UPDATE,
					  .buf_alloc = 10000};
	int fd = guest_connects(f, 5000);
	uint32_t got = 0;

	put(f, update, NULL, 0);
	vdriver_kick(&f->d, TX);
	assert_true(write(fd, block, 30000) == 30000);
	while (got < 10000) {
		expect(f, VIRTIO_VSOCK_OP_RW);
		got += f->p.hdr.len;
	}
	assert_int_equal(got, 10000);
	expect(f, VIRTIO_VSOCK_OP_CREDIT_REQUEST);
	expect_nothing(f);
	update.fwd_cnt = 9999;
	put(f, update, NULL, 0);
	vdriver_kick(&f->d, TX);
	while (got < 19999) {
		expect(f, VIRTIO_VSOCK_OP_RW);
		got += f->p.hdr.len;
	}
	expect(f, VIRTIO_VSOCK_OP_CREDIT_REQUEST);
	update.fwd_cnt = 50000; /* more than it was ever sent: no credit, no harm */
	put(f, update, NULL, 0);
	vdriver_kick(&f->d, TX);
	expect_nothing(f);
	update.fwd_cnt = 19999;
	update.buf_alloc = UINT32_MAX;
	put(f, update, NULL, 0);
	close(fd);
	vdriver_kick(&f->d, TX);
	while (got < 30000) {
		expect(f, VIRTIO_VSOCK_OP_RW);
		got += f->p.hdr.len;
	}
	expect(f, VIRTIO_VSOCK_OP_SHUTDOWN);
}

static void test_our_credit_holds_what_a_stuck_reader_leaves(void **state)
{
	struct fixture *f = *state;
	static uint8_t block[TX_BYTES], got[TX_BYTES];
	uint32_t sent = 0, buf_alloc, fwd_cnt = 0, taken = 0;
	int fd = guest_connects(f, 5000);

	buf_alloc = f->p.hdr.buf_alloc;
	for (size_t i = 0; i < sizeof(block); i++)
		block[i] = (uint8_t)(i * 7);
	while (sent - fwd_cnt < buf_alloc) { /* nobody reads */
		send_data(f, 5000, HOST_PORT, block, sizeof(block));
		sent += sizeof(block);
		while (receive_now(f)) {
			assert_int_equal(f->p.hdr.op, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
			fwd_cnt = f->p.hdr.fwd_cnt;
		}
	}
	assert_true(virtio_vsock_stats(f->dev)->copied > 0);
	tell(f, 5000, HOST_PORT, VIRTIO_VSOCK_OP_SHUTDOWN, BOTH); /* and the guest is off */
	expect(f, VIRTIO_VSOCK_OP_RST);
	assert_int_equal(virtio_vsock_stats(f->dev)->lingering, 1);
	assert_int_equal(virtio_vsock_stats(f->dev)->open_from_guest, 0);
	while (taken < sent) {
		size_t at = taken % sizeof(block);
		ssize_t n = recv(fd, got, sizeof(block) - at, MSG_DONTWAIT);

		if (n < 0 && errno == EAGAIN) {
			run_loop(f);
			continue;
		}
		assert_true(n > 0);
		assert_memory_equal(got, block + at, n);
		taken += (uint32_t)n;
	}
	run_loop(f);
	assert_int_equal(virtio_vsock_stats(f->dev)->lingering, 0);
	assert_int_equal(read(fd, got, 1), 0);
	close(fd);
}

static void *read_late(void *arg)
{
	static char buf[TX_BYTES];
	int fd = *(int *)arg;
	size_t sum = 0;
	ssize_t n;

	usleep(50000);
	while ((n = read(fd, buf, sizeof(buf))) > 0)
		sum += (size_t)n;
	return (void *)sum;
}

static void test_the_last_bytes_arrive_although_the_machine_ends(void **state)
{
	struct fixture *f = *state;
	static uint8_t block[TX_BYTES];
	size_t blocks = 0;
	int fd = guest_connects(f, 5000);
	pthread_t thread;
	void *sum;

	for (; blocks < 100 && virtio_vsock_stats(f->dev)->copied < 100000; blocks++)
		send_data(f, 5000, HOST_PORT, block, sizeof(block));
	assert_true(virtio_vsock_stats(f->dev)->copied > 0);
	assert_int_equal(pthread_create(&thread, NULL, read_late, &fd), 0);
	vdriver_stop(&f->d);
	f->dev->ops->destroy(f->dev);
	pthread_join(thread, &sum);
	close(fd);
	assert_int_equal(virtio_vsock_create(&f->dev, f->loop, NULL), 0); /* for the teardown */
	vdriver_start(&f->d, f->dev, 0);
	assert_int_equal((size_t)sum, blocks * sizeof(block));
}

static void test_more_than_the_credit_is_refused(void **state)
{
	struct fixture *f = *state;
	static uint8_t block[TX_BYTES];
	int fd = guest_connects(f, 5000);

	for (int i = 0; i < 200; i++) {
		send_data(f, 5000, HOST_PORT, block, sizeof(block));
		if (receive_now(f) && f->p.hdr.op == VIRTIO_VSOCK_OP_RST)
			break;
	}
	assert_int_equal(f->p.hdr.op, VIRTIO_VSOCK_OP_RST);
	assert_int_equal(virtio_vsock_stats(f->dev)->open_from_guest, 0);
	assert_int_equal(f->d.broken, 0);
	close(fd);
}

static void test_without_buffers_everything_waits_in_order(void **state)
{
	struct fixture *f = *state; /* set up without receive buffers */
	int a, b;

	tell(f, 5000, HOST_PORT, VIRTIO_VSOCK_OP_REQUEST, 0);
	a = accept(f->host_listen_fd, NULL, NULL);
	assert_int_equal(write(a, "data", 4), 4);
	tell(f, 5001, HOST_PORT, VIRTIO_VSOCK_OP_REQUEST, 0);
	b = accept(f->host_listen_fd, NULL, NULL);
	expect_nothing(f);
	post_rx(f, 1);
	expect(f, VIRTIO_VSOCK_OP_RESPONSE); /* never data before it */
	assert_int_equal(f->p.hdr.dst_port, 5000);
	expect(f, VIRTIO_VSOCK_OP_RESPONSE);
	expect(f, VIRTIO_VSOCK_OP_RW);
	assert_int_equal(write(b, "more", 4), 4);
	expect(f, VIRTIO_VSOCK_OP_RW);
	assert_int_equal(f->p.hdr.dst_port, 5001);
	close(a);
	expect(f, VIRTIO_VSOCK_OP_SHUTDOWN);
	close(b);
	expect(f, VIRTIO_VSOCK_OP_SHUTDOWN);
}

static void test_a_flood_of_junk_waits_for_its_answers(void **state)
{
	struct fixture *f = *state; /* set up without receive buffers */
	unsigned sent = 0, resets = 0;

	while (tx_room(f)) {
		tell(f, sent, 77, VIRTIO_VSOCK_OP_RW, 0);
		sent++;
	}
	for (; sent < 200; sent++)
		put(f,
		    (struct virtio_vsock_hdr){.src_port = sent,
					      .dst_port = 77,
					      .op = VIRTIO_VSOCK_OP_RW},
		    NULL, 0);
	vdriver_kick(&f->d, TX);
	assert_true((uint16_t)(f->d.queues[TX].avail->idx - f->d.queues[TX].used->idx) > 100);
	post_rx(f, 8);
	while (resets < sent) {
		expect(f, VIRTIO_VSOCK_OP_RST);
		resets++;
	}
	expect_nothing(f);
	assert_int_equal(f->d.broken, 0);
}

static void test_connections_are_bounded_each_way(void **state)
{
	struct fixture *f = *state;
	static int guest_fds[VIRTIO_VSOCK_MAX_FROM_GUEST];
	static int host_fds[VIRTIO_VSOCK_MAX_FROM_HOST + 8];
	const struct virtio_vsock_stats *stats = virtio_vsock_stats(f->dev);
	struct rlimit limit;
	uint32_t last = 0;

	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	if (limit.rlim_max < 4096 || setrlimit(RLIMIT_NOFILE, &limit))
		skip();
	for (uint32_t i = 0; i < VIRTIO_VSOCK_MAX_FROM_GUEST; i++)
		guest_fds[i] = guest_connects(f, 10000 + i);
	tell(f, 5000, HOST_PORT, VIRTIO_VSOCK_OP_REQUEST, 0);
	expect(f, VIRTIO_VSOCK_OP_RST);
	for (size_t i = 0; i < ARRAY_SIZE(host_fds); i++)
		host_fds[i] = unix_socket(f->guest_path, false);
	for (int i = 0; i < VIRTIO_VSOCK_MAX_FROM_HOST; i++) {
		expect(f, VIRTIO_VSOCK_OP_REQUEST);
		last = f->p.hdr.src_port;
	}
	expect_nothing(f); /* the others wait in the backlog */
	assert_int_equal(stats->open_from_host, VIRTIO_VSOCK_MAX_FROM_HOST);
	tell(f, GUEST_PORT, last, VIRTIO_VSOCK_OP_RST, 0);
	expect(f, VIRTIO_VSOCK_OP_REQUEST); /* until one ends */
	tell(f, 10000, HOST_PORT, VIRTIO_VSOCK_OP_RST, 0);
	close(guest_connects(f, 5000));
	for (size_t i = 0; i < ARRAY_SIZE(guest_fds); i++)
		close(guest_fds[i]);
	for (size_t i = 0; i < ARRAY_SIZE(host_fds); i++)
		close(host_fds[i]);
}

static void test_rules_broken_by_the_driver(void **state)
{
	struct fixture *f = *state;
	struct vdriver_buf tiny = {vdriver_alloc(&f->d, HDR), HDR - 1, true};
	struct vdriver_buf part = {f->tx_gpa, HDR - 1, false};
	int fd;

	vdriver_add(&f->d, TX, &part, 1);
	vdriver_kick(&f->d, TX);
	assert_int_equal(f->d.broken, 1);
	vdriver_stop(&f->d);
	vdriver_start(&f->d, f->dev, 0);
	vdriver_add(&f->d, RX, &tiny, 1);
	vdriver_kick(&f->d, RX);
	tell(f, 5000, HOST_PORT, VIRTIO_VSOCK_OP_REQUEST, 0);
	assert_int_equal(f->d.broken, 2);
	run_loop(f);
	vdriver_stop(&f->d);
	vdriver_start(&f->d, f->dev, 0);
	post_rx(f, 8);
	close(accept(f->host_listen_fd, NULL, NULL)); /* of the request above */
	fd = guest_connects(f, 5000);
	close(fd);
	expect(f, VIRTIO_VSOCK_OP_SHUTDOWN);
}

static void test_headers_may_come_in_pieces(void **state)
{
	struct fixture *f = *state; /* set up without receive buffers */
	struct virtio_vsock_hdr hdr = {.src_cid = VIRTIO_VSOCK_GUEST_CID,
				       .dst_cid = 2,
				       .src_port = 5000,
				       .dst_port = HOST_PORT,
				       .op = VIRTIO_VSOCK_OP_REQUEST,
				       .type = VIRTIO_VSOCK_TYPE_STREAM,
				       .buf_alloc = ROOM};
	uint64_t out = vdriver_put(&f->d, &hdr, HDR), in = vdriver_alloc(&f->d, 256);
	struct vdriver_buf o[HDR], i[3] = {{in, 7, true}, {in + 7, 40, true}, {in + 47, 60, true}};
	struct vring_used_elem used;
	uint8_t *got = vdriver_at(&f->d, in);
	int fd;

	for (unsigned n = 0; n < HDR; n++)
		o[n] = (struct vdriver_buf){out + n, 1, false};
	vdriver_add_indirect(&f->d, TX, o, HDR);
	vdriver_kick(&f->d, TX);
	fd = accept(f->host_listen_fd, NULL, NULL);
	vdriver_add(&f->d, RX, i, 3);
	vdriver_kick(&f->d, RX);
	assert_true(vdriver_used(&f->d, RX, &used));
	assert_int_equal(used.len, HDR);
	assert_int_equal(write(fd, "abcdefgh", 8), 8);
	vdriver_add(&f->d, RX, i, 3);
	vdriver_kick(&f->d, RX);
	run_loop(f);
	assert_true(vdriver_used(&f->d, RX, &used));
	assert_int_equal(used.len, HDR + 8);
	memcpy(&hdr, got, HDR);
	assert_int_equal(hdr.op, VIRTIO_VSOCK_OP_RW);
	assert_int_equal(hdr.len, 8);
	assert_memory_equal(got + HDR, "abcdefgh", 8);
	close(fd);
}

/* Many connections at once, each an echo on the host, all of them full both ways. */
enum { ECHOES = 12, ECHO_BYTES = 3 << 20 };

static void *echo(void *arg)
{
	static _Thread_local char buf[50000];
	int fd = *(int *)arg;
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0)
		if (pil_write_all(fd, buf, (size_t)n))
			break;
	close(fd);
	return NULL;
}

struct stream {
	uint32_t sent, fwd, got, peer_fwd, peer_alloc;
};

static uint8_t byte_at(unsigned stream, uint32_t pos)
{
	return (uint8_t)((pos * 2654435761u >> 13) + stream);
}

static void pump(struct fixture *f, unsigned i, struct stream *s)
{
	static uint8_t block[TX_BYTES];
	uint32_t room = s->peer_alloc - (s->sent - s->peer_fwd), n = ECHO_BYTES - s->sent;

	n = n < room ? n : room;
	n = n < sizeof(block) ? n : sizeof(block);
	if (!n || !tx_room(f))
		return;
	for (uint32_t k = 0; k < n; k++)
		block[k] = byte_at(i, s->sent + k);
	put(f,
	    (struct virtio_vsock_hdr){.src_port = 6000 + i,
				      .dst_port = HOST_PORT,
				      .op = VIRTIO_VSOCK_OP_RW,
				      .fwd_cnt = s->fwd},
	    block, n);
	s->sent += n;
}

static void take(struct fixture *f, struct stream *streams)
{
	const struct virtio_vsock_hdr *h = &f->p.hdr;
	unsigned i = h->dst_port - 6000;
	struct stream *s = &streams[i];

	assert_true(i < ECHOES);
	s->peer_fwd = h->fwd_cnt;
	s->peer_alloc = h->buf_alloc;
	if (h->op == VIRTIO_VSOCK_OP_RW) {
		for (uint32_t k = 0; k < h->len; k++)
			if (f->p.data[k] != byte_at(i, s->got + k))
				fail_msg("stream %u differs at %u", i, s->got + k);
		s->got += h->len;
		assert_true(s->got - s->fwd <= ROOM); /* our credit */
	} else {
		assert_true(h->op == VIRTIO_VSOCK_OP_CREDIT_UPDATE ||
			    h->op == VIRTIO_VSOCK_OP_CREDIT_REQUEST);
	}
	if (s->got - s->fwd > ROOM / 2 || h->op == VIRTIO_VSOCK_OP_CREDIT_REQUEST) {
		s->fwd = s->got;
		put(f,
		    (struct virtio_vsock_hdr){.src_port = h->dst_port,
					      .dst_port = HOST_PORT,
					      .op = VIRTIO_VSOCK_OP_CREDIT_UPDATE,
					      .fwd_cnt = s->fwd},
		    NULL, 0);
	}
}

static void test_full_streams_both_ways_lose_nothing(void **state)
{
	struct fixture *f = *state;
	static struct stream streams[ECHOES];
	const struct virtio_vsock_stats *stats = virtio_vsock_stats(f->dev);
	pthread_t threads[ECHOES];
	int fds[ECHOES];
	unsigned done = 0;

	memset(streams, 0, sizeof(streams));
	for (unsigned i = 0; i < ECHOES; i++) {
		fds[i] = guest_connects(f, 6000 + i);
		streams[i].peer_alloc = f->p.hdr.buf_alloc;
		assert_int_equal(pthread_create(&threads[i], NULL, echo, &fds[i]), 0);
	}
	for (unsigned turns = 0; done < ECHOES; turns++) {
		assert_true(turns < 1000000);
		for (unsigned i = 0; i < ECHOES; i++)
			pump(f, i, &streams[i]);
		vdriver_kick(&f->d, TX);
		vdriver_kick(&f->d, RX);
		if (turns % 8 == 0)
			run_loop(f);
		for (unsigned n = 0; n < 200 && receive_now(f); n++)
			take(f, streams);
		done = 0;
		for (unsigned i = 0; i < ECHOES; i++)
			done += streams[i].got == ECHO_BYTES;
	}
	for (unsigned i = 0; i < ECHOES; i++)
		tell(f, 6000 + i, HOST_PORT, VIRTIO_VSOCK_OP_SHUTDOWN, BOTH);
	for (unsigned i = 0; i < ECHOES; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(stats->bytes_to_guest, (uint64_t)ECHOES * ECHO_BYTES);
	assert_int_equal(stats->bytes_from_guest, (uint64_t)ECHOES * ECHO_BYTES);
	assert_true(stats->reads < stats->packets_to_guest); /* several buffers per read */
}

#define T(name)       cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
#define T_EMPTY(name) cmocka_unit_test_setup_teardown(test_##name, setup_empty, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(guest_connects_talks_and_closes),
		T(host_connects_to_a_port_of_the_guest),
		T(what_was_written_before_a_hang_up_arrives),
		T(a_guest_that_refuses_ends_the_socket),
		T(half_close_goes_both_ways),
		T(senseless_packets_are_answered_with_resets),
		T(the_guests_credit_is_kept),
		T(our_credit_holds_what_a_stuck_reader_leaves),
		T(the_last_bytes_arrive_although_the_machine_ends),
		T(more_than_the_credit_is_refused),
		T_EMPTY(without_buffers_everything_waits_in_order),
		T_EMPTY(a_flood_of_junk_waits_for_its_answers),
		T(connections_are_bounded_each_way),
		T(rules_broken_by_the_driver),
		T_EMPTY(headers_may_come_in_pieces),
		T(full_streams_both_ways_lose_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
