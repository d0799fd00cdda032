/* SPDX-License-Identifier: Apache-2.0
 *
 * virtio_fs.h -- a folder of the host in the guest, under a tag; served by a vhost-user process
 * (virtiofsd) at a Unix socket.
 *
 * While that process is away, requests fail with "not connected" instead of hanging; the socket is
 * tried again every second.  A process that comes back knows nothing of what was mounted before:
 * the guest mounts again. */
#ifndef PIL_VIRTIO_FS_H
#define PIL_VIRTIO_FS_H

#include <stdbool.h>

#include "base/compiler.h"

struct loop;
struct pil_err;
struct virtio_device;

enum { VIRTIO_FS_MAX_TAG = 36 };

/* Copies both strings.  The socket need not exist yet.  The transport must lend eventfds. */
int virtio_fs_create(struct virtio_device **out, struct loop *loop, const char *tag,
		     const char *socket_path, struct pil_err *err) PIL_MUST_CHECK;

/* The process serves the guest's requests. */
bool virtio_fs_is_connected(const struct virtio_device *dev);

#endif
