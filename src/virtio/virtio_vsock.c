/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: a connection is a socket of the host and a pair of ports.  It lives in a
 * hash table by ports while the guest knows it, and afterwards on the lingering list until its
 * socket has taken what the guest sent before it closed.
 *
 *	host connects:  accept -> REQUESTED -> (RESPONSE) -> OPEN
 *	guest connects: (REQUEST) -> connect() -> OPEN
 *	socket ends:    end of file is SHUTDOWN(SEND), a hang-up SHUTDOWN(both) -> CLOSING -> (RST)
 *	guest ends:     (SHUTDOWN both) -> RST at once; what is staged still goes out (LINGERING)
 *
 * Packets of the guest that follow each other on one connection leave in one sendmsg(), and their
 * buffers are given back after it.  The driver hears of that at once when they held QUIET_BYTES (it
 * may wait for them: Linux counts them against SO_SNDBUF); of a few small ones only after QUIET_MS,
 * so that a question and its answer cost one interrupt.
 *
 * A packet that fits no state is answered with a reset, which ends that connection only.  What
 * breaks the device: a packet shorter than its header, a receive buffer without room for one.
 *
 * Bounds: connections each way, so that a guest that opens all it can leaves room for the host's;
 * bytes staged per connection (the credit); resets waiting (then packets of the guest wait);
 * packets handled before other sources have their turn.  Credit is smaller when many are open. */
#include "virtio/virtio_vsock.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/str.h"
#include "virtio/iovs.h"
#include "virtio/vsock_dev.h"

enum {
	QUEUE_SIZE = 256,
	/* The guest's credit on a connection, by how many are open: 60 MiB if all are stuck. */
	FEW_CONNS = 16,
	BUF_ALLOC_OF_FEW = 1 << 20,
	SOME_CONNS = 64,
	BUF_ALLOC_OF_SOME = 256 << 10,
	BUF_ALLOC_OF_MANY = 32 << 10,
	SOCKET_BUFFER = 1 << 20, /* asked for; the host has its own limit */
	MAX_ACCEPTS = 16,        /* in a row */
	FIRST_HOST_PORT = 1 << 30,
	ANSWER_MS = 30000, /* for the guest to accept a connection */
	CONFIRM_MS = 8000, /* for the guest to confirm that one has ended */
	LINGER_MS = 30000, /* for a socket to take the last bytes */
	TICK_MS = 1000,
	FAREWELL_MS = 500, /* for all sockets together, when the machine ends */
	QUIET_MS = 20,
	QUIET_BYTES = 80 << 10,
	BOTH = VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND,
};

static_assert(sizeof(struct virtio_vsock_hdr) == 44, "header");

static struct list *bucket(struct vsock *v, uint32_t guest_port, uint32_t host_port)
{
	return &v->table[(guest_port * 31 + host_port) % VSOCK_BUCKETS];
}

static struct vsock_conn *find(struct vsock *v, uint32_t guest_port, uint32_t host_port)
{
	struct vsock_conn *c;

	list_for_each (c, bucket(v, guest_port, host_port), link)
		if (c->guest_port == guest_port && c->host_port == host_port)
			return c;
	return NULL;
}

static void set_deadline(struct vsock *v, struct vsock_conn *c, int64_t ms)
{
	c->deadline_ms = clock_now_ms() + ms;
	if (!v->tick.armed)
		loop_timer_arm(v->loop, &v->tick, TICK_MS);
}

/* ---- life and death of connections ---- */

static void watch_listeners(struct vsock *v, uint32_t events)
{
	for (int i = 0; i < v->n_listeners; i++) {
		struct vsock_listener *l = &v->listeners[i];

		if (l->source.loop && loop_modify(&l->source, events))
			log_warn("vsock: guest port %u cannot be reached", l->guest_port);
	}
}

