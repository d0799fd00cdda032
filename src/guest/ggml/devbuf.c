/* SPDX-License-Identifier: Apache-2.0
 *
 * devbuf.c -- see devbuf.h.  The range a buffer occupies here is reserved without memory behind it,
 * so addresses are unique, ggml's arithmetic on them works, and a program that reads through one
 * by mistake faults at once instead of reading something else. */
#include "guest/ggml/devbuf.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/fd.h"
#include "base/log.h"
#include "guest/ggml/gdev.h"
#include "link/channel.h"

static struct devbuf *ctx(struct ggml_backend_buffer *buffer)
{
	return buffer->context;
}

/* ---- where a tensor is ---- */

struct devbuf *devbuf_of(struct gdev *dev, const struct ggml_tensor *t, uint64_t *offset)
{
	struct ggml_backend_buffer *b = t->buffer;
	struct devbuf *buf;
	uint64_t bytes;

	if (!b && t->view_src)
		b = t->view_src->buffer;
	if (!b || b->buft != &dev->buft || !b->context)
		return NULL;
	buf = b->context;
	*offset = (uintptr_t)t->data - buf->base;
	bytes = opmap_nbytes(&gplugin.opmap, t);
	return *offset <= buf->bytes && bytes <= buf->bytes - *offset ? buf : NULL;
}

/* The offset in the buffer of byte @offset of @t, for @bytes; false if that is outside. */
static bool place(const struct devbuf *buf, const struct ggml_tensor *t, uint64_t offset,
		  uint64_t bytes, uint64_t *out)
{
	uint64_t start = (uintptr_t)t->data - buf->base;

	if (start > buf->bytes || offset > buf->bytes - start ||
	    bytes > buf->bytes - start - offset) {
		log_err("tensor '%.64s' is outside of its buffer", t->name);
		return false;
	}
	*out = start + offset;
	return true;
}

/* ---- weights ---- */

static uint64_t *weights_find(uint64_t *table, uint32_t max, uint64_t key)
{
	uint32_t i = (uint32_t)(key * 0x9e3779b97f4a7c15u >> 32) & (max - 1);

	while (table[i] && table[i] != key)
		i = (i + 1) & (max - 1);
	return &table[i];
}

/* True the first time it is asked about @offset. */
static bool weights_add(struct devbuf *buf, uint64_t offset)
{
	uint64_t *slot;

	if (buf->n_weights * 2 >= buf->max_weights) {
		uint32_t max = buf->max_weights ? buf->max_weights * 2 : 256;
		uint64_t *bigger = calloc(max, sizeof(*bigger));

		if (!bigger)
			return false;
		for (uint32_t i = 0; i < buf->max_weights; i++)
			if (buf->weights[i])
				*weights_find(bigger, max, buf->weights[i]) = buf->weights[i];
		free(buf->weights);
		buf->weights = bigger;
		buf->max_weights = max;
	}
	slot = weights_find(buf->weights, buf->max_weights, offset + 1);
	if (*slot)
		return false;
	*slot = offset + 1;
	buf->n_weights++;
	return true;
}

/* True if @t is a weight the executor may want to convert. */
static bool announce_weight(struct devbuf *buf, const struct ggml_tensor *t, uint64_t offset)
{
	struct gdev *dev = buf->dev;
	struct wire_weight weight = {.buffer = buf->handle,
				     .type = (uint32_t)t->type,
				     .offset = offset,
				     .uses = query_uses(&dev->query, t->name)};

	if (t->view_src)
		return false;
	if (weights_add(buf, offset)) {
		memcpy(weight.ne, t->ne, sizeof(weight.ne));
		channel_queue(dev->chan, GG_OP_WEIGHT, &weight, NULL, 0);
	}
	return weight.uses == WIRE_USE_MUL_MAT || weight.uses == WIRE_USE_MUL_MAT_ID;
}

/* ---- data ---- */

