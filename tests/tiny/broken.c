/* SPDX-License-Identifier: Apache-2.0
 *
 * run:
 * status: 0
 * stderr: virtio rng: the guest broke a rule
 *
 * A queue that breaks the rules stops its device, which says so and works again after a reset. */
#include "tiny.h"

static struct vdev rng;
static struct vqueue queue;
static uint8_t bytes[32];

static void start(void)
{
	vdev_negotiate(&rng, V_FEATURES | 1ull << 28);
	vqueue_set_up(&rng, &queue, 0, 0xffff);
	wr16(rng.common + 16, 0);
	vdev_driver_ok(&rng);
}

/* Waits a bounded while for the device to ask for a reset. */
static bool needs_reset(void)
{
	uint64_t since = ticks();

	while (waiting(since))
		if (vdev_status(&rng) & V_NEEDS_RESET)
			return true;
	return false;
}

static void expect_broken(struct vdesc desc, const char *what)
{
	start();
	queue.desc[0] = desc;
	vqueue_offer(&rng, &queue, 0);
	ok(needs_reset(), what);
}

void tiny_main(void)
{
	uint64_t at = (uint64_t)bytes;

	interrupts_on();
	ok(vdev_find(&rng, 4), "there is an entropy device");
	msix_set(rng.slot, 0, 2);
	msix_enable(rng.slot);

	expect_broken((struct vdesc){at, 8, D_WRITE | D_NEXT, 0}, "a chain that loops");
	ok(interrupt_came(2, 1), "it interrupts to say so");
	expect_broken((struct vdesc){at, 8, D_WRITE | D_NEXT, 8}, "a link beyond the table");
	expect_broken((struct vdesc){UINT64_MAX - 4, 64, D_WRITE, 0}, "an address that wraps");
	expect_broken((struct vdesc){1 << 30, 64, D_WRITE, 0}, "an address outside of memory");
	expect_broken((struct vdesc){at, 0xffffffff, D_WRITE, 0}, "an absurd length");
	expect_broken((struct vdesc){at, 24, D_INDIRECT, 0}, "an indirect table of odd size");
	expect_broken((struct vdesc){1 << 30, 16, D_INDIRECT, 0},
		      "an indirect table out of memory");

	start();
	vqueue_offer(&rng, &queue, 99);
	ok(needs_reset(), "a head beyond the table");
	start();
	queue.avail.idx = 77;
	vqueue_offer(&rng, &queue, 0);
	ok(needs_reset(), "more requests than the queue has room for");

	vdev_negotiate(&rng, V_FEATURES);
	vqueue_set_up(&rng, &queue, 0, 0xffff);
	vdev_driver_ok(&rng);
	vdev_reset(&rng);
	vdev_negotiate(&rng, V_FEATURES);
	wr32(rng.common + 32, 0xfffff000);
	wr16(rng.common + 28, 1);
	vdev_driver_ok(&rng);
	ok(needs_reset(), "a queue outside of memory");

	start();
	queue.desc[0] = (struct vdesc){at, sizeof(bytes), D_WRITE, 0};
	vqueue_offer(&rng, &queue, 0);
	ok(vqueue_used(&queue, 1) && !(vdev_status(&rng) & V_NEEDS_RESET),
	   "after a reset it works");
}
