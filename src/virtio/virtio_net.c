/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: the stream has no frame boundaries of its own.
 *
 * To the guest: one read takes as many frames as the socket has, into a staging buffer; whole
 * frames are copied from there into the guest's buffers (a read per frame, and two for its length,
 * would cost more than the copy).  A frame that finds no buffers stays; the socket is not read
 * until the guest has put some out, so that the peer feels it.  With MRG_RXBUF a frame spreads over
 * several buffers, which the driver must see at once.
 *
 * From the guest: up to MAX_BATCH frames leave in one sendmsg() straight from the guest's buffers,
 * but for their headers, which are copied, checked and sent as checked.  What the socket does not
 * take is kept as iovecs, buffers included, until it does; the queue waits.
 *
 * What is checked: the peer passes packets on from a process of the host, where an address of
 * loopback is the host's own.  passt before August 2024 does not look, so we do (may_leave()).  Nor
 * does any passt look whether an address is of one of the host's cards.
 *
 * The peer (passt) has checked what it sends; DATA_VALID spares the guest to do it again. */
#include "virtio/virtio_net.h"

#include <assert.h>
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/own_addrs.h"
#include "virtio/iovs.h"
#include "virtio/virtio.h"

enum {
	QUEUE_TO_GUEST,
	QUEUE_FROM_GUEST,
	NUM_QUEUES,
	QUEUE_SIZE = 256,
	HDR = sizeof(struct virtio_net_hdr_v1),
	LEN = 4, /* of the length before each frame */
	MIN_FRAME = ETH_HLEN,
	ETH_TYPE_AT = 12,
	IP4_HEAD = ETH_HLEN + 20, /* with what is before it; its last field is the destination */
	IP6_HEAD = ETH_HLEN + 40, /* likewise */
	IP6_NEXT_AT = ETH_HLEN + 6,
	HEAD = IP6_HEAD,  /* of a frame: what is looked at */
	MAX_BUFFERS = 64, /* of the guest, for one frame */
	MAX_BATCH = 32,   /* frames in one sendmsg() */
	ATOMIC_BYTES = 32 << 10,
	STAGING_BYTES = 256 << 10,
	SOCKET_BUFFER = 1 << 20, /* asked for; the host has its own limit */
};

static_assert(HDR == 12, "header");
static_assert(STAGING_BYTES >= 2 * (VIRTIO_NET_MAX_FRAME + LEN), "a frame fits behind a frame");

struct frame_start {
	uint32_t len; /* big endian, of the frame */
	uint8_t head[HEAD];
};

static_assert(offsetof(struct frame_start, head) == LEN, "the length is before the frame");

struct net {
	struct virtio_device dev;
	struct loop *loop;
	struct loop_source source; /* the fd is ours; -1 while the link is down */
	uint32_t events;
	struct virtio_net_config config;
	struct virtio_net_stats stats;
	struct log_limit limit;
	struct virtq_chain chain; /* scratch */
	struct own_addrs own;     /* of the host */

	struct { /* frames on their way out; left == 0: none, and the others are 0 too */
		size_t left;
		unsigned n, n_iov;
		uint16_t heads[MAX_BATCH];
		struct frame_start start[MAX_BATCH];
		struct iovec iov[VIRTQ_MAX_IOV];
		uint8_t *partial; /* copy of the rest of a frame, after a reset */
	} out;

	size_t at, fill; /* of staging[]: bytes [at, fill) are not delivered yet */
	uint8_t staging[STAGING_BYTES];
};

/* #syscalls: epoll_ctl */
static void watch(struct net *n, uint32_t events)
{
	if (n->source.loop && events != n->events && loop_modify(&n->source, events) == 0)
		n->events = events;
}

static void finish_batch(struct net *n)
{
	struct virtq *q = &n->dev.queues[QUEUE_FROM_GUEST];

	for (unsigned i = 0; i < n->out.n; i++)
		virtq_stage(q, n->out.heads[i], 0);
	virtq_publish(q);
	n->out.n = n->out.n_iov = 0;
	n->out.left = 0;
	free(n->out.partial);
	n->out.partial = NULL;
}

