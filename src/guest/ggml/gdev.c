/* SPDX-License-Identifier: Apache-2.0
 *
 * gdev.c -- see gdev.h.  That there are devices is known from the broker's list; a session with the
 * executor starts when the program first wants something of one, be it the memory that is left, and
 * lasts as long as the process. */
#include "guest/ggml/gdev.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/ggml/tensor_ops.h"
#include "base/log.h"
#include "guest/ggml/devbuf.h"
#include "guest/ggml/gstream.h"
#include "guest/ggml/hostbuf.h"

struct gplugin gplugin;

/* ---- text ---- */

void gdev_describe(char *out, size_t out_size, const char *text)
{
	static const char *const masked[] = {"cuda", "rocm", "hip", "metal", "apple", "vulkan"};
	size_t len = 0;

	while (*text && len + 1 < out_size) {
		size_t skip = 0;

		for (size_t i = 0; i < ARRAY_SIZE(masked); i++)
			if (!strncasecmp(text, masked[i], strlen(masked[i])))
				skip = strlen(masked[i]);
		if (skip) {
			text += skip;
			continue;
		}
		out[len++] = isprint((unsigned char)*text) ? *text : '?';
		text++;
	}
	out[len] = '\0';
}

/* ---- the channel ---- */

static void open_channel(struct gdev *dev)
{
	struct channel *chan = NULL;
	struct pil_err err = {0};

	if (channel_create(&chan, &gplugin.target, dev->info.index, &err)) {
		dev->open_failed = true;
		log_err("%s: %s", dev->name, err.msg);
		return;
	}
	if (getenv("PILLION_NO_SHM"))
		chan->welcome.flags &= ~(uint32_t)WIRE_WELCOME_SHM;
	if (gg_welcome_of(chan)->n_types > WIRE_MAX_TYPES) {
		channel_destroy(chan);
		dev->open_failed = true;
		log_err("%s: the executor's welcome is not one", dev->name);
		return;
	}
	if (!query_init(&dev->query, &gplugin.opmap, gg_welcome_of(chan))) {
		dev->open_failed = true;
		log_err("%s: open a session: no memory", dev->name);
		channel_destroy(chan);
		return;
	}
	atomic_store(&dev->chan, chan);
}

struct channel *gdev_channel(struct gdev *dev)
{
	struct channel *chan = atomic_load_explicit(&dev->chan, memory_order_acquire);

	if (chan)
		return chan;
	pthread_mutex_lock(&dev->open_lock);
	if (!dev->chan && !dev->open_failed)
		open_channel(dev);
	pthread_mutex_unlock(&dev->open_lock);
	return dev->chan;
}

const struct gdev_shm *gdev_find_shm(const struct gdev *dev, const void *data, uint64_t bytes)
{
	for (uint32_t i = 0; i < dev->n_shms; i++) {
		const struct gdev_shm *s = &dev->shms[i];
		uint64_t at = (uintptr_t)data - s->base;

		if (at < s->bytes && bytes <= s->bytes - at)
			return s;
	}
	return NULL;
}

void gdev_buft_init(union abi_buffer_type *buft, const struct abi_buffer_type_v2 *members)
{
	if (gplugin.program.generation == ABI_V2)
		buft->v2 = *members;
	else
		buft->v3 = (struct abi_buffer_type_v3){
			.get_name = members->get_name,
			.alloc_buffer = members->alloc_buffer,
			.get_alignment = members->get_alignment,
			.get_max_size = members->get_max_size,
			.get_alloc_size = members->get_alloc_size,
			.is_host = members->is_host,
			.device = members->device,
			.context = members->context,
		};
}

bool gdev_buft_is_host(union abi_buffer_type *buft)
{
	bool (*is_host)(union abi_buffer_type *) =
		gplugin.program.generation == ABI_V2 ? buft->v2.is_host : buft->v3.is_host;

	return is_host && is_host(buft);
}

/* ---- ggml's table of a device ---- */

static const char *dev_get_name(struct ggml_backend_device *abi)
{
	return gdev_of(abi)->name;
}

static const char *dev_get_description(struct ggml_backend_device *abi)
{
	return gdev_of(abi)->description;
}

/* Of the session: what this machine has in use counts, whichever program uses it. */
static bool ask_executor(struct channel *chan, struct wire_memory *memory)
{
	static const struct wire_empty none;
	struct channel_dest dest = {memory, 1, sizeof(*memory), 0};
	enum wire_status status;

	pthread_mutex_lock(&chan->lock);
	status = channel_call(chan, WIRE_OP_MEMORY, &none, NULL, 0, &dest, NULL);
	pthread_mutex_unlock(&chan->lock);
	return status == WIRE_OK;
}

/* Of the broker's list, which is as old as the executor's last report. */
static bool ask_broker(uint32_t index, struct wire_memory *memory)
{
	struct wire_device devices[WIRE_MAX_DEVICES];
	uint32_t n = 0;

	if (channel_list(&gplugin.target, devices, WIRE_MAX_DEVICES, &n, NULL))
		return false;
	for (uint32_t i = 0; i < n; i++) {
		if (devices[i].index != index)
			continue;
		memory->free = devices[i].memory_free;
		memory->total = devices[i].memory_total;
		return true;
	}
	return false;
}

/* A session that has ended is not asked about elsewhere: nothing can be allocated in it.  A broker
 * that did not answer is not asked again: programs ask many times, and each would wait. */
