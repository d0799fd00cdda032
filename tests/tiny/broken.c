/* SPDX-License-Identifier: Apache-2.0
 *
 * run: --disk @DISK --net-fd @FRAMES --net-control @CONTROL --fs work,@DIR/nobody
 * status: 0
 * often: virtio net: the guest broke a rule
 * often: virtio blk: the guest broke a rule
 * often: virtio console: the guest broke a rule
 * often: virtio rng: the guest broke a rule
 * often: virtio balloon: the guest broke a rule
 * often: virtio vsock: the guest broke a rule
 * often: virtio fs: the guest broke a rule
 *
 * A queue that breaks the rules stops its device, whichever it is, which says so and works again
 * after a reset. */
#include "tiny.h"

static const struct vkind *kind;
static struct vdev dev;
static struct vqueue queue;
static uint8_t bytes[32];

static void start(void)
{
	vkind_start(kind, &dev, &queue);
}

static void expect_broken(struct vdesc desc, const char *what)
{
	start();
	queue.desc[0] = desc;
	vqueue_offer(&dev, &queue, 0);
	ok(vdev_needs_reset(&dev), what);
}

static void break_chains(void)
{
	uint64_t at = (uint64_t)bytes;

	expect_broken((struct vdesc){at, 8, D_WRITE | D_NEXT, 0}, "a chain that loops");
	expect_broken((struct vdesc){at, 8, D_WRITE | D_NEXT, 8}, "a link beyond the table");
	expect_broken((struct vdesc){UINT64_MAX - 4, 64, D_WRITE, 0}, "an address that wraps");
	expect_broken((struct vdesc){1 << 30, 64, D_WRITE, 0}, "an address outside of memory");
	expect_broken((struct vdesc){at, 0xffffffff, D_WRITE, 0}, "an absurd length");
	expect_broken((struct vdesc){at, 24, D_INDIRECT, 0}, "an indirect table of odd size");
	expect_broken((struct vdesc){1 << 30, 16, D_INDIRECT, 0},
		      "an indirect table out of memory");
	start();
	queue.desc[0] = (struct vdesc){at, 8, D_WRITE | D_NEXT, 1};
	queue.desc[1] = (struct vdesc){at, 8, 0, 0};
	vqueue_offer(&dev, &queue, 0);
	ok(vdev_needs_reset(&dev), "a part to read behind one to write");
}

static void break_ring(void)
{
	start();
	vqueue_offer(&dev, &queue, 99);
	ok(vdev_needs_reset(&dev), "a head beyond the table");
	start();
	queue.avail.idx = 77;
	vqueue_offer(&dev, &queue, 0);
	ok(vdev_needs_reset(&dev), "more requests than the queue has room for");

	start();
	vdev_reset(&dev);
	vdev_negotiate(&dev, V_FEATURES);
	wr16(dev.common + 22, kind->queue);
	wr32(dev.common + 32, 0xfffff000);
	wr16(dev.common + 28, 1);
	vdev_driver_ok(&dev);
	ok(vdev_needs_reset(&dev), "a queue outside of memory");
}

void tiny_main(void)
{
	interrupts_on();
	for (kind = vkinds; kind < vkinds + N_VKINDS; kind++) {
		uint32_t came = interrupts[2];

		say(kind->name);
		ok(vdev_find(&dev, kind->id), "the device is there");
		msix_set(dev.slot, 0, 2);
		msix_enable(dev.slot);
		break_chains();
		ok(interrupt_came(2, came + 8), "it interrupts each time to say so");
		break_ring();
		ok(vkind_works(kind, &dev, &queue), "after a reset it works");
	}
}
