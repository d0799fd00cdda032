/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion-gate: between the programs of one machine and the broker.
 *
 *   pillion-gate --machine NAME --listen-fd FD [--control-fd FD]
 *
 * Theory of operation: whoever takes bytes off a Unix socket, or closes it, drops the descriptors
 * that the peer has queued there, and may have to wait for as long as the peer likes (queued.h).
 * So nobody that others depend on does this for a guest.  This process does: it serves one machine,
 * and its supervisor replaces it when it does not answer.
 *
 * It accepts, reads the hello and asks the broker (host.h).  A program that wants its devices
 * listed is answered from here.  One that opens a session has its stream handed over; we keep our
 * copy until a pipe tells us that only the session holds the stream: until then neither the broker
 * nor the main thread of an executor can be the last to close it.  After that we have no part in
 * the traffic.  While the broker has a stream whose fate we do not know we touch no other: we
 * cannot get stuck, and so be killed, and leave the broker with it.
 *
 * Where the kernel can, the listener takes no descriptors in the first place, and what it accepts
 * does not until its session says so.  Elsewhere a drop takes QUEUED_DROP_MS at most.
 *
 * A hello must be complete within HELLO_MS, and only MAX_PENDING may be under way: when more come,
 * the oldest goes of the process that has the most.  A fresh stream is read at once, before it
 * joins them, and programs send their hello as they connect, and once more if it was not heard; so
 * programs that dawdle cannot keep another one out.
 *
 * A whole one waits for the broker.  The supervisor starts another one as soon as one ends, so all
 * are told that there is none once it has been missing for BROKER_MS; who comes later is told at
 * once, so that a program which asks many times waits for it once in all.  One that is there and
 * does not answer is waited for longer, ANSWER_MS, and then as if it were missing. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/queued.h"
#include "base/str.h"
#include "broker/broker.h"
#include "broker/hello.h"
#include "broker/host.h"

enum {
	HELLO_MS = 2000,
	MAX_PENDING = 64,
	ACCEPT_BATCH = 32,
	ACCEPT_PAUSE_MS = 100,
	BROKER_MS = 1000,
	ANSWER_MS = 5000, /* of the broker, to one request */
	SILENT_MS = 500,  /* the same, of one that has not answered the last one */
	RETRY_MS = 50,    /* to connect to it */
	FORGET_MS = 2000, /* that it was missing */
};

struct gate {
	struct state_dirs dirs;
	const char *machine;
	struct loop *loop;
	struct loop_source listener, control; /* control: the supervisor's; fd -1: none */
	struct loop_timer accept_pause, retry;
	bool refuses;  /* descriptors, by itself */
	int broker_fd; /* -1: not connected */
	/* When the broker was first missed, 0: it was there; and when last. */
	int64_t missed_ms, missed_last_ms;
	struct list pending; /* client::link, oldest first: with an unfinished hello */
	struct list waiting; /* client::link, oldest first: for the broker */
	struct list held;    /* client::link: streams that others hold as well */
	int n_pending;
	struct log_limit mistakes;
	unsigned n_mistakes;
};

struct client {
	struct gate *gate;
	struct loop_source source; /* the stream */
	struct loop_source lease;  /* our end of the pipe; fd -1: nobody else has the stream */
	struct loop_timer deadline;
	struct list link;
	bool pending;
	pid_t pid; /* whose stream it is; 0: of a namespace we cannot see */
	enum hello_state state;
	struct hello hello;
};

static void drop_begin(const struct gate *g)
{
	if (!g->refuses)
		queued_drop_begin();
}

static void drop_end(const struct gate *g)
{
	if (!g->refuses)
		queued_drop_end();
}

/* Takes it out of the hellos under way. */
static void settle(struct client *c, struct list *among)
{
	if (c->pending)
		c->gate->n_pending--;
	c->pending = false;
	loop_remove(&c->source);
	loop_timer_cancel(&c->deadline);
	list_remove(&c->link);
	if (among)
		list_append(among, &c->link);
}

static void client_destroy(struct client *c)
{
	settle(c, NULL);
	loop_remove(&c->lease);
	drop_begin(c->gate);
	pil_close_p(&c->source.fd);
	drop_end(c->gate);
	pil_close_p(&c->lease.fd);
	free(c);
}

