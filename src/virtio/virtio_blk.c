/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: a few worker threads own the queue between activate() and reset().  One of
 * them at a time, the leader, takes requests from it; when there are none it sleeps on an eventfd:
 * the queue's own, lent by the transport, so that a request wakes one thread only; or, with a
 * transport that lends none, one that notified() writes to.
 *
 * The host's page cache is the cache.  What can be had from it (reads that do not block, writes)
 * the leader does itself, with plain preadv/pwritev on the guest's buffers.  What takes its time
 * (reads from the disk, FLUSH, which is fdatasync(), holes) it does after making another worker the
 * leader, so that slow requests overlap and fast ones do not wait for them.  Workers beyond the
 * first are started when they are first needed; where that fails, everything is done in turn.
 *
 * The lock guards the queue, the state, and who leads; it is not held during I/O.  reset() asks for
 * PARKED and waits until no worker has a request in hand.  It waits on the loop's thread, so what
 * one request can ask for without end, zeroes, is given up then.
 *
 * A request that makes no sense in itself (no room for header or status) breaks the device; one
 * that asks for the impossible (beyond the end, read only, an I/O error) fails alone. */
#include "virtio/virtio_blk.h"

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

#include "base/err.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/str.h"
#include "virtio/iovs.h"
#include "virtio/virtio.h"

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
	MAX_WORKERS = 4,
};

enum blk_state { BLK_PARKED, BLK_RUNNING, BLK_PARKING, BLK_QUITTING };

struct blk;

struct worker {
	pthread_t thread;
	struct blk *blk;
	/* the request in hand */
	struct virtq_chain chain;
	struct virtio_blk_outhdr hdr;
	uint8_t status;
	size_t len, done; /* bytes to read or write, and those that are */
	unsigned n_iov;
	struct iovec data[VIRTQ_MAX_IOV];
};

struct blk {
	struct virtio_device dev;
	int fd; /* borrowed */
	bool read_only;
	uint64_t sectors;
	char serial[VIRTIO_BLK_ID_BYTES];
	char *path;
	int (*enter)(void);
	struct virtio_blk_config config;
	int own_wake_fd;

	pthread_mutex_t lock; /* of all below, and of the queue */
	pthread_cond_t changed;
	enum blk_state state;
	bool led;               /* there is a leader */
	bool no_nowait;         /* the image's file system cannot tell a read that would block */
	unsigned n_busy;        /* workers with a request in hand */
	unsigned n_idle;        /* those that could lead */
	unsigned unsaid;        /* requests completed since the driver was told */
	int wake_fd;            /* what the leader sleeps on: lent, or own_wake_fd */
	struct log_limit limit; /* of messages */
	unsigned n_workers;
	struct worker *workers[MAX_WORKERS];
};

static uint8_t io_failed(struct blk *b, const char *what, uint64_t sector, int code)
{
	bool allowed;

	pthread_mutex_lock(&b->lock);
	allowed = log_allowed(&b->limit);
	pthread_mutex_unlock(&b->lock);
	if (allowed)
		log_warn("blk: %s at sector %llu of '%s': %s", what, (unsigned long long)sector,
			 b->path, strerror(code));
	return VIRTIO_BLK_S_IOERR;
}

static bool in_disk(const struct blk *b, uint64_t sector, uint64_t n_sectors)
{
	return sector <= b->sectors && n_sectors <= b->sectors - sector;
}

/* Moves what is left of data[] to or from the image.  #syscalls disk: preadv pwritev */
static uint8_t transfer(struct worker *w, bool write)
{
	struct blk *b = w->blk;

	while (w->done < w->len) {
		off_t at = (off_t)(w->hdr.sector * SECTOR + w->done);
		ssize_t n = write ? pwritev(b->fd, w->data, (int)w->n_iov, at)
				  : preadv(b->fd, w->data, (int)w->n_iov, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) /* 0: somebody cut the image short */
			return io_failed(b, write ? "write" : "read", w->hdr.sector,
					 n ? errno : EIO);
		w->done += (size_t)n;
		w->n_iov = iovs_cut(w->data, w->n_iov, (size_t)n, w->len - w->done, w->data,
				    VIRTQ_MAX_IOV);
	}
	return VIRTIO_BLK_S_OK;
}

