/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: giving memory back is punching a hole into the file behind it; the guest
 * gets zeroed pages when it touches it again, so deflating needs no work here.
 *
 * The driver reports ranges as the buffers of a request and does not use them until the request is
 * given back.  A request may cover hundreds of megabytes, and freeing takes the loop's time: a few
 * ranges are freed per turn, the request kept until all are done (REPORT_RANGES_PER_TURN).
 *
 * Where the reporting queue is: the specification numbers the queues 0 to 4 and leaves holes for
 * those not negotiated; Linux does not leave them.  Offering all five features makes both agree;
 * for a driver that does not take all, the last queue that is set up is the one.  The queues for
 * statistics and hints are never served: their buffers stay with us.
 *
 * A guest that poisons free pages with something other than zero must find it there: then nothing
 * is freed. */
#include "virtio/virtio_balloon.h"

#include <errno.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "virtio/iovs.h"
#include "virtio/virtio.h"

enum {
	QUEUE_INFLATE,
	QUEUE_DEFLATE,
	QUEUE_STATS,
	QUEUE_HINT,
	QUEUE_REPORT,
	NUM_QUEUES,
	QUEUE_SIZE = 128,
	PAGE_SHIFT = 12, /* of the balloon, whatever the guest's pages are */
	REPORT_RANGES_PER_TURN = 4,
	REQUESTS_PER_TURN = 4,
	PFNS_AT_ONCE = 256,
	MAX_REQUEST_BYTES = 4 * PFNS_AT_ONCE *
			    4, /* Linux sends 256 pages at once; the rest stays the guest's */
};

struct balloon {
	struct virtio_device dev;
	struct virtio_balloon_config config;
	struct virtio_balloon_stats stats;
	struct log_limit limit;
	struct virtq_chain chain;  /* of inflate and deflate; scratch */
	struct virtq_chain report; /* the report in hand */
	unsigned report_at, report_n;
};

/* #syscalls: fallocate madvise */
static uint64_t give_back(struct balloon *b, uint64_t gpa, uint64_t len)
{
	int rc = guest_mem_discard(b->dev.queues[0].mem, gpa, len);

	if (rc == 0)
		return len;
	b->stats.refused++;
	if (log_allowed(&b->limit))
		log_warn("balloon: cannot free %llu bytes at %#llx: %s", (unsigned long long)len,
			 (unsigned long long)gpa, strerror(-rc));
	return 0;
}

/* Frees the pages of one request, neighbours together. */
static void inflate(struct balloon *b, const struct virtq_chain *chain)
{
	uint32_t pfns[PFNS_AT_ONCE];
	uint64_t first = 0, n_pages = 0;
	size_t off = 0, got;

	while (off < MAX_REQUEST_BYTES &&
	       (got = iovs_read(chain->iov, chain->n_out, off, pfns, sizeof(pfns)))) {
		for (size_t i = 0; i < got / sizeof(pfns[0]); i++) {
			if (n_pages && pfns[i] == first + n_pages) {
				n_pages++;
			} else if (n_pages && (uint64_t)pfns[i] + 1 == first) {
				first--;
				n_pages++;
			} else {
				if (n_pages)
					b->stats.inflated_bytes += give_back(b, first << PAGE_SHIFT,
									     n_pages << PAGE_SHIFT);
				first = pfns[i];
				n_pages = 1;
			}
		}
		off += got;
	}
	if (n_pages)
		b->stats.inflated_bytes += give_back(b, first << PAGE_SHIFT, n_pages << PAGE_SHIFT);
}

static void serve_balloon(struct balloon *b, unsigned q)
{
	struct virtio_device *dev = &b->dev;
	unsigned budget = REQUESTS_PER_TURN;

	while (budget && virtio_device_pop(dev, q, &b->chain)) {
		if (q == QUEUE_INFLATE)
			inflate(b, &b->chain);
		virtq_push(&dev->queues[q], b->chain.head, 0);
		budget--;
	}
	virtio_queue_flush(dev, q);
	if (virtq_want_notify(&dev->queues[q]))
		dev->transport->renotify(dev, q);
}

static bool may_free(const struct balloon *b)
{
	return !virtio_device_has(&b->dev, VIRTIO_BALLOON_F_PAGE_POISON) || !b->config.poison_val;
}

