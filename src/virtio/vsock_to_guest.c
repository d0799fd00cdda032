/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: three kinds of packets compete for the guest's buffers: resets (a bounded
 * ring, because the connections are gone), control packets (bits in vsock_conn::owed) and data, in
 * this order, so that credit and resets never wait behind bulk data.
 *
 * Data is read from the socket straight into the guest's buffers, several at once: a connection
 * whose last read filled all it was offered is offered twice as many, up to VSOCK_MAX_BATCH; so a
 * small answer costs one buffer and one read, and bulk data one read per 256 KiB.
 *
 * A socket is polled (level-triggered) for input while the guest has buffers.  Without buffers it
 * moves to the run list, unpolled; when the guest has put new ones out, the run list is served in
 * turn, one read each, and who has nothing left goes back to being polled.  Without credit it is on
 * neither, until the guest says that it has room; a guest that has not for ASK_MS is asked. */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/uio.h>

#include "virtio/iovs.h"
#include "virtio/vsock_dev.h"

enum { MAX_READS = 32, MAX_PACKET = 64 << 10, ASK_MS = 10 };

static struct virtq *queue(struct vsock *v)
{
	return &v->dev.queues[VSOCK_QUEUE_TO_GUEST];
}

void vsock_owe(struct vsock *v, struct vsock_conn *c, unsigned owed)
{
	c->owed |= owed;
	if (list_empty(&c->owing_link))
		list_append(&v->owing, &c->owing_link);
}

void vsock_owe_reset(struct vsock *v, const struct vsock_reset *reset)
{
	if (v->n_resets < VSOCK_MAX_RESETS) /* else: not reached, see VSOCK_MAX_RESETS */
		v->resets[(v->resets_at + v->n_resets++) % VSOCK_MAX_RESETS] = *reset;
}

/* False when the guest has no buffer for it. */
static bool send_header(struct vsock *v, const struct virtio_vsock_hdr *hdr)
{
	const struct virtq_chain *chain = &v->chain;

	if (!virtio_device_pop(&v->dev, VSOCK_QUEUE_TO_GUEST, &v->chain))
		return false;
	if (iovs_write(chain->iov + chain->n_out, chain->n_in, 0, hdr, VSOCK_HDR) < VSOCK_HDR) {
		virtio_device_broken(&v->dev, "receive buffer without room for a header");
		return false;
	}
	virtq_push(queue(v), chain->head, VSOCK_HDR);
	v->stats.packets_to_guest++;
	return true;
}

static bool send_resets(struct vsock *v)
{
	for (; v->n_resets; v->n_resets--) {
		const struct vsock_reset *r = &v->resets[v->resets_at];
		struct virtio_vsock_hdr hdr = {
			.src_cid = r->host_cid,
			.dst_cid = VIRTIO_VSOCK_GUEST_CID,
			.src_port = r->host_port,
			.dst_port = r->guest_port,
			.type = r->type,
			.op = VIRTIO_VSOCK_OP_RST,
		};

		if (!send_header(v, &hdr))
			return false;
		v->resets_at = (v->resets_at + 1) % VSOCK_MAX_RESETS;
		v->stats.resets++;
	}
	return true;
}

static struct virtio_vsock_hdr header(const struct vsock_conn *c, uint16_t op)
{
	return (struct virtio_vsock_hdr){
		.src_cid = VSOCK_HOST_CID,
		.dst_cid = VIRTIO_VSOCK_GUEST_CID,
		.src_port = c->host_port,
		.dst_port = c->guest_port,
		.type = VIRTIO_VSOCK_TYPE_STREAM,
		.op = op,
		.buf_alloc = c->buf_alloc,
		.fwd_cnt = c->fwd_cnt,
	};
}

