/* SPDX-License-Identifier: Apache-2.0
 *
 * devbuf.h -- buffers in the memory of a device.
 *
 * Their addresses in this process are a reserved range nobody can read: only the distance from its
 * start means something, as the offset on the wire. */
#ifndef PIL_DEVBUF_H
#define PIL_DEVBUF_H

#include <stdbool.h>
#include <stdint.h>

#include "guest/ggml/abi.h"

struct gdev;
struct channel;

struct devbuf {
	struct gdev *dev;
	uint32_t handle;
	uint64_t bytes;
	uintptr_t base;
	void *map;
	uint64_t map_bytes;
	uint64_t *weights; /* offsets + 1 already announced: open addressing, 0 empty */
	uint32_t n_weights, max_weights;
};

/* Fills dev->buft for the program's generation. */
void devbuf_type_init(struct gdev *dev);

/* The device buffer that @t lies in, if it is one of @dev and all its bytes are inside. */
struct devbuf *devbuf_of(struct gdev *dev, const struct ggml_tensor *t, uint64_t *offset);

/* Reads and writes of tensor data with the channel locked.  Writes may keep using @data only until
 * they return; reads are complete at the next wait that covers them. */
void devbuf_set_locked(struct devbuf *buf, const struct ggml_tensor *t, const void *data,
		       uint64_t offset, uint64_t bytes, bool async);
void devbuf_get_locked(struct devbuf *buf, const struct ggml_tensor *t, void *data, uint64_t offset,
		       uint64_t bytes);
/* The same for rows: @n_rows of @row_bytes, @stride apart in the tensor and @data_stride at @data.
 */
struct devbuf_rows {
	uint64_t offset, row_bytes, n_rows, stride, data_stride;
};
void devbuf_set_rows_locked(struct devbuf *buf, const struct ggml_tensor *t, const void *data,
			    const struct devbuf_rows *rows);
void devbuf_get_rows_locked(struct devbuf *buf, const struct ggml_tensor *t, void *data,
			    const struct devbuf_rows *rows);
/* Both in buffers of one channel; queued. */
void devbuf_copy_locked(struct devbuf *dst, uint64_t dst_offset, struct devbuf *src,
			uint64_t src_offset, uint64_t bytes);

#endif