static void serve_reports(struct balloon *b, unsigned q)
{
	struct virtio_device *dev = &b->dev;
	struct virtq_chain *r = &b->report;
	unsigned budget = REPORT_RANGES_PER_TURN;

	while (budget) {
		if (b->report_at < b->report_n) {
			const struct iovec *range = &r->iov[b->report_at++];

			if (may_free(b))
				b->stats.reported_bytes +=
					give_back(b,
						  guest_mem_gpa(dev->queues[q].mem,
								range->iov_base),
						  range->iov_len);
			budget--;
			if (b->report_at == b->report_n)
				virtq_push(&dev->queues[q], r->head, 0);
			continue;
		}
		if (!virtio_device_pop(dev, q, r))
			break;
		b->report_at = 0;
		b->report_n = r->n_out + r->n_in;
		if (!b->report_n)
			virtq_push(&dev->queues[q], r->head, 0);
		budget--;
	}
	virtio_queue_flush(dev, q);
	if (b->report_at < b->report_n || virtq_want_notify(&dev->queues[q]))
		dev->transport->renotify(dev, q);
}

static unsigned report_queue(const struct balloon *b)
{
	unsigned q = QUEUE_REPORT;

	while (q > QUEUE_DEFLATE && !b->dev.queues[q].enabled)
		q--;
	return virtio_device_has(&b->dev, VIRTIO_BALLOON_F_REPORTING) ? q : NUM_QUEUES;
}

static void balloon_notified(struct virtio_device *dev, unsigned q)
{
	struct balloon *b = (struct balloon *)dev;

	if (q <= QUEUE_DEFLATE)
		serve_balloon(b, q);
	else if (q == report_queue(b))
		serve_reports(b, q);
}

static void balloon_activate(struct virtio_device *dev)
{
	for (unsigned q = 0; q < NUM_QUEUES; q++)
		balloon_notified(dev, q);
}

static void balloon_reset(struct virtio_device *dev)
{
	struct balloon *b = (struct balloon *)dev;

	b->report_at = b->report_n = 0;
	b->config.actual = 0;
	b->config.poison_val = 0;
}

static void balloon_config_read(struct virtio_device *dev, size_t off, void *to, size_t len)
{
	memcpy(to, (const char *)&((struct balloon *)dev)->config + off, len);
}

/* The driver may write what it has in the balloon, and what it poisons pages with. */
static void balloon_config_write(struct virtio_device *dev, size_t off, const void *from,
				 size_t len)
{
	struct balloon *b = (struct balloon *)dev;
	struct virtio_balloon_config wanted = b->config;

	memcpy((char *)&wanted + off, from, len);
	b->config.actual = wanted.actual;
	b->config.poison_val = wanted.poison_val;
}

static void balloon_destroy(struct virtio_device *dev)
{
	free(dev);
}

static const struct virtio_ops balloon_ops = {
	.name = "balloon",
	.device_id = VIRTIO_ID_BALLOON,
	.pci_class = 0x00ff00, /* no class fits */
	.n_queues = NUM_QUEUES,
	.config_read = balloon_config_read,
	.config_write = balloon_config_write,
	.activate = balloon_activate,
	.reset = balloon_reset,
	.notified = balloon_notified,
	.destroy = balloon_destroy,
};

int virtio_balloon_create(struct virtio_device **out, struct pil_err *err)
{
	struct balloon *b = calloc(1, sizeof(*b));

	if (!b)
		return pil_err_set(err, ENOMEM, "balloon device");
	b->dev.ops = &balloon_ops;
	b->dev.config_bytes = sizeof(b->config);
	for (int q = 0; q < NUM_QUEUES; q++)
		b->dev.queues[q].max_size = QUEUE_SIZE;
	b->dev.offered = 1u << VIRTIO_BALLOON_F_STATS_VQ | 1u << VIRTIO_BALLOON_F_DEFLATE_ON_OOM |
			 1u << VIRTIO_BALLOON_F_FREE_PAGE_HINT |
			 1u << VIRTIO_BALLOON_F_PAGE_POISON | 1u << VIRTIO_BALLOON_F_REPORTING;
	*out = &b->dev;
	return 0;
}

void virtio_balloon_set_target(struct virtio_device *dev, uint64_t bytes)
{
	struct balloon *b = (struct balloon *)dev;
	uint64_t pages = bytes >> PAGE_SHIFT;

	b->config.num_pages = pages < UINT32_MAX ? (uint32_t)pages : UINT32_MAX;
	if (dev->active)
		dev->transport->config_changed(dev);
}

struct virtio_balloon_stats virtio_balloon_stats(const struct virtio_device *dev)
{
	const struct balloon *b = (const struct balloon *)dev;
	struct virtio_balloon_stats stats = b->stats;

	stats.actual_pages = b->config.actual;
	return stats;
}
