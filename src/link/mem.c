/* SPDX-License-Identifier: Apache-2.0
 *
 * mem.c -- see mem.h. */
#include "link/mem.h"

uint32_t mem_alloc(struct channel *chan, uint64_t bytes)
{
	struct wire_buffer_alloc c = {.buffer = channel_slot_take(&chan->buffers), .bytes = bytes};

	if (!c.buffer ||
	    channel_call(chan, WIRE_OP_BUFFER_ALLOC, &c, NULL, 0, NULL, NULL) == WIRE_OK)
		return c.buffer;
	channel_slot_give(&chan->buffers, c.buffer);
	return 0;
}

void mem_free(struct channel *chan, uint32_t buffer)
{
	struct wire_buffer_free c = {.buffer = buffer};

	channel_queue(chan, WIRE_OP_BUFFER_FREE, &c, NULL, 0);
	channel_slot_give(&chan->buffers, buffer);
}

void mem_set(struct channel *chan, uint32_t buffer, uint64_t offset, const void *data,
	     uint32_t bytes)
{
	struct wire_set c = {.buffer = buffer, .offset = offset};

	channel_queue(chan, WIRE_OP_SET, &c, data, bytes);
}

enum wire_status mem_get(struct channel *chan, uint32_t buffer, uint64_t offset, void *data,
			 uint32_t bytes)
{
	struct wire_get c = {.buffer = buffer, .offset = offset, .bytes = bytes};
	struct channel_dest dest = {data, 1, bytes, 0};

	return channel_call(chan, WIRE_OP_GET, &c, NULL, 0, &dest, NULL);
}