void devbuf_set_locked(struct devbuf *buf, const struct ggml_tensor *t, const void *data,
		       uint64_t offset, uint64_t bytes, bool async)
{
	struct gdev *dev = buf->dev;
	struct channel *chan = dev->chan;
	const struct gdev_shm *shm = NULL;
	struct wire_set set = {.buffer = buf->handle};
	bool whole = false;
	uint64_t at;

	if (chan->dead || !place(buf, t, offset, bytes, &at))
		return;
	set.offset = at;
	if (offset == 0 && t->buffer && t->buffer->usage == ABI_USAGE_WEIGHTS) {
		whole = announce_weight(buf, t, at);
		if (bytes > CHANNEL_MAX_INLINE &&
		    upload_mapped(&dev->upload, chan, &set, data, bytes))
			return;
	}
	if (async && bytes > CHANNEL_MAX_INLINE)
		shm = gdev_find_shm(dev, data, bytes);
	if (shm) {
		struct wire_set_shm direct = {.buffer = buf->handle,
					      .shm = shm->shm,
					      .offset = at,
					      .shm_offset = (uintptr_t)data - shm->base,
					      .bytes = bytes};

		chan->need = channel_queue(chan, WIRE_OP_SET_SHM, &direct, NULL, 0);
		channel_flush(chan);
		return;
	}
	upload_set(&dev->upload, chan, &set, data, bytes, whole);
}

void devbuf_get_locked(struct devbuf *buf, const struct ggml_tensor *t, void *data, uint64_t offset,
		       uint64_t bytes)
{
	struct gdev *dev = buf->dev;
	struct channel *chan = dev->chan;
	const struct gdev_shm *shm = gdev_find_shm(dev, data, bytes);
	uint64_t from;

	if (!place(buf, t, offset, bytes, &from)) {
		memset(data, 0, bytes);
		return;
	}
	for (uint64_t at = 0; at < bytes;) {
		uint64_t n = bytes - at;
		struct channel_dest dest = {(char *)data + at, 1, 0, 0};
		uint64_t seq;

		if (shm) {
			struct wire_get_shm get = {.buffer = buf->handle,
						   .shm = shm->shm,
						   .offset = from,
						   .shm_offset = (uintptr_t)data - shm->base,
						   .bytes = n};

			seq = channel_queue(chan, WIRE_OP_GET_SHM, &get, NULL, 0);
			channel_expect(chan, WIRE_OP_GET_SHM, NULL, NULL);
		} else {
			struct wire_get get = {.buffer = buf->handle, .offset = from + at};

			n = n < WIRE_MAX_DATA ? n : WIRE_MAX_DATA;
			get.bytes = dest.row_bytes = n;
			seq = channel_queue(chan, WIRE_OP_GET, &get, NULL, 0);
			channel_expect(chan, WIRE_OP_GET, &dest, NULL);
		}
		if (seq)
			chan->need = seq;
		else
			memset((char *)data + at, 0, n);
		at += n;
	}
}

/* ---- data in rows ---- */

/* Rows that one command can carry; 0: not even one. */
static uint64_t rows_per_command(const struct devbuf_rows *rows)
{
	uint64_t most = rows->row_bytes && rows->row_bytes <= WIRE_MAX_DATA
				? WIRE_MAX_DATA / rows->row_bytes
				: 0;

	return most < rows->n_rows ? most : rows->n_rows;
}

/* The place in the buffer of @n rows of @t from row @first. */
static bool place_rows(const struct devbuf *buf, const struct ggml_tensor *t,
		       const struct devbuf_rows *rows, uint64_t first, uint64_t n, uint64_t *out)
{
	return place(buf, t, rows->offset + first * rows->stride,
		     (n - 1) * rows->stride + rows->row_bytes, out);
}

/* One SET_2D; @scratch, if rows lie apart at @data, holds them packed. */
static void set_rows(struct devbuf *buf, struct wire_set_2d *set, const char *data,
		     uint64_t data_stride, char *scratch)
{
	for (uint64_t r = 0; scratch && r < set->n_rows; r++)
		memcpy(scratch + r * set->row_bytes, data + r * data_stride, set->row_bytes);
	channel_queue(buf->dev->chan, WIRE_OP_SET_2D, set, scratch ? scratch : data,
		      (uint32_t)(set->n_rows * set->row_bytes));
}

