/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_net.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
#include "base/loop.h"
#include "base/own_addrs.h"
#include "lib/vdriver.h"
#include "virtio/virtio_net.h"

enum { RX, TX, HDR = sizeof(struct virtio_net_hdr_v1), BUF = 4096 };

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
	loop_timer_arm(f->loop, &f->timer, 2);
	assert_int_equal(loop_run(f->loop), 0);
	vdriver_again(&f->d);
}

static int new_link(struct fixture *f)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	f->peer = pair[1];
	return pair[0];
}

static int setup(void **state)
{
	static struct fixture f;
	struct virtio_net_opts opts = {.mac = {2, 0, 0, 0, 0, 1}, .mtu = 65520};

	memset(&f, 0, sizeof(f));
	vdriver_init(&f.d);
	assert_int_equal(loop_create(&f.loop), 0);
	assert_int_equal(virtio_net_create(&f.dev, f.loop, new_link(&f), &opts, NULL), 0);
	vdriver_start(&f.d, f.dev, f.dev->offered);
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
	if (f->peer >= 0)
		close(f->peer);
	return 0;
}

static void post_rx(struct fixture *f, unsigned n, uint32_t len)
{
	for (unsigned i = 0; i < n; i++) {
		struct vdriver_buf buf = {vdriver_alloc(&f->d, len), len, true};

		vdriver_add(&f->d, RX, &buf, 1);
	}
	vdriver_kick(&f->d, RX);
}

static uint32_t bytes_of(struct fixture *f, uint32_t id)
{
	return f->d.queues[RX].desc[id].len;
}

/* Gathers the next frame of the guest's into @to; 0: there is none. */
static size_t guest_receives(struct fixture *f, uint8_t *to)
{
	struct virtio_net_hdr_v1 hdr;
	struct vring_used_elem used;
	size_t len = 0;

	if (!vdriver_used(&f->d, RX, &used))
		return 0;
	memcpy(&hdr, vdriver_at(&f->d, f->d.queues[RX].desc[used.id].addr), HDR);
	assert_true(hdr.num_buffers >= 1);
	for (unsigned i = 0; i < hdr.num_buffers; i++) {
		const uint8_t *at = vdriver_at(&f->d, f->d.queues[RX].desc[used.id].addr);
		size_t skip = i ? 0 : HDR;

		/* the buffers are filled one after the other */
		assert_true(i + 1u == hdr.num_buffers || used.len == bytes_of(f, used.id));
		memcpy(to + len, at + skip, used.len - skip);
		len += used.len - skip;
		if (i + 1u < hdr.num_buffers)
			assert_true(vdriver_used(&f->d, RX, &used)); /* all at once */
	}
	return len;
}

static void guest_sends(struct fixture *f, const void *frame, uint32_t len)
{
	static const struct virtio_net_hdr_v1 hdr;
	struct vdriver_buf bufs[] = {{vdriver_put(&f->d, &hdr, HDR), HDR, false},
				     {vdriver_put(&f->d, frame, len), len, false}};

	vdriver_add(&f->d, TX, bufs, len ? 2 : 1);
}

static void peer_sends(struct fixture *f, const void *frame, uint32_t len)
{
	uint32_t be = htonl(len);

	assert_int_equal(pil_write_all(f->peer, &be, 4), 0);
	assert_int_equal(pil_write_all(f->peer, frame, len), 0);
}

static const uint8_t *pattern(size_t seed)
{
	static uint8_t frame[VIRTIO_NET_MAX_FRAME];

	for (size_t i = 0; i < sizeof(frame); i++)
		frame[i] = (uint8_t)(i * 13 + (i >> 8) + seed);
	frame[12] = 0x08;
	frame[13] = 0x06; /* ARP: it may leave, whatever is in it */
	return frame;
}

