/* SPDX-License-Identifier: Apache-2.0
 *
 * The commands of a session that are about memory (mem.def): buffers, and what goes in and out of
 * them.  The API's mem_ops do it; what they are called with is checked here.
 *
 * Moving much data takes a turn, as computing does, and lets others go first after each part. */
#include <errno.h>

#include "exec/session.h"

enum {
	LONG_BYTES = 1 << 20,  /* moving as many takes the device as computing does */
	PART_BYTES = 64 << 20, /* after moving as many, others may go first */
};

/* A buffer of the session's, and its size. */
struct mem {
	void *buffer; /* NULL: no such handle */
	uint64_t bytes;
};

static struct mem find(struct session *s, uint32_t handle)
{
	struct mem m = {0};

	m.buffer = s->api->mem->find(s->state, handle, &m.bytes);
	return m;
}

/* Is [offset, offset + bytes) inside? */
static bool holds(const struct mem *m, uint64_t offset, uint64_t bytes)
{
	return offset <= m->bytes && bytes <= m->bytes - offset;
}

static enum wire_status set(struct session *s, const struct mem *m, uint64_t offset,
			    const void *data, uint64_t bytes)
{
	return s->api->mem->set(s->state, m->buffer, offset, data, bytes);
}

static enum wire_status get(struct session *s, const struct mem *m, uint64_t offset, void *data,
			    uint64_t bytes)
{
	return s->api->mem->get(s->state, m->buffer, offset, data, bytes);
}

/* ---- buffers ---- */

static enum wire_status fill_in_turn(struct session *s, const struct mem *m, uint64_t offset,
				     uint8_t value, uint64_t bytes)
{
	const struct mem_ops *ops = s->api->mem;
	enum wire_status status = WIRE_OK;

	if (ops->fill_at_once && ops->fill_at_once(s->state, m->buffer, offset, bytes))
		return ops->fill(s->state, m->buffer, offset, value, bytes);
	for (uint64_t done = 0, n; done < bytes && status == WIRE_OK; done += n) {
		n = bytes - done < PART_BYTES ? bytes - done : PART_BYTES;
		if (done)
			session_yield_turn(s);
		status = ops->fill(s->state, m->buffer, offset + done, value, n);
	}
	return status;
}

static enum wire_status fill(struct session *s, const struct mem *m, uint64_t offset,
			     uint32_t value, uint64_t bytes)
{
	enum wire_status status;

	if (bytes < LONG_BYTES)
		return s->api->mem->fill(s->state, m->buffer, offset, (uint8_t)value, bytes);
	session_begin_turn(s);
	status = fill_in_turn(s, m, offset, (uint8_t)value, bytes);
	session_end_turn(s);
	return status;
}

static int buffer_clear(struct session *s, const struct wire_buffer_clear *c)
{
	struct mem m = find(s, c->buffer);

	if (!m.buffer || c->value > 255)
		return -EPROTO;
	return fill(s, &m, 0, c->value, m.bytes);
}

static int fill_part(struct session *s, const struct wire_fill *c)
{
	struct mem m = find(s, c->buffer);

	if (!m.buffer || c->value > 255 || !holds(&m, c->offset, c->bytes))
		return -EPROTO;
	return fill(s, &m, c->offset, c->value, c->bytes);
}

/* ---- data in ---- */

static int set_direct(struct session *s, const struct wire_frame *f, const struct mem *m,
		      uint64_t offset, void *direct, uint32_t bytes)
{
	int err = stream_tail_into(&s->stream, f, direct);

	if (!err && s->api->mem->received)
		s->api->mem->received(s->state, m->buffer, offset, bytes);
	return err;
}

static int set_inline(struct session *s, const struct wire_frame *f, const struct wire_set *c)
{
	uint32_t bytes = f->body_bytes - (uint32_t)sizeof(*c);
	const struct mem_ops *ops = s->api->mem;
	struct mem m = find(s, c->buffer);
	const uint8_t *data;
	void *direct;

	if (!m.buffer || !holds(&m, c->offset, bytes))
		return -EPROTO;
	direct = ops->direct ? ops->direct(s->state, m.buffer, c->offset, bytes) : NULL;
	if (direct)
		return set_direct(s, f, &m, c->offset, direct, bytes);
	if (!stream_reserve(&s->stream, f))
		return session_refuse_tail(s, f);
	data = stream_tail(&s->stream, f);
	return data ? (int)set(s, &m, c->offset, data, bytes) : -EPIPE;
}

