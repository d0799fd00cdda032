/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: requests are small and the socket's buffer is larger than all of them
 * together, so a socket that is full means a back end that does not read: the connection ends.
 * Two answers are awaited through the loop (features, protocol features), and one with a poll():
 * a queue must be out of the back end's hands before reset() returns.
 *
 * Answers are read with read(), which closes whatever descriptors come along.  An answer must be to
 * the question asked last and have its exact length. */
#include "virtio/vhost_user.h"

#include <assert.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "virtio/virtq.h"

enum request {
	GET_FEATURES = 1,
	SET_FEATURES = 2,
	SET_OWNER = 3,
	SET_MEM_TABLE = 5,
	SET_VRING_NUM = 8,
	SET_VRING_ADDR = 9,
	SET_VRING_BASE = 10,
	GET_VRING_BASE = 11,
	SET_VRING_KICK = 12,
	SET_VRING_CALL = 13,
	GET_PROTOCOL_FEATURES = 15,
	SET_PROTOCOL_FEATURES = 16,
	SET_VRING_ENABLE = 18,
};

enum {
	VERSION = 1,
	FLAG_VERSION_MASK = 3,
	FLAG_REPLY = 4,
	F_PROTOCOL_FEATURES = 30,
};

struct message {
	uint32_t request, flags, size;
};

struct vring_state {
	uint32_t index, num;
};

struct vring_addr {
	uint32_t index, flags;
	uint64_t desc, used, avail, log;
};

struct mem_region {
	uint64_t gpa, size, user_addr, mmap_offset;
};

struct mem_table {
	uint32_t n_regions, padding;
	struct mem_region regions[GUEST_MEM_MAX_RANGES];
};

static_assert(sizeof(struct message) == 12, "message");
static_assert(sizeof(struct vring_addr) == 40, "vring_addr");
static_assert(sizeof(struct mem_region) == 32, "mem_region");
static_assert(GUEST_MEM_MAX_RANGES <= 8, "regions of one message");
static_assert(VHOST_USER_MAX_ANSWER == sizeof(struct message) + sizeof(uint64_t), "answer");

/* #syscalls: sendmsg */
static int send_message(struct vhost_user *vu, enum request request, const void *payload,
			size_t len, const int *fds, unsigned n_fds)
{
	struct message m = {.request = request, .flags = VERSION, .size = (uint32_t)len};
	struct iovec iov[2] = {{&m, sizeof(m)}, {(void *)(uintptr_t)payload, len}};
	union {
		char buf[CMSG_SPACE(sizeof(int) * GUEST_MEM_MAX_RANGES)];
		struct cmsghdr first;
	} control = {0};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = len ? 2 : 1};
	ssize_t n;

	if (vu->source.fd < 0)
		return -ENOTCONN;
	if (n_fds) {
		struct cmsghdr *c = &control.first;

		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * n_fds);
	}
	do
		n = sendmsg(vu->source.fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return (size_t)n == sizeof(m) + len ? 0 : -EIO;
}

static int send_u64(struct vhost_user *vu, enum request request, uint64_t value)
{
	return send_message(vu, request, &value, sizeof(value), NULL, 0);
}

static int send_state(struct vhost_user *vu, enum request request, unsigned index, uint32_t num)
{
	struct vring_state state = {index, num};

	return send_message(vu, request, &state, sizeof(state), NULL, 0);
}

void vhost_user_close(struct vhost_user *vu)
{
	if (vu->state == VHOST_USER_CLOSED)
		return;
	loop_remove(&vu->source);
	pil_close_p(&vu->source.fd);
	vu->state = VHOST_USER_CLOSED;
}

static void end(struct vhost_user *vu, const char *why)
{
	vhost_user_close(vu);
	vu->gone(vu, why);
}

/* Reads what there is of an answer.  1: it is complete; 0: not yet; -errno.  #syscalls: read */
static int read_answer(struct vhost_user *vu)
{
	ssize_t n = read(vu->source.fd, vu->answer + vu->have, sizeof(vu->answer) - vu->have);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (!n)
		return -EPIPE;
	vu->have += (unsigned)n;
	return vu->have == sizeof(vu->answer);
}

/* Takes a complete answer apart.  False: it is not the one to @request. */
static bool take_answer(struct vhost_user *vu, enum request request, uint64_t *value)
{
	struct message m;

	memcpy(&m, vu->answer, sizeof(m));
	memcpy(value, vu->answer + sizeof(m), sizeof(*value));
	vu->have = 0;
	return m.request == request && m.size == sizeof(*value) &&
	       (m.flags & FLAG_VERSION_MASK) == VERSION && (m.flags & FLAG_REPLY);
}

static void got_features(struct vhost_user *vu, uint64_t features)
{
	vu->features = features;
	if (!(features & UINT64_C(1) << VIRTIO_F_VERSION_1)) {
		end(vu, "the back end is too old for virtio 1");
		return;
	}
	if (!(features & UINT64_C(1) << F_PROTOCOL_FEATURES)) {
		vu->state = VHOST_USER_READY;
		vu->ready(vu);
		return;
	}
	vu->state = VHOST_USER_ASKED_PROTOCOL;
	if (send_message(vu, GET_PROTOCOL_FEATURES, NULL, 0, NULL, 0))
		end(vu, "the back end takes no requests");
}

