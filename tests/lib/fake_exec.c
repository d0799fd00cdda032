/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/fake_exec.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"

void fake_exec_welcome(struct fake_welcome *w, uint32_t flags)
{
	*w = (struct fake_welcome){
		.head =
			{
				.magic = WIRE_MAGIC,
				.version = WIRE_VERSION,
				.flags = flags,
				.body_bytes = sizeof(w->body),
				.alignment = 64,
				.max_buffer = 1 << 30,
				.memory_total = 8,
				.memory_free = 7,
			},
		.body = {.n_types = 3, .types = {{0, 1, 4, 0}, {8, 32, 34, 0}, {26, 1, 4, 0}}},
	};
	if (flags & WIRE_WELCOME_REFERENCE)
		w->body.flags |= GG_WELCOME_PLAIN_SIZE;
	memset(w->body.ops, 0xff, sizeof(w->body.ops));
	memset(w->body.unary, 0xff, sizeof(w->body.unary));
	memset(w->body.glu, 0xff, sizeof(w->body.glu));
}

static uint8_t *place(struct fake_exec *x, uint32_t handle, uint64_t offset, uint64_t bytes)
{
	uint32_t slot = wire_slot(handle);

	if (slot >= FAKE_EXEC_BUFFERS || !handle || x->handles[slot] != handle ||
	    offset > x->bytes[slot] || bytes > x->bytes[slot] - offset) {
		x->bad = true;
		return NULL;
	}
	return x->buffers[slot] + offset;
}

static void answer(struct fake_exec *x, uint16_t op, const void *data, uint32_t bytes,
		   uint64_t value)
{
	struct wire_answer a = {.op = op, .value = value, .body_bytes = bytes, .failed = x->failed};
	struct iovec iov[2] = {{&a, sizeof(a)}, {(void *)data, bytes}};

	x->failed = 0;
	if (pil_sendv_all(x->fd, iov, bytes ? 2 : 1))
		x->die_after = 1;
}