static void test_frames_go_both_ways(void **state)
{
	struct fixture *f = *state;
	static uint8_t got[VIRTIO_NET_MAX_FRAME + 4];
	struct vring_used_elem used;

	post_rx(f, 32, BUF);
	guest_sends(f, pattern(1), 60);
	guest_sends(f, pattern(1), 1500);
	vdriver_kick(&f->d, TX);
	assert_int_equal(pil_read_all(f->peer, got, 64 + 1504), 0);
	assert_int_equal(ntohl(*(uint32_t *)got), 60);
	assert_memory_equal(got + 4, pattern(1), 60);
	assert_memory_equal(got + 68, pattern(1), 1500);
	assert_true(vdriver_used(&f->d, TX, &used));
	assert_true(vdriver_used(&f->d, TX, &used));
	assert_int_equal(virtio_net_stats(f->dev)->sends, 1); /* both in one */
	peer_sends(f, pattern(2), 60);
	peer_sends(f, pattern(3), 65535); /* spreads over many buffers */
	run_loop(f);
	assert_int_equal(guest_receives(f, got), 60);
	assert_memory_equal(got, pattern(2), 60);
	assert_int_equal(guest_receives(f, got), 65535);
	assert_memory_equal(got, pattern(3), 65535);
	assert_int_equal(guest_receives(f, got), 0);
}

/* The order of a real driver: it asks before it is told.  A frame then uses one buffer. */
static void test_an_answer_is_whole_in_one_buffer(void **state)
{
	struct fixture *f = *state;
	struct vring_used_elem used;
	uint8_t got[4 + 64];

	post_rx(f, 2, BUF);
	guest_sends(f, pattern(1), 64);
	vdriver_kick(&f->d, TX);
	run_loop(f);
	assert_int_equal(pil_read_all(f->peer, got, sizeof(got)), 0);
	peer_sends(f, pattern(2), 42);
	run_loop(f);
	assert_true(vdriver_used(&f->d, RX, &used));
	assert_int_equal(used.len, HDR + 42);
	assert_memory_equal((uint8_t *)vdriver_at(&f->d, f->d.queues[RX].desc[used.id].addr) + HDR,
			    pattern(2), 42);
	assert_false(vdriver_used(&f->d, RX, &used));
}

static void test_a_stream_in_pieces_is_put_together(void **state)
{
	struct fixture *f = *state;
	uint8_t stream[4 + 100], got[256];
	uint32_t be = htonl(100);

	post_rx(f, 4, BUF);
	memcpy(stream, &be, 4);
	memcpy(stream + 4, pattern(9), 100);
	for (size_t i = 0; i < sizeof(stream); i++) {
		assert_int_equal(guest_receives(f, got), 0);
		assert_int_equal(write(f->peer, stream + i, 1), 1);
		if (i % 9 == 0 || i > 98)
			run_loop(f);
	}
	assert_int_equal(guest_receives(f, got), 100);
	assert_memory_equal(got, pattern(9), 100);
}

static void test_frames_wait_for_buffers(void **state)
{
	struct fixture *f = *state;
	static uint8_t got[VIRTIO_NET_MAX_FRAME];
	const size_t seeds = 40;

	for (size_t i = 0; i < seeds; i++)
		peer_sends(f, pattern(i), 3000);
	run_loop(f);
	for (size_t i = 0; i < seeds; i++) {
		post_rx(f, 1, 2000);
		assert_int_equal(guest_receives(f, got), 0); /* half of what it takes */
		post_rx(f, 1, 2000);
		run_loop(f);
		assert_int_equal(guest_receives(f, got), 3000);
		assert_memory_equal(got, pattern(i), 3000);
	}
}

static void test_a_full_socket_holds_the_queue(void **state)
{
	struct fixture *f = *state;
	static uint8_t got[VIRTIO_NET_MAX_FRAME + 4];
	uint64_t hdr = vdriver_alloc(&f->d, HDR);
	uint64_t frame = vdriver_put(&f->d, pattern(5), 40000);
	struct vdriver_buf bufs[] = {{hdr, HDR, false}, {frame, 40000, false}};
	const unsigned n = 100;

	for (unsigned i = 0; i < n; i++)
		vdriver_add(&f->d, TX, bufs, 2);
	vdriver_kick(&f->d, TX);
	vdriver_kick(&f->d, TX);
	assert_true(f->d.queues[TX].used->idx < n);
	for (unsigned i = 0; i < n; i++) {
		for (size_t have = 0; have < 40004;) {
			ssize_t r = recv(f->peer, got + have, 40004 - have, MSG_DONTWAIT);

			if (r < 0)
				run_loop(f);
			else
				have += (size_t)r;
		}
		assert_int_equal(ntohl(*(uint32_t *)got), 40000);
		assert_memory_equal(got + 4, pattern(5), 40000);
	}
	assert_int_equal(f->d.queues[TX].used->idx, n);
}