void devbuf_set_rows_locked(struct devbuf *buf, const struct ggml_tensor *t, const void *data,
			    const struct devbuf_rows *rows)
{
	const struct channel *chan = buf->dev->chan;
	uint64_t most = rows_per_command(rows);
	bool packed = rows->data_stride == rows->row_bytes;
	_auto_free char *scratch = packed || !most ? NULL : malloc(most * rows->row_bytes);

	if (!most || (!packed && !scratch)) {
		for (uint64_t r = 0; rows->row_bytes && r < rows->n_rows; r++)
			devbuf_set_locked(buf, t, (const char *)data + r * rows->data_stride,
					  rows->offset + r * rows->stride, rows->row_bytes, false);
		return;
	}
	for (uint64_t first = 0; first < rows->n_rows && !chan->dead; first += most) {
		uint64_t left = rows->n_rows - first;
		struct wire_set_2d set = {.buffer = buf->handle,
					  .n_rows = (uint32_t)(left < most ? left : most),
					  .row_bytes = rows->row_bytes,
					  .stride = rows->stride};

		if (!place_rows(buf, t, rows, first, set.n_rows, &set.offset))
			return;
		set_rows(buf, &set, (const char *)data + first * rows->data_stride,
			 rows->data_stride, scratch);
	}
}

void devbuf_get_rows_locked(struct devbuf *buf, const struct ggml_tensor *t, void *data,
			    const struct devbuf_rows *rows)
{
	struct channel *chan = buf->dev->chan;
	uint64_t most = rows_per_command(rows);

	if (!most) {
		for (uint64_t r = 0; rows->row_bytes && r < rows->n_rows; r++)
			devbuf_get_locked(buf, t, (char *)data + r * rows->data_stride,
					  rows->offset + r * rows->stride, rows->row_bytes);
		return;
	}
	for (uint64_t first = 0; first < rows->n_rows; first += most) {
		uint64_t left = rows->n_rows - first, seq;
		struct wire_get_2d get = {.buffer = buf->handle,
					  .n_rows = (uint32_t)(left < most ? left : most),
					  .row_bytes = rows->row_bytes,
					  .stride = rows->stride};
		struct channel_dest dest = {(char *)data + first * rows->data_stride, get.n_rows,
					    get.row_bytes, rows->data_stride};

		if (!place_rows(buf, t, rows, first, get.n_rows, &get.offset))
			return;
		seq = channel_queue(chan, WIRE_OP_GET_2D, &get, NULL, 0);
		channel_expect(chan, WIRE_OP_GET_2D, &dest, NULL);
		if (seq)
			chan->need = seq;
	}
}

void devbuf_copy_locked(struct devbuf *dst, uint64_t dst_offset, struct devbuf *src,
			uint64_t src_offset, uint64_t bytes)
{
	struct wire_copy copy = {.src_buffer = src->handle,
				 .dst_buffer = dst->handle,
				 .src_offset = src_offset,
				 .dst_offset = dst_offset,
				 .bytes = bytes};

	if (bytes)
		channel_queue(dst->dev->chan, WIRE_OP_COPY, &copy, NULL, 0);
}

/* ---- ggml's table of a buffer ---- */

static void buffer_free(struct ggml_backend_buffer *buffer)
{
	struct devbuf *buf = ctx(buffer);
	struct channel *chan = buf->dev->chan;

	if (buf->handle) {
		struct wire_buffer_free cmd = {.buffer = buf->handle};

		pthread_mutex_lock(&chan->lock);
		channel_queue(chan, WIRE_OP_BUFFER_FREE, &cmd, NULL, 0);
		channel_slot_give(&chan->buffers, buf->handle);
		channel_flush(chan); /* the memory may be wanted by others */
		pthread_mutex_unlock(&chan->lock);
	}
	munmap(buf->map, buf->map_bytes);
	free(buf->weights);
	free(buf);
}

static void *buffer_get_base(struct ggml_backend_buffer *buffer)
{
	return (void *)ctx(buffer)->base;
}

