/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: one worker thread owns the queue between activate() and reset().  It sleeps
 * on an eventfd: the queue's own, lent by the transport, so that a request wakes one thread only;
 * or, with a transport that lends none, one that notified() writes to.  Requests are carried out
 * in order with plain preadv/pwritev on the guest's buffers; the host's page cache is the cache,
 * and FLUSH is fdatasync().
 *
 * The worker is started by create(), because a jail may forbid new threads later.  @state is the
 * only thing both threads change, under the lock; reset() asks for PARKED and waits until the
 * worker has finished the request in hand and says so.
 *
 * A request that makes no sense in itself (no room for header or status) breaks the device; one
 * that asks for the impossible (beyond the end, read only, an I/O error) fails alone. */
#include "virtio_blk.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "err.h"
#include "fd.h"
#include "iovs.h"
#include "log.h"
#include "str.h"
#include "virtio.h"

enum {
	QUEUE_SIZE = 256,
	SECTOR = 512,
	/* Limits the driver is told.  A chain holds header, status and SEG_MAX buffers. */
	SEG_MAX = QUEUE_SIZE - 2,
	SIZE_MAX_BYTES = 1 << 20,
	MAX_RANGES = 32,               /* of one discard or write-zeroes request */
	MAX_RANGE_SECTORS = 1 << 21,   /* 1 GiB */
	ALIGN_SECTORS = 4096 / SECTOR, /* of discards: smaller ones free nothing */
	FLUSH_EVERY = 16,              /* requests completed before the driver hears of it */
	STACK_BYTES = 256 << 10,
};

enum blk_state { BLK_PARKED, BLK_RUNNING, BLK_PARKING, BLK_QUITTING };

struct blk {
	struct virtio_device dev;
	int fd; /* borrowed */
	bool read_only;
	uint64_t sectors;
	char serial[VIRTIO_BLK_ID_BYTES];
	char *path;
	struct virtio_blk_config config;
	struct log_limit limit; /* worker only */
	pthread_t worker;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	enum blk_state state; /* under lock, and read without it by the worker between requests */
	int own_wake_fd;
	int wake_fd; /* what the worker sleeps on: lent, or own_wake_fd */
	struct virtq_chain chain;
	struct iovec data[VIRTQ_MAX_IOV];
};

static uint8_t io_failed(struct blk *b, const char *what, uint64_t sector, int code)
{
	if (log_allowed(&b->limit))
		log_warn("blk: %s at sector %llu of '%s': %s", what, (unsigned long long)sector,
			 b->path, strerror(code));
	return VIRTIO_BLK_S_IOERR;
}

static bool in_disk(const struct blk *b, uint64_t sector, uint64_t n_sectors)
{
	return sector <= b->sectors && n_sectors <= b->sectors - sector;
}

/* Moves all of data[] to or from the image.  #syscalls: preadv pwritev */
static uint8_t transfer(struct blk *b, bool write, uint64_t sector, unsigned n_iov, size_t len)
{
	off_t at = (off_t)(sector * SECTOR);
	struct iovec *iov = b->data;

	if (len % SECTOR || !in_disk(b, sector, len / SECTOR) || (write && b->read_only))
		return VIRTIO_BLK_S_IOERR;
	while (len) {
		ssize_t n = write ? pwritev(b->fd, iov, (int)n_iov, at)
				  : preadv(b->fd, iov, (int)n_iov, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) /* 0: somebody cut the image short */
			return io_failed(b, write ? "write" : "read", sector, n ? errno : EIO);
		len -= (size_t)n;
		at += n;
		n_iov = iovs_cut(iov, n_iov, (size_t)n, len, iov, n_iov);
	}
	return VIRTIO_BLK_S_OK;
}

/* For file systems that cannot make zeroes by fallocate(). */
static int write_zeroes(int fd, off_t at, off_t len)
{
	static const char zeroes[64 << 10];

	while (len > 0) {
		size_t n = len < (off_t)sizeof(zeroes) ? (size_t)len : sizeof(zeroes);
		ssize_t put = pwrite(fd, zeroes, n, at);

		if (put < 0 && errno != EINTR)
			return -errno;
		if (put > 0) {
			at += put;
			len -= put;
		}
	}
	return 0;
}

