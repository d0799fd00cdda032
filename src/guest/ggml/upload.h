/* SPDX-License-Identifier: Apache-2.0
 *
 * upload.h -- large data on its way to a device, through shared memory where there is some.
 * Under the channel's lock. */
#ifndef PIL_UPLOAD_H
#define PIL_UPLOAD_H

#include <stdbool.h>
#include <stdint.h>

struct channel;

enum { UPLOAD_SLOTS = 4, UPLOAD_SLOT_BYTES = 4 << 20 };

struct upload {
	bool tried;
	uint32_t shm; /* 0: none, data goes over the stream */
	uint8_t *base;
	uint32_t next;
	uint64_t free_at[UPLOAD_SLOTS]; /* the slot is ours again when this command is done */
};

/* Writes @bytes at @offset of @buffer.  @data may be reused on return. */
void upload_set(struct upload *up, struct channel *chan, uint32_t buffer, uint64_t offset,
		const void *data, uint64_t bytes);

/* Unmaps the staging memory; its channel is gone or going. */
void upload_finish(struct upload *up);

/* A memfd of @bytes, sealed against shrinking and mapped shared; -errno, or the descriptor. */
int upload_shm_create(const char *name, uint64_t bytes, void **map);

#endif