/* Reads what the page cache has.  True: that was all.  #syscalls disk: preadv2 */
static bool read_cached(struct worker *w)
{
	struct blk *b = w->blk;
	ssize_t n;

	if (b->no_nowait)
		return false;
	n = preadv2(b->fd, w->data, (int)w->n_iov, (off_t)(w->hdr.sector * SECTOR), RWF_NOWAIT);
	if (n < 0 && (errno == EOPNOTSUPP || errno == ENOSYS))
		b->no_nowait = true;
	if (n <= 0)
		return false;
	w->done = (size_t)n;
	w->n_iov = iovs_cut(w->data, w->n_iov, w->done, w->len - w->done, w->data, VIRTQ_MAX_IOV);
	return w->done == w->len;
}

static bool wanted(struct blk *b)
{
	bool running;

	pthread_mutex_lock(&b->lock);
	running = b->state == BLK_RUNNING;
	pthread_mutex_unlock(&b->lock);
	return running;
}

/* For file systems that cannot make zeroes by fallocate(). */
static int write_zeroes(struct blk *b, off_t at, off_t len)
{
	static const char zeroes[64 << 10];

	while (len > 0) {
		size_t n = len < (off_t)sizeof(zeroes) ? (size_t)len : sizeof(zeroes);
		ssize_t put = wanted(b) ? pwrite(b->fd, zeroes, n, at) : 0;

		if (!put)
			return -ECANCELED;
		if (put < 0 && errno != EINTR)
			return -errno;
		if (put > 0) {
			at += put;
			len -= put;
		}
	}
	return 0;
}

/* #syscalls disk: fallocate pwrite64 */
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
		rc = discard ? 0 : write_zeroes(b, at, len);
	if (rc == -ECANCELED)
		return VIRTIO_BLK_S_IOERR;
	return rc ? io_failed(b, discard ? "discard" : "write zeroes", range->sector, -rc)
		  : VIRTIO_BLK_S_OK;
}

static uint8_t clear_ranges(struct worker *w)
{
	struct blk *b = w->blk;
	struct virtio_blk_discard_write_zeroes ranges[MAX_RANGES];
	uint8_t status = VIRTIO_BLK_S_OK;

	static_assert(sizeof(ranges[0]) == 16, "range");
	if (b->read_only || !w->len || w->len % sizeof(ranges[0]) || w->len > sizeof(ranges))
		return VIRTIO_BLK_S_IOERR;
	iovs_read(w->data, w->n_iov, 0, ranges, w->len);
	for (size_t i = 0; i < w->len / sizeof(ranges[0]) && status == VIRTIO_BLK_S_OK; i++)
		status = wanted(b) ? clear_range(b, w->hdr.type, &ranges[i]) : VIRTIO_BLK_S_IOERR;
	return status;
}

/* #syscalls disk: fdatasync */
static uint8_t flush(struct blk *b)
{
	if (b->read_only || fdatasync(b->fd) == 0)
		return VIRTIO_BLK_S_OK;
	return io_failed(b, "flush", 0, errno);
}