/* #syscalls: fallocate pwrite64 */
static uint8_t clear_range(struct blk *b, uint32_t type,
			   const struct virtio_blk_discard_write_zeroes *range)
{
	bool discard = type == VIRTIO_BLK_T_DISCARD;
	bool unmap = range->flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
	off_t at = (off_t)(range->sector * SECTOR), len = (off_t)range->num_sectors * SECTOR;
	int rc = 0;

	if (range->flags & ~(uint32_t)(discard ? 0 : VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP))
		return VIRTIO_BLK_S_UNSUPP;
	if (range->num_sectors > MAX_RANGE_SECTORS ||
	    !in_disk(b, range->sector, range->num_sectors))
		return VIRTIO_BLK_S_IOERR;
	if (!len)
		return VIRTIO_BLK_S_OK;
	if (fallocate(b->fd,
		      (discard || unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE) |
			      FALLOC_FL_KEEP_SIZE,
		      at, len))
		rc = -errno;
	if (rc == -EOPNOTSUPP) /* a discard is only advice */
		rc = discard ? 0 : write_zeroes(b->fd, at, len);
	return rc ? io_failed(b, discard ? "discard" : "write zeroes", range->sector, -rc)
		  : VIRTIO_BLK_S_OK;
}

static uint8_t clear_ranges(struct blk *b, uint32_t type, unsigned n_iov, size_t len)
{
	struct virtio_blk_discard_write_zeroes ranges[MAX_RANGES];
	uint8_t status = VIRTIO_BLK_S_OK;

	static_assert(sizeof(ranges[0]) == 16, "range");
	if (b->read_only || !len || len % sizeof(ranges[0]) || len > sizeof(ranges))
		return VIRTIO_BLK_S_IOERR;
	iovs_read(b->data, n_iov, 0, ranges, len);
	for (size_t i = 0; i < len / sizeof(ranges[0]) && status == VIRTIO_BLK_S_OK; i++)
		status = clear_range(b, type, &ranges[i]);
	return status;
}

/* #syscalls: fdatasync */
static uint8_t flush(struct blk *b)
{
	if (b->read_only || fdatasync(b->fd) == 0)
		return VIRTIO_BLK_S_OK;
	return io_failed(b, "flush", 0, errno);
}

/* Carries the request in @chain out and returns its status. */
static uint8_t carry_out(struct blk *b, const struct virtio_blk_outhdr *hdr)
{
	const struct virtq_chain *chain = &b->chain;
	size_t out_bytes = chain->out_bytes - sizeof(*hdr), in_bytes = chain->in_bytes - 1;
	unsigned n_out =
		iovs_cut(chain->iov, chain->n_out, sizeof(*hdr), out_bytes, b->data, VIRTQ_MAX_IOV);

	switch (hdr->type) {
	case VIRTIO_BLK_T_OUT:
		return transfer(b, true, hdr->sector, n_out, out_bytes);
	case VIRTIO_BLK_T_FLUSH:
		return flush(b);
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		return clear_ranges(b, hdr->type, n_out, out_bytes);
	case VIRTIO_BLK_T_IN:
		n_out = iovs_cut(chain->iov + chain->n_out, chain->n_in, 0, in_bytes, b->data,
				 VIRTQ_MAX_IOV);
		return transfer(b, false, hdr->sector, n_out, in_bytes);
	case VIRTIO_BLK_T_GET_ID:
		iovs_write(chain->iov + chain->n_out, chain->n_in, 0, b->serial,
			   in_bytes < sizeof(b->serial) ? in_bytes : sizeof(b->serial));
		return VIRTIO_BLK_S_OK;
	default:
		return VIRTIO_BLK_S_UNSUPP;
	}
}

