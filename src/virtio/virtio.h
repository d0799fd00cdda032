/* SPDX-License-Identifier: Apache-2.0
 *
 * virtio.h -- what a device is to its transport, and the transport to a device.
 *
 * The transport (src/vmm/virtio_pci.c; a fake one in the tests) owns the registers: features,
 * status, queue addresses, interrupts.  A device owns what happens with its requests.
 *
 * Threads: every function of a device, the notifications of its queues included, runs on the
 * thread of the loop given to its create function; the transport carries register writes that
 * matter to the device over to that thread and waits.  A device with a worker of its own (blk)
 * hides it: reset() returns only when the worker holds no request any more. */
#ifndef PIL_VIRTIO_H
#define PIL_VIRTIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "virtio/virtq.h"

enum { VIRTIO_MAX_QUEUES = 8 };

struct virtio_device;

struct virtio_ops {
	const char *name;   /* "blk", for log lines */
	uint16_t device_id; /* VIRTIO_ID_* of <linux/virtio_ids.h> */
	uint32_t pci_class; /* 24 bits: class, subclass, interface */
	unsigned n_queues;
	/* Copies @len bytes of the device's configuration; the transport has checked that
	 * off + len <= config_bytes. */
	void (*config_read)(struct virtio_device *dev, size_t off, void *to, size_t len);
	void (*config_write)(struct virtio_device *dev, size_t off, const void *from,
			     size_t len); /* may be NULL: read only */
	/* The driver is ready (DRIVER_OK); features and enabled queues are final until reset(). */
	void (*activate)(struct virtio_device *dev); /* may be NULL */
	/* Back to the state after creation.  Nothing touches the guest's memory afterwards. */
	void (*reset)(struct virtio_device *dev);
	/* Requests may be waiting in queue @q (spurious calls are fine). */
	void (*notified)(struct virtio_device *dev, unsigned q);
	/* Closes what it holds and frees it; called after reset(). */
	void (*destroy)(struct virtio_device *dev);
};

/* What a device asks of its transport. */
struct virtio_transport {
	/* Interrupts the driver for queue @q.  Any thread. */
	void (*interrupt)(struct virtio_device *dev, unsigned q);
	void (*config_changed)(struct virtio_device *dev);
	/* The driver broke a rule of this device: sets DEVICE_NEEDS_RESET, stops the queues, says
	 * so once.  Any thread. */
	void (*broken)(struct virtio_device *dev, const char *why);
	/* Has notified() called for queue @q soon, after other sources had their turn (one write
	 * to the queue's eventfd does).  Any thread. */
	void (*renotify)(struct virtio_device *dev, unsigned q);
	/* Lend the eventfds of queue @q to the device, which may pass them on (vhost-user).
	 * kick_fd: the driver's notifications are added to it; notified() is not called for this
	 * queue until reset().  call_fd: what is added to it interrupts the driver.  Both are
	 * non-blocking, borrowed until reset() returns, asked for in activate() at the earliest;
	 * -1 when it cannot be done.  Either may be NULL: it cannot. */
	int (*kick_fd)(struct virtio_device *dev, unsigned q);
	int (*call_fd)(struct virtio_device *dev, unsigned q);
	/* Cuts off whom the eventfds of queue @q were passed on to, before reset() at the latest:
	 * what those do to them reaches nobody.  kick_fd is as it was, but new; call_fd is to be
	 * asked for again.  The queue is to be looked at.  NULL where the others are. */
	void (*renew_fds)(struct virtio_device *dev, unsigned q);
};

struct virtio_device { /* embedded as the first member of each device */
	const struct virtio_ops *ops;
	const struct virtio_transport *transport; /* set by the transport when it adopts it */
	void *transport_data;                     /* the transport's own */
	uint64_t offered; /* features the device offers; VIRTIO_F_VERSION_1 and those of the ring
			   * (INDIRECT_DESC, EVENT_IDX) are the transport's */
	uint64_t acked;   /* features agreed on, since activate() */
	size_t config_bytes;
	bool active; /* between activate() and reset(); kept by the transport */
	/* max_size set by the device; mem by the transport, before anything else is called */
	struct virtq queues[VIRTIO_MAX_QUEUES];
	uint64_t errors; /* rules broken by the driver, ever */
};

/* The driver broke a rule: counts it, breaks the queues and tells the transport. */
static inline void virtio_device_broken(struct virtio_device *dev, const char *why)
{
	dev->errors++;
	for (unsigned q = 0; q < dev->ops->n_queues; q++)
		dev->queues[q].broken = true;
	dev->transport->broken(dev, why);
}

/* Takes the next request of queue @q; false when there is none.  A rule broken by the ring itself
 * is reported here. */
static inline bool virtio_device_pop(struct virtio_device *dev, unsigned q,
				     struct virtq_chain *chain)
{
	bool known = dev->queues[q].broken;
	int got = virtq_pop(&dev->queues[q], chain);

	if (got < 0 && !known)
		virtio_device_broken(dev, "bad descriptor chain");
	return got > 0;
}

static inline bool virtio_device_has(const struct virtio_device *dev, unsigned feature_bit)
{
	return dev->acked & (UINT64_C(1) << feature_bit);
}

/* Borrow the queue's eventfds from the transport; -1 when it lends none. */
static inline int virtio_device_kick_fd(struct virtio_device *dev, unsigned q)
{
	return dev->transport->kick_fd ? dev->transport->kick_fd(dev, q) : -1;
}

static inline int virtio_device_call_fd(struct virtio_device *dev, unsigned q)
{
	return dev->transport->call_fd ? dev->transport->call_fd(dev, q) : -1;
}

static inline void virtio_device_renew_fds(struct virtio_device *dev, unsigned q)
{
	if (dev->transport->renew_fds)
		dev->transport->renew_fds(dev, q);
}

/* Interrupts the driver if it wants to know of what was pushed to queue @q. */
static inline void virtio_queue_flush(struct virtio_device *dev, unsigned q)
{
	if (virtq_should_interrupt(&dev->queues[q]))
		dev->transport->interrupt(dev, q);
}

#endif
