/* SPDX-License-Identifier: Apache-2.0
 *
 * What the peer of the network card may say, in pieces, with few or many guest buffers.  The first
 * byte chooses their size and number, and whether they may be merged. */
#include <assert.h>
#include <linux/virtio_net.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/loop.h"
#include "lib/vdriver.h"
#include "virtio/virtio_net.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct vdriver d;
static struct loop *loop;
static struct loop_source always;
static int rounds_left;

static void on_always(struct loop_source *source, uint32_t events)
{
	(void)source, (void)events;
	if (!--rounds_left)
		loop_stop(loop, 0);
}

static void run(void)
{
	rounds_left = 2;
	loop_run(loop);
	vdriver_again(&d);
}

static void post(unsigned n, uint32_t len)
{
	for (; n; n--) {
		struct vdriver_buf buf = {vdriver_alloc(&d, len), len, true};

		vdriver_add(&d, 0, &buf, 1);
	}
	vdriver_kick(&d, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct virtio_net_opts opts = {.mtu = 1500};
	struct virtio_device *dev;
	struct vring_used_elem used;
	uint32_t len;
	unsigned seed;
	int pair[2];

	if (!size)
		return 0;
	if (!loop) {
		if (loop_create(&loop))
			abort();
		vdriver_init(&d);
		always = (struct loop_source){.fd = eventfd(1, EFD_CLOEXEC), .ready = on_always};
		if (loop_add(loop, &always, EPOLLIN))
			abort();
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) ||
	    virtio_net_create(&dev, loop, pair[0], &opts, NULL))
		abort();
	d.next_gpa = VDRIVER_BUFFERS_GPA;
	seed = data[0];
	len = 13 + (seed & 63) * 40;
	vdriver_start(&d, dev, seed & 128 ? dev->offered : 0);
	data++;
	size--;
	while (size) {
		size_t n = 1 + data[0] % 97u * 8;

		n = n < size ? n : size;
		if (send(pair[1], data, n, MSG_NOSIGNAL) < 0)
			break;
		data += n;
		size -= n;
		post(1 + (seed >> 6 & 1) * 7, len);
		run();
		while (vdriver_used(&d, 0, &used))
			assert(used.len && used.len <= len);
	}
	vdriver_stop(&d);
	dev->ops->destroy(dev);
	close(pair[1]);
	return 0;
}
