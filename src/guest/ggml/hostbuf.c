/* SPDX-License-Identifier: Apache-2.0
 *
 * hostbuf.c -- see hostbuf.h.  The memory is a sealed memfd, announced to the executor, so that
 * results are written into it and large inputs read from it without a copy on this side.  When it
 * cannot be shared (no descriptors on this transport, table full) it is memory like any other. */
#include "guest/ggml/hostbuf.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "guest/ggml/gdev.h"
#include "link/channel.h"

struct hostbuf {
	struct gdev *dev;
	uint8_t *base;
	uint64_t bytes; /* of the mapping */
	uint32_t shm;   /* 0: not shared */
};

static struct hostbuf *ctx(struct ggml_backend_buffer *buffer)
{
	return buffer->context;
}

/* ---- sharing ---- */

static bool share_begin(struct hostbuf *buf)
{
	struct gdev *dev = buf->dev;
	struct channel *chan = gdev_channel(dev);
	_auto_fd int fd = -1;
	void *map = NULL;

	if (!chan || !(chan->welcome.flags & WIRE_WELCOME_SHM))
		return false;
	fd = upload_shm_create("pillion-host", buf->bytes, &map);
	if (fd < 0)
		return false;
	pthread_mutex_lock(&chan->lock);
	if (dev->n_shms < WIRE_MAX_SHM)
		buf->shm = channel_shm_add(chan, fd, buf->bytes, WIRE_SHM_MEMORY);
	if (buf->shm)
		dev->shms[dev->n_shms++] = (struct gdev_shm){(uintptr_t)map, buf->bytes, buf->shm};
	pthread_mutex_unlock(&chan->lock);
	if (!buf->shm) {
		munmap(map, buf->bytes);
		return false;
	}
	buf->base = map;
	return true;
}

static void share_end(struct hostbuf *buf)
{
	struct gdev *dev = buf->dev;
	struct channel *chan = dev->chan;

	pthread_mutex_lock(&chan->lock);
	channel_synchronize(chan); /* nothing may be on its way into this memory */
	for (uint32_t i = 0; i < dev->n_shms; i++)
		if (dev->shms[i].shm == buf->shm)
			dev->shms[i--] = dev->shms[--dev->n_shms];
	channel_shm_drop(chan, buf->shm);
	pthread_mutex_unlock(&chan->lock);
}

/* ---- ggml's table of a buffer: ordinary memory ---- */

static void host_free(struct ggml_backend_buffer *buffer)
{
	struct hostbuf *buf = ctx(buffer);

	if (buf->shm)
		share_end(buf);
	munmap(buf->base, buf->bytes);
	free(buf);
}

static void *host_get_base(struct ggml_backend_buffer *buffer)
{
	return ctx(buffer)->base;
}

static void host_memset_tensor(struct ggml_backend_buffer *buffer, struct ggml_tensor *t,
			       uint8_t value, size_t offset, size_t size)
{
	(void)buffer;
	memset((char *)t->data + offset, value, size);
}

static void host_set_tensor(struct ggml_backend_buffer *buffer, struct ggml_tensor *t,
			    const void *data, size_t offset, size_t size)
{
	(void)buffer;
	memcpy((char *)t->data + offset, data, size);
}

static void host_get_tensor(struct ggml_backend_buffer *buffer, const struct ggml_tensor *t,
			    void *data, size_t offset, size_t size)
{
	(void)buffer;
	memcpy(data, (const char *)t->data + offset, size);
}

static bool host_cpy_tensor(struct ggml_backend_buffer *buffer, const struct ggml_tensor *src,
			    struct ggml_tensor *dst)
{
	(void)buffer;
	if (!src->buffer || !gdev_buft_is_host(src->buffer->buft))
		return false;
	memcpy(dst->data, src->data, opmap_nbytes(&gplugin.opmap, src));
	return true;
}

static void host_clear(struct ggml_backend_buffer *buffer, uint8_t value)
{
	memset(ctx(buffer)->base, value, buffer->size);
}

static const struct ggml_backend_buffer_i host_iface = {
	.free_buffer = host_free,
	.get_base = host_get_base,
	.memset_tensor = host_memset_tensor,
	.set_tensor = host_set_tensor,
	.get_tensor = host_get_tensor,
	.cpy_tensor = host_cpy_tensor,
	.clear = host_clear,
};

/* ---- ggml's table of a buffer type ---- */

static struct gdev *dev_of(union abi_buffer_type *buft)
{
	return container_of(buft, struct gdev, host_buft);
}

static struct ggml_backend_buffer *type_alloc_buffer(union abi_buffer_type *buft, size_t size)
{
	struct ggml_backend_buffer *b = calloc(1, sizeof(*b));
	struct hostbuf *buf = calloc(1, sizeof(*buf));

	if (!b || !buf || size > (size_t)1 << 46)
		goto undo;
	buf->dev = dev_of(buft);
	buf->bytes = size ? (size + 4095) & ~(uint64_t)4095 : 4096;
	if (!share_begin(buf)) {
		void *map = mmap(NULL, buf->bytes, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (map == MAP_FAILED)
			goto undo;
		buf->base = map;
	}
	madvise(buf->base, buf->bytes, MADV_HUGEPAGE);
	*b = (struct ggml_backend_buffer){.iface = host_iface,
					  .buft = buft,
					  .context = buf,
					  .size = size};
	return b;

undo:
	free(b);
	free(buf);
	return NULL;
}

static const char *type_get_name(union abi_buffer_type *buft)
{
	return dev_of(buft)->host_buft_name;
}

static size_t type_get_alignment(union abi_buffer_type *buft)
{
	(void)buft;
	return 64;
}

static size_t type_get_max_size(union abi_buffer_type *buft)
{
	(void)buft;
	return SIZE_MAX;
}

static size_t type_get_alloc_size(union abi_buffer_type *buft, const struct ggml_tensor *tensor)
{
	(void)buft;
	return opmap_nbytes(&gplugin.opmap, tensor);
}

static bool type_is_host(union abi_buffer_type *buft)
{
	(void)buft;
	return true;
}

void hostbuf_type_init(struct gdev *dev)
{
	const struct abi_buffer_type_v2 members = {
		.get_name = type_get_name,
		.alloc_buffer = type_alloc_buffer,
		.get_alignment = type_get_alignment,
		.get_max_size = type_get_max_size,
		.get_alloc_size = type_get_alloc_size,
		.is_host = type_is_host,
		.device = &dev->abi,
	};

	gdev_buft_init(&dev->host_buft, &members);
}
