/* SPDX-License-Identifier: Apache-2.0
 *
 * virtio_blk.h -- a disk of the guest: a raw image (or block device) behind one descriptor.
 *
 * Requests are carried out by threads of the device's own, straight between the image and the
 * guest's memory.  What the guest discards becomes a hole in the image.  The image's lock is the
 * caller's: take it before, keep it until after virtio_device_destroy. */
#ifndef PIL_VIRTIO_BLK_H
#define PIL_VIRTIO_BLK_H

#include <stdbool.h>

#include "base/compiler.h"

struct pil_err;
struct virtio_device;

struct virtio_blk_opts {
	int fd; /* open for what @read_only says; borrowed until destroy() */
	bool read_only;
	const char *serial; /* at most 20 bytes are used; NULL: none */
	const char *path;   /* for messages only; copied */
	int (*enter)(void); /* called first by each thread; NULL: nothing */
};

/* Starts a thread, which sleeps until the driver is ready: call this after any fork() or unshare().
 * Up to three more are started when slow requests overlap.  Fails when the image is empty or not
 * made of whole sectors. */
int virtio_blk_create(struct virtio_device **out, const struct virtio_blk_opts *opts,
		      struct pil_err *err) PIL_MUST_CHECK;

#endif
