/* SPDX-License-Identifier: Apache-2.0
 *
 * virtio_net.h -- the guest's network card: Ethernet frames to and from a stream socket, each with
 * its length in four big-endian bytes before it (what passt and QEMU's "stream" speak).
 *
 * Only ARP and IP leave the guest, and nothing to an address that is the host's own: of localhost,
 * or of its cards, as far as virtio_net_keep_from() was told.
 *
 * When the peer goes away or breaks the protocol the link goes down and frames are dropped; the
 * machine goes on, and virtio_net_attach() brings the link up again. */
#ifndef PIL_VIRTIO_NET_H
#define PIL_VIRTIO_NET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

struct loop;
struct own_addrs;
struct pil_err;
struct virtio_device;

enum { VIRTIO_NET_MAX_FRAME = 65535 + 14 };

struct virtio_net_opts {
	uint8_t mac[6];
	uint16_t mtu; /* that the guest is told; 0: it is told none */
};

struct virtio_net_stats {
	uint64_t frames_to_guest, frames_from_guest;
	uint64_t dropped; /* link down, or frames that fit nowhere or may not leave */
	uint64_t reads, sends;
};

/* Takes the stream socket @fd on success; -1: the link starts down. */
int virtio_net_create(struct virtio_device **out, struct loop *loop, int fd,
		      const struct virtio_net_opts *opts, struct pil_err *err) PIL_MUST_CHECK;

/* Takes another stream socket on success, instead of the one before. */
int virtio_net_attach(struct virtio_device *dev, int fd, struct pil_err *err) PIL_MUST_CHECK;

/* From now on no frame leaves to @addrs, and to link-local addresses of IPv6 only what finds
 * neighbours (ICMP); unless they are not closed. */
void virtio_net_keep_from(struct virtio_device *dev, const struct own_addrs *addrs);

bool virtio_net_link_is_up(const struct virtio_device *dev);
const struct virtio_net_stats *virtio_net_stats(const struct virtio_device *dev);

#endif
