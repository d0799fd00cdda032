/* SPDX-License-Identifier: Apache-2.0
 *
 * What a back end may answer to the fs device, in pieces, between requests of the guest; some of
 * its input goes into the rings that it shares with us.  A proper answer can be had by a command,
 * so that what comes after the handshake is reached. */
#include <assert.h>
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
#include "virtio/virtio_fs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_COMMANDS = 64, FEATURES = 1, PROTOCOL = 15 };

static struct vdriver d;
static struct loop *loop;
static struct loop_source always;
static int rounds_left;
static int listen_fd;
static char dir[] = "/tmp/fuzz-fs-XXXXXX";
static struct sockaddr_un addr = {.sun_family = AF_UNIX};

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

static void clean_up(void)
{
	unlink(addr.sun_path);
	rmdir(dir);
}

static void prepare(void)
{
	if (!mkdtemp(dir) || loop_create(&loop))
		abort();
	vdriver_init(&d);
	d.lends_fds = true;
	always = (struct loop_source){.fd = eventfd(1, EFD_CLOEXEC), .ready = on_always};
	if (loop_add(loop, &always, EPOLLIN))
		abort();
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/socket", dir);
	listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (bind(listen_fd, (struct sockaddr *)&addr, sizeof(addr)) || listen(listen_fd, 8))
		abort();
	atexit(clean_up);
}

static void say(int fd, const void *bytes, size_t len)
{
	if (fd >= 0 && send(fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		return;
}

static void say_properly(int fd, uint32_t request)
{
	const uint32_t answer[5] = {request, 5, 8, 7u << 28, 1};

	say(fd, answer, sizeof(answer));
}

static void guest_request(unsigned q, const uint8_t *data, size_t len)
{
	struct vdriver_buf bufs[] = {{vdriver_put(&d, data, len), (uint32_t)len, false},
				     {vdriver_alloc(&d, 64), 64, true}};

	vdriver_add(&d, q, bufs, 2);
	vdriver_kick(&d, q);
}

/* One command and its bytes; returns how many of them it used. */
static size_t command(int fd, const uint8_t *data, size_t size)
{
	size_t n = size - 1 < data[0] >> 3 ? size - 1 : data[0] >> 3;

	switch (data[0] & 7) {
	case 0:
		say_properly(fd, FEATURES);
		return 1;
	case 1:
		say_properly(fd, PROTOCOL);
		return 1;
	case 2:
		say(fd, data + 1, n);
		break;
	case 3: /* the rings are its memory too */
		memcpy((uint8_t *)d.queues[1].used, data + 1, n);
		break;
	case 4:
	case 5:
		if (n)
			guest_request(data[0] & 1, data + 1, n);
		break;
	case 6:
		shutdown(fd, SHUT_WR);
		return 1;
	default:
		run();
		return 1;
	}
	return 1 + n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct virtio_device *dev;
	int fd;

	if (!loop)
		prepare();
	if (virtio_fs_create(&dev, loop, "tag", addr.sun_path, NULL))
		abort();
	d.next_gpa = VDRIVER_BUFFERS_GPA;
	vdriver_start(&d, dev, 0);
	run();
	fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	for (int i = 0; size && i < MAX_COMMANDS; i++) {
		size_t n = command(fd, data, size);

		data += n;
		size -= n;
	}
	run();
	if (fd >= 0)
		close(fd);
	vdriver_stop(&d);
	dev->ops->destroy(dev);
	while ((fd = accept(listen_fd, NULL, NULL)) >= 0)
		close(fd);
	return 0;
}
