/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "lib/vdriver.h"
#include "virtio/iovs.h"

enum { SIZE = 8 };

struct fixture {
	struct vdriver d;
	struct virtq q;
	struct virtq_chain chain;
	struct vring_desc *desc;
};

static void start(struct fixture *f)
{
	f->q = (struct virtq){.max_size = SIZE};
	vdriver_queue_init(&f->d, &f->q, 0, SIZE);
	f->desc = f->d.queues[0].desc;
}

static void offer(struct fixture *f, uint16_t head)
{
	struct vring_avail *avail = f->d.queues[0].avail;

	avail->ring[avail->idx++ % SIZE] = head;
}

static int setup(void **state)
{
	static struct fixture f;

	memset(&f, 0, sizeof(f));
	vdriver_init(&f.d);
	start(&f);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	vdriver_finish(&((struct fixture *)*state)->d);
	return 0;
}

static void set_desc(struct fixture *f, unsigned i, uint64_t gpa, uint32_t len, uint16_t flags,
		     uint16_t next)
{
	f->desc[i] = (struct vring_desc){gpa, len, flags, next};
}

static void test_chain_is_gathered(void **state)
{
	struct fixture *f = *state;
	const uint64_t a = VDRIVER_BUFFERS_GPA, high = VDRIVER_HIGH_GPA + 16;

	set_desc(f, 3, a, 10, VRING_DESC_F_NEXT, 0);
	set_desc(f, 0, high, 20, VRING_DESC_F_NEXT, 7);
	set_desc(f, 7, a + 64, 0, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 5);
	set_desc(f, 5, a + 100, 30, VRING_DESC_F_WRITE, 0);
	assert_int_equal(virtq_pop(&f->q, &f->chain), 0);
	offer(f, 3);
	assert_int_equal(virtq_pop(&f->q, &f->chain), 1);
	assert_int_equal(f->chain.head, 3);
	assert_int_equal(f->chain.n_out, 2);
	assert_int_equal(f->chain.n_in, 1); /* the empty one is left out */
	assert_int_equal(f->chain.out_bytes, 30);
	assert_int_equal(f->chain.in_bytes, 30);
	assert_ptr_equal(f->chain.iov[1].iov_base, vdriver_at(&f->d, high));
	assert_int_equal(virtq_pop(&f->q, &f->chain), 0);
	virtq_unpop(&f->q, 1);
	assert_int_equal(virtq_pop(&f->q, &f->chain), 1);
	assert_int_equal(f->chain.head, 3);
	virtq_push(&f->q, 3, 12);
	assert_int_equal(f->d.queues[0].used->idx, 1);
	assert_int_equal(f->d.queues[0].used->ring[0].id, 3);
	assert_int_equal(f->d.queues[0].used->ring[0].len, 12);
}

static void test_indirect_table_may_be_longer_than_the_queue(void **state)
{
	struct fixture *f = *state;
	uint64_t table = vdriver_alloc(&f->d, 40 * sizeof(struct vring_desc));
	struct vring_desc *t = vdriver_at(&f->d, table);

	for (uint16_t i = 0; i < 40; i++)
		t[i] = (struct vring_desc){VDRIVER_BUFFERS_GPA, 4, i < 39 ? VRING_DESC_F_NEXT : 0,
					   (uint16_t)(i + 1)};
	set_desc(f, 0, VDRIVER_BUFFERS_GPA, 5, VRING_DESC_F_NEXT, 1);
	set_desc(f, 1, table, 40 * 16, VRING_DESC_F_INDIRECT, 0);
	offer(f, 0);
	assert_int_equal(virtq_pop(&f->q, &f->chain), 1);
	assert_int_equal(f->chain.n_out, 41);
	assert_int_equal(f->chain.out_bytes, 165);
}