static void test_small_frames_are_never_cut(void **state)
{
	struct fixture *f = *state;
	static uint8_t got[4 << 20];
	uint64_t hdr = vdriver_alloc(&f->d, HDR);
	uint64_t frame = vdriver_put(&f->d, pattern(5), 1513);
	struct vdriver_buf bufs[] = {{hdr, HDR, false}, {frame, 1513, false}};

	for (int round = 0; round < 20; round++) {
		ssize_t n;

		for (int i = 0; i < 200; i++) {
			while ((uint16_t)(f->d.queues[TX].avail->idx - f->d.queues[TX].used->idx) <
			       100)
				vdriver_add(&f->d, TX, bufs, 2);
			vdriver_kick(&f->d, TX); /* more than the socket takes */
		}
		n = recv(f->peer, got, sizeof(got), MSG_DONTWAIT);
		assert_true(n > 1517 && n % 1517 == 0);
		run_loop(f);
	}
}

static void test_a_reset_does_not_cut_a_frame(void **state)
{
	struct fixture *f = *state;
	static uint8_t got[VIRTIO_NET_MAX_FRAME + 4];
	uint64_t hdr = vdriver_alloc(&f->d, HDR);
	uint64_t frame = vdriver_put(&f->d, pattern(5), 40000);
	struct vdriver_buf bufs[] = {{hdr, HDR, false}, {frame, 40000, false}};
	size_t have = 0, whole = 0;

	for (unsigned i = 0; i < 100; i++)
		vdriver_add(&f->d, TX, bufs, 2);
	vdriver_kick(&f->d, TX);
	vdriver_stop(&f->d);
	memset(vdriver_at(&f->d, frame), 0, 40000);
	vdriver_start(&f->d, f->dev, f->dev->offered);
	for (int idle = 0; idle < 20;) {
		ssize_t r = recv(f->peer, got + have, 40004 - have, MSG_DONTWAIT);

		if (r < 0) {
			run_loop(f);
			idle++;
			continue;
		}
		idle = 0;
		have += (size_t)r;
		if (have < 40004)
			continue;
		assert_int_equal(ntohl(*(uint32_t *)got), 40000);
		assert_memory_equal(got + 4, pattern(5), 40000);
		whole++;
		have = 0;
	}
	assert_true(whole > 0);
	assert_int_equal(have, 0);
	assert_true(virtio_net_link_is_up(f->dev));
	guest_sends(f, pattern(6), 60);
	vdriver_kick(&f->d, TX);
	assert_int_equal(pil_read_all(f->peer, got, 64), 0);
	assert_memory_equal(got + 4, pattern(6), 60);
}

/* Between two frames nothing is owed to the peer, and the next batch begins as any other. */
static void test_a_reset_between_frames_leaves_nothing(void **state)
{
	struct fixture *f = *state;
	static uint8_t got[VIRTIO_NET_MAX_FRAME + 4];
	static struct vdriver_buf bufs[VIRTQ_MAX_IOV - 1];
	uint64_t hdr = vdriver_alloc(&f->d, HDR), frame = vdriver_put(&f->d, pattern(5), 40000);
	struct vdriver_buf small[] = {{hdr, HDR, false}, {frame, 1000, false}};
	uint8_t start[HDR + 1] = {0};
	uint32_t len = 1, want;

	for (unsigned i = 0; i < 120; i++)
		vdriver_add(&f->d, TX, small, 2);
	for (unsigned i = 0; i < 20; i++) {
		vdriver_kick(&f->d, TX);
		for (struct vring_used_elem used; vdriver_used(&f->d, TX, &used);)
			vdriver_add(&f->d, TX, small, 2);
	}
	vdriver_stop(&f->d);
	vdriver_start(&f->d, f->dev, f->dev->offered);
	memcpy(start + HDR, pattern(5), 1);
	bufs[0] = (struct vdriver_buf){vdriver_put(&f->d, start, sizeof(start)), sizeof(start),
				       false};
	for (unsigned i = 1; i < ARRAY_SIZE(bufs); i++) { /* as many pieces as there may be */
		bufs[i] = (struct vdriver_buf){frame + len, i + 1 < ARRAY_SIZE(bufs) ? 1 : 5000,
					       false};
		len += bufs[i].len;
	}
	vdriver_add_indirect(&f->d, TX, bufs, ARRAY_SIZE(bufs));
	vdriver_kick(&f->d, TX);
	do { /* what was sent before, then the long one */
		run_loop(f);
		assert_int_equal(pil_read_all(f->peer, &want, 4), 0);
		want = ntohl(want);
		for (uint32_t have = 0; have < want;) {
			ssize_t n = recv(f->peer, got + have, want - have, MSG_DONTWAIT);

			have += n > 0 ? (uint32_t)n : 0;
			run_loop(f);
		}
	} while (want == 1000);
	assert_int_equal(want, len);
	assert_memory_equal(got, pattern(5), len);
	assert_int_equal(recv(f->peer, got, 1, MSG_DONTWAIT), -1);
}