/* Takes the request in w->chain apart.  False: its status is known already. */
static bool understand(struct worker *w)
{
	const struct virtq_chain *chain = &w->chain;
	const struct iovec *in = chain->iov + chain->n_out;
	struct blk *b = w->blk;
	bool reads = w->hdr.type == VIRTIO_BLK_T_IN;

	w->done = 0;
	w->len = reads ? chain->in_bytes - 1 : chain->out_bytes - sizeof(w->hdr);
	w->n_iov = reads ? iovs_cut(in, chain->n_in, 0, w->len, w->data, VIRTQ_MAX_IOV)
			 : iovs_cut(chain->iov, chain->n_out, sizeof(w->hdr), w->len, w->data,
				    VIRTQ_MAX_IOV);
	switch (w->hdr.type) {
	case VIRTIO_BLK_T_IN:
	case VIRTIO_BLK_T_OUT:
		w->status = VIRTIO_BLK_S_IOERR;
		return w->len % SECTOR == 0 && w->len <= (size_t)SEG_MAX * SIZE_MAX_BYTES &&
		       in_disk(b, w->hdr.sector, w->len / SECTOR) && (reads || !b->read_only);
	case VIRTIO_BLK_T_FLUSH:
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		return true;
	case VIRTIO_BLK_T_GET_ID:
		w->len = chain->in_bytes - 1;
		iovs_write(in, chain->n_in, 0, b->serial,
			   w->len < sizeof(b->serial) ? w->len : sizeof(b->serial));
		w->status = VIRTIO_BLK_S_OK;
		return false;
	default:
		w->status = VIRTIO_BLK_S_UNSUPP;
		return false;
	}
}

/* Does what does not block.  False: the request is for carry_out(). */
static bool done_at_once(struct worker *w)
{
	if (!understand(w))
		return true;
	if (w->hdr.type == VIRTIO_BLK_T_OUT)
		w->status = transfer(w, true);
	else if (w->hdr.type == VIRTIO_BLK_T_IN && read_cached(w))
		w->status = VIRTIO_BLK_S_OK;
	else if (w->hdr.type == VIRTIO_BLK_T_IN && w->blk->no_nowait) /* in turn, then */
		w->status = transfer(w, false);
	else
		return false;
	return true;
}

static void carry_out(struct worker *w)
{
	if (w->hdr.type == VIRTIO_BLK_T_IN)
		w->status = transfer(w, false);
	else if (w->hdr.type == VIRTIO_BLK_T_FLUSH)
		w->status = flush(w->blk);
	else
		w->status = clear_ranges(w);
}

/* ---- workers; what ends in _locked is called with the lock held */

static void complete_locked(struct worker *w)
{
	const struct virtq_chain *chain = &w->chain;
	struct blk *b = w->blk;

	iovs_write(chain->iov + chain->n_out, chain->n_in, chain->in_bytes - 1, &w->status, 1);
	virtq_push(&b->dev.queues[0], chain->head,
		   w->hdr.type == VIRTIO_BLK_T_IN ? (uint32_t)chain->in_bytes : 1);
	b->n_busy--;
	if (++b->unsaid % FLUSH_EVERY == 0)
		virtio_queue_flush(&b->dev, 0);
}

/* Takes the next request in hand. */
static bool take_locked(struct worker *w)
{
	const struct virtq_chain *chain = &w->chain;
	struct blk *b = w->blk;

	if (!virtio_device_pop(&b->dev, 0, &w->chain))
		return false;
	if (iovs_read(chain->iov, chain->n_out, 0, &w->hdr, sizeof(w->hdr)) < sizeof(w->hdr) ||
	    !chain->in_bytes) {
		virtio_device_broken(&b->dev, "request without header or status");
		return false;
	}
	b->n_busy++;
	return true;
}

static int start_worker_locked(struct blk *b);

/* The leader lets another one lead.  False: there is none. */
static bool hand_over_locked(struct blk *b)
{
	virtio_queue_flush(&b->dev, 0); /* say what is done: this takes its time */
	if (!b->n_idle && (b->n_workers == MAX_WORKERS || start_worker_locked(b)))
		return false;
	b->led = false;
	pthread_cond_broadcast(&b->changed);
	return true;
}

