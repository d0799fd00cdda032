/* SPDX-License-Identifier: Apache-2.0
 *
 * The commands of a session that are about data: buffers, what goes in and out of them, and memory
 * that the program shares.
 *
 * Moving much data takes a turn, as a graph does, and lets others go first after each part. */
#include <errno.h>
#include <stdlib.h>

#include "base/fd.h"
#include "exec/ggml/session_parts.h"

enum {
	LONG_BYTES = 1 << 20,  /* moving as many takes the device as a graph does */
	PART_BYTES = 64 << 20, /* after moving as many, others may go first */
};

static char *scratch(struct session *s)
{
	if (s->scratch || !account_hold(s->account, WIRE_MAX_DATA))
		return s->scratch;
	s->scratch = malloc(WIRE_MAX_DATA);
	if (!s->scratch)
		account_unhold(s->account, WIRE_MAX_DATA);
	return s->scratch;
}

/* ---- buffers ---- */

static enum wire_status fill_in_turn(struct session *s, struct gg_buffer *buffer, uint64_t offset,
				     uint32_t value, uint64_t bytes)
{
	enum wire_status status = WIRE_OK;

	/* a whole buffer at once, if it is that; and nothing at all where part cannot be */
	if (!s->device->host_memory || gg_buffer_touches_placed(buffer, offset, bytes))
		return gg_buffer_fill(&s->buffers, buffer, offset, (uint8_t)value, bytes);
	for (uint64_t done = 0, n; done < bytes && status == WIRE_OK; done += n) {
		n = bytes - done < PART_BYTES ? bytes - done : PART_BYTES;
		if (done)
			session_yield_turn(s);
		status = gg_buffer_fill(&s->buffers, buffer, offset + done, (uint8_t)value, n);
	}
	return status;
}

static enum wire_status fill(struct session *s, struct gg_buffer *buffer, uint64_t offset,
			     uint32_t value, uint64_t bytes)
{
	enum wire_status status;

	if (bytes < LONG_BYTES)
		return gg_buffer_fill(&s->buffers, buffer, offset, (uint8_t)value, bytes);
	session_begin_turn(s);
	status = fill_in_turn(s, buffer, offset, value, bytes);
	session_end_turn(s);
	return status;
}

int on_buffer_alloc(struct session *s, const struct wire_frame *f,
		    const struct wire_buffer_alloc *c)
{
	return session_answer(s, f->op, buffers_alloc(&s->buffers, c->buffer, c->bytes));
}

int on_buffer_free(struct session *s, const struct wire_frame *f, const struct wire_buffer_free *c)
{
	(void)f;
	return buffers_free(&s->buffers, c->buffer) ? 0 : -EPROTO;
}

int on_buffer_clear(struct session *s, const struct wire_frame *f,
		    const struct wire_buffer_clear *c)
{
	struct gg_buffer *buffer = buffers_find(&s->buffers, c->buffer);

	(void)f;
	if (!buffer || c->value > 255)
		return -EPROTO;
	return session_note(s, fill(s, buffer, 0, c->value, buffer->bytes));
}

int on_weight(struct session *s, const struct wire_frame *f, const struct wire_weight *c)
{
	struct gg_buffer *buffer = buffers_find(&s->buffers, c->buffer);

	(void)f;
	return buffer ? session_note(s, gg_buffer_weight(&s->buffers, buffer, c)) : -EPROTO;
}

int on_fill(struct session *s, const struct wire_frame *f, const struct wire_fill *c)
{
	struct gg_buffer *buffer = buffers_find(&s->buffers, c->buffer);

	(void)f;
	if (!buffer || c->value > 255 || !gg_buffer_holds(buffer, c->offset, c->bytes))
		return -EPROTO;
	return session_note(s, fill(s, buffer, c->offset, c->value, c->bytes));
}

/* ---- data in ---- */

