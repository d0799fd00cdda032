/* SPDX-License-Identifier: Apache-2.0
 *
 * channel.c -- the stream to an executor.
 *
 * Model.  Commands are numbered in the order they are queued (seq); the executor carries them out
 * in that order and answers some of them in that order, so one answer proves everything before it
 * (done).  pending[] is the ring of answers still to come.  A token of a language model is a few
 * small SETs, a GRAPH_RUN and a read: all are queued, the wait for the read sends them with one
 * system call and receives the answer with another.
 *
 * Both ends may have much to say at once: while we send and the kernel's buffer is full, answers
 * are taken in as well, otherwise an executor that is blocked on writing an answer would never read
 * the rest of our commands.
 *
 * What comes back is not trusted: an answer must be the one expected, with exactly the data asked
 * for, else the channel ends.  Nothing is allocated on behalf of the peer. */
#include "link/channel.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"

enum {
	LIST_TIMEOUT_MS = 4000,
	HELLO_TIMEOUT_MS = 10000,  /* a broker that is stuck may have to be replaced */
	OPEN_TIMEOUT_MS = 20000,   /* an executor may have to start, with a driver to load */
	STALL_TIMEOUT_MS = 600000, /* one command on a very slow device */
	SLICE_MS = 1000,
	SPIN_US = 50,
	SLOT_USED = 1 << 15,
	SLOT_GENERATIONS = 1 << 12, /* what fits above WIRE_SLOT_BITS */
};

/* ---- handles ---- */

static bool slots_init(struct channel_slots *slots, uint32_t limit)
{
	slots->limit = limit;
	slots->generation = calloc(limit, sizeof(*slots->generation));
	return slots->generation != NULL;
}

uint32_t channel_slot_take(struct channel_slots *slots)
{
	if (slots->n_used == slots->limit)
		return 0;
	for (uint32_t i = 0; i < slots->limit; i++) {
		uint32_t slot = (slots->next + i) % slots->limit;
		uint16_t gen = slots->generation[slot];

		if (gen & SLOT_USED)
			continue;
		gen = (uint16_t)(gen + 1 == SLOT_GENERATIONS ? 1 : gen + 1);
		slots->generation[slot] = gen | SLOT_USED;
		slots->next = slot + 1;
		slots->n_used++;
		return wire_handle(slot, gen);
	}
	return 0;
}

void channel_slot_give(struct channel_slots *slots, uint32_t handle)
{
	uint32_t slot = wire_slot(handle);

	if (!handle || !(slots->generation[slot] & SLOT_USED))
		return;
	slots->generation[slot] &= (uint16_t)~SLOT_USED;
	slots->n_used--;
}

/* ---- the end ---- */

static void dest_zero(const struct channel_dest *dest)
{
	for (uint64_t i = 0; dest->data && i < dest->n_rows; i++)
		memset((char *)dest->data + i * dest->stride, 0, dest->row_bytes);
}

void channel_fail(struct channel *chan, const char *fmt, ...)
{
	char why[200];
	va_list ap;

	if (chan->dead)
		return;
	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	chan->dead = true;
	log_err("the device is gone: %s; start the program again", why);
	shutdown(chan->fd, SHUT_RDWR);
	for (; chan->n_pending; chan->n_pending--) {
		struct channel_pending *p = &chan->pending[chan->pending_first];

		dest_zero(&p->dest);
		if (p->answer)
			*p->answer = (struct wire_answer){.op = p->op, .status = WIRE_E_EXECUTOR};
		chan->pending_first = (chan->pending_first + 1) % CHANNEL_MAX_PENDING;
	}
	chan->out_len = 0;
	chan->failed = WIRE_E_EXECUTOR;
}

static void fail_errno(struct channel *chan, const char *doing, int err)
{
	if (err == EPIPE || err == ECONNRESET)
		channel_fail(chan, "its executor ended");
	else
		channel_fail(chan, "%s: %s", doing, strerror(err));
}