static void set_link(struct net *n, bool up)
{
	uint16_t status = up ? VIRTIO_NET_S_LINK_UP : 0;

	if (n->config.status == status)
		return;
	n->config.status = status;
	if (n->dev.active)
		n->dev.transport->config_changed(&n->dev);
}

static void detach(struct net *n, const char *why)
{
	if (n->source.fd < 0)
		return;
	if (why && log_allowed(&n->limit))
		log_warn("net: the link is down: %s", why);
	loop_remove(&n->source);
	pil_close_p(&n->source.fd);
	n->events = 0;
	n->at = n->fill = 0;
	n->stats.dropped += n->out.n;
	finish_batch(n);
	set_link(n, false);
}

/* ---- to the guest ---- */

enum delivery { DELIVERED, NO_BUFFERS };

/* Puts one frame into guest buffers.  What was written to buffers that do not suffice is never
 * published: they are put back. */
static enum delivery deliver(struct net *n, const uint8_t *frame, size_t len)
{
	struct virtq *q = &n->dev.queues[QUEUE_TO_GUEST];
	bool mergeable = virtio_device_has(&n->dev, VIRTIO_NET_F_MRG_RXBUF);
	struct virtio_net_hdr_v1 hdr = {.num_buffers = 1};
	struct iovec hdr_iov[HDR];
	uint16_t heads[MAX_BUFFERS];
	uint32_t used[MAX_BUFFERS];
	unsigned n_hdr = 0, n_bufs = 0, max_bufs = mergeable ? MAX_BUFFERS : 1;
	size_t done = 0;

	while (done < len && n_bufs < max_bufs) {
		const struct virtq_chain *chain = &n->chain;
		const struct iovec *iov;
		size_t skip = n_bufs ? 0 : HDR, put;

		if (!virtio_device_pop(&n->dev, QUEUE_TO_GUEST, &n->chain)) {
			if (virtq_want_notify(q)) /* of what comes behind those taken */
				continue;
			virtq_unpop(q, n_bufs);
			return NO_BUFFERS;
		}
		if (chain->in_bytes <= skip) {
			virtio_device_broken(&n->dev, "receive buffer without room for a frame");
			return NO_BUFFERS;
		}
		iov = chain->iov + chain->n_out;
		if (!n_bufs)
			n_hdr = iovs_cut(iov, chain->n_in, 0, HDR, hdr_iov, HDR);
		put = iovs_write(iov, chain->n_in, skip, frame + done, len - done);
		heads[n_bufs] = chain->head;
		used[n_bufs++] = (uint32_t)(skip + put);
		done += put;
	}
	if (done < len) { /* the buffers are too small for it, and would be for ever */
		virtq_unpop(q, n_bufs);
		n->stats.dropped++;
		return DELIVERED;
	}
	hdr.num_buffers = (uint16_t)n_bufs;
	if (virtio_device_has(&n->dev, VIRTIO_NET_F_GUEST_CSUM))
		hdr.flags = VIRTIO_NET_HDR_F_DATA_VALID;
	iovs_write(hdr_iov, n_hdr, 0, &hdr, HDR);
	for (unsigned i = 0; i < n_bufs; i++)
		virtq_stage(q, heads[i], used[i]);
	virtq_publish(q);
	n->stats.frames_to_guest++;
	return DELIVERED;
}

/* Delivers the whole frames in staging[].  False: the guest has no buffers, and will say when it
 * has. */
static bool deliver_staged(struct net *n)
{
	while (n->fill - n->at >= LEN) {
		uint32_t len;

		memcpy(&len, n->staging + n->at, LEN);
		len = ntohl(len);
		if (len < MIN_FRAME || len > VIRTIO_NET_MAX_FRAME) {
			detach(n, "the peer sent a frame of an impossible length");
			return true;
		}
		if (n->fill - n->at - LEN < len)
			break;
		if (deliver(n, n->staging + n->at + LEN, len) == NO_BUFFERS)
			return false;
		n->at += LEN + len;
	}
	if (n->at == n->fill) {
		n->at = n->fill = 0;
	} else if (n->at > STAGING_BYTES / 2) {
		memmove(n->staging, n->staging + n->at, n->fill - n->at);
		n->fill -= n->at;
		n->at = 0;
	}
	return true;
}