static void buffer_memset_tensor(struct ggml_backend_buffer *buffer, struct ggml_tensor *t,
				 uint8_t value, size_t offset, size_t size)
{
	struct devbuf *buf = ctx(buffer);
	struct channel *chan = buf->dev->chan;
	struct wire_fill fill = {.buffer = buf->handle, .value = value, .bytes = size};

	pthread_mutex_lock(&chan->lock);
	if (size && place(buf, t, offset, size, &fill.offset))
		channel_queue(chan, WIRE_OP_FILL, &fill, NULL, 0);
	pthread_mutex_unlock(&chan->lock);
}

static void buffer_set_tensor(struct ggml_backend_buffer *buffer, struct ggml_tensor *t,
			      const void *data, size_t offset, size_t size)
{
	struct devbuf *buf = ctx(buffer);
	struct channel *chan = buf->dev->chan;

	pthread_mutex_lock(&chan->lock);
	devbuf_set_locked(buf, t, data, offset, size, false);
	pthread_mutex_unlock(&chan->lock);
}

static void buffer_get_tensor(struct ggml_backend_buffer *buffer, const struct ggml_tensor *t,
			      void *data, size_t offset, size_t size)
{
	struct devbuf *buf = ctx(buffer);
	struct channel *chan = buf->dev->chan;

	pthread_mutex_lock(&chan->lock);
	devbuf_get_locked(buf, t, data, offset, size);
	channel_synchronize(chan);
	pthread_mutex_unlock(&chan->lock);
}

static void buffer_set_tensor_2d(struct ggml_backend_buffer *buffer, struct ggml_tensor *t,
				 const void *data, size_t offset, size_t size, size_t n_copies,
				 size_t stride_tensor, size_t stride_data)
{
	struct devbuf_rows rows = {offset, size, n_copies, stride_tensor, stride_data};
	struct devbuf *buf = ctx(buffer);
	struct channel *chan = buf->dev->chan;

	pthread_mutex_lock(&chan->lock);
	devbuf_set_rows_locked(buf, t, data, &rows);
	pthread_mutex_unlock(&chan->lock);
}

static void buffer_get_tensor_2d(struct ggml_backend_buffer *buffer, const struct ggml_tensor *t,
				 void *data, size_t offset, size_t size, size_t n_copies,
				 size_t stride_tensor, size_t stride_data)
{
	struct devbuf_rows rows = {offset, size, n_copies, stride_tensor, stride_data};
	struct devbuf *buf = ctx(buffer);
	struct channel *chan = buf->dev->chan;

	pthread_mutex_lock(&chan->lock);
	devbuf_get_rows_locked(buf, t, data, &rows);
	channel_synchronize(chan);
	pthread_mutex_unlock(&chan->lock);
}

static bool buffer_cpy_tensor(struct ggml_backend_buffer *buffer, const struct ggml_tensor *src,
			      struct ggml_tensor *dst)
{
	struct devbuf *to = ctx(buffer), *from;
	struct channel *chan = to->dev->chan;
	uint64_t src_at, dst_at, bytes = opmap_nbytes(&gplugin.opmap, src);

	from = devbuf_of(to->dev, src, &src_at);
	if (!from || !place(to, dst, 0, bytes, &dst_at))
		return false;
	pthread_mutex_lock(&chan->lock);
	devbuf_copy_locked(to, dst_at, from, src_at, bytes);
	pthread_mutex_unlock(&chan->lock);
	return true;
}

static void buffer_clear(struct ggml_backend_buffer *buffer, uint8_t value)
{
	struct devbuf *buf = ctx(buffer);
	struct channel *chan = buf->dev->chan;
	struct wire_buffer_clear clear = {.buffer = buf->handle, .value = value};

	if (!buf->handle)
		return;
	pthread_mutex_lock(&chan->lock);
	channel_queue(chan, WIRE_OP_BUFFER_CLEAR, &clear, NULL, 0);
	pthread_mutex_unlock(&chan->lock);
}

static const struct ggml_backend_buffer_i buffer_iface = {
	.free_buffer = buffer_free,
	.get_base = buffer_get_base,
	.memset_tensor = buffer_memset_tensor,
	.set_tensor = buffer_set_tensor,
	.get_tensor = buffer_get_tensor,
	.set_tensor_2d = buffer_set_tensor_2d,
	.get_tensor_2d = buffer_get_tensor_2d,
	.cpy_tensor = buffer_cpy_tensor,
	.clear = buffer_clear,
};

