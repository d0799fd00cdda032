/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: output goes straight from the guest's buffers to the descriptor while
 * nothing is waiting.  What the descriptor does not take is copied to a ring, written when the loop
 * says it can be; when the ring is full new output is dropped, because the guest's driver may spin
 * until its buffer comes back.  Every byte also passes through the tail, a ring that forgets the
 * oldest.
 *
 * Input is read into the guest's buffers only when there are some; without, the descriptor is not
 * polled for input, so that it does not keep the loop busy.
 *
 * A descriptor that epoll refuses (a regular file) is written directly and never read. */
#include "virtio/virtio_console.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/loop.h"
#include "virtio/iovs.h"
#include "virtio/virtio.h"

enum {
	QUEUE_IN,
	QUEUE_OUT,
	NUM_QUEUES,
	QUEUE_SIZE = 64,
	MAX_CHAIN_BYTES = 64 << 10, /* written of one chain; Linux sends half of that */
};

struct console {
	struct virtio_device dev;
	struct loop *loop;
	struct loop_source source; /* fd -1: nowhere to write to */
	uint32_t events;           /* what the source is watched for */
	bool pollable, at_eof;
	size_t head, fill; /* of pending[] */
	uint64_t dropped;
	uint64_t tail_bytes; /* ever put into tail[] */
	uint64_t file_bytes; /* written to a descriptor that cannot be polled */
	bool file_full;
	struct virtq_chain chain;
	char pending[VIRTIO_CONSOLE_BUFFER_BYTES];
	char tail[VIRTIO_CONSOLE_TAIL_BYTES];
};

/* #syscalls: epoll_ctl */
static void watch(struct console *c, uint32_t events)
{
	if (!c->pollable || events == c->events)
		return;
	if (loop_modify(&c->source, events) == 0)
		c->events = events;
}

static void give_up(struct console *c)
{
	loop_remove(&c->source);
	c->pollable = false;
	pil_close_p(&c->source.fd);
	c->fill = 0;
}

/* Writes what is pending; the descriptor is watched for more room while some is left. */
static void drain(struct console *c)
{
	while (c->fill) {
		size_t n = sizeof(c->pending) - c->head;
		ssize_t put = write(c->source.fd, c->pending + c->head, n < c->fill ? n : c->fill);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0 && errno != EAGAIN) {
			give_up(c); /* nobody reads any more */
			return;
		}
		if (put < 0)
			break;
		c->head = (c->head + (size_t)put) % sizeof(c->pending);
		c->fill -= (size_t)put;
	}
	watch(c, c->fill ? c->events | EPOLLOUT : c->events & ~(uint32_t)EPOLLOUT);
}

static void keep(struct console *c, const char *bytes, size_t len)
{
	size_t room = sizeof(c->pending) - c->fill, n = len < room ? len : room;

	c->dropped += len - n;
	for (size_t i = 0; i < n; i++)
		c->pending[(c->head + c->fill++) % sizeof(c->pending)] = bytes[i];
}

static void remember(struct console *c, const char *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		c->tail[c->tail_bytes++ % sizeof(c->tail)] = bytes[i];
}

/* A file takes what it is given: the host's disk would be the guest's to fill. */
static bool room_in_file(struct console *c, size_t len)
{
	if (c->file_bytes + len > VIRTIO_CONSOLE_FILE_BYTES) {
		if (!c->file_full)
			log_warn("console: more than %d MiB: the rest is not kept",
				 VIRTIO_CONSOLE_FILE_BYTES >> 20);
		c->file_full = true;
	}
	c->file_bytes += c->file_full ? 0 : len;
	return !c->file_full;
}

/* #syscalls: write */
static void output(struct console *c, const struct virtq_chain *chain)
{
	char piece[1024];
	size_t off = 0, n;

	while (off < MAX_CHAIN_BYTES &&
	       (n = iovs_read(chain->iov, chain->n_out, off, piece, sizeof(piece)))) {
		size_t done = 0;

		remember(c, piece, n);
		off += n;
		if (!c->pollable && !room_in_file(c, n)) {
			c->dropped += n;
			continue;
		}
		while (c->source.fd >= 0 && !c->fill && done < n) {
			ssize_t put = write(c->source.fd, piece + done, n - done);

			if (put >= 0)
				done += (size_t)put;
			else if (errno == EAGAIN)
				break;
			else if (errno != EINTR)
				give_up(c);
		}
		if (done == n)
			continue;
		if (c->source.fd >= 0)
			keep(c, piece + done, n - done);
		else
			c->dropped += n - done;
	}
	if (off < chain->out_bytes)
		c->dropped += chain->out_bytes - off;
}

static void serve_output(struct console *c)
{
	struct virtio_device *dev = &c->dev;
	unsigned budget = QUEUE_SIZE;

	while (budget-- && virtio_device_pop(dev, QUEUE_OUT, &c->chain)) {
		output(c, &c->chain);
		virtq_push(&dev->queues[QUEUE_OUT], c->chain.head, 0);
	}
	if (c->source.fd >= 0)
		drain(c);
	virtio_queue_flush(dev, QUEUE_OUT);
	if (virtq_want_notify(&dev->queues[QUEUE_OUT]))
		dev->transport->renotify(dev, QUEUE_OUT);
}