static bool send_owed(struct vsock *v, struct vsock_conn *c)
{
	static const struct {
		unsigned owed;
		uint16_t op;
	} ops[] = {
		{VSOCK_OWED_REQUEST, VIRTIO_VSOCK_OP_REQUEST},
		{VSOCK_OWED_RESPONSE, VIRTIO_VSOCK_OP_RESPONSE},
		{VSOCK_OWED_CREDIT_REQUEST, VIRTIO_VSOCK_OP_CREDIT_REQUEST},
		{VSOCK_OWED_CREDIT_UPDATE, VIRTIO_VSOCK_OP_CREDIT_UPDATE},
		{VSOCK_OWED_SHUTDOWN, VIRTIO_VSOCK_OP_SHUTDOWN},
	};

	for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
		struct virtio_vsock_hdr hdr = header(c, ops[i].op);

		if (!(c->owed & ops[i].owed))
			continue;
		if (ops[i].owed == VSOCK_OWED_SHUTDOWN)
			hdr.flags = c->our_shutdown;
		if (!send_header(v, &hdr))
			return false;
		c->fwd_cnt_told = c->fwd_cnt;
		c->owed &= ~ops[i].owed;
	}
	return true;
}

static bool send_all_owed(struct vsock *v)
{
	while (!list_empty(&v->owing)) {
		struct vsock_conn *c = list_entry(v->owing.next, struct vsock_conn, owing_link);

		if (!send_owed(v, c))
			return false;
		list_remove(&c->owing_link);
	}
	return true;
}

/* Collects up to @n_max guest buffers for @len bytes of data; returns how many they take. */
static size_t take_buffers(struct vsock *v, unsigned n_max, size_t len)
{
	const struct virtq_chain *chain = &v->chain;
	size_t total = 0;

	v->in.n = v->in.n_hdr = v->in.n_data = 0;
	while (v->in.n < n_max && total < len &&
	       virtio_device_pop(&v->dev, VSOCK_QUEUE_TO_GUEST, &v->chain)) {
		const struct iovec *iov = chain->iov + chain->n_out;
		size_t room = len - total;

		if (chain->in_bytes <= VSOCK_HDR) {
			virtio_device_broken(&v->dev, "receive buffer without room for data");
			return 0;
		}
		if (v->in.n_hdr + chain->n_in > VIRTQ_MAX_IOV ||
		    v->in.n_data + chain->n_in > VIRTQ_MAX_IOV) {
			virtq_unpop(queue(v), 1);
			break;
		}
		room = room < chain->in_bytes - VSOCK_HDR ? room : chain->in_bytes - VSOCK_HDR;
		room = room < MAX_PACKET ? room : MAX_PACKET;
		v->in.heads[v->in.n] = chain->head;
		v->in.room[v->in.n] = (uint32_t)room;
		v->in.hdr_at[v->in.n++] = (uint16_t)v->in.n_hdr;
		v->in.n_hdr += iovs_cut(iov, chain->n_in, 0, VSOCK_HDR, v->in.hdr + v->in.n_hdr,
					VIRTQ_MAX_IOV - v->in.n_hdr);
		v->in.n_data += iovs_cut(iov, chain->n_in, VSOCK_HDR, room,
					 v->in.data + v->in.n_data, VIRTQ_MAX_IOV - v->in.n_data);
		total += room;
	}
	v->in.hdr_at[v->in.n] = (uint16_t)v->in.n_hdr;
	return total;
}

/* Completes the buffers that @len bytes of @c were read into and puts the others back. */
static unsigned complete_buffers(struct vsock *v, struct vsock_conn *c, size_t len)
{
	struct virtio_vsock_hdr hdr = header(c, VIRTIO_VSOCK_OP_RW);
	unsigned i;

	for (i = 0; i < v->in.n && len; i++) {
		unsigned at = v->in.hdr_at[i];

		hdr.len = len < v->in.room[i] ? (uint32_t)len : v->in.room[i];
		iovs_write(v->in.hdr + at, v->in.hdr_at[i + 1] - at, 0, &hdr, VSOCK_HDR);
		virtq_stage(queue(v), v->in.heads[i], VSOCK_HDR + hdr.len);
		len -= hdr.len;
	}
	virtq_publish(queue(v));
	virtq_unpop(queue(v), v->in.n - i);
	return i;
}

