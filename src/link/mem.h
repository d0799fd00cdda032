/* SPDX-License-Identifier: Apache-2.0
 *
 * mem.h -- the commands of mem.def from the program's side, for an API that needs no more of them.
 *
 * The channel is locked, or its program has one thread. */
#ifndef PIL_LINK_MEM_H
#define PIL_LINK_MEM_H

#include "link/channel.h"

uint32_t mem_alloc(struct channel *chan, uint64_t bytes); /* 0: refused, or a dead channel */
void mem_free(struct channel *chan, uint32_t buffer);

/* At most WIRE_MAX_DATA at a time.  Setting is queued; @data may be reused on return. */
void mem_set(struct channel *chan, uint32_t buffer, uint64_t offset, const void *data,
	     uint32_t bytes);
enum wire_status mem_get(struct channel *chan, uint32_t buffer, uint64_t offset, void *data,
			 uint32_t bytes);

#endif