/* ---- receiving ---- */

/* Receives 1..@len bytes; waits at most the stall time.  0: the channel is dead now.
 *
 * Waits in poll() and not in recv(): the executor's taking of what we sent wakes a thread in
 * recv(), for its socket can be written to again; poll() knows that we want to read.  On one CPU
 * that is two context switches less per token. */
static size_t receive_some(struct channel *chan, void *buf, size_t len)
{
	bool spin = !(chan->welcome.flags & WIRE_WELCOME_REFERENCE);
	int64_t start = 0;

	for (;;) {
		struct pollfd p = {.fd = chan->fd, .events = POLLIN};
		ssize_t n = spin || poll(&p, 1, SLICE_MS) >= 0
				    ? recv(chan->fd, buf, len, MSG_DONTWAIT)
				    : -1;

		if (n > 0)
			return (size_t)n;
		if (n == 0) {
			channel_fail(chan, "its executor ended");
			return 0;
		}
		if (errno != EAGAIN && errno != EINTR) {
			fail_errno(chan, "receive", errno);
			return 0;
		}
		if (!start)
			start = clock_now_us();
		if (spin)
			spin = clock_now_us() - start < SPIN_US;
		else if (clock_now_us() - start > (int64_t)chan->stall_ms * 1000) {
			channel_fail(chan, "no answer for %d s", chan->stall_ms / 1000);
			return 0;
		}
	}
}

static bool receive_row(struct channel *chan, char *row, uint64_t len)
{
	uint64_t have = chan->in_len - chan->in_pos;

	if (have > len)
		have = len;
	memcpy(row, chan->in + chan->in_pos, have);
	chan->in_pos += (uint32_t)have;
	for (uint64_t at = have; at < len;) {
		size_t n = receive_some(chan, row + at, len - at);

		if (!n)
			return false;
		at += n;
	}
	return true;
}

static bool receive_header(struct channel *chan, struct wire_answer *answer)
{
	uint32_t have = chan->in_len - chan->in_pos;

	if (have < sizeof(*answer)) {
		memmove(chan->in, chan->in + chan->in_pos, have);
		chan->in_pos = 0;
		chan->in_len = have;
	}
	while (chan->in_len - chan->in_pos < sizeof(*answer)) {
		size_t n = receive_some(chan, chan->in + chan->in_len,
					CHANNEL_IN_BYTES - chan->in_len);

		if (!n)
			return false;
		chan->in_len += (uint32_t)n;
	}
	memcpy(answer, chan->in + chan->in_pos, sizeof(*answer));
	chan->in_pos += sizeof(*answer);
	return true;
}

static void note_device_time(struct channel *chan, uint64_t seq, uint32_t us)
{
	if (!chan->n_runs || seq < chan->run_seq)
		return;
	if (chan->n_runs == 1 && chan->run_us)
		*chan->run_us = us;
	chan->n_runs = 0;
}

/* One that was asked for, once. */
static bool take_event(struct channel *chan, const struct wire_answer *a)
{
	uint32_t slot = wire_slot((uint32_t)a->value);
	struct channel_event *e = slot < WIRE_MAX_EVENTS ? &chan->event[slot] : NULL;

	if (!chan->api->has_events || !e || !e->wanted || e->done ||
	    a->value != wire_handle(slot, chan->events.generation[slot] & ~SLOT_USED) ||
	    a->status >= WIRE_NUM_STATUSES || a->body_bytes) {
		channel_fail(chan, "its executor told of an event that nobody waits for");
		return false;
	}
	e->done = true;
	e->status = a->status;
	return true;
}