/* Reads straight into the guest's buffers.  #syscalls: readv */
static void serve_input(struct console *c)
{
	struct virtio_device *dev = &c->dev;
	bool room = false;

	if (!c->pollable || c->at_eof)
		return; /* whoever offers buffers waits in vain */
	while (dev->active && !c->at_eof && (room = virtio_device_pop(dev, QUEUE_IN, &c->chain))) {
		const struct virtq_chain *chain = &c->chain;
		ssize_t got;

		if (!chain->n_in) {
			virtio_device_broken(dev, "a buffer for input that cannot be written");
			return;
		}
		got = readv(c->source.fd, chain->iov + chain->n_out, (int)chain->n_in);
		if (got <= 0) {
			virtq_unpop(&dev->queues[QUEUE_IN], 1);
			c->at_eof = got == 0 || (errno != EAGAIN && errno != EINTR);
			break;
		}
		virtq_push(&dev->queues[QUEUE_IN], chain->head, (uint32_t)got);
	}
	virtio_queue_flush(dev, QUEUE_IN);
	if (room && !c->at_eof)
		watch(c, c->events | EPOLLIN);
	else
		watch(c, c->events & ~(uint32_t)EPOLLIN);
	if (!room && virtq_want_notify(&dev->queues[QUEUE_IN]))
		dev->transport->renotify(dev, QUEUE_IN);
}

static void console_ready(struct loop_source *source, uint32_t events)
{
	struct console *c = container_of(source, struct console, source);

	if (events & (EPOLLOUT | EPOLLERR))
		drain(c);
	if (c->source.fd >= 0 && (events & EPOLLIN))
		serve_input(c);
	if (c->source.fd >= 0 && (events & (EPOLLERR | EPOLLHUP)) && !(events & EPOLLIN))
		give_up(c); /* would be reported for ever */
}

static void console_notified(struct virtio_device *dev, unsigned q)
{
	struct console *c = (struct console *)dev;

	if (q == QUEUE_OUT)
		serve_output(c);
	else
		serve_input(c);
}

static void console_activate(struct virtio_device *dev)
{
	serve_input((struct console *)dev);
	serve_output((struct console *)dev);
}

static void console_reset(struct virtio_device *dev)
{
	struct console *c = (struct console *)dev;

	watch(c, c->events & ~(uint32_t)EPOLLIN); /* pending output still goes out */
}

static void console_config_read(struct virtio_device *dev, size_t off, void *to, size_t len)
{
	const struct virtio_console_config config = {.max_nr_ports = 1};

	(void)dev;
	memcpy(to, (const char *)&config + off, len);
}

static void console_destroy(struct virtio_device *dev)
{
	struct console *c = (struct console *)dev;

	if (c->source.fd >= 0)
		drain(c); /* the last words, as far as they are taken at once */
	loop_remove(&c->source);
	pil_close_p(&c->source.fd);
	free(c);
}

static const struct virtio_ops console_ops = {
	.name = "console",
	.device_id = VIRTIO_ID_CONSOLE,
	.pci_class = 0x078000, /* other communication device */
	.n_queues = NUM_QUEUES,
	.config_read = console_config_read,
	.activate = console_activate,
	.reset = console_reset,
	.notified = console_notified,
	.destroy = console_destroy,
};

/* #syscalls: fcntl */
int virtio_console_create(struct virtio_device **out, struct loop *loop, int fd,
			  struct pil_err *err)
{
	struct console *c = calloc(1, sizeof(*c));
	int rc;

	if (!c)
		return pil_err_set(err, ENOMEM, "console device");
	c->dev.ops = &console_ops;
	c->dev.config_bytes = sizeof(struct virtio_console_config);
	c->dev.queues[QUEUE_IN].max_size = c->dev.queues[QUEUE_OUT].max_size = QUEUE_SIZE;
	c->loop = loop;
	c->source = (struct loop_source){.fd = fd, .ready = console_ready};
	if (fd >= 0) {
		rc = pil_set_nonblock(fd, true);
		if (rc == 0)
			rc = loop_add(loop, &c->source, 0);
		if (rc && rc != -EPERM) { /* EPERM: a regular file */
			free(c);
			return pil_err_set(err, -rc, "console on descriptor %d", fd);
		}
		c->pollable = rc == 0;
		c->at_eof = (fcntl(fd, F_GETFL) & O_ACCMODE) == O_WRONLY;
	}
	*out = &c->dev;
	return 0;
}

size_t virtio_console_tail(const struct virtio_device *dev, char *to, size_t size)
{
	const struct console *c = (const struct console *)dev;
	uint64_t n = c->tail_bytes < sizeof(c->tail) ? c->tail_bytes : sizeof(c->tail);

	n = n < size - 1 ? n : size - 1;
	for (uint64_t i = 0; i < n; i++)
		to[i] = c->tail[(c->tail_bytes - n + i) % sizeof(c->tail)];
	to[n] = '\0';
	return n;
}

uint64_t virtio_console_dropped(const struct virtio_device *dev)
{
	return ((const struct console *)dev)->dropped;
}
