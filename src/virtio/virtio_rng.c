/* SPDX-License-Identifier: Apache-2.0
 *
 * A request gets VIRTIO_RNG_MAX_BYTES at most, and one notification serves one queue's worth of
 * requests: a guest that asks without end waits for the other devices in between. */
#include "virtio/virtio_rng.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/err.h"
#include "virtio/iovs.h"
#include "virtio/virtio.h"

enum { QUEUE_SIZE = 8 };

struct rng {
	struct virtio_device dev;
	struct virtq_chain chain;
};

/* #syscalls: getrandom */
static void rng_notified(struct virtio_device *dev, unsigned q)
{
	struct rng *rng = (struct rng *)dev;
	unsigned budget = QUEUE_SIZE;

	while (budget && virtio_device_pop(dev, q, &rng->chain)) {
		const struct virtq_chain *chain = &rng->chain;
		uint8_t bytes[VIRTIO_RNG_MAX_BYTES];
		size_t n = chain->in_bytes < sizeof(bytes) ? chain->in_bytes : sizeof(bytes);
		ssize_t got = getrandom(bytes, n, GRND_NONBLOCK);

		n = iovs_write(chain->iov + chain->n_out, chain->n_in, 0, bytes,
			       got > 0 ? (size_t)got : 0);
		virtq_push(&dev->queues[q], chain->head, (uint32_t)n);
		budget--;
	}
	virtio_queue_flush(dev, q);
	if (virtq_want_notify(&dev->queues[q]))
		dev->transport->renotify(dev, q);
}

static void rng_config_read(struct virtio_device *dev, size_t off, void *to, size_t len)
{
	(void)dev, (void)off, (void)to, (void)len; /* config_bytes is 0 */
}

static void rng_reset(struct virtio_device *dev)
{
	(void)dev;
}

static void rng_destroy(struct virtio_device *dev)
{
	free(dev);
}

static const struct virtio_ops rng_ops = {
	.name = "rng",
	.device_id = VIRTIO_ID_RNG,
	.pci_class = 0x100000, /* encryption controller */
	.n_queues = 1,
	.config_read = rng_config_read,
	.reset = rng_reset,
	.notified = rng_notified,
	.destroy = rng_destroy,
};

int virtio_rng_create(struct virtio_device **out, struct pil_err *err)
{
	struct rng *rng = calloc(1, sizeof(*rng));

	if (!rng)
		return pil_err_set(err, ENOMEM, "rng device");
	rng->dev.ops = &rng_ops;
	rng->dev.queues[0].max_size = QUEUE_SIZE;
	*out = &rng->dev;
	return 0;
}
