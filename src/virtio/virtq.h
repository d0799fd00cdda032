/* SPDX-License-Identifier: Apache-2.0
 *
 * virtq.h -- one split virtqueue (virtio 1.2, section 2.7), the device's side.
 *
 * Everything in the rings is the guest's and hostile: a chain that loops, leaves the guest's
 * memory, or is longer than allowed breaks the queue; a broken queue yields nothing until it is
 * reset.  A queue belongs to one thread at a time. */
#ifndef PIL_VIRTQ_H
#define PIL_VIRTQ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/compiler.h"
#include "virtio/guest_mem.h"

/* A chain is as long as the queue at most; with an indirect table as VIRTQ_MAX_IOV. */
enum { VIRTQ_MAX_SIZE = 1024, VIRTQ_MAX_IOV = 1024 };

struct vring_desc;
struct vring_avail;
struct vring_used;

struct virtq {
	const struct guest_mem *mem; /* borrowed */
	uint16_t max_size, size;     /* size: a power of two <= max_size, chosen by the driver */
	bool enabled;                /* the driver has set it up */
	bool broken;                 /* the driver broke a rule; see virtq_pop() */
	bool event_idx;              /* VIRTIO_F_EVENT_IDX was negotiated */
	bool indirect;               /* VIRTIO_F_INDIRECT_DESC was negotiated */
	uint64_t desc_gpa, avail_gpa, used_gpa;

	/* private from here on; ours, never read back from the guest */
	const struct vring_desc *desc; /* NULL until virtq_start() found the rings */
	const struct vring_avail *avail;
	struct vring_used *used;
	uint16_t next_avail, next_used;
	uint16_t published_used; /* what the driver can see; the rest is staged */
	uint16_t signalled_used; /* used index at the last question of virtq_should_interrupt() */
	bool signal_next;        /* whatever the driver says: what it was told before is unknown */
};

/* One request of the driver: readable parts first, then writable parts. */
struct virtq_chain {
	uint16_t head;
	unsigned n_out, n_in;       /* iov[0 .. n_out) readable, then n_in writable */
	size_t out_bytes, in_bytes; /* their sums */
	struct iovec iov[VIRTQ_MAX_IOV];
};

/* Forgets what the driver set up; @max_size and @mem stay. */
void virtq_reset(struct virtq *q);

/* Checks what the driver set up (size, alignment, all three rings inside the memory).  False, and
 * the queue is broken, if it breaks a rule. */
bool virtq_start(struct virtq *q);

/* Takes the next request.  1: @chain is filled; 0: none is waiting (or the driver has not set the
 * queue up); -EINVAL: the queue is broken (now or before), see virtio_device_pop(). */
int virtq_pop(struct virtq *q, struct virtq_chain *chain) PIL_MUST_CHECK;

/* Puts the @n requests taken last back: the next virtq_pop() yields the first of them again. */
void virtq_unpop(struct virtq *q, unsigned n);

/* Gives request @head back; @written_bytes were written to its writable parts.  Makes it visible to
 * the driver at once; several may be given back before one virtq_should_interrupt(). */
void virtq_push(struct virtq *q, uint16_t head, uint32_t written_bytes);

/* The same in two steps, for what the driver must see at once: stage each, then publish all. */
void virtq_stage(struct virtq *q, uint16_t head, uint32_t written_bytes);
void virtq_publish(struct virtq *q);

/* Goes on with a queue that somebody else (a vhost-user back end) has served in order: behind the
 * last request that was given back.  The next virtq_should_interrupt() is true. */
void virtq_resume(struct virtq *q);

/* Does the driver want an interrupt for what was pushed since the last time this was asked? */
bool virtq_should_interrupt(struct virtq *q);

/* Asks the driver to notify us of new requests, or not to bother.  virtq_want_notify() returns true
 * when requests are already waiting (look again before sleeping). */
bool virtq_want_notify(struct virtq *q);
void virtq_refuse_notify(struct virtq *q);

#endif
