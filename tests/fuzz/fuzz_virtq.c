/* SPDX-License-Identifier: Apache-2.0
 *
 * The first bytes of the input set a queue up, the rest is the guest's memory, rings and all; then
 * requests are taken and given back until the queue is empty or broken.  Every buffer must lie in
 * the memory. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "virtio/iovs.h"
#include "virtio/virtq.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PAGE = 4096, MAX_ROUNDS = 64 };

struct head {
	uint8_t size_log2, flags;
	uint16_t desc, avail, used;
};

static void check(const struct guest_mem *mem, const struct virtq_chain *chain)
{
	assert(chain->n_out + chain->n_in <= VIRTQ_MAX_IOV);
	assert(iovs_bytes(chain->iov, chain->n_out) == chain->out_bytes);
	assert(iovs_bytes(chain->iov + chain->n_out, chain->n_in) == chain->in_bytes);
	for (unsigned i = 0; i < chain->n_out + chain->n_in; i++) {
		const struct iovec *v = &chain->iov[i];
		uint64_t gpa = guest_mem_gpa(mem, v->iov_base);

		assert(v->iov_len && guest_mem_at(mem, gpa, v->iov_len) == v->iov_base);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t low[PAGE] __attribute__((aligned(PAGE)));
	static uint8_t high[PAGE] __attribute__((aligned(PAGE)));
	static struct virtq_chain chain;
	const struct guest_mem mem = {
		.ranges = {{0, PAGE, low, 0}, {2 * PAGE, PAGE, high, PAGE}},
		.n_ranges = 2,
		.fd = -1,
	};
	struct virtq q = {.mem = &mem, .max_size = 256};
	struct head head;

	if (size < sizeof(head))
		return 0;
	memcpy(&head, data, sizeof(head));
	data += sizeof(head);
	size -= sizeof(head);
	memset(low, 0, PAGE);
	memset(high, 0, PAGE);
	memcpy(low, data, size < PAGE ? size : PAGE);
	if (size > PAGE)
		memcpy(high, data + PAGE, size - PAGE < PAGE ? size - PAGE : PAGE);
	q.size = (uint16_t)(1u << (head.size_log2 % 16));
	q.event_idx = head.flags & 1;
	q.indirect = head.flags & 2;
	q.desc_gpa = head.desc;
	q.avail_gpa = head.avail;
	q.used_gpa = head.used;
	if (!virtq_start(&q)) {
		assert(q.broken);
		return 0;
	}
	for (unsigned i = 0; i < MAX_ROUNDS && virtq_pop(&q, &chain) == 1; i++) {
		check(&mem, &chain);
		virtq_push(&q, chain.head, (uint32_t)i); /* may change the rings under us */
		virtq_should_interrupt(&q);
		virtq_want_notify(&q);
	}
	return 0;
}