/* Who connects waits in the backlog, until a connection ends or the next tick. */
static void pause_listeners(struct vsock *v)
{
	v->listeners_paused = true;
	watch_listeners(v, 0);
	if (!v->tick.armed)
		loop_timer_arm(v->loop, &v->tick, TICK_MS);
}

static void resume_listeners(struct vsock *v)
{
	if (!v->listeners_paused || v->stats.open_from_host >= VIRTIO_VSOCK_MAX_FROM_HOST)
		return;
	v->listeners_paused = false;
	watch_listeners(v, EPOLLIN);
}

/* The guest does not know it any more. */
static void uncount(struct vsock *v, const struct vsock_conn *c)
{
	if (c->state == VSOCK_CONN_LINGERING)
		v->stats.lingering--;
	else if (c->from_host)
		v->stats.open_from_host--;
	else
		v->stats.open_from_guest--;
}

static void forget(struct vsock *v, struct vsock_conn *c)
{
	assert(v->out.conn != c);
	uncount(v, c);
	vsock_conn_destroy(c);
	resume_listeners(v);
}

static void owe_reset_of(struct vsock *v, const struct vsock_conn *c)
{
	vsock_owe_reset(v, &(struct vsock_reset){VSOCK_HOST_CID, c->host_port, c->guest_port,
						 VIRTIO_VSOCK_TYPE_STREAM});
}

static void reset_conn(struct vsock *v, struct vsock_conn *c)
{
	if (!(c->owed & VSOCK_OWED_REQUEST)) /* else the guest has not heard of it */
		owe_reset_of(v, c);
	forget(v, c);
}

/* The guest has closed it; its last bytes are still on their way to the socket. */
static void linger(struct vsock *v, struct vsock_conn *c)
{
	uncount(v, c);
	c->state = VSOCK_CONN_LINGERING;
	v->stats.lingering++;
	c->owed = 0;
	list_remove(&c->owing_link);
	list_remove(&c->run_link);
	list_remove(&c->link);
	list_append(&v->lingering, &c->link);
	vsock_conn_watch(c, EPOLLOUT);
	set_deadline(v, c, LINGER_MS);
	resume_listeners(v);
}

static void conn_ready(struct loop_source *source, uint32_t events);

/* Takes @fd.  NULL: no memory. */
static struct vsock_conn *add_conn(struct vsock *v, int fd, bool from_host, uint32_t guest_port,
				   uint32_t host_port)
{
	unsigned n = v->stats.open_from_host + v->stats.open_from_guest + v->stats.lingering;
	int size = SOCKET_BUFFER;
	struct vsock_conn *c;

	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)); /* speed only */
	c = vsock_conn_create(v->loop, fd,
			      n < FEW_CONNS    ? BUF_ALLOC_OF_FEW
			      : n < SOME_CONNS ? BUF_ALLOC_OF_SOME
					       : BUF_ALLOC_OF_MANY);
	if (!c)
		return NULL;
	c->source.ready = conn_ready;
	c->owner = v;
	c->from_host = from_host;
	c->guest_port = guest_port;
	c->host_port = host_port;
	list_append(bucket(v, guest_port, host_port), &c->link);
	v->stats.connections++;
	if (from_host)
		v->stats.open_from_host++;
	else
		v->stats.open_from_guest++;
	return c;
}

/* ---- events of sockets ---- */

void vsock_socket_ended(struct vsock *v, struct vsock_conn *c, uint32_t flags)
{
	if ((c->our_shutdown & flags) != flags)
		vsock_owe(v, c, VSOCK_OWED_SHUTDOWN);
	c->our_shutdown |= flags;
	if (flags & VIRTIO_VSOCK_SHUTDOWN_SEND) {
		list_remove(&c->run_link);
		vsock_conn_watch(c, c->events & ~(uint32_t)EPOLLIN);
	}
	if (flags & VIRTIO_VSOCK_SHUTDOWN_RCV)
		vsock_conn_discard(c);
	if (c->our_shutdown == BOTH) {
		c->state = VSOCK_CONN_CLOSING;
		vsock_conn_close_socket(c);
		set_deadline(v, c, CONFIRM_MS);
	}
}