/* Takes in the answer that is due next, or an event. */
static bool receive_answer(struct channel *chan)
{
	struct channel_pending *p = &chan->pending[chan->pending_first];
	struct wire_answer answer;
	uint64_t want;

	if (!receive_header(chan, &answer))
		return false;
	if (answer.op == WIRE_OP_EVENT)
		return take_event(chan, &answer);
	if (!chan->n_pending) {
		channel_fail(chan, "its executor answered what nobody asked");
		return false;
	}
	want = answer.status == WIRE_OK ? p->dest.n_rows * p->dest.row_bytes : 0;
	if (answer.op != p->op || answer.status >= WIRE_NUM_STATUSES ||
	    answer.failed >= WIRE_NUM_STATUSES || answer.body_bytes != want) {
		channel_fail(chan, "its executor answered %u with %u", p->op, answer.op);
		return false;
	}
	for (uint64_t i = 0; want && i < p->dest.n_rows; i++)
		if (!receive_row(chan, (char *)p->dest.data + i * p->dest.stride,
				 p->dest.row_bytes))
			return false;
	if (answer.status != WIRE_OK)
		dest_zero(&p->dest);
	if (answer.failed && !chan->failed)
		chan->failed = answer.failed;
	note_device_time(chan, p->seq, answer.device_us);
	if (p->answer)
		*p->answer = answer;
	else if (answer.status && !chan->failed)
		chan->failed = answer.status;
	chan->done = p->seq;
	chan->pending_first = (chan->pending_first + 1) % CHANNEL_MAX_PENDING;
	chan->n_pending--;
	return true;
}

/* ---- sending ---- */

static bool answers_come(const struct channel *chan)
{
	return chan->n_pending || chan->api->has_events;
}

/* Waits until more can be sent, taking in answers meanwhile. */
static bool send_blocked(struct channel *chan, int64_t *start)
{
	struct pollfd pfd = {.fd = chan->fd, .events = POLLOUT | (answers_come(chan) ? POLLIN : 0)};
	int n = poll(&pfd, 1, SLICE_MS);

	if (n < 0 && errno != EINTR) {
		fail_errno(chan, "poll", errno);
		return false;
	}
	if (n > 0 && (pfd.revents & POLLIN)) {
		*start = clock_now_us();
		return receive_answer(chan);
	}
	if (n > 0)
		return true; /* a hang-up shows in the next send */
	if (clock_now_us() - *start > (int64_t)chan->stall_ms * 1000) {
		channel_fail(chan, "it takes no commands for %d s", chan->stall_ms / 1000);
		return false;
	}
	return true;
}

static bool send_all(struct channel *chan, struct iovec *iov, int n_iov)
{
	int64_t start = 0;

	while (n_iov > 0) {
		struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)n_iov};
		ssize_t n = sendmsg(chan->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			if (!start)
				start = clock_now_us();
			if (!send_blocked(chan, &start))
				return false;
			continue;
		}
		if (n < 0) {
			fail_errno(chan, "send", errno);
			return false;
		}
		start = 0;
		for (; n_iov > 0 && (size_t)n >= iov->iov_len; iov++, n_iov--)
			n -= (ssize_t)iov->iov_len;
		if (n_iov > 0) {
			iov->iov_base = (char *)iov->iov_base + n;
			iov->iov_len -= (size_t)n;
		}
	}
	return true;
}

bool channel_flush(struct channel *chan)
{
	struct iovec iov = {chan->out, chan->out_len};

	if (chan->dead)
		return false;
	if (!chan->out_len)
		return true;
	chan->out_len = 0;
	if (!send_all(chan, &iov, 1))
		return false;
	chan->sent = chan->seq;
	return true;
}

static void put_out(struct channel *chan, const void *data, uint32_t len)
{
	if (len)
		memcpy(chan->out + chan->out_len, data, len);
	chan->out_len += len;
}

/* Sends what is queued, the head of a command, and its tail from where it lies, in one go. */
static bool send_large(struct channel *chan, const void *tail, uint32_t tail_bytes, uint32_t pad)
{
	static const uint8_t zero[WIRE_ALIGN];
	struct iovec iov[3] = {{chan->out, chan->out_len},
			       {(void *)tail, tail_bytes},
			       {(void *)zero, pad}};

	chan->out_len = 0;
	if (!send_all(chan, iov, pad ? 3 : 2))
		return false;
	chan->sent = chan->seq;
	return true;
}