/* #syscalls: read */
static void read_socket(struct net *n)
{
	ssize_t got = read(n->source.fd, n->staging + n->fill, STAGING_BYTES - n->fill);

	n->stats.reads++;
	if (got > 0)
		n->fill += (size_t)got;
	else if (got == 0 || (errno != EAGAIN && errno != EINTR))
		detach(n, got ? strerror(errno) : "the peer is gone");
}

static void to_guest(struct net *n, bool readable)
{
	struct virtq *q = &n->dev.queues[QUEUE_TO_GUEST];
	bool room;

	if (!n->dev.active)
		return;
	room = deliver_staged(n);
	if (room && readable && n->source.fd >= 0) {
		read_socket(n);
		room = deliver_staged(n);
	}
	if (room)
		virtq_refuse_notify(q);
	watch(n, room ? n->events | EPOLLIN : n->events & ~(uint32_t)EPOLLIN);
	virtio_queue_flush(&n->dev, QUEUE_TO_GUEST);
}

/* ---- from the guest ---- */

static bool is_own4(const struct own_addrs *own, const uint8_t *to)
{
	for (uint32_t i = 0; i < own->n; i++)
		if (!memcmp(own->at[i], own_addrs_mapped, sizeof(own_addrs_mapped)) &&
		    !memcmp(own->at[i] + sizeof(own_addrs_mapped), to, 4))
			return true;
	return false;
}

static bool is_own6(const struct own_addrs *own, const uint8_t *to, uint8_t next)
{
	if (own->closed && to[0] == 0xfe && (to[1] & 0xc0) == 0x80 && next != IPPROTO_ICMPV6)
		return true;
	for (uint32_t i = 0; i < own->n; i++)
		if (!memcmp(own->at[i], to, OWN_ADDR_BYTES))
			return true;
	return false;
}

/* Whether a frame, of which there are @len bytes or HEAD, may reach the peer: ARP, and IP to others
 * than 0.0.0.0/8, 127.0.0.0/8 and ::/80, which holds ::, ::1 and IPv4 written as IPv6; and what
 * virtio_net_keep_from() said. */
static bool may_leave(const struct own_addrs *own, const uint8_t *head, size_t len)
{
	static const uint8_t zeroes[10];

	switch (head[ETH_TYPE_AT] << 8 | head[ETH_TYPE_AT + 1]) {
	case ETH_P_ARP:
		return true;
	case ETH_P_IP:
		return len >= IP4_HEAD && head[IP4_HEAD - 4] != 0 && head[IP4_HEAD - 4] != 127 &&
		       !is_own4(own, head + IP4_HEAD - 4);
	case ETH_P_IPV6:
		return len >= IP6_HEAD &&
		       memcmp(head + IP6_HEAD - 16, zeroes, sizeof(zeroes)) != 0 &&
		       !is_own6(own, head + IP6_HEAD - 16, head[IP6_NEXT_AT]);
	default: /* nothing the peer knows; a tag could hide one of the above */
		return false;
	}
}

/* Adds the frame of @len bytes in n->chain to the batch, unless it may not leave. */
static bool add_frame(struct net *n, size_t len)
{
	const struct virtq_chain *chain = &n->chain;
	struct frame_start *start = &n->out.start[n->out.n];
	size_t head =
		iovs_read(chain->iov, chain->n_out, HDR, start->head, len < HEAD ? len : HEAD);

	if (!may_leave(&n->own, start->head, head))
		return false;
	start->len = htonl((uint32_t)len);
	n->out.heads[n->out.n++] = chain->head;
	n->out.iov[n->out.n_iov++] = (struct iovec){start, LEN + head};
	n->out.n_iov += iovs_cut(chain->iov, chain->n_out, HDR + head, len - head,
				 n->out.iov + n->out.n_iov, VIRTQ_MAX_IOV - n->out.n_iov);
	n->out.left += LEN + len;
	return true;
}