/* Bytes of the guest have moved on: pass on what waited for that. */
static void after_send(struct vsock *v, struct vsock_conn *c)
{
	if (!c->staged_len && (c->guest_shutdown & VIRTIO_VSOCK_SHUTDOWN_SEND) && c->source.fd >= 0)
		shutdown(c->source.fd, SHUT_WR);
	if (c->fwd_cnt - c->fwd_cnt_told >= c->buf_alloc / 4)
		vsock_owe(v, c, VSOCK_OWED_CREDIT_UPDATE);
}

/* By polling, or, when no event is to come any more, in turn with others. */
static void start_reading(struct vsock *v, struct vsock_conn *c)
{
	if (c->state != VSOCK_CONN_OPEN || c->waiting_credit)
		return; /* later */
	if (!c->hung_up)
		vsock_conn_watch(c, c->events | EPOLLIN);
	else if (list_empty(&c->run_link))
		list_append(&v->run, &c->run_link);
}

static void lingering_ready(struct vsock *v, struct vsock_conn *c, uint32_t events)
{
	if ((events & (EPOLLHUP | EPOLLERR)) || vsock_conn_drain(c) || !c->staged_len)
		forget(v, c);
	else
		set_deadline(v, c, LINGER_MS);
}

static void conn_ready(struct loop_source *source, uint32_t events)
{
	struct vsock_conn *c = container_of(source, struct vsock_conn, source);
	struct vsock *v = c->owner;

	if (c->state == VSOCK_CONN_LINGERING) {
		lingering_ready(v, c, events);
		return;
	}
	if (events & (EPOLLHUP | EPOLLERR)) {
		c->hung_up = true;
		loop_remove(&c->source);
		vsock_conn_discard(c);
		if ((c->our_shutdown & VIRTIO_VSOCK_SHUTDOWN_SEND) ||
		    (c->guest_shutdown & VIRTIO_VSOCK_SHUTDOWN_RCV))
			vsock_socket_ended(v, c, BOTH);
		else
			start_reading(v, c);
	} else {
		if (events & EPOLLOUT) {
			if (vsock_conn_drain(c))
				vsock_socket_ended(v, c, VIRTIO_VSOCK_SHUTDOWN_RCV);
			after_send(v, c);
		}
		if ((events & EPOLLIN) && c->source.loop)
			vsock_read(v, c);
	}
	vsock_to_guest(v);
}

/* ---- connections from the host ---- */

static uint32_t free_host_port(struct vsock *v, uint32_t guest_port)
{
	do
		v->next_host_port = v->next_host_port == UINT32_MAX - 1 ? FIRST_HOST_PORT
									: v->next_host_port + 1;
	while (find(v, guest_port, v->next_host_port));
	return v->next_host_port;
}

/* #syscalls: accept4 setsockopt */
static void listener_ready(struct loop_source *source, uint32_t events)
{
	struct vsock_listener *l = container_of(source, struct vsock_listener, source);
	struct vsock *v = l->vsock;

	(void)events;
	for (int i = 0; i < MAX_ACCEPTS; i++) {
		struct vsock_conn *c;
		int fd;

		if (v->stats.open_from_host >= VIRTIO_VSOCK_MAX_FROM_HOST) {
			pause_listeners(v);
			break;
		}
		fd = accept4(source->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0) {
			if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
				pause_listeners(v); /* out of descriptors: no use to spin */
			break;
		}
		c = add_conn(v, fd, true, l->guest_port, free_host_port(v, l->guest_port));
		if (!c)
			break;
		c->state = VSOCK_CONN_REQUESTED;
		vsock_owe(v, c, VSOCK_OWED_REQUEST);
		set_deadline(v, c, ANSWER_MS);
	}
	vsock_to_guest(v);
}

/* ---- packets of the guest ---- */

