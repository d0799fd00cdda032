/* SPDX-License-Identifier: Apache-2.0
 *
 * hostmem.h -- the buffers of a session whose API computes on the host's memory: commands of
 * mem.def for an API that has no memory of its own.
 *
 * Not thread-safe: a session's thread owns it. */
#ifndef PIL_HOSTMEM_H
#define PIL_HOSTMEM_H

#include "exec/api.h"
#include "exec/slots.h"

struct hostmem {
	struct account *account; /* borrowed */
	uint64_t max_bytes;      /* of one buffer */
	struct slots slots;
};

void hostmem_init(struct hostmem *m, struct account *account, uint32_t max_buffers,
		  uint64_t max_bytes);
void hostmem_finish(struct hostmem *m); /* frees what is left */

/* The bytes of a buffer; NULL: no such handle. */
uint8_t *hostmem_find(struct hostmem *m, uint32_t handle, uint64_t *bytes);

/* For exec_api::mem, of an API whose state begins with a struct hostmem. */
extern const struct mem_ops hostmem_ops;

/* What the host has, for card_serve(). */
void hostmem_memory(void *ctx, uint64_t *free_bytes, uint64_t *total_bytes);

#endif