/* The first bytes of a frame to @to, of 4 bytes or 16. */
static uint64_t packet_to(struct fixture *f, const uint8_t *to, size_t len)
{
	uint8_t frame[54] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00, 0x45};

	if (len == 16) {
		frame[12] = 0x86;
		frame[13] = 0xdd;
		frame[14] = 0x60;
	}
	memcpy(frame + (len == 4 ? 30 : 38), to, len);
	return vdriver_put(&f->d, frame, sizeof(frame));
}

static void test_packets_to_the_hosts_localhost_do_not_leave(void **state)
{
	static const struct {
		const char *to;
		bool leaves;
	} packets[] = {
		{"127.0.0.1", false},
		{"127.255.255.254", false},
		{"0.0.0.0", false},
		{"0.1.2.3", false},
		{"::", false},
		{"::1", false},
		{"::ffff:127.0.0.1", false},
		{"::ffff:192.0.2.1", false},
		{"::127.0.0.1", false},
		{"1.0.0.0", true},
		{"126.127.127.127", true},
		{"128.0.0.1", true},
		{"255.255.255.255", true},
		{"64:ff9b::7f00:1", true},
		{"fe80::1", true},
		{"ff02::1", true},
		{"2001:db8::1", true},
	};
	struct fixture *f = *state;
	uint64_t hdr = vdriver_alloc(&f->d, HDR), at;
	struct vring_used_elem used;
	uint8_t to[16], got[4 + 60];
	unsigned left = 0;

	for (size_t i = 0; i < ARRAY_SIZE(packets); i++) {
		size_t len = strchr(packets[i].to, ':') ? 16 : 4;
		struct vdriver_buf bufs[3] = {{hdr, HDR, false}};

		assert_int_equal(inet_pton(len == 4 ? AF_INET : AF_INET6, packets[i].to, to), 1);
		at = packet_to(f, to, len);
		for (uint32_t cut = 1; cut < 54; cut += 13) { /* wherever the driver cuts it */
			bufs[1] = (struct vdriver_buf){at, cut, false};
			bufs[2] = (struct vdriver_buf){at + cut, 54 - cut, false};
			vdriver_add(&f->d, TX, bufs, 3);
			vdriver_kick(&f->d, TX);
			assert_true(vdriver_used(&f->d, TX, &used));
			assert_int_equal(recv(f->peer, got, sizeof(got), MSG_DONTWAIT),
					 packets[i].leaves ? 4 + 54 : -1);
			left += packets[i].leaves;
		}
	}
	assert_int_equal(virtio_net_stats(f->dev)->frames_from_guest, left);
}

static bool leaves(struct fixture *f, const char *to)
{
	size_t len = strchr(to, ':') ? 16 : 4;
	uint64_t hdr = vdriver_alloc(&f->d, HDR);
	struct vdriver_buf bufs[2] = {{hdr, HDR, false}, {0, 54, false}};
	struct vring_used_elem used;
	uint8_t address[16], got[64];

	assert_int_equal(inet_pton(len == 4 ? AF_INET : AF_INET6, to, address), 1);
	bufs[1].gpa = packet_to(f, address, len);
	vdriver_add(&f->d, TX, bufs, 2);
	vdriver_kick(&f->d, TX);
	assert_true(vdriver_used(&f->d, TX, &used));
	return recv(f->peer, got, sizeof(got), MSG_DONTWAIT) == 4 + 54;
}