/* A packet that makes no sense, or is for nobody: a reset is the answer. */
static void refuse(struct vsock *v, const struct virtio_vsock_hdr *hdr, const char *why)
{
	v->stats.refused++;
	if (log_allowed(&v->limit))
		log_dbg("vsock: refused packet %u from port %u to %u: %s", hdr->op, hdr->src_port,
			hdr->dst_port, why);
	if (hdr->op != VIRTIO_VSOCK_OP_RST)
		vsock_owe_reset(v, &(struct vsock_reset){hdr->dst_cid, hdr->dst_port, hdr->src_port,
							 hdr->type});
}

static void refuse_conn(struct vsock *v, struct vsock_conn *c, const struct virtio_vsock_hdr *hdr,
			const char *why)
{
	refuse(v, hdr, why);
	forget(v, c);
}

/* Sends the packets collected, and gives their buffers back. */
static void send_collected(struct vsock *v)
{
	struct vsock_conn *c = v->out.conn;

	if (!c)
		return;
	v->out.conn = NULL;
	if (v->seen && !c->from_host)
		v->seen(c->host_port, true);
	v->stats.sends++;
	v->stats.bytes_from_guest += v->out.len;
	if (vsock_conn_send(c, v->out.iov, v->out.n_iov, v->out.len, &v->stats.copied)) {
		c->fwd_cnt += (uint32_t)v->out.len;
		vsock_socket_ended(v, c, VIRTIO_VSOCK_SHUTDOWN_RCV);
	}
	after_send(v, c);
	for (unsigned i = 0; i < v->out.n_heads; i++)
		virtq_stage(&v->dev.queues[VSOCK_QUEUE_FROM_GUEST], v->out.heads[i], 0);
	virtq_publish(&v->dev.queues[VSOCK_QUEUE_FROM_GUEST]);
	v->out.n_heads = v->out.n_iov = 0;
	v->out.len = 0;
}

/* Puts the packet in v->chain beside those to be sent.  False: it is done with. */
static bool collect(struct vsock *v, struct vsock_conn *c, const struct virtio_vsock_hdr *hdr)
{
	const struct virtq_chain *chain = &v->chain;

	if (v->out.conn != c || v->out.n_heads == VSOCK_MAX_HEADS ||
	    v->out.n_iov + chain->n_out > VIRTQ_MAX_IOV)
		send_collected(v);
	if (c->state == VSOCK_CONN_CLOSING)
		return false;
	if (c->state != VSOCK_CONN_OPEN || (c->guest_shutdown & VIRTIO_VSOCK_SHUTDOWN_SEND)) {
		send_collected(v);
		refuse_conn(v, c, hdr, "data out of turn");
		return false;
	}
	if (hdr->len > chain->out_bytes - VSOCK_HDR || hdr->len > vsock_conn_room(c) - v->out.len) {
		send_collected(v);
		refuse_conn(v, c, hdr, "more data than there is, or than was allowed");
		return false;
	}
	if (!hdr->len || (c->our_shutdown & VIRTIO_VSOCK_SHUTDOWN_RCV)) {
		c->fwd_cnt += hdr->len;
		after_send(v, c);
		return false;
	}
	v->out.conn = c;
	v->out.n_iov += iovs_cut(chain->iov, chain->n_out, VSOCK_HDR, hdr->len,
				 v->out.iov + v->out.n_iov, VIRTQ_MAX_IOV - v->out.n_iov);
	v->out.len += hdr->len;
	v->out.heads[v->out.n_heads++] = chain->head;
	return true;
}

/* #syscalls: socket(0=AF_UNIX) connect */
static int connect_to(const char *path)
{
	_auto_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	memcpy(addr.sun_path, path, strlen(path)); /* checked by virtio_vsock_connect() */
	if (fd < 0 || connect(fd, (const struct sockaddr *)&addr, sizeof(addr)))
		return -errno;
	return pil_take_fd(&fd);
}