int on_set(struct session *s, const struct wire_frame *f, const struct wire_set *c)
{
	uint32_t bytes = f->body_bytes - (uint32_t)sizeof(*c);
	uint64_t offset = c->offset;
	struct gg_buffer *buffer = buffers_find(&s->buffers, c->buffer);
	const uint8_t *data;
	void *direct;

	if (!buffer || !gg_buffer_holds(buffer, offset, bytes))
		return -EPROTO;
	direct = gg_buffer_direct(&s->buffers, buffer, offset, bytes);
	if (direct) {
		int err = stream_tail_into(&s->stream, f, direct);

		if (!err)
			gg_buffer_received(&s->buffers, buffer, offset, bytes);
		return err;
	}
	if (!stream_reserve(&s->stream, f))
		return session_refuse_tail(s, f);
	data = stream_tail(&s->stream, f);
	return data ? session_note(s, gg_buffer_set(&s->buffers, buffer, offset, data, bytes))
		    : -EPIPE;
}

/* Rows without bytes are refused as well: there can be any number of them in one frame. */
static bool rows_valid(uint32_t n_rows, uint64_t row_bytes)
{
	return n_rows && row_bytes && row_bytes <= WIRE_MAX_DATA / n_rows;
}

int on_set_2d(struct session *s, const struct wire_frame *f, const struct wire_set_2d *fixed)
{
	struct wire_set_2d c = *fixed;
	uint32_t bytes = f->body_bytes - (uint32_t)sizeof(c);
	struct gg_buffer *buffer = buffers_find(&s->buffers, c.buffer);
	enum wire_status status = WIRE_OK;
	const uint8_t *data;

	if (!buffer || !rows_valid(c.n_rows, c.row_bytes) || c.row_bytes * c.n_rows != bytes)
		return -EPROTO;
	if (!stream_reserve(&s->stream, f))
		return session_refuse_tail(s, f);
	data = stream_tail(&s->stream, f);
	if (!data)
		return -EPIPE;
	for (uint64_t i = 0, at = c.offset; i < c.n_rows && status == WIRE_OK; i++) {
		if (!gg_buffer_holds(buffer, at, c.row_bytes))
			return -EPROTO;
		status =
			gg_buffer_set(&s->buffers, buffer, at, data + i * c.row_bytes, c.row_bytes);
		if (__builtin_add_overflow(at, c.stride, &at))
			at = UINT64_MAX; /* refused by the next gg_buffer_holds() */
	}
	return session_note(s, status);
}

/* ---- data out ---- */

int on_get(struct session *s, const struct wire_frame *f, const struct wire_get *c)
{
	struct gg_buffer *buffer = buffers_find(&s->buffers, c->buffer);
	uint32_t bytes = (uint32_t)c->bytes;
	enum wire_status status;
	const void *data;

	if (!buffer || c->bytes > WIRE_MAX_DATA || !gg_buffer_holds(buffer, c->offset, c->bytes))
		return -EPROTO;
	if (!buffer->n_weights && (data = gg_buffer_peek(&s->buffers, buffer, c->offset, c->bytes)))
		return session_answer_data(s, f->op, WIRE_OK, 0, data, bytes);
	if (!scratch(s))
		return session_answer(s, f->op, WIRE_E_NO_MEMORY);
	status = gg_buffer_get(&s->buffers, buffer, c->offset, s->scratch, bytes);
	return session_answer_data(s, f->op, status, 0, s->scratch, status == WIRE_OK ? bytes : 0);
}

int on_get_2d(struct session *s, const struct wire_frame *f, const struct wire_get_2d *fixed)
{
	struct wire_get_2d c = *fixed;
	struct gg_buffer *buffer = buffers_find(&s->buffers, c.buffer);
	enum wire_status status = WIRE_OK;

	if (!buffer || !rows_valid(c.n_rows, c.row_bytes))
		return -EPROTO;
	if (!scratch(s))
		return session_answer(s, f->op, WIRE_E_NO_MEMORY);
	for (uint64_t i = 0, at = c.offset; i < c.n_rows && status == WIRE_OK; i++) {
		if (!gg_buffer_holds(buffer, at, c.row_bytes))
			return -EPROTO;
		status = gg_buffer_get(&s->buffers, buffer, at, s->scratch + i * c.row_bytes,
				       c.row_bytes);
		if (__builtin_add_overflow(at, c.stride, &at))
			at = UINT64_MAX;
	}
	return session_answer_data(s, f->op, status, 0, s->scratch,
				   status == WIRE_OK ? (uint32_t)(c.row_bytes * c.n_rows) : 0);
}