/* None of the extensions is wanted. */
static void got_protocol(struct vhost_user *vu)
{
	if (send_u64(vu, SET_PROTOCOL_FEATURES, 0)) {
		end(vu, "the back end takes no requests");
		return;
	}
	vu->state = VHOST_USER_READY;
	vu->ready(vu);
}

static void vhost_user_ready(struct loop_source *source, uint32_t events)
{
	struct vhost_user *vu = container_of(source, struct vhost_user, source);
	uint64_t value;
	int rc;

	(void)events;
	if (vu->state == VHOST_USER_READY) {
		end(vu, read_answer(vu) < 0 ? "the back end is gone"
					    : "the back end spoke out of turn");
		return;
	}
	rc = read_answer(vu);
	if (rc < 0)
		end(vu, "the back end is gone");
	else if (rc && !take_answer(vu,
				    vu->state == VHOST_USER_ASKED_FEATURES ? GET_FEATURES
									   : GET_PROTOCOL_FEATURES,
				    &value))
		end(vu, "the back end gave a wrong answer");
	else if (rc && vu->state == VHOST_USER_ASKED_FEATURES)
		got_features(vu, value);
	else if (rc)
		got_protocol(vu);
}

int vhost_user_attach(struct vhost_user *vu, struct loop *loop, int fd)
{
	int rc;

	vu->source = (struct loop_source){.fd = fd, .ready = vhost_user_ready};
	vu->state = VHOST_USER_ASKED_FEATURES;
	vu->have = 0;
	rc = pil_set_nonblock(fd, true);
	if (!rc)
		rc = loop_add(loop, &vu->source, EPOLLIN);
	if (!rc)
		rc = send_message(vu, SET_OWNER, NULL, 0, NULL, 0);
	if (!rc)
		rc = send_message(vu, GET_FEATURES, NULL, 0, NULL, 0);
	if (rc)
		vhost_user_close(vu);
	return rc;
}

int vhost_user_start(struct vhost_user *vu, const struct guest_mem *mem, uint64_t features)
{
	struct mem_table table = {.n_regions = (uint32_t)mem->n_ranges};
	int fds[GUEST_MEM_MAX_RANGES], rc;

	if (mem->fd < 0)
		return -EBADF;
	if (features & ~vu->features)
		return -EOPNOTSUPP;
	features |= vu->features & UINT64_C(1) << F_PROTOCOL_FEATURES;
	for (int i = 0; i < mem->n_ranges; i++) {
		const struct guest_mem_range *r = &mem->ranges[i];

		table.regions[i] = (struct mem_region){r->gpa, r->len_bytes,
						       (uint64_t)(uintptr_t)r->host, r->fd_offset};
		fds[i] = mem->fd;
	}
	rc = send_u64(vu, SET_FEATURES, features);
	if (!rc)
		rc = send_message(vu, SET_MEM_TABLE, &table,
				  offsetof(struct mem_table, regions) +
					  sizeof(table.regions[0]) * table.n_regions,
				  fds, table.n_regions);
	return rc;
}

int vhost_user_start_queue(struct vhost_user *vu, unsigned index, const struct virtq *q,
			   int kick_fd, int call_fd)
{
	struct vring_addr addr = {
		.index = index,
		.desc = (uint64_t)(uintptr_t)q->desc,
		.used = (uint64_t)(uintptr_t)q->used,
		.avail = (uint64_t)(uintptr_t)q->avail,
	};
	uint64_t nr = index;
	int rc;

	rc = send_state(vu, SET_VRING_NUM, index, q->size);
	if (!rc)
		rc = send_state(vu, SET_VRING_BASE, index, q->next_avail);
	if (!rc)
		rc = send_message(vu, SET_VRING_ADDR, &addr, sizeof(addr), NULL, 0);
	if (!rc)
		rc = send_message(vu, SET_VRING_CALL, &nr, sizeof(nr), &call_fd, 1);
	if (!rc)
		rc = send_message(vu, SET_VRING_KICK, &nr, sizeof(nr), &kick_fd, 1);
	if (!rc && (vu->features & UINT64_C(1) << F_PROTOCOL_FEATURES))
		rc = send_state(vu, SET_VRING_ENABLE, index, 1);
	return rc;
}

/* #syscalls: poll */
int vhost_user_stop_queue(struct vhost_user *vu, unsigned index)
{
	int64_t end_ms = clock_now_ms() + VHOST_USER_STOP_MS;
	uint64_t value;
	int rc = send_state(vu, GET_VRING_BASE, index, 0);

	vu->have = 0;
	while (!rc) {
		struct pollfd pfd = {.fd = vu->source.fd, .events = POLLIN};
		int left = loop_left_ms(end_ms);

		if (!left || !poll(&pfd, 1, left))
			return -ETIMEDOUT;
		rc = read_answer(vu);
	}
	if (rc < 0)
		return rc;
	/* the number itself is of no interest: see virtq_resume() */
	return take_answer(vu, GET_VRING_BASE, &value) ? 0 : -EPROTO;
}