static void on_request(struct vsock *v, const struct virtio_vsock_hdr *hdr)
{
	const char *path = NULL;
	struct vsock_conn *c;
	int fd;

	for (int i = 0; i < v->n_routes; i++)
		if (v->routes[i].host_port == hdr->dst_port)
			path = v->routes[i].path;
	if (!path || v->stats.open_from_guest + v->stats.lingering >= VIRTIO_VSOCK_MAX_FROM_GUEST) {
		refuse(v, hdr, path ? "too many connections" : "nobody listens on that port");
		return;
	}
	fd = connect_to(path);
	if (fd < 0) {
		if (log_allowed(&v->limit))
			log_warn("vsock: port %u: connect to '%s': %s", hdr->dst_port, path,
				 strerror(-fd));
		refuse(v, hdr, "nobody answers at its socket");
		return;
	}
	c = add_conn(v, fd, false, hdr->src_port, hdr->dst_port);
	if (!c) {
		refuse(v, hdr, "no memory");
		return;
	}
	c->state = VSOCK_CONN_OPEN;
	c->peer_buf_alloc = hdr->buf_alloc;
	c->peer_fwd_cnt = hdr->fwd_cnt;
	if (v->seen)
		v->seen(c->host_port, false);
	vsock_owe(v, c, VSOCK_OWED_RESPONSE);
	start_reading(v, c);
}

/* #syscalls: shutdown */
static void on_shutdown(struct vsock *v, struct vsock_conn *c, uint32_t flags)
{
	c->guest_shutdown |= flags & BOTH;
	if (c->guest_shutdown == BOTH && (!c->staged_len || c->source.fd < 0)) {
		reset_conn(v, c);
	} else if (c->guest_shutdown == BOTH) {
		owe_reset_of(v, c);
		linger(v, c);
	} else if (c->source.fd >= 0) {
		if (flags & VIRTIO_VSOCK_SHUTDOWN_RCV) {
			c->waiting_credit = false;
			list_remove(&c->run_link);
			vsock_conn_watch(c, c->events & ~(uint32_t)EPOLLIN);
			shutdown(c->source.fd, SHUT_RD);
		}
		if (c->hung_up && (flags & VIRTIO_VSOCK_SHUTDOWN_RCV))
			vsock_socket_ended(v, c, BOTH);
		after_send(v, c);
	}
}

static void on_response(struct vsock *v, struct vsock_conn *c, const struct virtio_vsock_hdr *hdr)
{
	if (c->state != VSOCK_CONN_REQUESTED || (c->owed & VSOCK_OWED_REQUEST)) {
		refuse_conn(v, c, hdr, "an answer to no question");
		return;
	}
	c->state = VSOCK_CONN_OPEN;
	c->deadline_ms = 0;
	start_reading(v, c);
}

static void on_control(struct vsock *v, struct vsock_conn *c, const struct virtio_vsock_hdr *hdr)
{
	if (c->state == VSOCK_CONN_REQUESTED && hdr->op != VIRTIO_VSOCK_OP_RESPONSE &&
	    hdr->op != VIRTIO_VSOCK_OP_RST) {
		refuse_conn(v, c, hdr, "out of turn");
		return;
	}
	switch (hdr->op) {
	case VIRTIO_VSOCK_OP_RESPONSE:
		on_response(v, c, hdr);
		break;
	case VIRTIO_VSOCK_OP_RST:
		forget(v, c);
		break;
	case VIRTIO_VSOCK_OP_SHUTDOWN:
		on_shutdown(v, c, hdr->flags);
		break;
	case VIRTIO_VSOCK_OP_CREDIT_UPDATE:
		break; /* every packet says it */
	case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
		vsock_owe(v, c, VSOCK_OWED_CREDIT_UPDATE);
		break;
	default:
		refuse_conn(v, c, hdr, "unknown operation, or a port that is in use");
	}
}