/* The socket has nothing for now: wait until it has. */
static void poll_again(struct vsock_conn *c)
{
	if (c->hung_up)
		return; /* its end of file is still to come, and no event will say so */
	list_remove(&c->run_link);
	vsock_conn_watch(c, c->events | EPOLLIN);
}

static void stop_polling(struct vsock_conn *c)
{
	vsock_conn_watch(c, c->events & ~(uint32_t)EPOLLIN);
}

/* False when the guest has no buffers.  #syscalls: readv */
static bool read_once(struct vsock *v, struct vsock_conn *c)
{
	uint32_t credit = vsock_conn_credit(c);
	size_t room = 0;
	ssize_t n;

	if (!credit) {
		c->waiting_credit = true;
		list_remove(&c->run_link);
		stop_polling(c);
		if (!v->ask.armed)
			loop_timer_arm(v->loop, &v->ask, ASK_MS);
		return true;
	}
	if (!(c->owed & VSOCK_OWED_RESPONSE) || send_owed(v, c)) /* which goes first */
		room = take_buffers(v, c->batch, credit);
	if (!room) {
		stop_polling(c);
		if (list_empty(&c->run_link))
			list_append(&v->run, &c->run_link);
		return false;
	}
	n = readv(c->source.fd, v->in.data, (int)v->in.n_data);
	v->stats.reads++;
	if (n <= 0) {
		int code = errno;

		virtq_unpop(queue(v), v->in.n);
		if (n < 0 && (code == EAGAIN || code == EINTR))
			poll_again(c);
		else
			vsock_socket_ended(v, c,
					   VIRTIO_VSOCK_SHUTDOWN_SEND |
						   (n < 0 || c->hung_up ? VIRTIO_VSOCK_SHUTDOWN_RCV
									: 0));
		return true;
	}
	c->tx_cnt += (uint32_t)n;
	c->fwd_cnt_told = c->fwd_cnt;
	c->owed &= ~(unsigned)VSOCK_OWED_CREDIT_UPDATE; /* the data says it */
	v->stats.bytes_to_guest += (uint64_t)n;
	if ((size_t)n == room) {
		complete_buffers(v, c, (size_t)n);
		v->stats.packets_to_guest += v->in.n;
		c->batch = c->batch < VSOCK_MAX_BATCH / 2 ? 2 * c->batch : VSOCK_MAX_BATCH;
	} else {
		unsigned used = complete_buffers(v, c, (size_t)n);

		v->stats.packets_to_guest += used;
		c->batch = used < VSOCK_MAX_BATCH ? used + 1 : used;
		poll_again(c);
	}
	return true;
}

void vsock_read(struct vsock *v, struct vsock_conn *c)
{
	read_once(v, c);
}

/* Gives each on the run list its turn.  False when the guest has no buffers. */
static bool serve_run_list(struct vsock *v, unsigned *budget)
{
	while (!list_empty(&v->run) && *budget) {
		struct vsock_conn *c = list_entry(v->run.next, struct vsock_conn, run_link);

		list_remove(&c->run_link);
		list_append(&v->run, &c->run_link); /* whoever is not done comes last */
		if (!read_once(v, c))
			return false;
		--*budget;
	}
	return true;
}

void vsock_to_guest(struct vsock *v)
{
	unsigned budget = MAX_READS;
	bool wanting;

	do {
		wanting = !send_resets(v) || !send_all_owed(v) || !serve_run_list(v, &budget) ||
			  !send_all_owed(v);
	} while (wanting && virtq_want_notify(queue(v)));
	if (!wanting)
		virtq_refuse_notify(queue(v));
	virtio_queue_flush(&v->dev, VSOCK_QUEUE_TO_GUEST);
	if (!wanting && !list_empty(&v->run))
		v->dev.transport->renotify(&v->dev, VSOCK_QUEUE_TO_GUEST);
	if (v->paused && v->n_resets < VSOCK_RESETS_PAUSE) {
		v->paused = false;
		v->dev.transport->renotify(&v->dev, VSOCK_QUEUE_FROM_GUEST);
	}
}
