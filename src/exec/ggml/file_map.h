/* SPDX-License-Identifier: Apache-2.0
 *
 * file_map.h -- ranges of a peer's file in our memory.
 *
 * A mapping is private and writable: what is written to it stays here, and what is not is the
 * file's, one copy for all who map it.  A file that gets shorter, or cannot be read, does not fault
 * us: the mapping turns into zeroes and says that it is lost. */
#ifndef PIL_FILE_MAP_H
#define PIL_FILE_MAP_H

#include <stdbool.h>
#include <stdint.h>

struct file_map {   /* all zero: not open */
	char *base; /* of whole pages */
	uint64_t len_bytes;
	int slot; /* in the table of the fault handler */
};

/* May @fd be mapped at all?  Only what the kernel answers for by itself: a regular file, not of a
 * file system that a peer may serve and let hang (FUSE), of at least @bytes. */
bool file_map_acceptable(int fd, uint64_t bytes);

/* Maps [offset, offset + bytes) of @fd (borrowed).  NULL: no memory, or the file cannot be read
 * there.  Any thread. */
void *file_map_open(struct file_map *map, int fd, uint64_t offset, uint64_t bytes);
void file_map_close(struct file_map *map); /* not open is fine */

bool file_map_lost(const struct file_map *map);
/* How many were ever lost, in this process: cheap to compare. */
unsigned file_map_n_lost(void);

#endif