uint64_t channel_queue(struct channel *chan, uint16_t op, const void *fixed, const void *tail,
		       uint32_t tail_bytes)
{
	uint32_t fixed_bytes = wire_op_find(chan->api, op)->fixed_bytes;
	struct wire_frame frame = {.op = op, .body_bytes = fixed_bytes + tail_bytes};
	uint32_t head = (uint32_t)sizeof(frame) + fixed_bytes;
	uint32_t pad = wire_padded(frame.body_bytes) - frame.body_bytes;
	bool large = tail_bytes > CHANNEL_MAX_INLINE;

	if (chan->dead)
		return 0;
	if ((uint64_t)chan->out_len + head + (large ? 0 : tail_bytes + pad) > CHANNEL_OUT_BYTES &&
	    !channel_flush(chan))
		return 0;
	put_out(chan, &frame, sizeof(frame));
	put_out(chan, fixed, fixed_bytes);
	chan->seq++;
	if (large)
		return send_large(chan, tail, tail_bytes, pad) ? chan->seq : 0;
	put_out(chan, tail, tail_bytes);
	memset(chan->out + chan->out_len, 0, pad);
	chan->out_len += pad;
	return chan->seq;
}

void channel_expect(struct channel *chan, uint16_t op, const struct channel_dest *dest,
		    struct wire_answer *answer)
{
	struct channel_pending *p;

	if (chan->n_pending == CHANNEL_MAX_PENDING && channel_flush(chan))
		while (!chan->dead && chan->n_pending == CHANNEL_MAX_PENDING)
			receive_answer(chan);
	if (chan->dead) {
		if (dest)
			dest_zero(dest);
		if (answer)
			*answer = (struct wire_answer){.op = op, .status = WIRE_E_EXECUTOR};
		return;
	}
	p = &chan->pending[(chan->pending_first + chan->n_pending++) % CHANNEL_MAX_PENDING];
	*p = (struct channel_pending){.op = op, .seq = chan->seq, .answer = answer};
	if (dest)
		p->dest = *dest;
}

/* ---- waiting ---- */

bool channel_wait(struct channel *chan, uint64_t seq)
{
	static const struct wire_empty none;

	if (chan->done >= seq)
		return !chan->dead;
	if (chan->dead)
		return false;
	if (!chan->n_pending ||
	    chan->pending[(chan->pending_first + chan->n_pending - 1) % CHANNEL_MAX_PENDING].seq <
		    seq) {
		channel_queue(chan, WIRE_OP_FENCE, &none, NULL, 0);
		channel_expect(chan, WIRE_OP_FENCE, NULL, NULL);
	}
	if (!channel_flush(chan))
		return false;
	while (!chan->dead && chan->done < seq)
		receive_answer(chan);
	return !chan->dead;
}

bool channel_synchronize(struct channel *chan)
{
	return channel_wait(chan, chan->need);
}

enum wire_status channel_call(struct channel *chan, uint16_t op, const void *fixed,
			      const void *tail, uint32_t tail_bytes,
			      const struct channel_dest *dest, struct wire_answer *answer)
{
	struct wire_answer own = {0};
	uint64_t seq;

	if (!answer)
		answer = &own;
	seq = channel_queue(chan, op, fixed, tail, tail_bytes);
	channel_expect(chan, op, dest, answer);
	if (!seq || !channel_wait(chan, seq))
		answer->status = WIRE_E_EXECUTOR;
	return answer->status;
}

/* ---- events ---- */

uint32_t channel_event_new(struct channel *chan)
{
	uint32_t event = chan->api->has_events ? channel_slot_take(&chan->events) : 0;

	if (event)
		chan->event[wire_slot(event)] = (struct channel_event){0};
	return event;
}

