/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: the three rings stay in the guest's memory and are found once, by
 * virtq_start().  Our own positions (next_avail, next_used) never come from the guest.  Each field
 * of the guest's is loaded once, into a local, and judged there; copy_from_guest() ends with a
 * compiler barrier so that nothing is loaded a second time behind the judgement.
 *
 * Ordering: avail->idx is loaded with acquire before the entries it covers; used->idx is stored
 * with release after them.  Where each side stores its own flag and then looks at the other's index
 * (notifications), both need a full barrier in between, or each may miss the other's last word.
 *
 * A chain is bounded by counting descriptors, so a loop ends as "too long".  Linux may put more
 * buffers into an indirect table than the queue has entries; that is allowed up to VIRTQ_MAX_IOV.
 * Empty buffers are legal and left out of the iovecs. */
#include "virtio/virtq.h"

#include <assert.h>
#include <errno.h>
#include <linux/virtio_ring.h>
#include <string.h>

#define barrier() __asm__ volatile("" ::: "memory")

static_assert(sizeof(struct vring_desc) == 16, "descriptor");

static void copy_from_guest(void *to, const void *from, size_t len)
{
	memcpy(to, from, len);
	barrier();
}

static int fail(struct virtq *q)
{
	q->broken = true;
	return -EINVAL;
}

void virtq_reset(struct virtq *q)
{
	*q = (struct virtq){.mem = q->mem, .max_size = q->max_size};
}

bool virtq_start(struct virtq *q)
{
	unsigned n = q->size;

	q->desc = NULL;
	q->next_avail = q->next_used = q->published_used = q->signalled_used = 0;
	q->signal_next = false;
	if (!q->mem || !n || n > q->max_size || n > VIRTQ_MAX_SIZE || (n & (n - 1)) ||
	    q->desc_gpa % VRING_DESC_ALIGN_SIZE || q->avail_gpa % VRING_AVAIL_ALIGN_SIZE ||
	    q->used_gpa % VRING_USED_ALIGN_SIZE) {
		q->broken = true;
		return false;
	}
	/* flags, idx, the entries, and the other side's event index behind them */
	q->avail = guest_mem_at(q->mem, q->avail_gpa, 4 + 2 * n + 2);
	q->used = guest_mem_at(q->mem, q->used_gpa, 4 + sizeof(struct vring_used_elem) * n + 2);
	q->desc = guest_mem_at(q->mem, q->desc_gpa, sizeof(struct vring_desc) * n);
	if (!q->avail || !q->used || !q->desc) {
		q->desc = NULL;
		q->broken = true;
		return false;
	}
	q->enabled = true;
	return true;
}

static bool add_buffer(struct virtq *q, struct virtq_chain *chain, const struct vring_desc *d)
{
	void *at;

	if (!(d->flags & VRING_DESC_F_WRITE) && chain->n_in)
		return false; /* readable parts come first */
	if (!d->len)
		return true;
	at = guest_mem_at(q->mem, d->addr, d->len);
	if (!at)
		return false;
	chain->iov[chain->n_out + chain->n_in] = (struct iovec){at, d->len};
	if (d->flags & VRING_DESC_F_WRITE) {
		chain->n_in++;
		chain->in_bytes += d->len;
	} else {
		chain->n_out++;
		chain->out_bytes += d->len;
	}
	return true;
}

/* Follows the descriptors of one table; @left bounds how many.  An indirect table found on the way
 * is stored in @indirect and ends the walk, as the specification wants. */
static bool walk(struct virtq *q, struct virtq_chain *chain, const struct vring_desc *table,
		 unsigned table_len, unsigned i, unsigned left, struct vring_desc *indirect)
{
	for (; left && i < table_len; left--) {
		struct vring_desc d;

		copy_from_guest(&d, &table[i], sizeof(d));
		if (d.flags & VRING_DESC_F_INDIRECT) {
			if (!indirect || (d.flags & VRING_DESC_F_NEXT))
				return false;
			*indirect = d;
			return true;
		}
		if (!add_buffer(q, chain, &d))
			return false;
		if (!(d.flags & VRING_DESC_F_NEXT))
			return true;
		i = d.next;
	}
	return false;
}