/* Adds waiting frames to the batch.  Returns whether there are any. */
static bool collect(struct net *n, unsigned *budget)
{
	const struct virtq_chain *chain = &n->chain;
	struct virtq *q = &n->dev.queues[QUEUE_FROM_GUEST];

	while (n->out.n < MAX_BATCH && *budget &&
	       virtio_device_pop(&n->dev, QUEUE_FROM_GUEST, &n->chain)) {
		size_t len = chain->out_bytes - HDR;

		if (chain->out_bytes < HDR) {
			virtio_device_broken(&n->dev, "frame without a header");
			break;
		}
		if (n->out.n && (n->out.n_iov + 1 + chain->n_out > VIRTQ_MAX_IOV ||
				 n->out.left + LEN + len > ATOMIC_BYTES)) {
			virtq_unpop(q, 1); /* in the next batch */
			break;
		}
		--*budget;
		if (n->source.fd < 0 || len < MIN_FRAME || len > VIRTIO_NET_MAX_FRAME ||
		    chain->n_out >= VIRTQ_MAX_IOV || !add_frame(n, len)) {
			n->stats.dropped++;
			virtq_push(q, chain->head, 0);
		}
	}
	return n->out.n;
}

/* Sends the batch.  False: the socket is full (or gone, and the batch with it).
 * #syscalls: sendmsg */
static bool send_batch(struct net *n)
{
	struct msghdr msg = {.msg_iov = n->out.iov, .msg_iovlen = n->out.n_iov};
	ssize_t sent = sendmsg(n->source.fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);

	n->stats.sends++;
	if (sent < 0 && errno != EAGAIN && errno != EINTR) {
		detach(n, strerror(errno));
		return false;
	}
	sent = sent > 0 ? sent : 0;
	n->out.left -= (size_t)sent;
	if (n->out.left) {
		n->out.n_iov = iovs_cut(n->out.iov, n->out.n_iov, (size_t)sent, n->out.left,
					n->out.iov, n->out.n_iov);
		watch(n, n->events | EPOLLOUT);
		return false;
	}
	n->stats.frames_from_guest += n->out.n;
	finish_batch(n);
	return true;
}

static void from_guest(struct net *n)
{
	struct virtq *q = &n->dev.queues[QUEUE_FROM_GUEST];
	unsigned budget = QUEUE_SIZE;

	if (!n->dev.active || (n->events & EPOLLOUT))
		return; /* the batch before is still on its way */
	virtq_refuse_notify(q);
	while (collect(n, &budget) && send_batch(n))
		;
	virtio_queue_flush(&n->dev, QUEUE_FROM_GUEST);
	if (!(n->events & EPOLLOUT) && virtq_want_notify(q))
		n->dev.transport->renotify(&n->dev, QUEUE_FROM_GUEST);
}

/* ---- the device ---- */

static void net_ready(struct loop_source *source, uint32_t events)
{
	struct net *n = container_of(source, struct net, source);

	if (events & EPOLLOUT) {
		watch(n, n->events & ~(uint32_t)EPOLLOUT);
		if (!n->out.left || send_batch(n))
			from_guest(n);
	}
	if (n->source.fd >= 0 && (events & EPOLLIN))
		to_guest(n, true);
	if (n->source.fd >= 0 && (events & (EPOLLHUP | EPOLLERR)) && !(events & EPOLLIN))
		detach(n, "the peer hung up");
	if (n->source.fd < 0)
		from_guest(n); /* drops what is waiting */
}

static void net_notified(struct virtio_device *dev, unsigned q)
{
	struct net *n = (struct net *)dev;

	if (q == QUEUE_FROM_GUEST)
		from_guest(n);
	else
		to_guest(n, false);
}

static void net_activate(struct virtio_device *dev)
{
	struct net *n = (struct net *)dev;

	to_guest(n, false);
	from_guest(n);
}

/* The guest's memory is out of reach from now on, but the peer expects the rest of a frame whose
 * beginning it has: that is copied, and the frames behind it are dropped. */
static void keep_partial_frame(struct net *n)
{
	unsigned n_iov = n->out.n_iov;
	size_t total = 0, end = 0, sent, rest;

	for (unsigned i = 0; i < n->out.n; i++)
		total += LEN + ntohl(n->out.start[i].len);
	sent = total - n->out.left;
	for (unsigned i = 0; i < n->out.n && end < sent; i++)
		end += LEN + ntohl(n->out.start[i].len);
	rest = end - sent;
	n->stats.dropped += n->out.n;
	n->out.n = n->out.n_iov = 0;
	n->out.left = 0;
	if (!rest)
		return;
	n->out.partial = malloc(rest);
	if (!n->out.partial || iovs_read(n->out.iov, n_iov, 0, n->out.partial, rest) < rest) {
		detach(n, "the rest of a frame is lost");
		return;
	}
	n->out.iov[n->out.n_iov++] = (struct iovec){n->out.partial, rest};
	n->out.left = rest;
}

