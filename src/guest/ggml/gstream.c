/* SPDX-License-Identifier: Apache-2.0
 *
 * gstream.c -- see gstream.h.  All streams of a device share its one channel, so their work is in
 * one order and an event is just a place in it. */
#include "guest/ggml/gstream.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "guest/ggml/devbuf.h"
#include "guest/ggml/gdev.h"
#include "link/channel.h"

struct stream {
	struct ggml_backend abi;
	struct gdev *dev;
};

struct stream_event {
	struct ggml_backend_event abi;
	uint64_t seq;
};

static const uint8_t guid[16] = {0x70, 0x69, 0x6c, 0x6c, 0x69, 0x6f, 0x6e, 0x2d,
				 0x67, 0x67, 0x6d, 0x6c, 0x2d, 0x30, 0x30, 0x31};

static struct gdev *dev_of(struct ggml_backend *backend)
{
	return ((struct stream *)backend->context)->dev;
}

static const char *stream_get_name(struct ggml_backend *backend)
{
	return dev_of(backend)->name;
}

static void stream_free(struct ggml_backend *backend)
{
	struct channel *chan = dev_of(backend)->chan;

	pthread_mutex_lock(&chan->lock);
	channel_flush(chan);
	pthread_mutex_unlock(&chan->lock);
	free(backend->context);
}

static void stream_set_tensor_async(struct ggml_backend *backend, struct ggml_tensor *t,
				    const void *data, size_t offset, size_t size)
{
	struct gdev *dev = dev_of(backend);
	struct channel *chan = dev->chan;
	struct devbuf *buf;
	uint64_t at;

	pthread_mutex_lock(&chan->lock);
	cgraphs_next(&dev->graphs, chan, false);
	buf = devbuf_of(dev, t, &at);
	if (buf && size)
		devbuf_set_locked(buf, t, data, offset, size, true);
	pthread_mutex_unlock(&chan->lock);
}

static void stream_get_tensor_async(struct ggml_backend *backend, const struct ggml_tensor *t,
				    void *data, size_t offset, size_t size)
{
	struct gdev *dev = dev_of(backend);
	struct channel *chan = dev->chan;
	struct devbuf *buf;
	uint64_t at;

	pthread_mutex_lock(&chan->lock);
	buf = devbuf_of(dev, t, &at);
	if (buf && size)
		devbuf_get_locked(buf, t, data, offset, size);
	else
		memset(data, 0, size);
	cgraphs_next(&dev->graphs, chan, true);
	pthread_mutex_unlock(&chan->lock);
}

static void stream_set_tensor_2d_async(struct ggml_backend *backend, struct ggml_tensor *t,
				       const void *data, size_t offset, size_t size,
				       size_t n_copies, size_t stride_tensor, size_t stride_data)
{
	struct devbuf_rows rows = {offset, size, n_copies, stride_tensor, stride_data};
	struct gdev *dev = dev_of(backend);
	struct channel *chan = dev->chan;
	struct devbuf *buf;
	uint64_t at;

	pthread_mutex_lock(&chan->lock);
	cgraphs_next(&dev->graphs, chan, false);
	buf = devbuf_of(dev, t, &at);
	if (buf)
		devbuf_set_rows_locked(buf, t, data, &rows);
	pthread_mutex_unlock(&chan->lock);
}

static void stream_get_tensor_2d_async(struct ggml_backend *backend, const struct ggml_tensor *t,
				       void *data, size_t offset, size_t size, size_t n_copies,
				       size_t stride_tensor, size_t stride_data)
{
	struct devbuf_rows rows = {offset, size, n_copies, stride_tensor, stride_data};
	struct gdev *dev = dev_of(backend);
	struct channel *chan = dev->chan;
	struct devbuf *buf;
	uint64_t at;

	pthread_mutex_lock(&chan->lock);
	buf = devbuf_of(dev, t, &at);
	if (buf)
		devbuf_get_rows_locked(buf, t, data, &rows);
	for (size_t r = 0; !buf && r < n_copies; r++)
		memset((char *)data + r * stride_data, 0, size);
	cgraphs_next(&dev->graphs, chan, true);
	pthread_mutex_unlock(&chan->lock);
}

/* The scheduler asks this for what one part of a graph hands to the next.  From ordinary memory the
 * data is taken at once, which spares the wait for this device that a "no" would cost. */
static bool stream_cpy_tensor_async(struct ggml_backend *src_backend,
				    struct ggml_backend *dst_backend, const struct ggml_tensor *src,
				    struct ggml_tensor *dst)
{
	struct gdev *dev = dev_of(dst_backend);
	struct channel *chan = dev->chan;
	const struct ggml_backend_buffer *from_abi = src->buffer;
	uint64_t bytes = opmap_nbytes(&gplugin.opmap, src), src_at, dst_at;
	struct devbuf *to = devbuf_of(dev, dst, &dst_at);
	struct devbuf *from = devbuf_of(dev, src, &src_at);
	bool host;

