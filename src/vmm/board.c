/* SPDX-License-Identifier: Apache-2.0
 *
 * board.c -- makes the devices that the options name, each on the PCI bus.
 *
 * The order is the order of PCI slots, which a guest sees: disks first, so that the first disk is
 * always /dev/vda.  The vsock's life connection also drives the boot timer's last two marks. */
#include "vmm/board.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/own_addrs.h"
#include "virtio/virtio_balloon.h"
#include "virtio/virtio_blk.h"
#include "virtio/virtio_console.h"
#include "virtio/virtio_fs.h"
#include "virtio/virtio_net.h"
#include "virtio/virtio_rng.h"
#include "virtio/virtio_vsock.h"
#include "vmm/jail.h"
#include "vmm/options.h"
#include "vmm/trace.h"
#include "vmm/virtio_pci.h"

enum { NET_MTU = 65520 }; /* what passt takes at most */

struct place { /* where devices are put */
	struct board *board;
	struct vm *vm;
	struct loop *loop;
	struct hop *hop;
};

static int add(const struct place *at, struct virtio_device *dev, struct pil_err *err)
{
	struct board *b = at->board;
	int ret = virtio_pci_create(&b->all[b->n], dev, at->vm, &b->bus, at->loop, at->hop, err);

	if (!ret)
		b->n++;
	return ret;
}

static int add_disks(const struct place *at, const struct options *o, struct pil_err *err)
{
	for (unsigned i = 0; i < o->n_disks; i++) {
		struct virtio_blk_opts opts = {.fd = o->disks[i].fd,
					       .read_only = o->disks[i].read_only,
					       .path = o->disks[i].path,
					       .enter = o->jail ? jail_lock_disk : NULL};
		struct virtio_device *dev;
		int ret = virtio_blk_create(&dev, &opts, err);

		if (!ret)
			ret = add(at, dev, err);
		if (ret)
			return ret;
	}
	return 0;
}

/* #syscalls: fcntl */
static int add_console(const struct place *at, struct options *o, struct pil_err *err)
{
	struct virtio_device *dev;
	int ret;

	/* The device will close what it is given: not our standard output or error. */
	if (o->console_fd >= 0 && o->console_fd <= STDERR_FILENO)
		o->console_fd = fcntl(o->console_fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	ret = virtio_console_create(&dev, at->loop, pil_take_fd(&o->console_fd), err);

	if (ret)
		return ret;
	at->board->console = dev;
	return add(at, dev, err);
}

/* The guest's first process connects first thing, and sends a byte when its agent serves. */
static void trace_life(uint32_t host_port, bool data)
{
	static bool ready;

	if (host_port != LIFE_VSOCK_PORT || ready)
		return;
	trace_mark(data ? "agent ready" : "init");
	ready = data;
}

static int add_vsock(const struct place *at, struct options *o, struct pil_err *err)
{
	struct virtio_device *dev;
	int ret = virtio_vsock_create(&dev, at->loop, err);

	if (ret)
		return ret;
	for (unsigned i = 0; i < o->n_listens && !ret; i++)
		ret = virtio_vsock_listen(dev, o->listens[i].fd, o->listens[i].port, err);
	for (unsigned i = 0; i < o->n_connects && !ret; i++)
		ret = virtio_vsock_connect(dev, o->connects[i].port, o->connects[i].path, err);
	if (o->boot_timer)
		virtio_vsock_trace(dev, trace_life);
	if (!ret)
		return add(at, dev, err);
	dev->ops->destroy(dev);
	return ret;
}

/* Two kinds of messages: one byte, and with it the stream of a network whose other end has been
 * started anew; or the host's addresses. */
static void on_net_control(struct loop_source *source, uint32_t events)
{
	struct board *board = container_of(source, struct board, net_control);
	struct pil_err err = {0};
	int fd = -1, n_fds = 1;
	struct own_addrs addrs;
	ssize_t n = pil_recv_fds(source->fd, &addrs, sizeof(addrs), &fd, &n_fds, 0);

	(void)events;
	if (n <= 0)
		loop_remove(source);
	else if (n == (ssize_t)sizeof(addrs))
		virtio_net_keep_from(board->net, &addrs);
	else if (n_fds == 1 && virtio_net_attach(board->net, fd, &err)) {
		log_warn("%s", err.msg);
		pil_close_p(&fd);
	}
}

static int listen_for_net(const struct place *at, struct options *o, struct pil_err *err)
{
	struct loop_source *source = &at->board->net_control;
	int ret;

	if (o->net_control_fd < 0)
		return 0;
	*source = (struct loop_source){.fd = pil_take_fd(&o->net_control_fd),
				       .ready = on_net_control};
	ret = loop_add(at->loop, source, EPOLLIN);
	return ret ? pil_err_set(err, -ret, "watch the network's control") : 0;
}

static int add_net(const struct place *at, struct options *o, struct pil_err *err)
{
	/* One card on a wire of its own: its address need not differ from other machines'. */
	const struct virtio_net_opts opts = {.mac = {2, 'p', 'i', 'l', 0, 1}, .mtu = NET_MTU};
	struct virtio_device *dev;
	int ret;

	if (o->net_fd < 0)
		return 0;
	ret = virtio_net_create(&dev, at->loop, o->net_fd, &opts, err);
	if (!ret)
		ret = add(at, dev, err);
	if (ret)
		return ret;
	at->board->net = dev;
	return listen_for_net(at, o, err);
}

static int add_folders(const struct place *at, const struct options *o, struct pil_err *err)
{
	for (unsigned i = 0; i < o->n_fs; i++) {
		struct virtio_device *dev;
		int ret = virtio_fs_create(&dev, at->loop, o->fs[i].tag, o->fs[i].socket, err);

		if (!ret)
			ret = add(at, dev, err);
		if (ret)
			return ret;
	}
	return 0;
}

static int add_balloon(const struct place *at, struct pil_err *err)
{
	struct virtio_device *dev;
	int ret = virtio_balloon_create(&dev, err);

	return ret ? ret : add(at, dev, err);
}

static int add_rng(const struct place *at, struct pil_err *err)
{
	struct virtio_device *dev;
	int ret = virtio_rng_create(&dev, err);

	return ret ? ret : add(at, dev, err);
}

int board_init(struct board *board, struct options *o, struct vm *vm, struct loop *loop,
	       struct hop *hop, struct pil_err *err)
{
	struct place at = {.board = board, .vm = vm, .loop = loop, .hop = hop};
	int ret;

	pci_init(&board->bus, vm);
	ret = add_disks(&at, o, err);
	if (!ret)
		ret = add_console(&at, o, err);
	if (!ret)
		ret = add_vsock(&at, o, err);
	if (!ret)
		ret = add_net(&at, o, err);
	if (!ret)
		ret = add_folders(&at, o, err);
	if (!ret)
		ret = add_rng(&at, err);
	if (!ret)
		ret = o->keep_memory ? 0 : add_balloon(&at, err);
	return ret;
}

void board_finish(struct board *board)
{
	for (unsigned i = board->n; i-- > 0;)
		virtio_pci_destroy(board->all[i]);
	board->n = 0;
	loop_remove(&board->net_control);
}