/* ---- ggml's table of a buffer type ---- */

static struct gdev *dev_of(union abi_buffer_type *buft)
{
	return container_of(buft, struct gdev, buft);
}

static bool reserve(struct devbuf *buf, uint64_t bytes, uint64_t alignment)
{
	uint64_t extra = alignment > 4096 ? alignment : 4096;

	if (bytes > (uint64_t)1 << 46)
		return false;
	buf->map_bytes = bytes + extra;
	buf->map = mmap(NULL, buf->map_bytes, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (buf->map == MAP_FAILED)
		return false;
	buf->base = ((uintptr_t)buf->map + alignment - 1) & ~(uintptr_t)(alignment - 1);
	buf->bytes = bytes;
	return true;
}

static bool alloc_remote(struct devbuf *buf, struct channel *chan)
{
	struct wire_buffer_alloc alloc = {.bytes = buf->bytes};
	bool ok;

	pthread_mutex_lock(&chan->lock);
	alloc.buffer = channel_slot_take(&chan->buffers);
	ok = alloc.buffer &&
	     channel_call(chan, WIRE_OP_BUFFER_ALLOC, &alloc, NULL, 0, NULL, NULL) == WIRE_OK;
	if (ok)
		buf->handle = alloc.buffer;
	else
		channel_slot_give(&chan->buffers, alloc.buffer);
	pthread_mutex_unlock(&chan->lock);
	return ok;
}

static struct ggml_backend_buffer *type_alloc_buffer(union abi_buffer_type *buft, size_t size)
{
	struct gdev *dev = dev_of(buft);
	struct channel *chan = gdev_channel(dev);
	struct ggml_backend_buffer *b;
	struct devbuf *buf;

	if (!chan)
		return NULL;
	b = calloc(1, sizeof(*b));
	buf = calloc(1, sizeof(*buf));
	if (!b || !buf || !reserve(buf, size, chan->welcome.alignment))
		goto undo_memory;
	buf->dev = dev;
	if (size && !alloc_remote(buf, chan))
		goto undo_reserve;
	*b = (struct ggml_backend_buffer){.iface = buffer_iface,
					  .buft = buft,
					  .context = buf,
					  .size = size};
	return b;

undo_reserve:
	munmap(buf->map, buf->map_bytes);
undo_memory:
	free(buf);
	free(b);
	return NULL;
}

static const char *type_get_name(union abi_buffer_type *buft)
{
	return dev_of(buft)->buft_name;
}

static size_t type_get_alignment(union abi_buffer_type *buft)
{
	struct channel *chan = gdev_channel(dev_of(buft));

	return chan ? chan->welcome.alignment : 128;
}

static size_t type_get_max_size(union abi_buffer_type *buft)
{
	struct channel *chan = gdev_channel(dev_of(buft));

	return chan && chan->welcome.max_buffer ? chan->welcome.max_buffer : SIZE_MAX;
}

static size_t type_get_alloc_size(union abi_buffer_type *buft, const struct ggml_tensor *tensor)
{
	struct gdev *dev = dev_of(buft);
	struct channel *chan = gdev_channel(dev);
	uint64_t bytes;

	if (!chan)
		return opmap_nbytes(&gplugin.opmap, tensor);
	if (gg_welcome_of(chan)->flags & GG_WELCOME_PLAIN_SIZE)
		return opmap_nbytes(&gplugin.opmap, tensor);
	pthread_mutex_lock(&chan->lock);
	bytes = query_alloc_size(&dev->query, chan, &gplugin.opmap, tensor);
	pthread_mutex_unlock(&chan->lock);
	return bytes;
}

void devbuf_type_init(struct gdev *dev)
{
	const struct abi_buffer_type_v2 members = {
		.get_name = type_get_name,
		.alloc_buffer = type_alloc_buffer,
		.get_alignment = type_get_alignment,
		.get_max_size = type_get_max_size,
		.get_alloc_size = type_get_alloc_size,
		.device = &dev->abi,
	};

	gdev_buft_init(&dev->buft, &members);
}