static void expect_broken(struct fixture *f, uint16_t head)
{
	offer(f, head);
	assert_int_equal(virtq_pop(&f->q, &f->chain), -EINVAL);
	assert_true(f->q.broken);
	assert_int_equal(virtq_pop(&f->q, &f->chain), -EINVAL);
	assert_false(virtq_want_notify(&f->q));
	virtq_reset(&f->q);
	assert_int_equal(virtq_pop(&f->q, &f->chain), 0);
	start(f);
}

static void test_hostile_chains_break_the_queue(void **state)
{
	struct fixture *f = *state;
	const uint64_t a = VDRIVER_BUFFERS_GPA;
	const uint16_t w = VRING_DESC_F_WRITE, nx = VRING_DESC_F_NEXT, in = VRING_DESC_F_INDIRECT;
	uint64_t table = vdriver_alloc(&f->d, (VIRTQ_MAX_IOV + 1) * sizeof(struct vring_desc));
	struct vring_desc *t = vdriver_at(&f->d, table);

	set_desc(f, 0, a, 4, nx, 1); /* a loop */
	set_desc(f, 1, a, 4, nx, 0);
	expect_broken(f, 0);
	set_desc(f, 0, a, 4, nx, SIZE); /* next, head beyond the table */
	expect_broken(f, 0);
	expect_broken(f, SIZE);
	set_desc(f, 0, VDRIVER_RANGE_BYTES - 3, 4, 0, 0); /* over the end of a range */
	expect_broken(f, 0);
	set_desc(f, 0, VDRIVER_HIGH_GPA - 2, 4, 0, 0); /* below one */
	expect_broken(f, 0);
	set_desc(f, 0, UINT64_MAX - 1, 4, 0, 0); /* wraps */
	expect_broken(f, 0);
	set_desc(f, 0, a, UINT32_MAX, w, 0);
	expect_broken(f, 0);
	set_desc(f, 0, a, 4, w | nx, 1); /* readable after writable */
	set_desc(f, 1, a, 4, 0, 0);
	expect_broken(f, 0);
	set_desc(f, 0, table, 16, in | nx, 1); /* indirect in the middle */
	expect_broken(f, 0);
	set_desc(f, 0, table, 15, in, 0); /* odd and empty tables */
	expect_broken(f, 0);
	set_desc(f, 0, table, 0, in, 0);
	expect_broken(f, 0);
	set_desc(f, 0, UINT64_MAX - 7, 16, in, 0);
	expect_broken(f, 0);
	t[0] = (struct vring_desc){table, 16, in, 0}; /* a table in a table */
	set_desc(f, 0, table, 16, in, 0);
	expect_broken(f, 0);
	t[0] = (struct vring_desc){a, 1, nx, 0}; /* a loop in a table */
	set_desc(f, 0, table, 16, in, 0);
	expect_broken(f, 0);
	for (unsigned i = 0; i <= VIRTQ_MAX_IOV; i++)
		t[i] = (struct vring_desc){a, 1, i < VIRTQ_MAX_IOV ? nx : 0, (uint16_t)(i + 1)};
	set_desc(f, 0, table, (VIRTQ_MAX_IOV + 1) * 16, in, 0);
	expect_broken(f, 0);
	f->q.indirect = false; /* not negotiated: the flag is a mistake */
	set_desc(f, 0, table, 16, in, 0);
	expect_broken(f, 0);
	f->d.queues[0].avail->idx = SIZE; /* one more follows: more than the queue holds */
	expect_broken(f, 0);
}

