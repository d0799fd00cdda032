/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/vdriver.h"

#include <assert.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "lib/bound.h"

enum { RING_STRIDE = 0x10000 };

static struct vdriver *driver_of(struct virtio_device *dev)
{
	return dev->transport_data;
}

static void fake_interrupt(struct virtio_device *dev, unsigned q)
{
	__atomic_fetch_add(&driver_of(dev)->queues[q].interrupts, 1, __ATOMIC_RELAXED);
}

static void fake_config_changed(struct virtio_device *dev)
{
	driver_of(dev)->config_changes++;
}

static void fake_broken(struct virtio_device *dev, const char *why)
{
	driver_of(dev)->why = why;
	__atomic_fetch_add(&driver_of(dev)->broken, 1, __ATOMIC_RELEASE);
}

static void fake_renotify(struct virtio_device *dev, unsigned q)
{
	driver_of(dev)->queues[q].again = true;
}

static int lend(struct virtio_device *dev, int *fd)
{
	if (!driver_of(dev)->lends_fds)
		return -1;
	if (*fd < 0)
		*fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return *fd;
}

static int fake_kick_fd(struct virtio_device *dev, unsigned q)
{
	return lend(dev, &driver_of(dev)->queues[q].kick_fd);
}

static int fake_call_fd(struct virtio_device *dev, unsigned q)
{
	return lend(dev, &driver_of(dev)->queues[q].call_fd);
}

static void fake_renew_fds(struct virtio_device *dev, unsigned q)
{
	struct vdriver_queue *queue = &driver_of(dev)->queues[q];
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	if (queue->kick_fd >= 0 && dup3(fd, queue->kick_fd, O_CLOEXEC) < 0)
		abort();
	if (queue->call_fd >= 0)
		close(queue->call_fd);
	queue->call_fd = -1;
	close(fd);
}

static const struct virtio_transport fake_transport = {
	.interrupt = fake_interrupt,
	.config_changed = fake_config_changed,
	.broken = fake_broken,
	.renotify = fake_renotify,
	.kick_fd = fake_kick_fd,
	.call_fd = fake_call_fd,
	.renew_fds = fake_renew_fds,
};

void vdriver_init(struct vdriver *d)
{
	*d = (struct vdriver){.next_gpa = VDRIVER_BUFFERS_GPA};
	d->mem.fd = memfd_create("guest", MFD_CLOEXEC);
	assert(d->mem.fd >= 0);
	if (ftruncate(d->mem.fd, 2 * VDRIVER_RANGE_BYTES))
		abort();
	d->ram = mmap(NULL, 2 * VDRIVER_RANGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, d->mem.fd,
		      0);
	assert(d->ram != MAP_FAILED);
	d->mem.n_ranges = 2;
	d->mem.ranges[0] = (struct guest_mem_range){0, VDRIVER_RANGE_BYTES, d->ram, 0};
	d->mem.ranges[1] =
		(struct guest_mem_range){VDRIVER_HIGH_GPA, VDRIVER_RANGE_BYTES,
					 d->ram + VDRIVER_RANGE_BYTES, VDRIVER_RANGE_BYTES};
	for (int i = 0; i < VIRTIO_MAX_QUEUES; i++)
		d->queues[i].kick_fd = d->queues[i].call_fd = -1;
}

static void close_fds(struct vdriver *d)
{
	for (int i = 0; i < VIRTIO_MAX_QUEUES; i++) {
		struct vdriver_queue *q = &d->queues[i];

		if (q->kick_fd >= 0)
			close(q->kick_fd);
		if (q->call_fd >= 0)
			close(q->call_fd);
		*q = (struct vdriver_queue){.kick_fd = -1, .call_fd = -1};
	}
}

void vdriver_finish(struct vdriver *d)
{
	close_fds(d);
	munmap(d->ram, 2 * VDRIVER_RANGE_BYTES);
	close(d->mem.fd);
}

void vdriver_queue_init(struct vdriver *d, struct virtq *q, unsigned nr, uint16_t size)
{
	uint64_t gpa = (uint64_t)nr * RING_STRIDE;

	assert((nr + 1) * RING_STRIDE <= VDRIVER_BUFFERS_GPA && size <= VIRTQ_MAX_SIZE);
	memset(d->ram + gpa, 0, RING_STRIDE);
	q->mem = &d->mem;
	q->size = size;
	q->desc_gpa = gpa;
	q->avail_gpa = gpa + 0x8000;
	q->used_gpa = gpa + 0xa000;
	q->indirect = !d->no_indirect;
	q->event_idx = !d->no_event_idx;
	d->queues[nr].desc = (struct vring_desc *)(d->ram + q->desc_gpa);
	d->queues[nr].avail = (struct vring_avail *)(d->ram + q->avail_gpa);
	d->queues[nr].used = (struct vring_used *)(d->ram + q->used_gpa);
	d->queues[nr].next_desc = d->queues[nr].last_used = 0;
	if (!virtq_start(q))
		abort();
}