static bool walk_indirect(struct virtq *q, struct virtq_chain *chain, const struct vring_desc *at)
{
	unsigned n = at->len / sizeof(struct vring_desc);
	unsigned room = VIRTQ_MAX_IOV - chain->n_out - chain->n_in;
	const struct vring_desc *table;

	if (!n || at->len % sizeof(struct vring_desc))
		return false;
	table = guest_mem_at(q->mem, at->addr, at->len);
	return table && walk(q, chain, table, n, 0, n < room ? n : room, NULL);
}

int virtq_pop(struct virtq *q, struct virtq_chain *chain)
{
	struct vring_desc indirect = {0};
	uint16_t idx, waiting, head;

	if (q->broken)
		return -EINVAL;
	if (!q->desc)
		return 0;
	idx = __atomic_load_n(&q->avail->idx, __ATOMIC_ACQUIRE);
	waiting = (uint16_t)(idx - q->next_avail);
	if (!waiting)
		return 0;
	if (waiting > q->size)
		return fail(q);
	head = __atomic_load_n(&q->avail->ring[q->next_avail & (q->size - 1)], __ATOMIC_RELAXED);
	chain->head = head;
	chain->n_out = chain->n_in = 0;
	chain->out_bytes = chain->in_bytes = 0;
	if (!walk(q, chain, q->desc, q->size, head, q->size, q->indirect ? &indirect : NULL) ||
	    (indirect.flags && !walk_indirect(q, chain, &indirect)))
		return fail(q);
	q->next_avail++;
	return 1;
}

void virtq_unpop(struct virtq *q, unsigned n)
{
	q->next_avail = (uint16_t)(q->next_avail - n);
}

void virtq_stage(struct virtq *q, uint16_t head, uint32_t written_bytes)
{
	struct vring_used_elem elem = {.id = head, .len = written_bytes};

	if (!q->desc)
		return;
	memcpy(&q->used->ring[q->next_used & (q->size - 1)], &elem, sizeof(elem));
	q->next_used++;
}

void virtq_publish(struct virtq *q)
{
	if (!q->desc)
		return;
	__atomic_store_n(&q->used->idx, q->next_used, __ATOMIC_RELEASE);
	q->published_used = q->next_used;
}

void virtq_push(struct virtq *q, uint16_t head, uint32_t written_bytes)
{
	virtq_stage(q, head, written_bytes);
	virtq_publish(q);
}

void virtq_resume(struct virtq *q)
{
	if (!q->desc)
		return;
	/* A number of the guest's; a wrong one shows as too many requests waiting. */
	q->next_used = __atomic_load_n(&q->used->idx, __ATOMIC_ACQUIRE);
	q->next_avail = q->published_used = q->signalled_used = q->next_used;
	q->signal_next = true;
}

/* With EVENT_IDX the driver's wish lies behind its ring, and ours behind the used ring. */
static uint16_t used_event(const struct virtq *q)
{
	return __atomic_load_n(&q->avail->ring[q->size], __ATOMIC_RELAXED);
}

static uint16_t *avail_event(struct virtq *q)
{
	return (uint16_t *)&q->used->ring[q->size];
}

bool virtq_should_interrupt(struct virtq *q)
{
	uint16_t old = q->signalled_used, new = q->published_used;

	if (!q->desc || (old == new && !q->signal_next))
		return false;
	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* used->idx before the driver's wish */
	q->signalled_used = new;
	if (q->signal_next) {
		q->signal_next = false;
		return true;
	}
	if (!q->event_idx)
		return !(__atomic_load_n(&q->avail->flags, __ATOMIC_RELAXED) &
			 VRING_AVAIL_F_NO_INTERRUPT);
	return vring_need_event(used_event(q), new, old);
}

bool virtq_want_notify(struct virtq *q)
{
	if (!q->desc || q->broken)
		return false;
	if (q->event_idx)
		__atomic_store_n(avail_event(q), q->next_avail, __ATOMIC_RELAXED);
	else
		__atomic_store_n(&q->used->flags, 0, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* our wish before avail->idx */
	return __atomic_load_n(&q->avail->idx, __ATOMIC_ACQUIRE) != q->next_avail;
}

void virtq_refuse_notify(struct virtq *q)
{
	/* with EVENT_IDX the index we asked for has passed: nothing to say */
	if (q->desc && !q->event_idx)
		__atomic_store_n(&q->used->flags, VRING_USED_F_NO_NOTIFY, __ATOMIC_RELAXED);
}
