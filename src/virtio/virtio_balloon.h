/* SPDX-License-Identifier: Apache-2.0
 *
 * virtio_balloon.h -- memory that the guest does not use goes back to the host: by itself (free
 * page reporting), and more of it on request (the balloon, which the guest deflates when it runs
 * out). */
#ifndef PIL_VIRTIO_BALLOON_H
#define PIL_VIRTIO_BALLOON_H

#include <stdint.h>

#include "base/compiler.h"

struct pil_err;
struct virtio_device;

struct virtio_balloon_stats {
	uint64_t reported_bytes; /* given back by reporting, ever */
	uint64_t inflated_bytes; /* given back by inflating, ever */
	uint64_t refused;        /* ranges that are not the guest's memory, or could not be freed */
	uint32_t actual_pages;   /* of 4 KiB in the balloon now, as the guest says */
};

int virtio_balloon_create(struct virtio_device **out, struct pil_err *err) PIL_MUST_CHECK;

/* How much of the guest's memory should be in the balloon. */
void virtio_balloon_set_target(struct virtio_device *dev, uint64_t bytes);

struct virtio_balloon_stats virtio_balloon_stats(const struct virtio_device *dev);

#endif
