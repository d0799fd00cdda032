/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: bytes go from the guest's buffers to the socket with one sendmsg().  Only
 * what a full socket refuses is copied, into a ring of buf_alloc bytes; credit is given back when
 * bytes leave the ring, so that a guest that keeps the rules cannot overflow it.  Order is kept:
 * while something is staged, everything is. */
#include "virtio/vsock_conn.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "virtio/iovs.h"

struct vsock_conn *vsock_conn_create(struct loop *loop, int fd, uint32_t buf_alloc)
{
	struct vsock_conn *c = calloc(1, sizeof(*c));

	if (!c) {
		pil_close_p(&fd);
		return NULL;
	}
	list_init(&c->link);
	list_init(&c->owing_link);
	list_init(&c->run_link);
	c->buf_alloc = buf_alloc;
	c->batch = 1;
	c->source.fd = fd;
	if (loop_add(loop, &c->source, 0)) {
		vsock_conn_destroy(c);
		return NULL;
	}
	return c;
}

void vsock_conn_close_socket(struct vsock_conn *c)
{
	loop_remove(&c->source);
	pil_close_p(&c->source.fd);
	c->events = 0;
	list_remove(&c->run_link);
}

void vsock_conn_destroy(struct vsock_conn *c)
{
	if (!c)
		return;
	vsock_conn_close_socket(c);
	list_remove(&c->link);
	list_remove(&c->owing_link);
	free(c->staged);
	free(c);
}

/* #syscalls: epoll_ctl */
void vsock_conn_watch(struct vsock_conn *c, uint32_t events)
{
	if (c->source.loop && events != c->events && loop_modify(&c->source, events) == 0)
		c->events = events;
}

uint32_t vsock_conn_credit(const struct vsock_conn *c)
{
	uint32_t in_flight = c->tx_cnt - c->peer_fwd_cnt;

	return in_flight < c->peer_buf_alloc ? c->peer_buf_alloc - in_flight : 0;
}

uint32_t vsock_conn_room(const struct vsock_conn *c)
{
	return c->buf_alloc - (uint32_t)c->staged_len;
}

static int stage(struct vsock_conn *c, const struct iovec *iov, unsigned n_iov, size_t off,
		 size_t len)
{
	size_t at = (c->staged_at + c->staged_len) % c->buf_alloc, first = c->buf_alloc - at;

	assert(len <= vsock_conn_room(c));
	if (!c->staged)
		c->staged = malloc(c->buf_alloc);
	if (!c->staged)
		return -ENOMEM;
	first = first < len ? first : len;
	iovs_read(iov, n_iov, off, c->staged + at, first);
	iovs_read(iov, n_iov, off + first, c->staged, len - first);
	c->staged_len += len;
	vsock_conn_watch(c, c->events | EPOLLOUT);
	return 0;
}

/* #syscalls: sendmsg */
static ssize_t send_some(struct vsock_conn *c, struct iovec *iov, unsigned n_iov)
{
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = n_iov};
	ssize_t n;

	do
		n = sendmsg(c->source.fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return n;
	return errno == EAGAIN ? 0 : -errno;
}

int vsock_conn_send(struct vsock_conn *c, struct iovec *iov, unsigned n_iov, size_t len,
		    uint64_t *copied)
{
	ssize_t sent = c->staged_len ? 0 : send_some(c, iov, n_iov);

	if (sent < 0)
		return (int)sent;
	c->fwd_cnt += (uint32_t)sent;
	if ((size_t)sent == len)
		return 0;
	*copied += len - (size_t)sent;
	return stage(c, iov, n_iov, (size_t)sent, len - (size_t)sent);
}

int vsock_conn_drain(struct vsock_conn *c)
{
	while (c->staged_len) {
		size_t first = c->buf_alloc - c->staged_at;
		struct iovec iov[2] = {{c->staged + c->staged_at, first}, {c->staged, 0}};
		unsigned n_iov = first < c->staged_len ? 2 : 1;
		ssize_t sent;

		if (n_iov == 1)
			iov[0].iov_len = c->staged_len;
		else
			iov[1].iov_len = c->staged_len - first;
		sent = send_some(c, iov, n_iov);
		if (sent < 0)
			return (int)sent;
		if (!sent)
			return 0;
		c->staged_at = (c->staged_at + (size_t)sent) % c->buf_alloc;
		c->staged_len -= (size_t)sent;
		c->fwd_cnt += (uint32_t)sent;
	}
	vsock_conn_watch(c, c->events & ~(uint32_t)EPOLLOUT);
	return 0;
}

void vsock_conn_discard(struct vsock_conn *c)
{
	c->fwd_cnt += (uint32_t)c->staged_len;
	c->staged_len = 0;
}