/* Serves the queue until it is empty or the worker is wanted elsewhere. */
static void serve(struct blk *b)
{
	struct virtq *q = &b->dev.queues[0];
	unsigned unsaid = 0;

	virtq_refuse_notify(q);
	while (__atomic_load_n(&b->state, __ATOMIC_RELAXED) == BLK_RUNNING) {
		const struct virtq_chain *chain = &b->chain;
		struct virtio_blk_outhdr hdr;
		uint8_t status;

		if (!virtio_device_pop(&b->dev, 0, &b->chain)) {
			virtio_queue_flush(&b->dev, 0);
			unsaid = 0;
			if (virtq_want_notify(q))
				continue;
			return;
		}
		if (iovs_read(chain->iov, chain->n_out, 0, &hdr, sizeof(hdr)) < sizeof(hdr) ||
		    !chain->in_bytes) {
			virtio_device_broken(&b->dev, "request without header or status");
			return;
		}
		if (hdr.type == VIRTIO_BLK_T_FLUSH) /* takes its time: say what is done */
			virtio_queue_flush(&b->dev, 0);
		status = carry_out(b, &hdr);
		iovs_write(chain->iov + chain->n_out, chain->n_in, chain->in_bytes - 1, &status, 1);
		virtq_push(q, chain->head,
			   hdr.type == VIRTIO_BLK_T_IN ? (uint32_t)chain->in_bytes : 1);
		if (++unsaid % FLUSH_EVERY == 0)
			virtio_queue_flush(&b->dev, 0);
	}
}

/* Sleeps until there may be requests.  #syscalls: poll read */
static void sleep_until_kicked(struct blk *b)
{
	struct pollfd pfd = {.fd = b->wake_fd, .events = POLLIN};
	uint64_t count;

	poll(&pfd, 1, -1);
	if (read(b->wake_fd, &count, sizeof(count)) < 0)
		assert(errno == EAGAIN || errno == EINTR);
}

/* #syscalls: futex */
static void *work(void *arg)
{
	struct blk *b = arg;

	pthread_mutex_lock(&b->lock);
	while (b->state != BLK_QUITTING) {
		if (b->state == BLK_PARKING) {
			b->state = BLK_PARKED;
			pthread_cond_broadcast(&b->changed);
		}
		if (b->state == BLK_PARKED) {
			pthread_cond_wait(&b->changed, &b->lock);
			continue;
		}
		pthread_mutex_unlock(&b->lock);
		serve(b);
		if (__atomic_load_n(&b->state, __ATOMIC_RELAXED) == BLK_RUNNING)
			sleep_until_kicked(b);
		pthread_mutex_lock(&b->lock);
	}
	pthread_mutex_unlock(&b->lock);
	return NULL;
}

static void wake(struct blk *b)
{
	uint64_t one = 1;

	if (write(b->wake_fd, &one, sizeof(one)) < 0)
		assert(errno == EAGAIN); /* full: it is awake already */
}

static void blk_activate(struct virtio_device *dev)
{
	struct blk *b = (struct blk *)dev;
	int lent_fd = virtio_device_kick_fd(dev, 0);

	pthread_mutex_lock(&b->lock);
	b->wake_fd = lent_fd >= 0 ? lent_fd : b->own_wake_fd;
	__atomic_store_n(&b->state, BLK_RUNNING, __ATOMIC_RELAXED);
	pthread_cond_broadcast(&b->changed);
	pthread_mutex_unlock(&b->lock);
}

static void blk_notified(struct virtio_device *dev, unsigned q)
{
	(void)q;
	wake((struct blk *)dev);
}

static void blk_reset(struct virtio_device *dev)
{
	struct blk *b = (struct blk *)dev;

	pthread_mutex_lock(&b->lock);
	if (b->state == BLK_RUNNING) {
		__atomic_store_n(&b->state, BLK_PARKING, __ATOMIC_RELAXED);
		wake(b);
		while (b->state != BLK_PARKED)
			pthread_cond_wait(&b->changed, &b->lock);
		b->wake_fd = b->own_wake_fd;
	}
	pthread_mutex_unlock(&b->lock);
}

static void blk_config_read(struct virtio_device *dev, size_t off, void *to, size_t len)
{
	memcpy(to, (const char *)&((struct blk *)dev)->config + off, len);
}

