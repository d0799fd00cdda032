/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: `in` is one flat buffer.  Unread bytes are moved to its start before reading
 * when the wanted run would not fit behind them; frames are multiples of 8 bytes and the buffer is
 * aligned, so every fixed part can be used where it lies: whatever is taken of a frame, the next
 * one starts at a multiple of 8 in `in`, too.
 *
 * A peer can stop in the middle of a frame for as long as it likes.  So what is large goes to where
 * it is to be, as it comes (stream_tail_into(), stream_part()), and `in` grows only for data that
 * must lie in one piece: by what its account pays for, and at most to WIRE_MAX_DATA. */
#include "exec/stream.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "exec/account.h"

int stream_init(struct stream *s, int fd, const struct wire_api *api, struct account *account)
{
	memset(s, 0, sizeof(*s));
	s->fd = fd;
	s->account = account;
	s->api = api;
	pthread_mutex_init(&s->write_lock, NULL);
	s->in = malloc(STREAM_IN_BYTES);
	s->in_cap = s->in ? STREAM_IN_BYTES : 0;
	return s->in ? 0 : -ENOMEM;
}

void stream_finish(struct stream *s)
{
	while (s->n_fds > 0)
		close(s->fds[--s->n_fds]);
	pil_close_p(&s->fd);
	if (s->in_cap > STREAM_IN_BYTES)
		account_unhold(s->account, s->in_cap - STREAM_IN_BYTES);
	pthread_mutex_destroy(&s->write_lock);
	free(s->in);
	s->in = NULL;
	s->in_cap = 0;
}

int stream_claim_fd(struct stream *s)
{
	int fd;

	if (s->n_fds == 0)
		return -1;
	fd = s->fds[0];
	memmove(s->fds, s->fds + 1, sizeof(s->fds[0]) * (size_t)--s->n_fds);
	return fd;
}

/* One read of whatever is there.  > 0, 0 at the end, -errno.  Looks before it waits: a program on
 * the same CPU has mostly run, and asked again, before our last system call returned.  Waits in
 * poll(), which our peer's taking of an answer does not wake (see receive_some() in
 * src/link/channel.c). */
static ssize_t receive(struct stream *s)
{
	struct pollfd p = {.fd = s->fd, .events = POLLIN};
	ssize_t n;
	int room;

	for (;;) {
		room = STREAM_MAX_FDS - s->n_fds;
		n = pil_recv_fds(s->fd, s->in + s->in_end, s->in_cap - s->in_end, s->fds + s->n_fds,
				 &room, MSG_DONTWAIT);
		if (n != -EAGAIN)
			break;
		if (poll(&p, 1, -1) < 0 && errno != EINTR)
			return -errno;
	}
	s->n_fds += room;
	if (n > 0)
		s->in_end += (size_t)n;
	return n;
}

/* Room for @want unread bytes. */
static bool make_room(struct stream *s, size_t want)
{
	size_t unread = s->in_end - s->in_pos;

	if (s->in_cap - s->in_pos >= want)
		return true;
	memmove(s->in, s->in + s->in_pos, unread);
	s->in_pos = 0;
	s->in_end = unread;
	return want <= s->in_cap;
}

static bool grow(struct stream *s, size_t want)
{
	size_t more = want - s->in_cap;
	uint8_t *bigger;

	if (!account_hold(s->account, more))
		return false;
	bigger = realloc(s->in, want);
	if (!bigger) {
		account_unhold(s->account, more);
		return false;
	}
	s->in = bigger;
	s->in_cap = want;
	return true;
}

/* Until @want unread bytes are there.  1, 0 at an end with nothing unread, or -errno. */
static int gather(struct stream *s, size_t want)
{
	while (s->in_end - s->in_pos < want) {
		ssize_t n;
		int err;

		if (s->in_pos == s->in_end)
			s->in_pos = s->in_end = 0;
		if (!make_room(s, want))
			return -ENOMEM;
		if (s->out_len && (err = stream_flush(s)))
			return err;
		n = receive(s);
		if (n == 0)
			return s->in_pos == s->in_end ? 0 : -EPIPE;
		if (n < 0)
			return (int)n;
	}
	return 1;
}

