/* SPDX-License-Identifier: Apache-2.0
 *
 * virtio_rng.h -- entropy for the guest, from the host's getrandom(). */
#ifndef PIL_VIRTIO_RNG_H
#define PIL_VIRTIO_RNG_H

#include "base/compiler.h"

struct pil_err;
struct virtio_device;

enum { VIRTIO_RNG_MAX_BYTES = 4096 }; /* that one request is given; the rest stays unwritten */

int virtio_rng_create(struct virtio_device **out, struct pil_err *err) PIL_MUST_CHECK;

#endif