static void note_credit(struct vsock *v, struct vsock_conn *c, const struct virtio_vsock_hdr *hdr)
{
	c->peer_buf_alloc = hdr->buf_alloc;
	c->peer_fwd_cnt = hdr->fwd_cnt;
	if (c->waiting_credit && vsock_conn_credit(c)) {
		c->waiting_credit = false;
		if (list_empty(&c->run_link))
			list_append(&v->run, &c->run_link);
	}
}

/* Handles the packet in v->chain.  True: its buffers are still in use. */
static bool on_packet(struct vsock *v, const struct virtio_vsock_hdr *hdr)
{
	struct vsock_conn *c;

	v->stats.packets_from_guest++;
	if (hdr->src_cid != VIRTIO_VSOCK_GUEST_CID) {
		v->stats.refused++; /* whoever that is, we cannot answer it */
		return false;
	}
	if (hdr->dst_cid != VSOCK_HOST_CID || hdr->type != VIRTIO_VSOCK_TYPE_STREAM) {
		refuse(v, hdr, "not a stream to the host");
		return false;
	}
	c = v->out.conn;
	if (!c || c->guest_port != hdr->src_port || c->host_port != hdr->dst_port)
		c = find(v, hdr->src_port, hdr->dst_port);
	if (c)
		note_credit(v, c, hdr);
	if (c && hdr->op == VIRTIO_VSOCK_OP_RW)
		return collect(v, c, hdr);
	send_collected(v);
	if (c)
		on_control(v, c, hdr);
	else if (hdr->op == VIRTIO_VSOCK_OP_REQUEST)
		on_request(v, hdr);
	else if (hdr->op != VIRTIO_VSOCK_OP_RST)
		refuse(v, hdr, "no such connection");
	return false;
}

static void say_taken(struct vsock *v)
{
	loop_timer_cancel(&v->quiet);
	v->unsaid = 0;
	v->unsaid_bytes = 0;
	virtio_queue_flush(&v->dev, VSOCK_QUEUE_FROM_GUEST);
}

static void from_guest(struct vsock *v)
{
	struct virtq *q = &v->dev.queues[VSOCK_QUEUE_FROM_GUEST];
	unsigned budget = QUEUE_SIZE;

	virtq_refuse_notify(q);
	while (budget && v->n_resets < VSOCK_RESETS_PAUSE &&
	       virtio_device_pop(&v->dev, VSOCK_QUEUE_FROM_GUEST, &v->chain)) {
		struct virtio_vsock_hdr hdr;

		if (iovs_read(v->chain.iov, v->chain.n_out, 0, &hdr, VSOCK_HDR) < VSOCK_HDR) {
			virtio_device_broken(&v->dev, "packet shorter than its header");
			break;
		}
		if (!on_packet(v, &hdr))
			virtq_push(q, v->chain.head, 0);
		v->unsaid++;
		v->unsaid_bytes += v->chain.out_bytes;
		budget--;
	}
	send_collected(v);
	if (v->unsaid >= QUEUE_SIZE / 4 || v->unsaid_bytes >= QUIET_BYTES)
		say_taken(v);
	else if (v->unsaid && !v->quiet.armed)
		loop_timer_arm(v->loop, &v->quiet, QUIET_MS);
	v->paused = v->n_resets >= VSOCK_RESETS_PAUSE;
	vsock_to_guest(v);
	if (!v->paused && virtq_want_notify(q))
		v->dev.transport->renotify(&v->dev, VSOCK_QUEUE_FROM_GUEST);
}

/* ---- the device ---- */

static void quiet_expired(struct loop_timer *timer)
{
	say_taken(container_of(timer, struct vsock, quiet));
}

/* Ends what is past its deadline; returns whether others have one. */
static bool check_deadlines(struct vsock *v, struct list *head, int64_t now)
{
	struct vsock_conn *c, *next;
	bool more = false;

	list_for_each_safe (c, next, head, link) {
		if (!c->deadline_ms)
			continue;
		if (c->deadline_ms > now)
			more = true;
		else if (c->state == VSOCK_CONN_LINGERING)
			forget(v, c);
		else
			reset_conn(v, c);
	}
	return more;
}