	if (!from_abi && src->view_src)
		from_abi = src->view_src->buffer;
	host = !from && from_abi && gdev_buft_is_host(from_abi->buft);
	if (!to || (!from && !host))
		return false;
	if (host && src_backend && src_backend->iface.synchronize)
		src_backend->iface.synchronize(src_backend);
	pthread_mutex_lock(&chan->lock);
	cgraphs_next(&dev->graphs, chan, false);
	if (from)
		devbuf_copy_locked(to, dst_at, from, src_at, bytes);
	else if (bytes)
		devbuf_set_locked(to, dst, src->data, 0, bytes, false);
	pthread_mutex_unlock(&chan->lock);
	return true;
}

static void stream_synchronize(struct ggml_backend *backend)
{
	struct gdev *dev = dev_of(backend);
	struct channel *chan = dev->chan;

	pthread_mutex_lock(&chan->lock);
	cgraphs_next(&dev->graphs, chan, false);
	channel_synchronize(chan);
	pthread_mutex_unlock(&chan->lock);
}

static bool locate(void *ctx, const struct ggml_tensor *t, uint32_t *buffer, uint64_t *offset)
{
	struct devbuf *buf = devbuf_of(ctx, t, offset);

	if (!buf)
		return false;
	*buffer = buf->handle;
	return buf->handle != 0;
}

/* A failure since the last graph: the program learns of it now. */
static int take_failure(struct gdev *dev, struct channel *chan)
{
	uint16_t failed = chan->failed;

	if (!failed)
		return ABI_STATUS_SUCCESS;
	if (!chan->dead) {
		log_err("a computation failed: %s", wire_status_str[failed]);
		chan->failed = WIRE_OK;
		cgraphs_forget(&dev->graphs);
	}
	return ABI_STATUS_FAILED;
}

static int stream_graph_compute(struct ggml_backend *backend, struct ggml_cgraph *cgraph)
{
	struct gdev *dev = dev_of(backend);
	struct channel *chan = dev->chan;
	int status;

	pthread_mutex_lock(&chan->lock);
	cgraphs_next(&dev->graphs, chan, false);
	status = take_failure(dev, chan);
	if (status == ABI_STATUS_SUCCESS)
		status = cgraphs_run(&dev->graphs, chan, cgraph, &gplugin.opmap, locate, dev);
	pthread_mutex_unlock(&chan->lock);
	return status;
}

static void stream_event_record(struct ggml_backend *backend, struct ggml_backend_event *event)
{
	struct gdev *dev = dev_of(backend);
	struct channel *chan = dev->chan;

	pthread_mutex_lock(&chan->lock);
	cgraphs_next(&dev->graphs, chan, false);
	((struct stream_event *)event->context)->seq = chan->need;
	pthread_mutex_unlock(&chan->lock);
}

void gstream_event_synchronize(struct ggml_backend_device *abi, struct ggml_backend_event *event)
{
	struct channel *chan = gdev_of(abi)->chan;

	if (!chan)
		return;
	pthread_mutex_lock(&chan->lock);
	channel_wait(chan, ((struct stream_event *)event->context)->seq);
	pthread_mutex_unlock(&chan->lock);
}

static void stream_event_wait(struct ggml_backend *backend, struct ggml_backend_event *event)
{
	if (event->device != &dev_of(backend)->abi)
		event->device->iface.event_synchronize(event->device, event);
}

struct ggml_backend_event *gstream_event_new(struct ggml_backend_device *abi)
{
	struct stream_event *event = calloc(1, sizeof(*event));

	if (!event)
		return NULL;
	event->abi = (struct ggml_backend_event){.device = abi, .context = event};
	return &event->abi;
}

void gstream_event_free(struct ggml_backend_device *abi, struct ggml_backend_event *event)
{
	(void)abi;
	free(event->context);
}

struct ggml_backend *gstream_create(struct gdev *dev)
{
	struct stream *stream;

	if (!gdev_channel(dev))
		return NULL;
	stream = calloc(1, sizeof(*stream));
	if (!stream)
		return NULL;
	stream->dev = dev;
	stream->abi = (struct ggml_backend){
		.guid = &guid,
		.iface =
			{
				.get_name = stream_get_name,
				.free = stream_free,
				.set_tensor_async = stream_set_tensor_async,
				.get_tensor_async = stream_get_tensor_async,
				.set_tensor_2d_async = stream_set_tensor_2d_async,
				.get_tensor_2d_async = stream_get_tensor_2d_async,
				.cpy_tensor_async = stream_cpy_tensor_async,
				.synchronize = stream_synchronize,
				.graph_compute = stream_graph_compute,
				.event_record = stream_event_record,
				.event_wait = stream_event_wait,
			},
		.device = &dev->abi,
		.context = stream,
	};
	return &stream->abi;
}