void channel_event_want(struct channel *chan, uint32_t event)
{
	struct wire_event c = {.event = event};

	if (!event)
		return;
	channel_queue(chan, WIRE_OP_EVENT_WANT, &c, NULL, 0);
	chan->event[wire_slot(event)].wanted = true;
}

enum wire_status channel_event_wait(struct channel *chan, uint32_t event)
{
	struct channel_event *e = &chan->event[wire_slot(event)];
	enum wire_status status;

	if (!event || !channel_flush(chan))
		return WIRE_E_EXECUTOR;
	while (!chan->dead && !e->done)
		receive_answer(chan);
	status = e->done ? (enum wire_status)e->status : WIRE_E_EXECUTOR;
	channel_slot_give(&chan->events, event);
	return status;
}

void channel_event_drop(struct channel *chan, uint32_t event)
{
	struct wire_event c = {.event = event};

	if (!event)
		return;
	channel_queue(chan, WIRE_OP_EVENT_DROP, &c, NULL, 0);
	channel_slot_give(&chan->events, event);
}

/* ---- shared memory ---- */

uint32_t channel_shm_add(struct channel *chan, int fd, uint64_t bytes, enum wire_shm_kind kind)
{
	struct {
		struct wire_frame frame;
		struct wire_shm_add add;
	} msg = {0};
	uint32_t shm;
	int err;

	if (!(chan->welcome.flags & WIRE_WELCOME_SHM) || !channel_flush(chan))
		return 0;
	/* the answers first: this one message is sent blocking */
	if (chan->n_pending && !channel_wait(chan, chan->seq))
		return 0;
	shm = channel_slot_take(&chan->shms);
	if (!shm)
		return 0;
	msg.frame = (struct wire_frame){WIRE_OP_SHM_ADD, 1, sizeof(msg.add)};
	msg.add.shm = shm;
	msg.add.kind = kind;
	msg.add.bytes = bytes;
	err = pil_send_fds(chan->fd, &msg, sizeof(msg), &fd, 1);
	if (err) {
		fail_errno(chan, "send shared memory", -err);
	} else {
		struct wire_answer answer = {0};

		chan->seq++;
		channel_expect(chan, WIRE_OP_SHM_ADD, NULL, &answer);
		if (channel_wait(chan, chan->seq) && answer.status == WIRE_OK)
			return shm;
	}
	channel_slot_give(&chan->shms, shm);
	return 0;
}

void channel_shm_drop(struct channel *chan, uint32_t shm)
{
	struct wire_shm_drop drop = {.shm = shm};

	if (!shm)
		return;
	channel_queue(chan, WIRE_OP_SHM_DROP, &drop, NULL, 0);
	channel_slot_give(&chan->shms, shm);
}

/* ---- opening ---- */

union broker_address {
	struct sockaddr any;
	struct sockaddr_un path;
	struct sockaddr_vm vsock;
};

/* "vsock:CID:PORT" or the path of a socket; its length. */
static socklen_t parse_address(const char *text, union broker_address *out)
{
	unsigned cid, port;

	memset(out, 0, sizeof(*out));
	if (sscanf(text, "vsock:%u:%u", &cid, &port) == 2) {
		out->vsock.svm_family = AF_VSOCK;
		out->vsock.svm_cid = cid;
		out->vsock.svm_port = port;
		return sizeof(out->vsock);
	}
	out->path.sun_family = AF_UNIX;
	snprintf(out->path.sun_path, sizeof(out->path.sun_path), "%s", text);
	return sizeof(out->path);
}

static int connect_broker(const struct channel_target *target, int *out, struct pil_err *err)
{
	struct timeval slice = {.tv_sec = SLICE_MS / 1000};
	union broker_address addr;
	socklen_t len = parse_address(target->broker, &addr);
	_auto_fd int fd = socket(addr.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return pil_err_set(err, errno, "socket for the broker at %s", target->broker);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &slice, sizeof(slice));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &slice, sizeof(slice));
	if (connect(fd, &addr.any, len))
		return pil_err_set(err, errno, "connect to the broker at %s", target->broker);
	*out = pil_take_fd(&fd);
	return 0;
}