static void blk_destroy(struct virtio_device *dev)
{
	struct blk *b = (struct blk *)dev;

	blk_reset(dev);
	pthread_mutex_lock(&b->lock);
	__atomic_store_n(&b->state, BLK_QUITTING, __ATOMIC_RELAXED);
	pthread_cond_broadcast(&b->changed);
	pthread_mutex_unlock(&b->lock);
	pthread_join(b->worker, NULL);
	pthread_cond_destroy(&b->changed);
	pthread_mutex_destroy(&b->lock);
	pil_close_p(&b->own_wake_fd);
	free(b->path);
	free(b);
}

static const struct virtio_ops blk_ops = {
	.name = "blk",
	.device_id = VIRTIO_ID_BLOCK,
	.pci_class = 0x018000, /* other mass storage */
	.n_queues = 1,
	.config_read = blk_config_read,
	.activate = blk_activate,
	.reset = blk_reset,
	.notified = blk_notified,
	.destroy = blk_destroy,
};

/* Signals belong to the loop's thread. */
static int start_worker(struct blk *b)
{
	sigset_t all, before;
	pthread_attr_t attr;
	int rc;

	sigfillset(&all);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&b->worker, &attr, work, b);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	if (rc == 0)
		pthread_setname_np(b->worker, "blk");
	return rc;
}

static void describe(struct blk *b)
{
	struct virtio_device *dev = &b->dev;

	dev->ops = &blk_ops;
	dev->config_bytes = sizeof(b->config);
	dev->queues[0].max_size = QUEUE_SIZE;
	dev->offered = 1u << VIRTIO_BLK_F_SIZE_MAX | 1u << VIRTIO_BLK_F_SEG_MAX |
		       1u << VIRTIO_BLK_F_BLK_SIZE | 1u << VIRTIO_BLK_F_FLUSH;
	dev->offered |= b->read_only ? 1u << VIRTIO_BLK_F_RO
				     : 1u << VIRTIO_BLK_F_DISCARD | 1u << VIRTIO_BLK_F_WRITE_ZEROES;
	b->config = (struct virtio_blk_config){
		.capacity = b->sectors,
		.size_max = SIZE_MAX_BYTES,
		.seg_max = SEG_MAX,
		.blk_size = SECTOR,
		.num_queues = 1,
		.max_discard_sectors = MAX_RANGE_SECTORS,
		.max_discard_seg = MAX_RANGES,
		.discard_sector_alignment = ALIGN_SECTORS,
		.max_write_zeroes_sectors = MAX_RANGE_SECTORS,
		.max_write_zeroes_seg = MAX_RANGES,
		.write_zeroes_may_unmap = 1,
	};
}

/* #syscalls: lseek eventfd2 */
int virtio_blk_create(struct virtio_device **out, const struct virtio_blk_opts *opts,
		      struct pil_err *err)
{
	off_t bytes = lseek(opts->fd, 0, SEEK_END);
	_auto_free struct blk *b = NULL;
	int rc;

	if (bytes < 0)
		return pil_err_set(err, errno, "size of disk image '%s'", opts->path);
	if (bytes < SECTOR || bytes % SECTOR)
		return pil_err_say(err, EINVAL,
				   "disk image '%s': %lld bytes are no whole number of sectors",
				   opts->path, (long long)bytes);
	b = calloc(1, sizeof(*b));
	if (!b)
		return pil_err_set(err, ENOMEM, "disk image '%s'", opts->path);
	b->fd = opts->fd;
	b->read_only = opts->read_only;
	b->sectors = (uint64_t)bytes / SECTOR;
	if (opts->serial)
		memcpy(b->serial, opts->serial, strnlen(opts->serial, sizeof(b->serial)));
	describe(b);
	b->own_wake_fd = b->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (b->wake_fd < 0)
		return pil_err_set(err, errno, "disk image '%s': eventfd", opts->path);
	pthread_mutex_init(&b->lock, NULL);
	pthread_cond_init(&b->changed, NULL);
	b->path = str_printf("%s", opts->path);
	rc = start_worker(b);
	if (rc) {
		close(b->wake_fd);
		free(b->path);
		return pil_err_set(err, rc, "disk image '%s': start its thread", opts->path);
	}
	*out = &((struct blk *)pil_take_ptr(&b))->dev;
	return 0;
}