static void test_bad_set_up_is_refused(void **state)
{
	struct fixture *f = *state;
	const struct virtq good = f->q;
	struct virtq bad;

#define REFUSED(field, value)                                                                      \
	do {                                                                                       \
		bad = good;                                                                        \
		bad.field = (value);                                                               \
		assert_false(virtq_start(&bad));                                                   \
		assert_true(bad.broken);                                                           \
		assert_int_equal(virtq_pop(&bad, &f->chain), -EINVAL);                             \
		virtq_push(&bad, 0, 0); /* does nothing */                                         \
		assert_false(virtq_should_interrupt(&bad));                                        \
	} while (0)
	REFUSED(size, 0);
	REFUSED(size, 3);
	REFUSED(size, 2 * SIZE);
	REFUSED(desc_gpa, 8);
	REFUSED(desc_gpa, VDRIVER_RANGE_BYTES - 16 * SIZE + 16);
	REFUSED(avail_gpa, 1);
	REFUSED(avail_gpa, VDRIVER_RANGE_BYTES - 2 * SIZE - 4); /* no room for used_event */
	REFUSED(used_gpa, 2);
	REFUSED(used_gpa, VDRIVER_RANGE_BYTES - 8 * SIZE - 4);
	REFUSED(used_gpa, UINT64_MAX - 3);
	REFUSED(mem, NULL);
}

static void test_interrupts_without_event_idx(void **state)
{
	struct fixture *f = *state;

	f->q.event_idx = false;
	assert_false(virtq_should_interrupt(&f->q));
	virtq_push(&f->q, 0, 0);
	virtq_push(&f->q, 1, 0);
	assert_true(virtq_should_interrupt(&f->q));
	assert_false(virtq_should_interrupt(&f->q));
	f->d.queues[0].avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
	virtq_push(&f->q, 2, 0);
	assert_false(virtq_should_interrupt(&f->q));
	virtq_refuse_notify(&f->q);
	assert_int_equal(f->d.queues[0].used->flags, VRING_USED_F_NO_NOTIFY);
	assert_false(virtq_want_notify(&f->q));
	assert_int_equal(f->d.queues[0].used->flags, 0);
	offer(f, 0);
	assert_true(virtq_want_notify(&f->q));
}

static void test_interrupts_with_event_idx(void **state)
{
	struct fixture *f = *state;
	uint16_t *used_event = &f->d.queues[0].avail->ring[SIZE];
	const uint16_t *avail_event = (uint16_t *)&f->d.queues[0].used->ring[SIZE];

	*used_event = 2; /* tell me of the third */
	virtq_push(&f->q, 0, 0);
	virtq_push(&f->q, 1, 0);
	assert_false(virtq_should_interrupt(&f->q));
	virtq_push(&f->q, 2, 0);
	assert_true(virtq_should_interrupt(&f->q));
	*used_event = 3;
	virtq_stage(&f->q, 3, 0);
	assert_false(virtq_should_interrupt(&f->q)); /* nothing published yet */
	assert_int_equal(f->d.queues[0].used->idx, 3);
	virtq_publish(&f->q);
	assert_true(virtq_should_interrupt(&f->q));
	set_desc(f, 0, VDRIVER_BUFFERS_GPA, 4, 0, 0);
	offer(f, 0);
	offer(f, 0);
	assert_int_equal(virtq_pop(&f->q, &f->chain), 1);
	assert_true(virtq_want_notify(&f->q)); /* one is left */
	assert_int_equal(*avail_event, 1);
	assert_int_equal(virtq_pop(&f->q, &f->chain), 1);
	assert_false(virtq_want_notify(&f->q));
	assert_int_equal(*avail_event, 2);
}

static void test_indices_wrap(void **state)
{
	struct fixture *f = *state;

	set_desc(f, 0, VDRIVER_BUFFERS_GPA, 4, 0, 0);
	for (unsigned i = 0; i < 70000; i++) {
		offer(f, 0);
		f->d.queues[0].avail->ring[SIZE] = (uint16_t)i;
		assert_int_equal(virtq_pop(&f->q, &f->chain), 1);
		assert_int_equal(virtq_pop(&f->q, &f->chain), 0);
		virtq_push(&f->q, 0, i);
		assert_true(virtq_should_interrupt(&f->q));
	}
	assert_int_equal(f->d.queues[0].used->idx, 70000 & 0xffff);
}