static void mistake(struct gate *g, const char *what)
{
	unsigned held_back = g->mistakes.held_back;

	g->n_mistakes++;
	if (log_allowed(&g->mistakes))
		log_warn("hello refused: %s (%u more, %u in all)", what, held_back, g->n_mistakes);
}

/* The socket buffer of a fresh stream holds any answer of ours. */
static void answer(struct client *c, enum wire_status status, const struct wire_device *devices,
		   uint32_t n)
{
	struct wire_hello_answer a = {.magic = WIRE_MAGIC,
				      .version = WIRE_VERSION,
				      .status = (uint16_t)status,
				      .n_devices = n};
	struct iovec iov[] = {{&a, sizeof(a)}, {(void *)devices, sizeof(*devices) * n}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 1 + (n > 0)};

	if (status != WIRE_OK)
		mistake(c->gate, wire_status_str[status]);
	if (sendmsg(c->source.fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		mistake(c->gate, "gone before the answer");
}

/* ---- the supervisor ---- */

static void control_ready(struct loop_source *source, uint32_t events)
{
	struct gate *g = container_of(source, struct gate, control);
	char ping;
	ssize_t n = recv(source->fd, &ping, sizeof(ping), MSG_DONTWAIT);

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0 || send(source->fd, &ping, sizeof(ping), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		loop_stop(g->loop, 0); /* the machine is over */
}

/* ---- the broker ---- */

static bool connected(struct gate *g)
{
	char c;

	/* it says nothing unasked: readable is ended */
	if (g->broker_fd >= 0 && (recv(g->broker_fd, &c, 1, MSG_DONTWAIT) >= 0 || errno != EAGAIN))
		pil_close_p(&g->broker_fd);
	if (g->broker_fd < 0)
		g->broker_fd = broker_connect(&g->dirs);
	if (g->broker_fd < 0)
		g->broker_fd = -1;
	return g->broker_fd >= 0;
}

/* It is missing, or does not answer.  That it was so long ago says nothing about now. */
static void note_missed(struct gate *g)
{
	int64_t now = loop_now_ms();

	if (!g->missed_ms || now - g->missed_last_ms > FORGET_MS)
		g->missed_ms = now;
	g->missed_last_ms = now;
}

/* Nothing but the supervisor is heard meanwhile. */
static bool await_broker(struct gate *g)
{
	int64_t due_ms = loop_now_ms() + (g->missed_ms ? SILENT_MS : ANSWER_MS);

	for (;;) {
		struct pollfd p[] = {{.fd = g->broker_fd, .events = POLLIN},
				     {.fd = g->control.fd, .events = POLLIN}};
		int left = loop_left_ms(due_ms);

		if (left == 0 || (poll(p, 2, left) < 0 && errno != EINTR))
			return false;
		if (p[1].revents & (POLLHUP | POLLERR))
			return false;
		if (p[1].revents)
			control_ready(&g->control, EPOLLIN);
		if (p[0].revents)
			return true;
	}
}

/* False: there was no answer, and this connection is of no use any more. */
static bool ask(struct client *c, const int *fds, int n_fds, struct host_answer *a)
{
	struct gate *g = c->gate;
	struct host_request r = {.kind = n_fds ? HOST_OPEN : HOST_LIST, .hello = c->hello.wire};
	const size_t head = offsetof(struct host_answer, devices);
	ssize_t n = -1;

	snprintf(r.machine, sizeof(r.machine), "%s", g->machine);
	if (pil_send_fds(g->broker_fd, &r, sizeof(r), fds, n_fds) == 0 && await_broker(g))
		n = recv(g->broker_fd, a, sizeof(*a), MSG_DONTWAIT);
	if (n >= (ssize_t)head && a->kind == r.kind && a->status < WIRE_NUM_STATUSES &&
	    a->n_devices <= WIRE_MAX_DEVICES &&
	    (size_t)n >= head + a->n_devices * sizeof(a->devices[0])) {
		g->missed_ms = 0;
		return true;
	}
	pil_close_p(&g->broker_fd);
	note_missed(g);
	return false;
}

static void lease_over(struct loop_source *source, uint32_t events)
{
	(void)events;
	client_destroy(container_of(source, struct client, lease));
}

/* The stream stays ours until the other end of the pipe is closed, whatever the answer. */
static void open_session(struct client *c)
{
	struct gate *g = c->gate;
	struct host_answer a;
	int fds[HOST_FDS], lease[2];

	if (pipe2(lease, O_CLOEXEC)) {
		answer(c, WIRE_E_BUSY, NULL, 0);
		client_destroy(c);
		return;
	}
	fds[0] = c->source.fd;
	fds[1] = lease[1];
	c->lease = (struct loop_source){.fd = lease[0], .ready = lease_over};
	settle(c, &g->held);
	if (!ask(c, fds, HOST_FDS, &a))
		mistake(g, "the broker does not answer");
	else if (a.status != WIRE_OK)
		mistake(g, wire_status_str[a.status]);
	close(lease[1]);
	if (loop_add(g->loop, &c->lease, 0)) /* the end of it is always told */
		client_destroy(c);
}

/* False: there was no answer, and @c still waits. */
static bool list_devices(struct client *c)
{
	struct host_answer a;

	if (!ask(c, NULL, 0, &a))
		return false;
	answer(c, (enum wire_status)a.status, a.devices, a.n_devices);
	client_destroy(c);
	return true;
}

static void wait_on(struct gate *g)
{
	struct client *c, *next;

	if (loop_left_ms(g->missed_ms + BROKER_MS)) {
		loop_timer_arm(g->loop, &g->retry, RETRY_MS);
		return;
	}
	list_for_each_safe (c, next, &g->waiting, link) {
		answer(c, WIRE_E_NO_BROKER, NULL, 0);
		client_destroy(c);
	}
}

static void serve_waiting(struct gate *g)
{
	struct client *c, *next;

	list_for_each_safe (c, next, &g->waiting, link) {
		if (!connected(g)) {
			note_missed(g);
			wait_on(g);
			return;
		}
		if (c->state == HELLO_OPEN) {
			open_session(c);
		} else if (!list_devices(c)) {
			wait_on(g);
			return;
		}
	}
}

static void retry_expired(struct loop_timer *timer)
{
	serve_waiting(container_of(timer, struct gate, retry));
}

/* ---- hellos ---- */

static void client_late(struct loop_timer *timer)
{
	struct client *c = container_of(timer, struct client, deadline);

	mistake(c->gate, "not complete in time");
	client_destroy(c);
}

static void client_wait(struct client *c)
{
	struct gate *g = c->gate;

	settle(c, &g->waiting);
	if (!g->retry.armed)
		serve_waiting(g);
}

/* Reads what is there.  False: @c has gone, or waits for the broker. */
static bool client_read(struct client *c)
{
	size_t len;
	void *room = hello_room(&c->hello, &len);
	ssize_t n;

	drop_begin(c->gate);
	n = recv(c->source.fd, room, len, MSG_DONTWAIT); /* descriptors are dropped */
	drop_end(c->gate);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	c->state = n > 0 ? hello_received(&c->hello, (size_t)n) : HELLO_BAD;
	if (c->state == HELLO_MORE)
		return true;
	if (c->state == HELLO_LIST || c->state == HELLO_OPEN) {
		client_wait(c);
		return false;
	}
	if (c->state == HELLO_OTHER)
		answer(c, WIRE_E_VERSION, NULL, 0);
	else if (n > 0)
		mistake(c->gate, "not a pillion stream");
	client_destroy(c);
	return false;
}

static void client_ready(struct loop_source *source, uint32_t events)
{
	(void)events;
	client_read(container_of(source, struct client, source));
}

static int count_pending(struct gate *g, pid_t pid)
{
	struct client *c;
	int n = 0;

	list_for_each (c, &g->pending, link)
		n += c->pid == pid;
	return n;
}

static void drop_one(struct gate *g)
{
	struct client *c, *victim = NULL;
	int most = 0;

	list_for_each (c, &g->pending, link) { /* of equals the oldest */
		int n = count_pending(g, c->pid);

		if (n > most) {
			most = n;
			victim = c;
		}
	}
	mistake(g, "too many unfinished ones, one goes");
	if (victim)
		client_destroy(victim);
}

static void accept_one(struct gate *g, int fd)
{
	struct client *c = calloc(1, sizeof(*c));
	struct ucred peer = {0};
	socklen_t len = sizeof(peer);

	if (!c) {
		close(fd);
		return;
	}
	c->gate = g;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0)
		c->pid = peer.pid;
	c->source = (struct loop_source){.fd = fd, .ready = client_ready};
	c->lease.fd = -1;
	c->deadline.expired = client_late;
	list_append(&g->pending, &c->link);
	c->pending = true;
	g->n_pending++;
	if (!client_read(c))
		return;
	if (loop_add(g->loop, &c->source, EPOLLIN)) {
		client_destroy(c);
		return;
	}
	loop_timer_arm(g->loop, &c->deadline, HELLO_MS);
	if (g->n_pending > MAX_PENDING)
		drop_one(g);
}

static void listener_ready(struct loop_source *source, uint32_t events)
{
	struct gate *g = container_of(source, struct gate, listener);

	(void)events;
	for (int i = 0; i < ACCEPT_BATCH; i++) {
		int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC);

		if (fd >= 0) {
			accept_one(g, fd);
		} else if (errno != EMFILE && errno != ENFILE && errno != ENOMEM) {
			return;
		} else if (g->n_pending) {
			drop_one(g);
		} else { /* it stays readable: do not spin on it */
			loop_remove(source);
			loop_timer_arm(g->loop, &g->accept_pause, ACCEPT_PAUSE_MS);
			return;
		}
	}
}

static void accept_again(struct loop_timer *timer)
{
	struct gate *g = container_of(timer, struct gate, accept_pause);

	if (loop_add(g->loop, &g->listener, EPOLLIN))
		loop_stop(g->loop, -ENOMEM); /* deaf: let another one be started */
}

/* ---- life ---- */

static int run(struct gate *g, struct pil_err *err)
{
	int ret = state_dirs_init(&g->dirs, err);

	if (ret)
		return ret;
	g->refuses = queued_fds_refuse(g->listener.fd) == 0;
	pil_set_nonblock(g->listener.fd, true);
	ret = loop_create(&g->loop);
	if (!ret)
		ret = loop_add(g->loop, &g->listener, EPOLLIN);
	if (!ret && g->control.fd >= 0)
		ret = loop_add(g->loop, &g->control, EPOLLIN);
	return ret ? pil_err_set(err, -ret, "serve the programs of '%s'", g->machine)
		   : loop_run(g->loop);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"machine", required_argument, NULL, 'm'},
		{"listen-fd", required_argument, NULL, 'l'},
		{"control-fd", required_argument, NULL, 'c'},
		{0},
	};
	struct gate g = {.listener = {.fd = -1, .ready = listener_ready},
			 .control = {.fd = -1, .ready = control_ready},
			 .accept_pause.expired = accept_again,
			 .retry.expired = retry_expired,
			 .broker_fd = -1};
	struct pil_err err = {0};
	uint64_t fd;
	int c;

	log_init("pillion-gate");
	pil_raise_fd_limit();
	signal(SIGPIPE, SIG_IGN);
	list_init(&g.pending);
	list_init(&g.waiting);
	list_init(&g.held);
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'm' && str_is_name(optarg))
			g.machine = optarg;
		else if (c == 'l' && str_to_u64(optarg, INT32_MAX, &fd))
			g.listener.fd = (int)fd;
		else if (c == 'c' && str_to_u64(optarg, INT32_MAX, &fd))
			g.control.fd = (int)fd;
		else
			return EXIT_FAILURE;
	}
	if (!g.machine || g.listener.fd < 0) {
		log_err("usage: pillion-gate --machine NAME --listen-fd FD [--control-fd FD]");
		return EXIT_FAILURE;
	}
	if (run(&g, &err)) {
		log_err("%s", err.msg);
		return EXIT_FAILURE;
	}
	return EXIT_SUCCESS; /* the kernel drops what is left, and waits for nobody */
}