int stream_next(struct stream *s, struct wire_frame *frame, const void **fixed)
{
	size_t head;
	int n;

	if (s->n_fds && s->in_pos == s->in_end)
		return -EPROTO; /* descriptors that came with no frame of theirs */
	n = gather(s, sizeof(*frame));
	if (n <= 0)
		return n;
	memcpy(frame, s->in + s->in_pos, sizeof(*frame));
	s->op = wire_frame_op(s->api, frame);
	if (!s->op)
		return -EPROTO;
	head = sizeof(*frame) + s->op->fixed_bytes;
	n = gather(s, head);
	if (n <= 0)
		return n ? n : -EPIPE;
	*fixed = s->in + s->in_pos + sizeof(*frame);
	s->in_pos += head;
	return 1;
}

static uint32_t tail_bytes(const struct stream *s, const struct wire_frame *frame)
{
	return frame->body_bytes - s->op->fixed_bytes;
}

const uint8_t *stream_tail(struct stream *s, const struct wire_frame *frame)
{
	uint32_t padded = wire_padded(tail_bytes(s, frame));
	const uint8_t *tail;

	if (gather(s, padded) <= 0 && padded)
		return NULL;
	tail = s->in + s->in_pos;
	s->in_pos += padded;
	return tail;
}

bool stream_reserve(struct stream *s, const struct wire_frame *frame)
{
	uint32_t padded = wire_padded(tail_bytes(s, frame));

	return padded <= s->in_cap || grow(s, padded);
}

const uint8_t *stream_part(struct stream *s, size_t bytes)
{
	const uint8_t *part;

	if (bytes && gather(s, bytes) <= 0)
		return NULL;
	part = s->in + s->in_pos;
	s->in_pos += bytes;
	return part;
}

int stream_tail_into(struct stream *s, const struct wire_frame *frame, void *into)
{
	uint32_t bytes = tail_bytes(s, frame), padded = wire_padded(bytes);
	size_t have = s->in_end - s->in_pos, got;
	int err;

	if (have >= padded) {
		memcpy(into, s->in + s->in_pos, bytes);
		s->in_pos += padded;
		return 0;
	}
	got = have < bytes ? have : bytes;
	memcpy(into, s->in + s->in_pos, got);
	s->in_pos = s->in_end = 0; /* all that there is belongs to this frame */
	err = pil_read_all(s->fd, (char *)into + got, bytes - got);
	if (err)
		return err;
	got = have - got; /* of the padding */
	return pil_read_all(s->fd, s->in, padded - bytes - got);
}

int stream_tail_skip(struct stream *s, const struct wire_frame *frame)
{
	size_t left = wire_padded(tail_bytes(s, frame)), n;

	for (; left; left -= n) {
		n = left < STREAM_IN_BYTES / 2 ? left : STREAM_IN_BYTES / 2;
		if (!stream_part(s, n))
			return -EPIPE;
	}
	return 0;
}

static int write_out(struct stream *s, struct iovec *iov, int n)
{
	int err;

	pthread_mutex_lock(&s->write_lock);
	err = pil_sendv_all(s->fd, iov, n);
	pthread_mutex_unlock(&s->write_lock);
	return err;
}

int stream_event(struct stream *s, const struct wire_answer *event)
{
	struct iovec iov = {.iov_base = (void *)event, .iov_len = sizeof(*event)};

	return write_out(s, &iov, 1);
}

int stream_flush(struct stream *s)
{
	struct iovec iov = {.iov_base = s->out, .iov_len = s->out_len};

	s->out_len = 0;
	return iov.iov_len ? write_out(s, &iov, 1) : 0;
}

int stream_answer(struct stream *s, const struct wire_answer *answer, const void *data, size_t len)
{
	struct iovec iov[2];
	int err;

	if (s->out_len + sizeof(*answer) > sizeof(s->out) && (err = stream_flush(s)))
		return err;
	memcpy(s->out + s->out_len, answer, sizeof(*answer));
	s->out_len += sizeof(*answer);
	if (!len)
		return 0;
	iov[0] = (struct iovec){.iov_base = s->out, .iov_len = s->out_len};
	iov[1] = (struct iovec){.iov_base = (void *)data, .iov_len = len};
	s->out_len = 0;
	return write_out(s, iov, 2);
}
