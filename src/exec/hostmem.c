/* SPDX-License-Identifier: Apache-2.0
 *
 * hostmem.c -- see hostmem.h. */
#include "exec/hostmem.h"

#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>

#include "exec/account.h"
#include "exec/mapping.h"

enum { MMAP_BYTES = 64 << 10 }; /* M_MMAP_THRESHOLD is 128 KiB, and may fall */

struct buffer {
	uint64_t bytes;
	uint8_t data[];
};

void hostmem_init(struct hostmem *m, struct account *account, uint32_t max_buffers,
		  uint64_t max_bytes)
{
	*m = (struct hostmem){.account = account, .max_bytes = max_bytes};
	slots_init(&m->slots, account, max_buffers);
}

/* So that many small ones cost something. */
static uint64_t charged(uint64_t bytes)
{
	return bytes + sizeof(struct buffer);
}

/* malloc() may take a mapping of the process for it. */
static bool takes_mapping(uint64_t bytes)
{
	return bytes >= MMAP_BYTES;
}

static struct buffer *create(struct hostmem *m, uint64_t bytes)
{
	struct buffer *b;

	if (takes_mapping(bytes) && !mapping_take(&m->account->n_mappings))
		return NULL;
	b = calloc(1, charged(bytes));
	if (b)
		b->bytes = bytes;
	else if (takes_mapping(bytes))
		mapping_give(&m->account->n_mappings);
	return b;
}

static void drop(struct hostmem *m, struct buffer *b)
{
	if (takes_mapping(b->bytes))
		mapping_give(&m->account->n_mappings);
	account_refund(m->account, charged(b->bytes));
	free(b);
}

void hostmem_finish(struct hostmem *m)
{
	struct buffer *b;

	while ((b = slots_take_any(&m->slots)))
		drop(m, b);
	slots_finish(&m->slots);
}

uint8_t *hostmem_find(struct hostmem *m, uint32_t handle, uint64_t *bytes)
{
	struct buffer *b = slots_find(&m->slots, handle);

	*bytes = b ? b->bytes : 0;
	return b ? b->data : NULL;
}

void hostmem_memory(void *ctx, uint64_t *free_bytes, uint64_t *total_bytes)
{
	struct sysinfo info = {0};

	(void)ctx;
	sysinfo(&info);
	*free_bytes = (uint64_t)info.freeram * info.mem_unit;
	*total_bytes = (uint64_t)info.totalram * info.mem_unit;
}

/* ---- as mem_ops: a buffer is where its bytes are ---- */

static enum wire_status mem_alloc(void *state, uint32_t handle, uint64_t bytes)
{
	struct hostmem *m = state;
	struct buffer *b;
	enum wire_status status;

	if (bytes > m->max_bytes)
		return WIRE_E_INVALID;
	if (!account_charge(m->account, charged(bytes)))
		return WIRE_E_NO_MEMORY;
	b = create(m, bytes);
	if (!b) {
		account_refund(m->account, charged(bytes));
		return WIRE_E_NO_MEMORY;
	}
	status = slots_put(&m->slots, handle, b);
	if (status != WIRE_OK)
		drop(m, b);
	return status;
}

static bool mem_free(void *state, uint32_t handle)
{
	struct hostmem *m = state;
	struct buffer *b = slots_take(&m->slots, handle);

	if (b)
		drop(m, b);
	return b != NULL;
}

static void *mem_find(void *state, uint32_t handle, uint64_t *bytes)
{
	return hostmem_find(state, handle, bytes);
}

static enum wire_status mem_set(void *state, void *buffer, uint64_t offset, const void *data,
				uint64_t bytes)
{
	(void)state;
	if (bytes)
		memmove((char *)buffer + offset, data, bytes);
	return WIRE_OK;
}

static enum wire_status mem_get(void *state, void *buffer, uint64_t offset, void *data,
				uint64_t bytes)
{
	(void)state;
	if (bytes)
		memcpy(data, (char *)buffer + offset, bytes);
	return WIRE_OK;
}

static enum wire_status mem_fill(void *state, void *buffer, uint64_t offset, uint8_t value,
				 uint64_t bytes)
{
	(void)state;
	memset((char *)buffer + offset, value, bytes);
	return WIRE_OK;
}

const struct mem_ops hostmem_ops = {
	.alloc = mem_alloc,
	.free = mem_free,
	.find = mem_find,
	.set = mem_set,
	.get = mem_get,
	.fill = mem_fill,
};
