/* SPDX-License-Identifier: Apache-2.0
 *
 * A guest and programs of the host use the vsock device as the input says, one command per byte:
 * packets well or badly formed, receive buffers or none, sockets that talk, listen and leave. */
#include <assert.h>
#include <linux/virtio_vsock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/loop.h"
#include "lib/vdriver.h"
#include "virtio/virtio_vsock.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
	RX,
	TX,
	MAX_PEERS = 4,
	GUEST_PORT = 1,
	HOST_PORT = 2,
	PACKET_BYTES = 2048,
	ROUNDS = 3,
	MAX_COMMANDS = 200,
};

static struct vdriver d;
static struct loop *loop;
static struct loop_source always;
static int rounds_left;
static int host_listen_fd = -1, guest_listen_fd = -1;
static char dir[] = "/tmp/fuzz-vsock-XXXXXX";
static struct sockaddr_un host_addr = {.sun_family = AF_UNIX};
static struct sockaddr_un guest_addr = {.sun_family = AF_UNIX};
static int peers[MAX_PEERS];

struct input {
	const uint8_t *at;
	size_t left;
};

static uint8_t byte(struct input *in)
{
	if (!in->left)
		return 0;
	in->left--;
	return *in->at++;
}

static void on_always(struct loop_source *source, uint32_t events)
{
	(void)source, (void)events;
	if (!--rounds_left)
		loop_stop(loop, 0);
}

static int listen_at(struct sockaddr_un *addr, const char *name)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	snprintf(addr->sun_path, sizeof(addr->sun_path), "%s/%s", dir, name);
	if (bind(fd, (struct sockaddr *)addr, sizeof(*addr)) || listen(fd, 8))
		abort();
	return fd;
}

static void remove_sockets(void)
{
	unlink(host_addr.sun_path);
	unlink(guest_addr.sun_path);
	rmdir(dir);
}

static void prepare(void)
{
	uint64_t one = 1;

	if (!mkdtemp(dir) || loop_create(&loop))
		abort();
	vdriver_init(&d);
	always = (struct loop_source){.fd = eventfd(1, EFD_CLOEXEC), .ready = on_always};
	if (loop_add(loop, &always, EPOLLIN) || write(always.fd, &one, 8) != 8)
		abort();
	host_listen_fd = listen_at(&host_addr, "host");
	guest_listen_fd = listen_at(&guest_addr, "guest");
	atexit(remove_sockets);
}

static void run(void)
{
	rounds_left = ROUNDS;
	loop_run(loop);
	vdriver_again(&d);
}

/* A packet of the guest: mostly sensible, with the input's idea of what differs. */
static void send_packet(struct input *in)
{
	struct virtio_vsock_hdr hdr = {
		.src_cid = VIRTIO_VSOCK_GUEST_CID,
		.dst_cid = 2,
		.type = VIRTIO_VSOCK_TYPE_STREAM,
		.src_port = GUEST_PORT,
		.dst_port = HOST_PORT,
		.buf_alloc = 4096,
	};
	uint8_t what = byte(in), len = byte(in);
	uint32_t data_len = len * 8u;
	struct vdriver_buf bufs[3];
	uint64_t gpa = vdriver_alloc(&d, PACKET_BYTES + sizeof(hdr));

	hdr.op = what & 7;
	hdr.len = data_len;
	if (what & 8)
		hdr.src_port = byte(in);
	if (what & 16)
		hdr.dst_port = (1u << 30) + byte(in) % 4;
	if (what & 32)
		hdr.fwd_cnt = byte(in) * 64u;
	if (what & 64)
		hdr.flags = byte(in);
	if (what & 128) /* any byte of it, anyhow */
		((uint8_t *)&hdr)[byte(in) % sizeof(hdr)] = byte(in);
	memcpy(vdriver_at(&d, gpa), &hdr, sizeof(hdr));
	bufs[0] = (struct vdriver_buf){gpa, len % 16 == 15 ? 40 : sizeof(hdr), false};
	bufs[1] = (struct vdriver_buf){gpa + bufs[0].len, data_len / 2, false};
	bufs[2] = (struct vdriver_buf){gpa + bufs[0].len, data_len - data_len / 2, false};
	vdriver_add(&d, TX, bufs, data_len ? 3 : 1);
	vdriver_kick(&d, TX);
}

static void post_buffers(struct input *in)
{
	uint8_t n = byte(in) % 8, size = byte(in);
	struct vdriver_buf buf = {0, size == 255 ? 44 : 45u + size * 4u, true};

	for (; n; n--) {
		buf.gpa = vdriver_alloc(&d, buf.len);
		vdriver_add(&d, RX, &buf, 1);
	}
	vdriver_kick(&d, RX);
}

static void take_used(void)
{
	struct vring_used_elem used;

	while (vdriver_used(&d, RX, &used)) {
		struct virtio_vsock_hdr hdr;

		assert(used.len >= sizeof(hdr));
	}
	while (vdriver_used(&d, TX, &used))
		assert(used.len == 0);
}

static int new_peer(bool connects)
{
	int fd;

	if (!connects)
		return accept4(host_listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (connect(fd, (struct sockaddr *)&guest_addr, sizeof(guest_addr))) {
		close(fd);
		return -1;
	}
	return fd;
}

static void use_peer(struct input *in)
{
	static uint8_t buf[8192];
	uint8_t what = byte(in);
	int *fd = &peers[what % MAX_PEERS];

	if (*fd < 0) {
		*fd = new_peer(what & 128);
		return;
	}
	switch (what >> 2 & 7) {
	case 0:
		shutdown(*fd, SHUT_WR);
		break;
	case 1:
		shutdown(*fd, SHUT_RD);
		break;
	case 2:
		close(*fd);
		*fd = -1;
		break;
	case 3:
	case 4:
		while (recv(*fd, buf, sizeof(buf), 0) > 0)
			;
		break;
	default:
		if (send(*fd, buf, 1u + byte(in) * 32u, MSG_NOSIGNAL) < 0)
			return;
	}
}

static void command(struct input *in, struct virtio_device *dev)
{
	switch (byte(in) % 8) {
	case 0:
	case 1:
	case 2:
		send_packet(in);
		break;
	case 3:
		post_buffers(in);
		break;
	case 4:
		use_peer(in);
		break;
	case 5:
		take_used();
		break;
	case 6:
		run();
		break;
	default:
		if (byte(in) == 255) {
			vdriver_stop(&d);
			vdriver_start(&d, dev, 0);
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	struct virtio_device *dev;
	int fd;

	if (!loop)
		prepare();
	if (virtio_vsock_create(&dev, loop, NULL) ||
	    virtio_vsock_listen(dev, dup(guest_listen_fd), GUEST_PORT, NULL) ||
	    virtio_vsock_connect(dev, HOST_PORT, host_addr.sun_path, NULL))
		abort();
	memset(peers, -1, sizeof(peers));
	d.next_gpa = VDRIVER_BUFFERS_GPA;
	vdriver_start(&d, dev, 0);
	for (int i = 0; in.left && i < MAX_COMMANDS; i++)
		command(&in, dev);
	run();
	assert(virtio_vsock_stats(dev)->open_from_host <= VIRTIO_VSOCK_MAX_FROM_HOST);
	vdriver_stop(&d);
	dev->ops->destroy(dev);
	for (int i = 0; i < MAX_PEERS; i++)
		if (peers[i] >= 0)
			close(peers[i]);
	while ((fd = accept(host_listen_fd, NULL, NULL)) >= 0 ||
	       (fd = accept(guest_listen_fd, NULL, NULL)) >= 0)
		close(fd);
	return 0;
}
