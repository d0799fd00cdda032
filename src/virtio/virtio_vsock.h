/* SPDX-License-Identifier: Apache-2.0
 *
 * virtio_vsock.h -- stream sockets between the guest (CID 3) and Unix sockets of the host (CID 2).
 *
 * A connection accepted on a listening Unix socket becomes one to a port of the guest; what the
 * guest connects to on a port of the host becomes one to the Unix socket at a path.  Both
 * directions carry bytes, half close and end of file.  What the guest connects to elsewhere is
 * refused.
 *
 * Bounds: so many connections each way; per connection what the socket has not taken is buffered
 * up to the credit the guest was given. */
#ifndef PIL_VIRTIO_VSOCK_H
#define PIL_VIRTIO_VSOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

struct loop;
struct pil_err;
struct virtio_device;

enum {
	VIRTIO_VSOCK_GUEST_CID = 3,
	VIRTIO_VSOCK_MAX_FROM_HOST = 256,
	VIRTIO_VSOCK_MAX_FROM_GUEST = 768,
	VIRTIO_VSOCK_MAX_ROUTES = 16, /* listeners; paths likewise */
};

/* What it took to move the bytes, since creation. */
struct virtio_vsock_stats {
	uint64_t packets_from_guest, packets_to_guest;
	uint64_t bytes_from_guest, bytes_to_guest;
	uint64_t sends, reads; /* system calls that moved them */
	uint64_t copied;       /* bytes staged because a socket was full */
	uint64_t connections;  /* ever */
	uint64_t resets;       /* sent to the guest */
	uint64_t refused;      /* packets of the guest that made no sense */
	unsigned open_from_host, open_from_guest, lingering;
};

int virtio_vsock_create(struct virtio_device **out, struct loop *loop,
			struct pil_err *err) PIL_MUST_CHECK;

/* Both before the transport adopts the device.  listen: takes @fd, a listening Unix stream socket,
 * on success; connect: copies @path, which is looked up at each connection. */
int virtio_vsock_listen(struct virtio_device *dev, int fd, uint32_t guest_port,
			struct pil_err *err) PIL_MUST_CHECK;
int virtio_vsock_connect(struct virtio_device *dev, uint32_t host_port, const char *path,
			 struct pil_err *err) PIL_MUST_CHECK;

/* For tracing: @seen is called when the guest connects to @host_port, and with @data when it sends
 * on such a connection. */
void virtio_vsock_trace(struct virtio_device *dev, void (*seen)(uint32_t host_port, bool data));

const struct virtio_vsock_stats *virtio_vsock_stats(const struct virtio_device *dev);

#endif