static bool ask_memory(struct gdev *dev, struct wire_memory *memory)
{
	struct channel *chan = gdev_channel(dev);

	if (chan)
		return ask_executor(chan, memory);
	if (atomic_load(&dev->no_answer))
		return false;
	if (ask_broker(dev->info.index, memory))
		return true;
	atomic_store(&dev->no_answer, true);
	return false;
}

static void dev_get_memory(struct ggml_backend_device *abi, size_t *free_bytes, size_t *total)
{
	struct gdev *dev = gdev_of(abi);
	struct wire_memory memory = {0};

	if (!ask_memory(dev, &memory))
		memory = (struct wire_memory){0, dev->info.memory_total};
	*free_bytes = memory.free;
	*total = memory.total;
}

/* GPU whatever it is: programs give work to nothing else.  What it is stands in the description. */
static int dev_get_type(struct ggml_backend_device *abi)
{
	(void)abi;
	return ABI_DEVICE_GPU;
}

static void dev_get_props(struct ggml_backend_device *abi, struct ggml_backend_dev_props *props)
{
	struct gdev *dev = gdev_of(abi);

	memset(props, 0, sizeof(*props));
	props->name = dev->name;
	props->description = dev->description;
	props->type = ABI_DEVICE_GPU;
	if (strchr(dev->info.card, ':')) /* programs use one card once, whichever ways there are */
		props->device_id = dev->info.card;
	dev_get_memory(abi, &props->memory_free, &props->memory_total);
	props->caps.async = true;
	props->caps.host_buffer = true;
	props->caps.events = true;
	props->caps.mmap_support = true;
}

static struct ggml_backend *dev_init_backend(struct ggml_backend_device *abi, const char *params)
{
	(void)params;
	return gstream_create(gdev_of(abi));
}

static union abi_buffer_type *dev_get_buffer_type(struct ggml_backend_device *abi)
{
	return &gdev_of(abi)->buft;
}

static union abi_buffer_type *dev_get_host_buffer_type(struct ggml_backend_device *abi)
{
	return &gdev_of(abi)->host_buft;
}

/* llama.cpp decides where a weight goes by asking about an operation that has it as a source, in an
 * empty buffer of the type in question.  That tells what the weight is for. */
static void note_uses(struct gdev *dev, const struct ggml_tensor *op)
{
	for (int i = 0; i < ABI_MAX_SRC; i++) {
		const struct ggml_tensor *s = op->src[i];

		if (s && s->buffer && s->buffer->buft == &dev->buft && s->buffer->size == 0) {
			int number = opmap_op(&gplugin.opmap, op->op);

			query_note_use(&dev->query, s->name,
				       i == 0 ? (enum wire_tensor_op)number : WIRE_T_NONE);
		}
	}
}

static uint32_t ask_op(struct gdev *dev, const struct ggml_tensor *op)
{
	struct channel *chan = gdev_channel(dev);
	uint32_t answer;

	if (!chan)
		return QUERY_NO;
	pthread_mutex_lock(&chan->lock);
	note_uses(dev, op);
	answer = query_supports(&dev->query, chan, &gplugin.opmap, op);
	pthread_mutex_unlock(&chan->lock);
	return answer;
}

static bool dev_supports_op(struct ggml_backend_device *abi, const struct ggml_tensor *op)
{
	return ask_op(gdev_of(abi), op) & QUERY_YES;
}

static bool dev_supports_buft(struct ggml_backend_device *abi, union abi_buffer_type *buft)
{
	return buft == &gdev_of(abi)->buft;
}

static bool dev_offload_op(struct ggml_backend_device *abi, const struct ggml_tensor *op)
{
	return ask_op(gdev_of(abi), op) & QUERY_OFFLOAD;
}

static const struct ggml_backend_device_i dev_iface = {
	.get_name = dev_get_name,
	.get_description = dev_get_description,
	.get_memory = dev_get_memory,
	.get_type = dev_get_type,
	.get_props = dev_get_props,
	.init_backend = dev_init_backend,
	.get_buffer_type = dev_get_buffer_type,
	.get_host_buffer_type = dev_get_host_buffer_type,
	.supports_op = dev_supports_op,
	.supports_buft = dev_supports_buft,
	.offload_op = dev_offload_op,
	.event_new = gstream_event_new,
	.event_free = gstream_event_free,
	.event_synchronize = gstream_event_synchronize,
};

void gdev_init(struct gdev *dev, uint32_t index, const struct wire_device *info)
{
	char plain[sizeof(info->description)];

	memset(dev, 0, sizeof(*dev));
	pthread_mutex_init(&dev->open_lock, NULL);
	dev->info = *info;
	dev->abi = (struct ggml_backend_device){.iface = dev_iface,
						.reg = &gplugin.reg,
						.context = dev};
	gdev_describe(plain, sizeof(plain), info->description);
	if ((info->flags & WIRE_DEVICE_REFERENCE) && strncmp(plain, "reference device", 16) != 0)
		snprintf(dev->description, sizeof(dev->description),
			 "reference device (host CPU: %s)", plain);
	else
		snprintf(dev->description, sizeof(dev->description), "%s",
			 plain[0] ? plain : "device of the host");
	snprintf(dev->name, sizeof(dev->name), "Pillion%u", index);
	snprintf(dev->buft_name, sizeof(dev->buft_name), "Pillion%u", index);
	snprintf(dev->host_buft_name, sizeof(dev->host_buft_name), "Pillion%u_Host", index);
	devbuf_type_init(dev);
	hostbuf_type_init(dev);
}