/* Rows without bytes are refused as well: there can be any number of them in one frame. */
static bool rows_valid(uint32_t n_rows, uint64_t row_bytes)
{
	return n_rows && row_bytes && row_bytes <= WIRE_MAX_DATA / n_rows;
}

static int set_2d(struct session *s, const struct wire_frame *f, const struct wire_set_2d *c)
{
	uint32_t bytes = f->body_bytes - (uint32_t)sizeof(*c);
	struct mem m = find(s, c->buffer);
	enum wire_status status = WIRE_OK;
	const uint8_t *data;

	if (!m.buffer || !rows_valid(c->n_rows, c->row_bytes) || c->row_bytes * c->n_rows != bytes)
		return -EPROTO;
	if (!stream_reserve(&s->stream, f))
		return session_refuse_tail(s, f);
	data = stream_tail(&s->stream, f);
	if (!data)
		return -EPIPE;
	for (uint64_t i = 0, at = c->offset; i < c->n_rows && status == WIRE_OK; i++) {
		if (!holds(&m, at, c->row_bytes))
			return -EPROTO;
		status = set(s, &m, at, data + i * c->row_bytes, c->row_bytes);
		if (__builtin_add_overflow(at, c->stride, &at))
			at = UINT64_MAX; /* refused by the next holds() */
	}
	return status;
}

/* ---- data out ---- */

static int get_inline(struct session *s, const struct wire_get *c, struct reply *reply)
{
	const struct mem_ops *ops = s->api->mem;
	struct mem m = find(s, c->buffer);
	enum wire_status status;

	if (!m.buffer || c->bytes > WIRE_MAX_DATA || !holds(&m, c->offset, c->bytes))
		return -EPROTO;
	reply->data = ops->peek ? ops->peek(s->state, m.buffer, c->offset, c->bytes) : NULL;
	if (!reply->data) {
		reply->data = session_scratch(s);
		if (!reply->data)
			return WIRE_E_NO_MEMORY;
		status = get(s, &m, c->offset, s->scratch, c->bytes);
		if (status != WIRE_OK)
			return status;
	}
	reply->bytes = (uint32_t)c->bytes;
	return WIRE_OK;
}

static int get_2d(struct session *s, const struct wire_get_2d *c, struct reply *reply)
{
	struct mem m = find(s, c->buffer);
	enum wire_status status = WIRE_OK;

	if (!m.buffer || !rows_valid(c->n_rows, c->row_bytes))
		return -EPROTO;
	if (!session_scratch(s))
		return WIRE_E_NO_MEMORY;
	for (uint64_t i = 0, at = c->offset; i < c->n_rows && status == WIRE_OK; i++) {
		if (!holds(&m, at, c->row_bytes))
			return -EPROTO;
		status = get(s, &m, at, s->scratch + i * c->row_bytes, c->row_bytes);
		if (__builtin_add_overflow(at, c->stride, &at))
			at = UINT64_MAX;
	}
	reply->data = s->scratch;
	reply->bytes = status == WIRE_OK ? (uint32_t)(c->row_bytes * c->n_rows) : 0;
	return status;
}

static enum wire_status copy_parts(struct session *s, const struct mem *src, const struct mem *dst,
				   const struct wire_copy *c)
{
	enum wire_status status = WIRE_OK;

	for (uint64_t done = 0, n; done < c->bytes && status == WIRE_OK; done += n) {
		n = c->bytes - done < WIRE_MAX_DATA ? c->bytes - done : WIRE_MAX_DATA;
		if (done)
			session_yield_turn(s);
		status = get(s, src, c->src_offset + done, s->scratch, n);
		if (status == WIRE_OK)
			status = set(s, dst, c->dst_offset + done, s->scratch, n);
	}
	return status;
}