static void test_packets_to_the_hosts_own_addresses_do_not_leave(void **state)
{
	struct own_addrs own = {.closed = OWN_ADDRS_CLOSED, .n = 2};
	struct fixture *f = *state;

	memcpy(own.at[0], own_addrs_mapped, sizeof(own_addrs_mapped));
	assert_int_equal(inet_pton(AF_INET, "192.0.2.7", own.at[0] + sizeof(own_addrs_mapped)), 1);
	assert_int_equal(inet_pton(AF_INET6, "2001:db8::7", own.at[1]), 1);
	assert_true(leaves(f, "192.0.2.7") && leaves(f, "2001:db8::7") && leaves(f, "fe80::1"));
	virtio_net_keep_from(f->dev, &own);
	assert_false(leaves(f, "192.0.2.7"));
	assert_false(leaves(f, "2001:db8::7"));
	assert_false(leaves(f, "fe80::1")); /* it is not ICMP */
	assert_true(leaves(f, "192.0.2.8") && leaves(f, "2001:db8::8") && leaves(f, "ff02::1"));
	own.closed = OWN_ADDRS_OPEN;
	virtio_net_keep_from(f->dev, &own);
	assert_true(leaves(f, "192.0.2.7") && leaves(f, "2001:db8::7") && leaves(f, "fe80::1"));
	own = (struct own_addrs){.closed = OWN_ADDRS_CLOSED, .n = OWN_ADDRS_MAX + 1};
	virtio_net_keep_from(f->dev, &own);
	assert_true(leaves(f, "192.0.2.7"));
}

static void test_frames_of_other_kinds_do_not_leave(void **state)
{
	/* two tags of VLANs, a pause, an unknown type; the packet within would be one to 127.0.0.1
	 */
	static const uint16_t types[] = {0x8100, 0x88a8, 0x8808, 0x88b5};
	static const uint8_t localhost[] = {127, 0, 0, 1};
	struct fixture *f = *state;
	uint64_t hdr = vdriver_alloc(&f->d, HDR), at = packet_to(f, localhost, 4);
	struct vdriver_buf bufs[] = {{hdr, HDR, false}, {at, 54, false}};
	uint8_t *frame = vdriver_at(&f->d, at), got[64];
	struct vring_used_elem used;

	memmove(frame + 16, frame + 12, 54 - 16);
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		frame[12] = (uint8_t)(types[i] >> 8);
		frame[13] = (uint8_t)types[i];
		vdriver_add(&f->d, TX, bufs, 2);
		vdriver_kick(&f->d, TX);
		assert_true(vdriver_used(&f->d, TX, &used));
		assert_int_equal(recv(f->peer, got, sizeof(got), MSG_DONTWAIT), -1);
	}
	frame[12] = 0x08;
	frame[13] = 0x00;
	bufs[1].len = 33; /* it ends within the address */
	vdriver_add(&f->d, TX, bufs, 2);
	vdriver_kick(&f->d, TX);
	assert_true(vdriver_used(&f->d, TX, &used));
	assert_int_equal(recv(f->peer, got, sizeof(got), MSG_DONTWAIT), -1);
	assert_int_equal(virtio_net_stats(f->dev)->dropped, ARRAY_SIZE(types) + 1);
}

static void test_what_was_checked_is_what_leaves(void **state)
{
	struct fixture *f = *state;
	static uint8_t got[40004];
	uint64_t hdr = vdriver_alloc(&f->d, HDR), frame = vdriver_put(&f->d, pattern(5), 40000);
	struct vdriver_buf bufs[] = {{hdr, HDR, false}, {frame, 40000, false}};
	static const uint8_t good[] = {192, 0, 2, 1}, bad[] = {127, 0, 0, 1};
	size_t have = 0;

	memcpy(vdriver_at(&f->d, frame + 12), "\x08\0", 2);
	memcpy(vdriver_at(&f->d, frame + 30), good, 4);
	for (unsigned i = 0; i < 100; i++)
		vdriver_add(&f->d, TX, bufs, 2);
	vdriver_kick(&f->d, TX);
	memcpy(vdriver_at(&f->d, frame + 30), bad, 4);
	for (int idle = 0; idle < 5;) {
		ssize_t n = recv(f->peer, got + have, sizeof(got) - have, MSG_DONTWAIT);

		idle = n > 0 ? 0 : idle + 1;
		have += n > 0 ? (size_t)n : 0;
		if (n < 0)
			run_loop(f);
		if (have < sizeof(got))
			continue;
		assert_memory_equal(got + 4 + 30, good, 4);
		have = 0;
	}
	assert_int_equal(have, 0);
	assert_int_equal(f->d.queues[TX].used->idx, 100);
}