static void net_reset(struct virtio_device *dev)
{
	struct net *n = (struct net *)dev;

	if (n->out.n)
		keep_partial_frame(n);
	watch(n, n->events & ~(uint32_t)EPOLLIN);
}

static void net_config_read(struct virtio_device *dev, size_t off, void *to, size_t len)
{
	memcpy(to, (const char *)&((struct net *)dev)->config + off, len);
}

static void net_destroy(struct virtio_device *dev)
{
	struct net *n = (struct net *)dev;

	loop_remove(&n->source);
	pil_close_p(&n->source.fd);
	free(n->out.partial);
	free(n);
}

static const struct virtio_ops net_ops = {
	.name = "net",
	.device_id = VIRTIO_ID_NET,
	.pci_class = 0x020000, /* Ethernet controller */
	.n_queues = NUM_QUEUES,
	.config_read = net_config_read,
	.activate = net_activate,
	.reset = net_reset,
	.notified = net_notified,
	.destroy = net_destroy,
};

int virtio_net_create(struct virtio_device **out, struct loop *loop, int fd,
		      const struct virtio_net_opts *opts, struct pil_err *err)
{
	struct net *n = calloc(1, sizeof(*n));
	int rc;

	if (!n)
		return pil_err_set(err, ENOMEM, "net device");
	n->dev.ops = &net_ops;
	n->dev.config_bytes = sizeof(n->config);
	n->dev.queues[QUEUE_TO_GUEST].max_size = QUEUE_SIZE;
	n->dev.queues[QUEUE_FROM_GUEST].max_size = QUEUE_SIZE;
	n->dev.offered = 1u << VIRTIO_NET_F_MAC | 1u << VIRTIO_NET_F_STATUS |
			 1u << VIRTIO_NET_F_MRG_RXBUF | 1u << VIRTIO_NET_F_GUEST_CSUM;
	if (opts->mtu)
		n->dev.offered |= 1u << VIRTIO_NET_F_MTU;
	memcpy(n->config.mac, opts->mac, sizeof(n->config.mac));
	n->config.mtu = opts->mtu;
	n->config.max_virtqueue_pairs = 1;
	n->loop = loop;
	n->source = (struct loop_source){.fd = -1, .ready = net_ready};
	rc = fd < 0 ? 0 : virtio_net_attach(&n->dev, fd, err);
	if (rc) {
		free(n);
		return rc;
	}
	*out = &n->dev;
	return 0;
}

/* #syscalls: fcntl setsockopt */
int virtio_net_attach(struct virtio_device *dev, int fd, struct pil_err *err)
{
	struct net *n = (struct net *)dev;
	struct loop_source source = {.fd = fd, .ready = net_ready};
	int size = SOCKET_BUFFER, rc = pil_set_nonblock(fd, true);

	if (rc)
		return pil_err_set(err, -rc, "net: attach descriptor %d", fd);
	detach(n, NULL);
	n->source = source;
	n->events = 0;
	rc = loop_add(n->loop, &n->source, 0);
	if (rc) {
		n->source.fd = -1;
		return pil_err_set(err, -rc, "net: attach descriptor %d", fd);
	}
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)); /* speed only */
	set_link(n, true);
	to_guest(n, false);
	return 0;
}

void virtio_net_keep_from(struct virtio_device *dev, const struct own_addrs *addrs)
{
	struct net *n = container_of(dev, struct net, dev);

	n->own = *addrs;
	if (!n->own.closed || n->own.n > OWN_ADDRS_MAX)
		n->own.n = 0;
}

bool virtio_net_link_is_up(const struct virtio_device *dev)
{
	return ((const struct net *)dev)->source.fd >= 0;
}

const struct virtio_net_stats *virtio_net_stats(const struct virtio_device *dev)
{
	return &((const struct net *)dev)->stats;
}