/* Linux tells of its own accord; asking at once would cost it an answer each time. */
static void ask_expired(struct loop_timer *timer)
{
	struct vsock *v = container_of(timer, struct vsock, ask);
	struct vsock_conn *c;

	for (int i = 0; i < VSOCK_BUCKETS; i++)
		list_for_each (c, &v->table[i], link)
			if (c->waiting_credit && c->state == VSOCK_CONN_OPEN)
				vsock_owe(v, c, VSOCK_OWED_CREDIT_REQUEST);
	vsock_to_guest(v);
}

static void tick_expired(struct loop_timer *timer)
{
	struct vsock *v = container_of(timer, struct vsock, tick);
	int64_t now = clock_now_ms();
	bool more = check_deadlines(v, &v->lingering, now);

	resume_listeners(v);
	for (int i = 0; i < VSOCK_BUCKETS; i++)
		more |= check_deadlines(v, &v->table[i], now);
	if (more && !v->tick.armed)
		loop_timer_arm(v->loop, &v->tick, TICK_MS);
	if (v->dev.active)
		vsock_to_guest(v);
}

static void vsock_notified(struct virtio_device *dev, unsigned q)
{
	struct vsock *v = (struct vsock *)dev;

	if (q == VSOCK_QUEUE_FROM_GUEST)
		from_guest(v);
	else if (q == VSOCK_QUEUE_TO_GUEST)
		vsock_to_guest(v);
	/* the event queue's buffers wait for a migration, which does not happen */
}

static void vsock_activate(struct virtio_device *dev)
{
	struct vsock *v = (struct vsock *)dev;

	v->listeners_paused = false;
	for (int i = 0; i < v->n_listeners; i++)
		if (loop_add(v->loop, &v->listeners[i].source, EPOLLIN))
			log_warn("vsock: guest port %u cannot be reached",
				 v->listeners[i].guest_port);
	virtq_refuse_notify(&dev->queues[VSOCK_QUEUE_EVENT]);
	from_guest(v);
}

/* The guest forgets its connections.  What it sent before still goes out. */
static void vsock_reset(struct virtio_device *dev)
{
	struct vsock *v = (struct vsock *)dev;
	struct vsock_conn *c, *next;

	for (int i = 0; i < v->n_listeners; i++)
		loop_remove(&v->listeners[i].source);
	v->out.conn = NULL;
	v->out.n_heads = v->out.n_iov = 0;
	v->out.len = 0;
	for (int i = 0; i < VSOCK_BUCKETS; i++)
		list_for_each_safe (c, next, &v->table[i], link) {
			if (c->staged_len && c->source.loop)
				linger(v, c);
			else
				forget(v, c);
		}
	v->n_resets = 0;
	v->paused = false;
	v->unsaid = 0;
	v->unsaid_bytes = 0;
	loop_timer_cancel(&v->quiet);
	loop_timer_cancel(&v->ask);
}

static void vsock_config_read(struct virtio_device *dev, size_t off, void *to, size_t len)
{
	const struct virtio_vsock_config config = {.guest_cid = VIRTIO_VSOCK_GUEST_CID};

	(void)dev;
	memcpy(to, (const char *)&config + off, len);
}

/* The loop does not run any more.  False: the socket has not taken all.  #syscalls: poll */
static bool drain_until(struct vsock_conn *c, int64_t end_ms)
{
	while (!vsock_conn_drain(c) && c->staged_len) {
		struct pollfd pfd = {.fd = c->source.fd, .events = POLLOUT};
		int left = loop_left_ms(end_ms);

		if (!left || poll(&pfd, 1, left) <= 0 || (pfd.revents & POLLHUP))
			break;
	}
	return !c->staged_len;
}