static uint16_t link_status(struct fixture *f)
{
	uint16_t status;

	f->dev->ops->config_read(f->dev, offsetof(struct virtio_net_config, status), &status, 2);
	return status;
}

static void test_the_link_goes_down_with_its_peer_and_comes_back(void **state)
{
	struct fixture *f = *state;
	uint8_t got[256];
	struct vring_used_elem used;

	post_rx(f, 4, BUF);
	assert_int_equal(link_status(f), VIRTIO_NET_S_LINK_UP);
	close(f->peer);
	f->peer = -1;
	run_loop(f);
	assert_int_equal(link_status(f), 0);
	assert_int_equal(f->d.config_changes, 1);
	guest_sends(f, pattern(1), 60);
	vdriver_kick(&f->d, TX);
	assert_true(vdriver_used(&f->d, TX, &used)); /* dropped, and given back */
	assert_int_equal(virtio_net_stats(f->dev)->dropped, 1);
	assert_int_equal(virtio_net_attach(f->dev, new_link(f), NULL), 0);
	assert_int_equal(link_status(f), VIRTIO_NET_S_LINK_UP);
	assert_int_equal(f->d.config_changes, 2);
	guest_sends(f, pattern(1), 60);
	vdriver_kick(&f->d, TX);
	assert_int_equal(pil_read_all(f->peer, got, 64), 0);
	peer_sends(f, pattern(2), 60);
	run_loop(f);
	assert_int_equal(guest_receives(f, got), 60);
	assert_int_equal(f->d.broken, 0);
}

static void test_a_peer_that_breaks_the_protocol_is_cut_off(void **state)
{
	static const uint32_t bad[] = {0, 13, VIRTIO_NET_MAX_FRAME + 1, UINT32_MAX};
	struct fixture *f = *state;

	post_rx(f, 4, BUF);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		uint32_t be = htonl(bad[i]);

		assert_int_equal(write(f->peer, &be, 4), 4);
		run_loop(f);
		assert_false(virtio_net_link_is_up(f->dev));
		close(f->peer);
		assert_int_equal(virtio_net_attach(f->dev, new_link(f), NULL), 0);
	}
	assert_true(virtio_net_link_is_up(f->dev));
}

static void test_frames_that_fit_nowhere_are_dropped(void **state)
{
	struct fixture *f = *state;
	uint8_t got[4096];
	struct vring_used_elem used;

	vdriver_stop(&f->d);
	vdriver_start(&f->d, f->dev, 0); /* no mergeable buffers */
	post_rx(f, 2, 1000);
	peer_sends(f, pattern(1), 3000);
	peer_sends(f, pattern(2), 500);
	run_loop(f);
	assert_int_equal(guest_receives(f, got), 500);
	assert_memory_equal(got, pattern(2), 500);
	assert_int_equal(virtio_net_stats(f->dev)->dropped, 1);
	guest_sends(f, pattern(1), 13); /* no Ethernet header */
	guest_sends(f, pattern(1), 0);
	vdriver_kick(&f->d, TX);
	assert_true(vdriver_used(&f->d, TX, &used));
	assert_true(vdriver_used(&f->d, TX, &used));
	assert_int_equal(virtio_net_stats(f->dev)->dropped, 3);
	assert_int_equal(f->d.broken, 0);
}

static void test_misuse_breaks_the_card(void **state)
{
	struct fixture *f = *state;
	struct vdriver_buf shorter = {vdriver_alloc(&f->d, HDR), HDR - 1, false};
	struct vdriver_buf tiny = {vdriver_alloc(&f->d, HDR), HDR, true};

	vdriver_add(&f->d, TX, &shorter, 1);
	vdriver_kick(&f->d, TX);
	assert_int_equal(f->d.broken, 1);
	vdriver_stop(&f->d);
	vdriver_start(&f->d, f->dev, f->dev->offered);
	vdriver_add(&f->d, RX, &tiny, 1);
	vdriver_kick(&f->d, RX);
	peer_sends(f, pattern(1), 60);
	run_loop(f);
	run_loop(f);
	assert_int_equal(f->d.broken, 2);
}

/* ---- passt itself */

