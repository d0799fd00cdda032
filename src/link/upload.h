/* SPDX-License-Identifier: Apache-2.0
 *
 * upload.h -- large data on its way to a device: as a part of its file, through shared memory, or
 * over the stream, whichever is the first that can be done.
 * Under the channel's lock. */
#ifndef PIL_UPLOAD_H
#define PIL_UPLOAD_H

#include <stdbool.h>
#include <stdint.h>

struct channel;
struct wire_set;

enum {
	UPLOAD_PIECE_BYTES = 4 << 20,
	UPLOAD_WINDOW_BYTES = 16 << 20, /* of the ring, used for pieces */
	UPLOAD_MAX_WHOLE = 32 << 20,
	UPLOAD_RING_BYTES = 64 << 20, /* touched only as far as it is needed */
	UPLOAD_MAX_SPANS = 64,
	UPLOAD_MAX_FILES = 16,
	UPLOAD_COSTLY_FILE_BYTES = 4 << 20, /* see mapped_file_find() */
};

struct upload_span { /* of the ring, in use until command @seq is carried out */
	uint64_t start, end, seq;
};

struct upload_file { /* that the executor has; its descriptor there keeps the inode from reuse */
	uint64_t device, inode, bytes;
	uint32_t shm; /* 0: slot free */
};

struct upload {
	bool tried;
	bool no_files; /* the executor, or the system, will not have them */
	uint32_t shm;  /* 0: none, data goes over the stream */
	uint8_t *base;
	uint64_t cursor;
	struct upload_span spans[UPLOAD_MAX_SPANS]; /* oldest first, from @first */
	uint32_t first, n;
	struct upload_file files[UPLOAD_MAX_FILES];
	uint32_t next_file; /* slot that goes next */
};

/* Writes a whole weight at @offset of @buffer if @data lies in a file that the program has mapped,
 * by naming the file.  False: it does not, nothing was done. */
bool upload_mapped(struct upload *up, struct channel *chan, const struct wire_set *set,
		   const void *data, uint64_t bytes);

/* Writes @bytes at @offset of @buffer.  @data may be reused on return.  With @whole the executor
 * gets it in one piece if that is possible: it can then convert a weight without storing it twice.
 */
void upload_set(struct upload *up, struct channel *chan, const struct wire_set *set,
		const void *data, uint64_t bytes, bool whole);

/* Unmaps the staging memory; its channel is gone or going. */
void upload_finish(struct upload *up);

/* A memfd of @bytes, sealed against shrinking and mapped shared; -errno, or the descriptor. */
int upload_shm_create(const char *name, uint64_t bytes, void **map);

#endif