/* Reads exactly @len bytes within @timeout_ms of @start_us. */
static int read_bounded(int fd, void *buf, size_t len, int64_t start_us, int timeout_ms)
{
	for (size_t at = 0; at < len;) {
		ssize_t n = recv(fd, (char *)buf + at, len - at, 0);

		if (n == 0)
			return -EPIPE;
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (n > 0)
			at += (size_t)n;
		else if (clock_now_us() - start_us > (int64_t)timeout_ms * 1000)
			return -ETIMEDOUT;
	}
	return 0;
}

static int say_hello(int fd, const struct channel_target *target, enum wire_want want,
		     uint32_t device, struct wire_hello_answer *answer, struct pil_err *err)
{
	struct wire_hello hello = {.magic = WIRE_MAGIC,
				   .version = WIRE_VERSION,
				   .want = (uint16_t)want,
				   .device = device,
				   .api = target->api->id,
				   .api_version = target->api->version};
	struct iovec iov = {&hello, sizeof(hello)};
	int rc;

	memcpy(hello.token, target->token, sizeof(hello.token));
	snprintf(hello.program, sizeof(hello.program), "%s", program_invocation_short_name);
	rc = pil_sendv_all(fd, &iov, 1);
	if (!rc)
		rc = read_bounded(fd, answer, sizeof(*answer), clock_now_us(),
				  want == WIRE_WANT_OPEN ? HELLO_TIMEOUT_MS : LIST_TIMEOUT_MS);
	if (rc)
		return pil_err_set(err, -rc, "ask the broker at %s", target->broker);
	if (answer->magic != WIRE_MAGIC || answer->status >= WIRE_NUM_STATUSES)
		return pil_err_say(err, EPROTO, "%s is not a pillion broker", target->broker);
	if (answer->version != WIRE_VERSION)
		return pil_err_say(err, EPROTO,
				   "the broker speaks version %u of the protocol, "
				   "this library %d",
				   answer->version, WIRE_VERSION);
	if (answer->status == WIRE_E_NO_BROKER)
		return pil_err_say(err, ENODEV, "ask at %s: %s", target->broker,
				   wire_status_str[answer->status]);
	if (answer->status != WIRE_OK)
		return pil_err_say(err, EACCES, "the broker refuses: %s",
				   wire_status_str[answer->status]);
	return 0;
}

/* A stream on which the broker has said yes.  One that gets too many at once may drop ours before
 * it has read what we want; it need not do so twice. */
static int ask_broker(const struct channel_target *target, enum wire_want want, uint32_t device,
		      struct wire_hello_answer *answer, int *out, struct pil_err *err)
{
	for (int tries = 1;; tries++) {
		_auto_fd int fd = -1;
		int rc = connect_broker(target, &fd, err);

		if (rc)
			return rc;
		rc = say_hello(fd, target, want, device, answer, err);
		if (!rc)
			*out = pil_take_fd(&fd);
		if (tries == 2 || (rc != -EPIPE && rc != -ECONNRESET))
			return rc;
		if (err)
			*err = (struct pil_err){0};
	}
}

int channel_list(const struct channel_target *target, struct wire_device *devices, uint32_t max,
		 uint32_t *n, struct pil_err *err)
{
	struct wire_hello_answer answer = {0};
	_auto_fd int fd = -1;
	int rc = ask_broker(target, WIRE_WANT_LIST, 0, &answer, &fd, err);

	if (rc)
		return rc;
	*n = answer.n_devices < max ? answer.n_devices : max;
	rc = read_bounded(fd, devices, *n * sizeof(*devices), clock_now_us(), LIST_TIMEOUT_MS);
	if (rc)
		return pil_err_set(err, -rc, "read the broker's list of devices");
	for (uint32_t i = 0; i < *n; i++) {
		devices[i].name[sizeof(devices[i].name) - 1] = '\0';
		devices[i].description[sizeof(devices[i].description) - 1] = '\0';
		devices[i].card[sizeof(devices[i].card) - 1] = '\0';
	}
	return 0;
}

