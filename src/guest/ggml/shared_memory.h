/* SPDX-License-Identifier: Apache-2.0
 *
 * shared_memory.h -- memory that the executor can be given a descriptor of. */
#ifndef PIL_SHARED_MEMORY_H
#define PIL_SHARED_MEMORY_H

#include <stdint.h>

/* A memfd of @bytes, sealed against shrinking as the executor wants it, and mapped at *@map, which
 * the caller unmaps.  The descriptor, or -errno. */
int shared_memory_create(const char *name, uint64_t bytes, void **map);

#endif