static enum wire_status copy(struct session *s, struct gg_buffer *src, struct gg_buffer *dst,
			     const struct wire_copy *c)
{
	enum wire_status status = WIRE_OK;

	for (uint64_t done = 0, n; done < c->bytes && status == WIRE_OK; done += n) {
		n = c->bytes - done < WIRE_MAX_DATA ? c->bytes - done : WIRE_MAX_DATA;
		if (done)
			session_yield_turn(s);
		status = gg_buffer_get(&s->buffers, src, c->src_offset + done, s->scratch, n);
		if (status == WIRE_OK)
			status = gg_buffer_set(&s->buffers, dst, c->dst_offset + done, s->scratch,
					       n);
	}
	return status;
}

int on_copy(struct session *s, const struct wire_frame *f, const struct wire_copy *c)
{
	struct gg_buffer *src = buffers_find(&s->buffers, c->src_buffer);
	struct gg_buffer *dst = buffers_find(&s->buffers, c->dst_buffer);
	bool is_long = c->bytes >= LONG_BYTES;
	enum wire_status status;

	(void)f;
	if (!src || !dst || !gg_buffer_holds(src, c->src_offset, c->bytes) ||
	    !gg_buffer_holds(dst, c->dst_offset, c->bytes))
		return -EPROTO;
	if (!scratch(s))
		return session_note(s, WIRE_E_NO_MEMORY);
	if (is_long)
		session_begin_turn(s);
	status = copy(s, src, dst, c);
	if (is_long)
		session_end_turn(s);
	return session_note(s, status);
}

/* ---- shared memory ---- */

int on_shm_add(struct session *s, const struct wire_frame *f, const struct wire_shm_add *c)
{
	_auto_fd int fd = stream_claim_fd(&s->stream);
	enum wire_status status;

	if (!s->shm_ok)
		return session_answer(s, f->op, WIRE_E_UNSUPPORTED);
	return shms_add(&s->shms, c, fd, &status) ? session_answer(s, f->op, status) : -EPROTO;
}

int on_shm_drop(struct session *s, const struct wire_frame *f, const struct wire_shm_drop *c)
{
	(void)f;
	return shms_drop(&s->shms, c->shm) ? 0 : -EPROTO;
}

int on_set_shm(struct session *s, const struct wire_frame *f, const struct wire_set_shm *c)
{
	struct gg_buffer *buffer = buffers_find(&s->buffers, c->buffer);
	struct shm *shm = shms_find(&s->shms, c->shm);

	(void)f;
	if (!buffer || !shm || !gg_buffer_holds(buffer, c->offset, c->bytes) ||
	    !shm_holds(shm, c->shm_offset, c->bytes))
		return -EPROTO;
	if (shm->is_file)
		return c->bytes ? session_note(s, gg_buffer_set_file(&s->buffers, buffer, c->offset,
								     shm->map, c->shm_offset,
								     c->bytes))
				: -EPROTO;
	return session_note(s, gg_buffer_set(&s->buffers, buffer, c->offset,
					     file_map_memory(shm->map) + c->shm_offset, c->bytes));
}

/* In pieces: of memory that is lost, what is written takes our own. */
static enum wire_status get_to_memory(struct session *s, struct gg_buffer *buffer,
				      struct file_map *map, const struct wire_get_shm *c)
{
	char *to = file_map_memory(map) + c->shm_offset;
	enum wire_status status = WIRE_OK;

	for (uint64_t done = 0, n; done < c->bytes && status == WIRE_OK; done += n) {
		n = c->bytes - done < WIRE_MAX_DATA ? c->bytes - done : WIRE_MAX_DATA;
		status = gg_buffer_get(&s->buffers, buffer, c->offset + done, to + done, n);
		if (file_map_lost(map))
			status = WIRE_E_NO_MEMORY;
	}
	return status;
}

int on_get_shm(struct session *s, const struct wire_frame *f, const struct wire_get_shm *c)
{
	struct gg_buffer *buffer = buffers_find(&s->buffers, c->buffer);
	struct shm *shm = shms_find(&s->shms, c->shm);

	if (!buffer || !shm || shm->is_file || !gg_buffer_holds(buffer, c->offset, c->bytes) ||
	    !shm_holds(shm, c->shm_offset, c->bytes))
		return -EPROTO;
	return session_answer(s, f->op, get_to_memory(s, buffer, shm->map, c));
}