static int copy(struct session *s, const struct wire_copy *c)
{
	struct mem src = find(s, c->src_buffer), dst = find(s, c->dst_buffer);
	bool in_turn = c->bytes >= LONG_BYTES;
	enum wire_status status;

	if (!src.buffer || !dst.buffer || !holds(&src, c->src_offset, c->bytes) ||
	    !holds(&dst, c->dst_offset, c->bytes))
		return -EPROTO;
	if (!session_scratch(s))
		return WIRE_E_NO_MEMORY;
	if (in_turn)
		session_begin_turn(s);
	status = copy_parts(s, &src, &dst, c);
	if (in_turn)
		session_end_turn(s);
	return status;
}

/* ---- shared memory ---- */

static int set_shm(struct session *s, const struct wire_set_shm *c)
{
	const struct mem_ops *ops = s->api->mem;
	struct mem m = find(s, c->buffer);
	struct shm *shm = shms_find(&s->shms, c->shm);

	if (!m.buffer || !shm || !holds(&m, c->offset, c->bytes) ||
	    !shm_holds(shm, c->shm_offset, c->bytes))
		return -EPROTO;
	if (!shm->is_file)
		return set(s, &m, c->offset, file_map_memory(shm->map) + c->shm_offset, c->bytes);
	if (!c->bytes)
		return -EPROTO;
	return ops->set_file ? ops->set_file(s->state, m.buffer, c->offset, shm->map, c->shm_offset,
					     c->bytes)
			     : WIRE_E_UNSUPPORTED;
}

/* In pieces: of memory that is lost, what is written takes our own. */
static enum wire_status get_to_memory(struct session *s, const struct mem *m, struct file_map *map,
				      const struct wire_get_shm *c)
{
	char *to = file_map_memory(map) + c->shm_offset;
	enum wire_status status = WIRE_OK;

	for (uint64_t done = 0, n; done < c->bytes && status == WIRE_OK; done += n) {
		n = c->bytes - done < WIRE_MAX_DATA ? c->bytes - done : WIRE_MAX_DATA;
		status = get(s, m, c->offset + done, to + done, n);
		if (file_map_lost(map))
			status = WIRE_E_NO_MEMORY;
	}
	return status;
}

static int get_shm(struct session *s, const struct wire_get_shm *c)
{
	struct mem m = find(s, c->buffer);
	struct shm *shm = shms_find(&s->shms, c->shm);

	if (!m.buffer || !shm || shm->is_file || !holds(&m, c->offset, c->bytes) ||
	    !shm_holds(shm, c->shm_offset, c->bytes))
		return -EPROTO;
	return get_to_memory(s, &m, shm->map, c);
}

/* ---- all of them ---- */

static int buffer_command(struct session *s, const struct wire_frame *f, const void *fixed)
{
	const struct wire_buffer_alloc *a = fixed;

	switch (f->op) {
	case WIRE_OP_BUFFER_ALLOC:
		return s->api->mem->alloc(s->state, a->buffer, a->bytes);
	case WIRE_OP_BUFFER_FREE:
		return s->api->mem->free(s->state, a->buffer) ? WIRE_OK : -EPROTO;
	case WIRE_OP_BUFFER_CLEAR:
		return buffer_clear(s, fixed);
	default:
		return -EPROTO;
	}
}

int mem_command(struct session *s, const struct wire_frame *f, const void *fixed,
		struct reply *reply)
{
	switch (f->op) {
	case WIRE_OP_SET:
		return set_inline(s, f, fixed);
	case WIRE_OP_GET:
		return get_inline(s, fixed, reply);
	case WIRE_OP_SET_SHM:
		return set_shm(s, fixed);
	case WIRE_OP_GET_SHM:
		return get_shm(s, fixed);
	case WIRE_OP_SET_2D:
		return set_2d(s, f, fixed);
	case WIRE_OP_GET_2D:
		return get_2d(s, fixed, reply);
	case WIRE_OP_FILL:
		return fill_part(s, fixed);
	case WIRE_OP_COPY:
		return copy(s, fixed);
	default:
		return buffer_command(s, f, fixed);
	}
}

bool mem_is_long(const struct wire_frame *f)
{
	return f->op == WIRE_OP_GET_2D || f->op == WIRE_OP_COPY || f->op == WIRE_OP_SET_SHM ||
	       f->op == WIRE_OP_GET_SHM;
}
