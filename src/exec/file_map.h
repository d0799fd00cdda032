/* SPDX-License-Identifier: Apache-2.0
 *
 * file_map.h -- a peer's file, or memory of its, in ours.
 *
 * A mapping of a file is for reading, one copy in the page cache for all who map it; one of memory
 * is written to by both.  A file that gets shorter, or cannot be read, does not fault us, nor does
 * memory that the kernel has not got: the mapping turns into zeroes of our own and says that it is
 * lost.
 *
 * It is counted: who keeps a pointer into it keeps it.  One thread at a time uses a mapping. */
#ifndef PIL_FILE_MAP_H
#define PIL_FILE_MAP_H

#include <stdbool.h>
#include <stdint.h>

struct file_map;

/* May @fd be mapped at all?  Only what the kernel answers for by itself: a regular file of at least
 * @bytes, of a file system known to keep its files in plain pages and to be no peer's (not FUSE).
 */
bool file_map_acceptable(int fd, uint64_t bytes);

/* A file need not have the bytes it says it has, but each takes one of our addresses. */
#define FILE_MAP_MAX_BYTES (UINT64_C(4) << 40)

/* Maps the first @bytes of @fd (borrowed).  NULL: no memory, or too many (mapping.h).  The caller
 * keeps the mapping, which counts in *@n and in *@total, at most FILE_MAP_MAX_BYTES, as long as it
 * is there. */
struct file_map *file_map_open(int fd, uint64_t bytes, _Atomic(uint32_t) *n,
			       _Atomic(uint64_t) *total);
/* The same for memory, whose bytes the caller counts. */
struct file_map *file_map_open_memory(int fd, uint64_t bytes, _Atomic(uint32_t) *n);
struct file_map *file_map_keep(struct file_map *map);
void file_map_drop(struct file_map *map); /* the last one unmaps it; NULL is fine */

/* Where [offset, offset + bytes), which must lie inside, is.  It is about to be used: its page
 * table entries are made in one go. */
const void *file_map_at(struct file_map *map, uint64_t offset, uint64_t bytes);

/* Where memory is. */
char *file_map_memory(struct file_map *map);

bool file_map_lost(const struct file_map *map);
/* How many were ever lost, in this process: cheap to compare. */
unsigned file_map_n_lost(void);

#endif
