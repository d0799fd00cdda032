/* SPDX-License-Identifier: Apache-2.0
 *
 * hostbuf.h -- buffers in this process's own memory that the executor can reach too, where the
 * transport allows it: what other back ends call pinned memory. */
#ifndef PIL_HOSTBUF_H
#define PIL_HOSTBUF_H

struct gdev;

/* Fills dev->host_buft for the program's generation. */
void hostbuf_type_init(struct gdev *dev);

#endif