void vdriver_start(struct vdriver *d, struct virtio_device *dev, uint64_t features)
{
	d->dev = dev;
	dev->transport = &fake_transport;
	dev->transport_data = d;
	dev->acked = features;
	for (unsigned i = 0; i < dev->ops->n_queues; i++) {
		dev->queues[i].mem = &d->mem;
		vdriver_queue_init(d, &dev->queues[i], i, dev->queues[i].max_size);
	}
	dev->active = true;
	if (dev->ops->activate)
		dev->ops->activate(dev);
}

void vdriver_stop(struct vdriver *d)
{
	d->dev->ops->reset(d->dev);
	d->dev->active = false;
	for (unsigned i = 0; i < d->dev->ops->n_queues; i++)
		virtq_reset(&d->dev->queues[i]);
	close_fds(d);
}

uint64_t vdriver_alloc(struct vdriver *d, size_t len)
{
	uint64_t gpa = d->next_gpa;

	assert(len <= VDRIVER_RANGE_BYTES - gpa);
	d->next_gpa += (len + 63) & ~(uint64_t)63;
	return gpa;
}

uint64_t vdriver_put(struct vdriver *d, const void *bytes, size_t len)
{
	uint64_t gpa = vdriver_alloc(d, len);

	memcpy(vdriver_at(d, gpa), bytes, len);
	return gpa;
}

void *vdriver_at(struct vdriver *d, uint64_t gpa)
{
	return guest_mem_at(&d->mem, gpa, 1);
}

static unsigned queue_size(const struct vdriver *d, unsigned q)
{
	return d->dev ? d->dev->queues[q].size : VIRTQ_MAX_SIZE;
}

static void fill(struct vring_desc *desc, const struct vdriver_buf *buf, bool last, uint16_t next)
{
	*desc = (struct vring_desc){
		.addr = buf->gpa,
		.len = buf->len,
		.flags = (buf->write ? VRING_DESC_F_WRITE : 0) | (last ? 0 : VRING_DESC_F_NEXT),
		.next = last ? 0 : next,
	};
}

void vdriver_offer(struct vdriver *d, unsigned q, uint16_t head)
{
	struct vring_avail *avail = d->queues[q].avail;

	avail->ring[avail->idx & (queue_size(d, q) - 1)] = head;
	__atomic_store_n(&avail->idx, avail->idx + 1, __ATOMIC_RELEASE);
}

uint16_t vdriver_add(struct vdriver *d, unsigned q, const struct vdriver_buf *bufs, unsigned n)
{
	struct vdriver_queue *vq = &d->queues[q];
	unsigned size = queue_size(d, q);
	uint16_t head = vq->next_desc;

	for (unsigned i = 0; i < n; i++) {
		uint16_t next = (vq->next_desc + 1) & (size - 1);

		fill(&vq->desc[vq->next_desc], &bufs[i], i == n - 1, next);
		vq->next_desc = next;
	}
	vdriver_offer(d, q, head);
	return head;
}

uint16_t vdriver_add_indirect(struct vdriver *d, unsigned q, const struct vdriver_buf *bufs,
			      unsigned n)
{
	struct vdriver_queue *vq = &d->queues[q];
	uint64_t table = vdriver_alloc(d, n * sizeof(struct vring_desc));
	struct vring_desc *at = vdriver_at(d, table);
	uint16_t head = vq->next_desc;

	for (unsigned i = 0; i < n; i++)
		fill(&at[i], &bufs[i], i == n - 1, (uint16_t)(i + 1));
	vq->desc[head] = (struct vring_desc){
		.addr = table,
		.len = (uint32_t)(n * sizeof(struct vring_desc)),
		.flags = VRING_DESC_F_INDIRECT,
	};
	vq->next_desc = (head + 1) & (queue_size(d, q) - 1);
	vdriver_offer(d, q, head);
	return head;
}

void vdriver_kick(struct vdriver *d, unsigned q)
{
	uint64_t one = 1;

	if (d->queues[q].kick_fd < 0)
		d->dev->ops->notified(d->dev, q);
	else if (write(d->queues[q].kick_fd, &one, sizeof(one)) != sizeof(one))
		abort();
}

bool vdriver_again(struct vdriver *d)
{
	bool any = false;

	for (unsigned q = 0; d->dev && q < d->dev->ops->n_queues; q++) {
		if (!d->queues[q].again)
			continue;
		d->queues[q].again = false;
		any = true;
		d->dev->ops->notified(d->dev, q);
	}
	return any;
}

bool vdriver_used(struct vdriver *d, unsigned q, struct vring_used_elem *elem)
{
	struct vdriver_queue *vq = &d->queues[q];

	if (__atomic_load_n(&vq->used->idx, __ATOMIC_ACQUIRE) == vq->last_used)
		return false;
	*elem = vq->used->ring[vq->last_used++ & (queue_size(d, q) - 1)];
	return true;
}

bool vdriver_wait_used(struct vdriver *d, unsigned q, struct vring_used_elem *elem)
{
	const struct timespec ms = {.tv_nsec = 1000000};

	for (int i = 0; i < bound_ms(VDRIVER_WAIT_MS); i++) {
		if (vdriver_used(d, q, elem))
			return true;
		nanosleep(&ms, NULL);
	}
	return false;
}