/* Sleeps until there may be requests.  #syscalls disk: poll read */
static void sleep_until_kicked(int wake_fd)
{
	struct pollfd pfd = {.fd = wake_fd, .events = POLLIN};
	uint64_t count;

	poll(&pfd, 1, -1);
	if (read(wake_fd, &count, sizeof(count)) < 0)
		assert(errno == EAGAIN || errno == EINTR);
}

/* The queue is empty: sleeps, unless a request came meanwhile. */
static void rest_locked(struct blk *b)
{
	int wake_fd = b->wake_fd;

	virtio_queue_flush(&b->dev, 0);
	if (!virtq_want_notify(&b->dev.queues[0])) {
		pthread_mutex_unlock(&b->lock);
		sleep_until_kicked(wake_fd);
		pthread_mutex_lock(&b->lock);
	}
	virtq_refuse_notify(&b->dev.queues[0]);
}

/* Leads until another one does. */
static void lead_locked(struct worker *w)
{
	struct blk *b = w->blk;

	b->led = true;
	while (b->state == BLK_RUNNING) {
		bool handed = false, done;

		if (!take_locked(w)) {
			rest_locked(b);
			continue;
		}
		pthread_mutex_unlock(&b->lock);
		done = done_at_once(w);
		pthread_mutex_lock(&b->lock);
		if (!done) {
			handed = hand_over_locked(b);
			pthread_mutex_unlock(&b->lock);
			carry_out(w);
			pthread_mutex_lock(&b->lock);
		}
		complete_locked(w);
		if (!done)
			virtio_queue_flush(&b->dev, 0);
		if (handed)
			return;
	}
	b->led = false;
}

/* #syscalls disk: futex */
static void *work(void *arg)
{
	struct worker *w = arg;
	struct blk *b = w->blk;

	pthread_setname_np(pthread_self(), "blk"); /* of another thread it would open a file */
	if (b->enter && b->enter()) {
		log_err("disk image '%s': a thread of it cannot be confined", b->path);
		abort();
	}
	pthread_mutex_lock(&b->lock);
	while (b->state != BLK_QUITTING) {
		if (b->state == BLK_RUNNING && !b->led) {
			lead_locked(w);
			continue;
		}
		if (b->state == BLK_PARKING && !b->n_busy && !b->led) {
			b->state = BLK_PARKED;
			pthread_cond_broadcast(&b->changed);
		}
		b->n_idle++;
		pthread_cond_wait(&b->changed, &b->lock);
		b->n_idle--;
	}
	pthread_mutex_unlock(&b->lock);
	return NULL;
}

/* Signals belong to the loop's thread. */
static int start_worker_locked(struct blk *b)
{
	struct worker *w = calloc(1, sizeof(*w));
	sigset_t all, before;
	pthread_attr_t attr;
	int rc;

	if (!w)
		return ENOMEM;
	w->blk = b;
	sigfillset(&all);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&w->thread, &attr, work, w);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	if (rc) {
		free(w);
		return rc;
	}
	b->workers[b->n_workers++] = w;
	return 0;
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
	b->state = BLK_RUNNING;
	b->unsaid = 0;
	virtq_refuse_notify(&dev->queues[0]);
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
		b->state = BLK_PARKING;
		pthread_cond_broadcast(&b->changed);
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
	b->state = BLK_QUITTING;
	pthread_cond_broadcast(&b->changed);
	pthread_mutex_unlock(&b->lock);
	for (unsigned i = 0; i < b->n_workers; i++) {
		pthread_join(b->workers[i]->thread, NULL);
		free(b->workers[i]);
	}
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
	b->enter = opts->enter;
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
	pthread_mutex_lock(&b->lock);
	rc = start_worker_locked(b);
	pthread_mutex_unlock(&b->lock);
	if (rc) {
		close(b->wake_fd);
		free(b->path);
		return pil_err_set(err, rc, "disk image '%s': start its thread", opts->path);
	}
	*out = &((struct blk *)pil_take_ptr(&b))->dev;
	return 0;
}