static pid_t start_passt(struct fixture *f)
{
	static const char *const where[] = {"/usr/bin/passt", "/usr/local/bin/passt"};
	int pair[2];
	pid_t pid;

	if (access(where[0], X_OK) && access(where[1], X_OK))
		return 0;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	pid = fork();
	if (pid == 0) {
		char fd[12];

		snprintf(fd, sizeof(fd), "%d", pair[1]);
		dup2(open("/dev/null", O_RDWR), STDERR_FILENO);
		for (size_t i = 0; i < ARRAY_SIZE(where); i++)
			execl(where[i], where[i], "-f", "-q", "-F", fd, (char *)NULL);
		_exit(127);
	}
	close(pair[1]);
	assert_int_equal(virtio_net_attach(f->dev, pair[0], NULL), 0);
	return pid;
}

static size_t receive_within(struct fixture *f, uint8_t *to, int ms)
{
	size_t n = 0;

	for (; ms > 0 && !(n = guest_receives(f, to)); ms -= 2)
		run_loop(f);
	return n;
}

static void test_passt_answers_also_after_a_flood(void **state)
{
	static const uint8_t who_has[42] =
		"\xff\xff\xff\xff\xff\xff\2\0\0\0\0\1\x08\x06\0\1\x08\0\6\4\0\1"
		"\2\0\0\0\0\1\xc0\0\2\2\0\0\0\0\0\0\xc0\0\2\1";
	struct fixture *f = *state;
	static uint8_t got[VIRTIO_NET_MAX_FRAME];
	uint64_t hdr = vdriver_alloc(&f->d, HDR), frame;
	struct vdriver_buf bufs[] = {{hdr, HDR, false}, {0, 1511, false}};
	struct vring_used_elem used;
	pid_t pid = start_passt(f);
	size_t n;

	if (!pid)
		skip();
	post_rx(f, 64, BUF);
	guest_sends(f, who_has, sizeof(who_has));
	vdriver_kick(&f->d, TX);
	n = receive_within(f, got, 3000);
	if (n) {
		assert_int_equal(n, sizeof(who_has));
		assert_int_equal(got[21], 2);                 /* an answer */
		frame = vdriver_put(&f->d, pattern(1), 1511); /* of no known protocol */
		memcpy(vdriver_at(&f->d, frame + 12), "\x08\0\x45", 3);
		memcpy(vdriver_at(&f->d, frame + 23), "\xfd", 1);
		bufs[1].gpa = frame;
		while (vdriver_used(&f->d, TX, &used))
			;
		for (unsigned sent = 0; sent < 20000;) {
			while ((uint16_t)(f->d.queues[TX].avail->idx - f->d.queues[TX].used->idx) <
			       100) {
				vdriver_add(&f->d, TX, bufs, 2);
				sent++;
			}
			vdriver_kick(&f->d, TX);
			if (f->d.queues[TX].avail->idx - f->d.queues[TX].used->idx)
				run_loop(f); /* the socket is full */
		}
		while (f->d.queues[TX].avail->idx != f->d.queues[TX].used->idx)
			run_loop(f);
		guest_sends(f, who_has, sizeof(who_has));
		vdriver_kick(&f->d, TX);
		n = receive_within(f, got, 3000);
		assert_int_equal(n, sizeof(who_has));
	} else {
		print_message("passt does not start here\n");
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	run_loop(f);
	assert_false(virtio_net_link_is_up(f->dev));
}

#define T(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(frames_go_both_ways),
		T(an_answer_is_whole_in_one_buffer),
		T(a_stream_in_pieces_is_put_together),
		T(frames_wait_for_buffers),
		T(a_full_socket_holds_the_queue),
		T(small_frames_are_never_cut),
		T(a_reset_does_not_cut_a_frame),
		T(a_reset_between_frames_leaves_nothing),
		T(packets_to_the_hosts_localhost_do_not_leave),
		T(packets_to_the_hosts_own_addresses_do_not_leave),
		T(frames_of_other_kinds_do_not_leave),
		T(what_was_checked_is_what_leaves),
		T(the_link_goes_down_with_its_peer_and_comes_back),
		T(a_peer_that_breaks_the_protocol_is_cut_off),
		T(frames_that_fit_nowhere_are_dropped),
		T(misuse_breaks_the_card),
		T(passt_answers_also_after_a_flood),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