static void vsock_destroy(struct virtio_device *dev)
{
	struct vsock *v = (struct vsock *)dev;
	int64_t end_ms = clock_now_ms() + FAREWELL_MS;
	struct vsock_conn *c, *next;

	vsock_reset(dev);
	list_for_each_safe (c, next, &v->lingering, link) {
		if (!drain_until(c, end_ms))
			log_dbg("vsock: the last %zu bytes of a connection are lost",
				c->staged_len);
		forget(v, c);
	}
	loop_timer_cancel(&v->tick);
	for (int i = 0; i < v->n_listeners; i++)
		pil_close_p(&v->listeners[i].source.fd);
	for (int i = 0; i < v->n_routes; i++)
		free(v->routes[i].path);
	free(v);
}

static const struct virtio_ops vsock_ops = {
	.name = "vsock",
	.device_id = VIRTIO_ID_VSOCK,
	.pci_class = 0x078000, /* other communication device */
	.n_queues = VSOCK_NUM_QUEUES,
	.config_read = vsock_config_read,
	.activate = vsock_activate,
	.reset = vsock_reset,
	.notified = vsock_notified,
	.destroy = vsock_destroy,
};

int virtio_vsock_create(struct virtio_device **out, struct loop *loop, struct pil_err *err)
{
	struct vsock *v = calloc(1, sizeof(*v));

	if (!v)
		return pil_err_set(err, ENOMEM, "vsock device");
	v->dev.ops = &vsock_ops;
	v->dev.config_bytes = sizeof(struct virtio_vsock_config);
	for (int i = 0; i < VSOCK_NUM_QUEUES; i++)
		v->dev.queues[i].max_size = QUEUE_SIZE;
	v->loop = loop;
	for (int i = 0; i < VSOCK_BUCKETS; i++)
		list_init(&v->table[i]);
	list_init(&v->lingering);
	list_init(&v->owing);
	list_init(&v->run);
	v->next_host_port = FIRST_HOST_PORT;
	v->tick.expired = tick_expired;
	v->ask.expired = ask_expired;
	v->quiet.expired = quiet_expired;
	*out = &v->dev;
	return 0;
}

int virtio_vsock_listen(struct virtio_device *dev, int fd, uint32_t guest_port, struct pil_err *err)
{
	struct vsock *v = (struct vsock *)dev;
	struct vsock_listener *l = &v->listeners[v->n_listeners];
	int rc;

	if (v->n_listeners == VIRTIO_VSOCK_MAX_ROUTES)
		return pil_err_say(err, E2BIG, "vsock: more than %d ports of the guest",
				   VIRTIO_VSOCK_MAX_ROUTES);
	rc = pil_set_nonblock(fd, true);
	if (rc)
		return pil_err_set(err, -rc, "vsock: listen on descriptor %d", fd);
	*l = (struct vsock_listener){.source = {.fd = fd, .ready = listener_ready},
				     .vsock = v,
				     .guest_port = guest_port};
	v->n_listeners++;
	return 0;
}

int virtio_vsock_connect(struct virtio_device *dev, uint32_t host_port, const char *path,
			 struct pil_err *err)
{
	struct vsock *v = (struct vsock *)dev;

	if (v->n_routes == VIRTIO_VSOCK_MAX_ROUTES)
		return pil_err_say(err, E2BIG, "vsock: more than %d ports of the host",
				   VIRTIO_VSOCK_MAX_ROUTES);
	if (strlen(path) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
		return pil_err_set(err, ENAMETOOLONG, "vsock: socket '%s'", path);
	v->routes[v->n_routes++] = (struct vsock_route){host_port, str_printf("%s", path)};
	return 0;
}

void virtio_vsock_trace(struct virtio_device *dev, void (*seen)(uint32_t host_port, bool data))
{
	((struct vsock *)dev)->seen = seen;
}

const struct virtio_vsock_stats *virtio_vsock_stats(const struct virtio_device *dev)
{
	return &((const struct vsock *)dev)->stats;
}