static void test_discarded_memory_reads_as_zeroes(void **state)
{
	struct fixture *f = *state;
	uint8_t *high = vdriver_at(&f->d, VDRIVER_HIGH_GPA);

	memset(high, 7, 4 * 4096);
	assert_int_equal(guest_mem_discard(&f->d.mem, VDRIVER_HIGH_GPA + 1, 3 * 4096), 0);
	assert_int_equal(high[4095], 7); /* pages that lie partly inside stay */
	assert_int_equal(high[4096], 0);
	assert_int_equal(high[3 * 4096 - 1], 0);
	assert_int_equal(high[3 * 4096], 7);
	assert_int_equal(guest_mem_discard(&f->d.mem, VDRIVER_HIGH_GPA + 1, 1), 0);
	assert_int_equal(guest_mem_discard(&f->d.mem, VDRIVER_RANGE_BYTES, 4096), -EINVAL);
	assert_int_equal(guest_mem_gpa(&f->d.mem, high + 5), VDRIVER_HIGH_GPA + 5);
}

static void test_discarded_private_memory_reads_as_zeroes(void **state)
{
	struct guest_mem mem = {.n_ranges = 1, .fd = -1};
	uint8_t *host =
		mmap(NULL, 8 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)state;
	assert_ptr_not_equal(host, MAP_FAILED);
	mem.ranges[0] = (struct guest_mem_range){0x10000, 8 * 4096, host, 0};
	host[4096] = host[7 * 4096] = host[4 * 4096] = 1;
	assert_int_equal(guest_mem_discard(&mem, 0x11000, 4096), 0);
	assert_int_equal(guest_mem_discard(&mem, 0x13000, 4 * 4096), 0);
	assert_int_equal(host[4096], 0);
	assert_int_equal(host[4 * 4096], 0);
	assert_int_equal(host[7 * 4096], 1);
	munmap(host, 8 * 4096);
}

static void test_iovecs_are_one_run_of_bytes(void **state)
{
	char a[3] = "abc", b[4] = "defg", out[8] = "";
	struct iovec iov[] = {{a, 3}, {b, 4}}, cut[2];

	(void)state;
	assert_int_equal(iovs_read(iov, 2, 2, out, 3), 3);
	assert_memory_equal(out, "cde", 3);
	assert_int_equal(iovs_read(iov, 2, 6, out, 3), 1);
	assert_int_equal(iovs_read(iov, 2, 7, out, 3), 0);
	assert_int_equal(iovs_write(iov, 2, 1, "XYZ", 3), 3);
	assert_memory_equal(a, "aXY", 3);
	assert_memory_equal(b, "Zefg", 4);
	assert_int_equal(iovs_cut(iov, 2, 1, 4, cut, 2), 2);
	assert_ptr_equal(cut[0].iov_base, a + 1);
	assert_int_equal(cut[0].iov_len, 2);
	assert_int_equal(cut[1].iov_len, 2);
	assert_int_equal(iovs_cut(iov, 2, 3, 100, iov, 2), 1); /* in place */
	assert_int_equal(iovs_bytes(iov, 1), 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_chain_is_gathered, setup, teardown),
		cmocka_unit_test_setup_teardown(test_indirect_table_may_be_longer_than_the_queue,
						setup, teardown),
		cmocka_unit_test_setup_teardown(test_hostile_chains_break_the_queue, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_bad_set_up_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_interrupts_without_event_idx, setup, teardown),
		cmocka_unit_test_setup_teardown(test_interrupts_with_event_idx, setup, teardown),
		cmocka_unit_test_setup_teardown(test_indices_wrap, setup, teardown),
		cmocka_unit_test_setup_teardown(test_discarded_memory_reads_as_zeroes, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_discarded_private_memory_reads_as_zeroes,
						setup, teardown),
		cmocka_unit_test(test_iovecs_are_one_run_of_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