static void add_shm(struct fake_exec *x, const struct wire_shm_add *c, int fd)
{
	uint32_t slot = wire_slot(c->shm);

	x->shm[slot] = mmap(NULL, c->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	x->shm_bytes[slot] = c->bytes;
	if (fd < 0 || x->shm[slot] == MAP_FAILED)
		x->bad = true;
	close(fd);
}

static void on_rows(struct fake_exec *x, uint16_t op, const struct wire_set_2d *c,
		    const uint8_t *data)
{
	uint8_t *packed = malloc(c->n_rows * c->row_bytes + 1);

	for (uint32_t i = 0; i < c->n_rows; i++) {
		uint8_t *at = place(x, c->buffer, c->offset + i * c->stride, c->row_bytes);

		if (at && op == WIRE_OP_SET_2D)
			memcpy(at, data + i * c->row_bytes, c->row_bytes);
		else if (at)
			memcpy(packed + i * c->row_bytes, at, c->row_bytes);
	}
	if (op == WIRE_OP_GET_2D)
		answer(x, op, packed, (uint32_t)(c->n_rows * c->row_bytes), 0);
	free(packed);
}

static void on_data(struct fake_exec *x, uint16_t op, const void *body, uint32_t bytes)
{
	const struct wire_set_shm *m = body;
	const struct wire_get *g = body;
	const struct wire_fill *f = body;
	uint8_t *at;

	switch (op) {
	case WIRE_OP_SET:
		at = place(x, g->buffer, g->offset, bytes - sizeof(struct wire_set));
		if (at)
			memcpy(at, (const char *)body + sizeof(struct wire_set),
			       bytes - sizeof(struct wire_set));
		break;
	case WIRE_OP_GET:
		at = place(x, g->buffer, g->offset, g->bytes);
		answer(x, op, at, at ? (uint32_t)g->bytes : 0, 0);
		break;
	case WIRE_OP_FILL:
		at = place(x, f->buffer, f->offset, f->bytes);
		if (at)
			memset(at, (int)f->value, f->bytes);
		break;
	case WIRE_OP_SET_SHM:
		at = place(x, m->buffer, m->offset, m->bytes);
		if (at)
			memcpy(at, x->shm[wire_slot(m->shm)] + m->shm_offset, m->bytes);
		break;
	default:
		at = place(x, m->buffer, m->offset, m->bytes);
		if (at)
			memcpy(x->shm[wire_slot(m->shm)] + m->shm_offset, at, m->bytes);
		answer(x, op, NULL, 0, 0);
	}
}

static void on_frame(struct fake_exec *x, uint16_t op, const void *body, uint32_t bytes, int fd)
{
	const struct wire_buffer_alloc *a = body;
	const struct wire_copy *c = body;
	uint32_t slot = wire_slot(a->buffer);

	switch (op) {
	case WIRE_OP_BUFFER_ALLOC:
		x->bad = x->bad || slot >= FAKE_EXEC_BUFFERS || x->buffers[slot];
		if (!x->bad) {
			x->buffers[slot] = calloc(1, a->bytes);
			x->bytes[slot] = a->bytes;
			x->handles[slot] = a->buffer;
		}
		answer(x, op, NULL, 0, 0);
		break;
	case WIRE_OP_BUFFER_FREE:
		if (place(x, a->buffer, 0, 0)) {
			free(x->buffers[slot]);
			x->buffers[slot] = NULL;
			x->handles[slot] = 0;
		}
		break;
	case WIRE_OP_BUFFER_CLEAR:
		if (place(x, a->buffer, 0, 0))
			memset(x->buffers[slot], (int)((const uint32_t *)body)[1], x->bytes[slot]);
		break;
	case GG_OP_WEIGHT:
		memcpy(&x->weight, body, sizeof(x->weight));
		break;
	case WIRE_OP_COPY:
		if (place(x, c->src_buffer, c->src_offset, c->bytes) &&
		    place(x, c->dst_buffer, c->dst_offset, c->bytes))
			memmove(place(x, c->dst_buffer, c->dst_offset, c->bytes),
				place(x, c->src_buffer, c->src_offset, c->bytes), c->bytes);
		break;
	case WIRE_OP_SET_2D:
	case WIRE_OP_GET_2D:
		on_rows(x, op, body, (const uint8_t *)body + sizeof(struct wire_set_2d));
		break;
	case WIRE_OP_SHM_ADD:
		add_shm(x, body, fd);
		answer(x, op, NULL, 0, 0);
		break;
	case WIRE_OP_MEMORY:
		answer(x, op, &(struct wire_memory){7, 8}, sizeof(struct wire_memory), 0);
		break;
	case GG_OP_GRAPH_RUN:
		x->failed = (uint16_t)x->run;
		break;
	case WIRE_OP_SET:
	case WIRE_OP_GET:
	case WIRE_OP_FILL:
	case WIRE_OP_SET_SHM:
	case WIRE_OP_GET_SHM:
		on_data(x, op, body, bytes);
		break;
	default:
		if (wire_op_find(&wire_api_ggml, op)->answers)
			answer(x, op, NULL, 0, 1);
	}
}

static void *serve(void *arg)
{
	struct fake_exec *x = arg;
	size_t have = 0, cap = 64 << 20;
	uint8_t *in = malloc(cap);
	int fds[4], n_fds = 0, n_frames = 0;
	sigset_t pipe_signal = {0};
	struct fake_welcome w;
	bool gone;

	fake_exec_welcome(&w, x->flags);
	/* a program may go at any time; that it takes care itself is for the tests to see */
	sigaddset(&pipe_signal, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &pipe_signal, NULL);
	gone = pil_write_all(x->fd, &w, sizeof(w)) != 0;
	while (!gone) {
		struct wire_frame f;
		int room = 4 - n_fds;
		size_t need = sizeof(f);
		ssize_t n;

		if (have >= sizeof(f)) {
			memcpy(&f, in, sizeof(f));
			if (!wire_frame_op(&wire_api_ggml, &f)) {
				x->bad = true;
				break;
			}
			need += wire_padded(f.body_bytes);
		}
		if (have < need) {
			n = pil_recv_fds(x->fd, in + have, cap - have, fds + n_fds, &room, 0);
			if (n <= 0)
				break;
			n_fds += room;
			have += (size_t)n;
			x->reads++;
			continue;
		}
		x->count[f.op]++;
		on_frame(x, f.op, in + sizeof(f), f.body_bytes, n_fds && f.n_fds ? fds[0] : -1);
		if (f.n_fds && n_fds)
			memmove(fds, fds + 1, sizeof(*fds) * (size_t)--n_fds);
		have -= need;
		memmove(in, in + need, have);
		if (x->die_after && ++n_frames >= x->die_after)
			break;
	}
	free(in);
	close(x->fd);
	return NULL;
}

int fake_exec_start(struct fake_exec *x)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return -1;
	x->fd = pair[0];
	if (pthread_create(&x->thread, NULL, serve, x))
		return -1;
	return pair[1];
}

void fake_exec_finish(struct fake_exec *x)
{
	pthread_join(x->thread, NULL);
	for (int i = 0; i < FAKE_EXEC_BUFFERS; i++)
		free(x->buffers[i]);
	for (int i = 0; i < WIRE_MAX_SHM; i++)
		if (x->shm[i])
			munmap(x->shm[i], x->shm_bytes[i]);
}
