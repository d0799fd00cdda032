/* SPDX-License-Identifier: Apache-2.0
 *
 * vdriver.h -- the driver's side of a virtio device, for tests: a fake guest memory, a fake
 * transport, and rings that a test fills well or badly.
 *
 * Two ranges of memory, at 0 and at 4 GiB, backed by one memfd.  Each queue has its rings in the
 * first; buffers come from vdriver_alloc(), which never frees. */
#ifndef PIL_VDRIVER_H
#define PIL_VDRIVER_H

#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "virtio/virtio.h"

enum {
	VDRIVER_RANGE_BYTES = 8 << 20,
	VDRIVER_BUFFERS_GPA = 1 << 20, /* what lies below belongs to the rings */
	VDRIVER_WAIT_MS = 5000,
};
#define VDRIVER_HIGH_GPA UINT64_C(0x100000000)

struct vdriver_queue {
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	uint16_t next_desc, last_used;
	int kick_fd, call_fd; /* lent to the device; -1 */
	unsigned interrupts;
	bool again; /* renotify() was called */
};

struct vdriver {
	struct guest_mem mem;
	uint8_t *ram;
	uint64_t next_gpa;
	struct virtio_device *dev;
	struct vdriver_queue queues[VIRTIO_MAX_QUEUES];
	unsigned config_changes, broken;
	const char *why;  /* of the last broken() */
	bool lends_fds;   /* set by the test before vdriver_start(): answers kick_fd(), call_fd() */
	bool no_indirect; /* set likewise: the ring's features that are not negotiated */
	bool no_event_idx;
};

struct vdriver_buf {
	uint64_t gpa;
	uint32_t len;
	bool write;
};

void vdriver_init(struct vdriver *d);
void vdriver_finish(struct vdriver *d);

/* Adopts @dev, agrees on @features, sets up all its queues and activates it. */
void vdriver_start(struct vdriver *d, struct virtio_device *dev, uint64_t features);
void vdriver_stop(struct vdriver *d); /* reset(); the queues are forgotten */

/* Sets up the rings of one queue outside any device. */
void vdriver_queue_init(struct vdriver *d, struct virtq *q, unsigned nr, uint16_t size);

uint64_t vdriver_alloc(struct vdriver *d, size_t len);
uint64_t vdriver_put(struct vdriver *d, const void *bytes, size_t len);
void *vdriver_at(struct vdriver *d, uint64_t gpa);

/* Offers a chain in queue @q and returns its head; the device is not notified. */
uint16_t vdriver_add(struct vdriver *d, unsigned q, const struct vdriver_buf *bufs, unsigned n);
uint16_t vdriver_add_indirect(struct vdriver *d, unsigned q, const struct vdriver_buf *bufs,
			      unsigned n);
void vdriver_offer(struct vdriver *d, unsigned q, uint16_t head); /* avail ring only */
void vdriver_kick(struct vdriver *d, unsigned q);

/* Calls notified() for whatever asked for it by renotify(); true if there was any. */
bool vdriver_again(struct vdriver *d);

/* Takes the next used element; false when there is none. */
bool vdriver_used(struct vdriver *d, unsigned q, struct vring_used_elem *elem);
/* The same, waiting for a device with a thread of its own. */
bool vdriver_wait_used(struct vdriver *d, unsigned q, struct vring_used_elem *elem);

#endif