int channel_create(struct channel **out, const struct channel_target *target, uint32_t index,
		   struct pil_err *err)
{
	struct wire_hello_answer answer;
	_auto_fd int fd = -1;
	int rc = ask_broker(target, WIRE_WANT_OPEN, index, &answer, &fd, err);

	if (rc)
		return rc;
	return channel_create_fd(out, target->api, pil_take_fd(&fd), err);
}

static bool limits_valid(const struct wire_welcome *w)
{
	return w->alignment && !(w->alignment & (w->alignment - 1)) && w->alignment <= 1 << 20;
}

/* The executor sees a Unix socket also where a monitor carries the stream from a microVM. */
static bool passes_descriptors(int fd)
{
	socklen_t len = sizeof(int);
	int domain = AF_UNSPEC;

	return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 && domain == AF_UNIX;
}

static int read_welcome(struct channel *chan, struct pil_err *err)
{
	const struct wire_welcome *w = &chan->welcome;
	int64_t start_us = clock_now_us();
	int rc = read_bounded(chan->fd, &chan->welcome, sizeof(*w), start_us, OPEN_TIMEOUT_MS);
	bool ok = w->magic == WIRE_MAGIC && w->version == WIRE_VERSION &&
		  w->status < WIRE_NUM_STATUSES;

	if (!rc && ok && w->status != WIRE_OK)
		return pil_err_say(err, EACCES, "the executor refuses: %s",
				   wire_status_str[w->status]);
	if (!rc && ok && limits_valid(w) && w->body_bytes == chan->api->welcome_bytes)
		rc = read_bounded(chan->fd, chan->welcome_body, w->body_bytes, start_us,
				  OPEN_TIMEOUT_MS);
	else if (!rc)
		return pil_err_say(err, EPROTO, "the executor's welcome is not one");
	return rc ? pil_err_set(err, -rc, "wait for the executor") : 0;
}

int channel_create_fd(struct channel **out, const struct wire_api *api, int fd, struct pil_err *err)
{
	struct timeval slice = {.tv_sec = SLICE_MS / 1000};
	struct channel *chan = calloc(1, sizeof(*chan));
	int rc;

	if (!chan) {
		close(fd);
		return pil_err_set(err, ENOMEM, "channel");
	}
	pthread_mutex_init(&chan->lock, NULL);
	chan->fd = fd;
	chan->api = api;
	chan->stall_ms = STALL_TIMEOUT_MS;
	chan->out = malloc(CHANNEL_OUT_BYTES);
	chan->in = malloc(CHANNEL_IN_BYTES);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &slice, sizeof(slice));
	chan->welcome_body = calloc(1, api->welcome_bytes + 1);
	if (!chan->out || !chan->in || !chan->welcome_body ||
	    !slots_init(&chan->buffers, api->max_buffers) ||
	    !slots_init(&chan->shms, WIRE_MAX_SHM) || !slots_init(&chan->events, WIRE_MAX_EVENTS)) {
		channel_destroy(chan);
		return pil_err_set(err, ENOMEM, "channel");
	}
	rc = read_welcome(chan, err);
	if (!passes_descriptors(fd))
		chan->welcome.flags &= ~(uint32_t)WIRE_WELCOME_SHM;
	if (rc) {
		channel_destroy(chan);
		return rc;
	}
	*out = chan;
	return 0;
}

void channel_destroy(struct channel *chan)
{
	if (!chan)
		return;
	close(chan->fd);
	free(chan->out);
	free(chan->in);
	free(chan->welcome_body);
	free(chan->buffers.generation);
	free(chan->events.generation);
	free(chan->shms.generation);
	pthread_mutex_destroy(&chan->lock);
	free(chan);
}
