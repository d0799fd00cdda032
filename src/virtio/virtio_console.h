/* SPDX-License-Identifier: Apache-2.0
 *
 * virtio_console.h -- the guest's console (hvc0): one port, to and from one descriptor.
 *
 * A reader that is stuck or gone never stops the guest: what does not fit into a bounded buffer is
 * dropped and counted.  The last lines are kept for reports of a panic. */
#ifndef PIL_VIRTIO_CONSOLE_H
#define PIL_VIRTIO_CONSOLE_H

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

struct loop;
struct pil_err;
struct virtio_device;

enum {
	VIRTIO_CONSOLE_BUFFER_BYTES = 64 << 10, /* of output that the reader has not taken */
	VIRTIO_CONSOLE_TAIL_BYTES = 8 << 10,    /* of the last output */
	VIRTIO_CONSOLE_FILE_BYTES = 4 << 20,    /* all that a file gets */
};

/* Takes @fd (a pipe, socket, terminal or file; -1: output is only remembered) and makes it
 * non-blocking.  Input is read from it where it can be read and polled. */
int virtio_console_create(struct virtio_device **out, struct loop *loop, int fd,
			  struct pil_err *err) PIL_MUST_CHECK;

/* Copies the last output, at most @size - 1 bytes of it, NUL-terminated, as the guest wrote it:
 * escape it before showing it.  Returns its length. */
size_t virtio_console_tail(const struct virtio_device *dev, char *to, size_t size);

/* Bytes of output that a stuck reader has cost. */
uint64_t virtio_console_dropped(const struct virtio_device *dev);

#endif
