/* SPDX-License-Identifier: Apache-2.0
 *
 * buffers.h -- the device memory of one session, and the weights in it.
 *
 * Not thread-safe: a session's thread owns its buffers.  Offsets and sizes come from a peer and are
 * checked here; a false or an error status means "refused", never a changed buffer. */
#ifndef PIL_BUFFERS_H
#define PIL_BUFFERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "exec/account.h"
#include "exec/file_map.h"
#include "exec/ggml/device.h"
#include "api/ggml/ggml.h"

/* A tensor of weights announced before its data. */
struct weight {
	uint64_t offset, bytes;
	uint64_t received; /* of @bytes */
	uint32_t uses;     /* enum wire_use */
	bool placed; /* @tensor lies in a buffer type of the device's choice, not in the plain one
		      */
	struct file_map *lent;                  /* kept: @tensor lies in the program's own file */
	uint64_t uncommitted;                   /* of @bytes, while lent: the pages given back */
	struct ggml_backend_buffer *own_buffer; /* NULL: in gg_buffer::shadow */
	uint64_t own_extra;                     /* charged for what that is larger */
	uint64_t own_held;                      /* held for what stays in the plain buffer */
	struct ggml_tensor tensor;
};

struct gg_buffer {
	uint32_t handle; /* 0: slot free */
	uint64_t bytes;
	struct ggml_backend_buffer *plain;
	char *base;              /* of @plain: an address, or what the device uses for one */
	struct ggml_tensor flat; /* all of @plain as bytes */
	/* One more buffer of the same size per extra buffer type, made when a weight first goes
	 * there; the weight lies at its own offset.  Pages nobody touches cost nothing. */
	struct ggml_backend_buffer *shadow[DEVICE_MAX_EXTRA];
	uint64_t shadow_held[DEVICE_MAX_EXTRA]; /* for what takes memory here and there */
	struct weight **weights; /* by offset; pointers, since to insert is to move what follows */
	uint32_t n_weights, cap_weights;
	uint32_t n_lent; /* of the weights */
};

struct buffers {
	struct gg_device *device;
	struct account *account;
	uint32_t n_weights; /* in all buffers; at most WIRE_MAX_TENSORS */
	uint32_t n_lent;    /* of them, in files */
	uint64_t epoch;     /* moves whenever data that was somewhere may be elsewhere, or gone */
	unsigned n_lost;    /* file_map_n_lost() when we looked last */
	bool starved;       /* a weight had to leave its file, and there was no memory for it */
	struct gg_buffer *slots[WIRE_MAX_BUFFERS];
};

void buffers_init(struct buffers *b, struct gg_device *device, struct account *account);
void buffers_finish(struct buffers *b); /* frees what is left */

enum wire_status buffers_alloc(struct buffers *b, uint32_t handle, uint64_t bytes);
bool buffers_free(struct buffers *b, uint32_t handle);
struct gg_buffer *buffers_find(struct buffers *b, uint32_t handle); /* NULL: no such handle */

/* Is [offset, offset + bytes) inside? */
static inline bool gg_buffer_holds(const struct gg_buffer *buffer, uint64_t offset, uint64_t bytes)
{
	return offset <= buffer->bytes && bytes <= buffer->bytes - offset;
}

/* Announces a weight; one that overlaps replaces what was announced there. */
enum wire_status gg_buffer_weight(struct buffers *b, struct gg_buffer *buffer,
				  const struct wire_weight *announced);

/* The weight that starts at @offset, or NULL. */
struct weight *gg_buffer_weight_at(struct gg_buffer *buffer, uint64_t offset);
/* Does [offset, offset + bytes) touch a weight that is not in the plain buffer any more? */
bool gg_buffer_touches_placed(struct gg_buffer *buffer, uint64_t offset, uint64_t bytes);

/* [offset, offset + bytes) as the device's tensors find it there: an address of ours on a device
 * with host memory, to be read: what is to be written must be owned first.  May move weights (see
 * buffers::epoch).  The caller has checked gg_buffer_holds(). */
char *gg_buffer_at(struct buffers *b, struct gg_buffer *buffer, uint64_t offset, uint64_t bytes);

/* Nobody but us can change [offset, offset + bytes) from here on: what of it lies in a file is
 * copied (which may move weights). */
void gg_buffer_own(struct buffers *b, struct gg_buffer *buffer, uint64_t offset, uint64_t bytes);

/* Where to receive @bytes for @offset without a copy, or NULL when they must come by
 * gg_buffer_set().  After writing there call gg_buffer_received(). */
void *gg_buffer_direct(struct buffers *b, struct gg_buffer *buffer, uint64_t offset,
		       uint64_t bytes);
void gg_buffer_received(struct buffers *b, struct gg_buffer *buffer, uint64_t offset,
			uint64_t bytes);

/* The caller has checked gg_buffer_holds(). */
enum wire_status gg_buffer_set(struct buffers *b, struct gg_buffer *buffer, uint64_t offset,
			       const void *data, uint64_t bytes);
/* The same, with the data in a file; what stays there keeps @file. */
enum wire_status gg_buffer_set_file(struct buffers *b, struct gg_buffer *buffer, uint64_t offset,
				    struct file_map *file, uint64_t file_offset, uint64_t bytes);
enum wire_status gg_buffer_get(struct buffers *b, struct gg_buffer *buffer, uint64_t offset,
			       void *data, uint64_t bytes);
/* The bytes in place where the device's memory is the host's, else NULL. */
const void *gg_buffer_peek(struct buffers *b, struct gg_buffer *buffer, uint64_t offset,
			   uint64_t bytes);
enum wire_status gg_buffer_fill(struct buffers *b, struct gg_buffer *buffer, uint64_t offset,
				uint8_t value, uint64_t bytes);

/* Does any weight lie in a file? */
static inline bool buffers_lend(const struct buffers *b)
{
	return b->n_lent != 0;
}

/* Why weights are not what they should be, so that what is computed with them is wrong; NULL: they
 * are. */
const char *buffers_fault(struct buffers *b);

#endif
