/* SPDX-License-Identifier: Apache-2.0
 *
 * mapped_file.h -- the file behind a range of this process's memory.
 *
 * Programs map a model's file and hand out pointers into it.  Where the executor can have the file
 * itself, its weights need not be copied. */
#ifndef PIL_MAPPED_FILE_H
#define PIL_MAPPED_FILE_H

#include <stdbool.h>
#include <stdint.h>

enum { MAPPED_FILE_MAX_PATH = 4096 };

struct mapped_file {
	uint64_t device, inode;
	uint64_t offset; /* in the file, of the first byte asked about */
	char path[MAPPED_FILE_MAX_PATH];
};

/* Fills @out if all of [data, data + bytes) is one mapping of a file that can only differ from the
 * file's content if that changes: shared and not writable.  On kernels before 6.11 this reads a
 * list of all mappings, and is done for at least @costly_bytes only. */
bool mapped_file_find(const void *data, uint64_t bytes, uint64_t costly_bytes,
		      struct mapped_file *out);

/* Opens it for reading, if it still has that name, and says how long it is.  -1: it has not. */
int mapped_file_open(const struct mapped_file *file, uint64_t *file_bytes);

#endif
