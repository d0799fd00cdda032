/* SPDX-License-Identifier: Apache-2.0
 *
 * run: --disk @DISK --net-fd @FRAMES --net-control @CONTROL --fs work,@DIR/nobody
 * status: 0
 *
 * Anything may be written to any register of a device, in any width; afterwards a reset makes it
 * work as if nothing had happened. */
#include "tiny.h"

enum { RNG = 4 };
static struct vdev dev;
static struct vqueue queue;
static uint8_t bytes[32];

static void scribble(uint64_t addr, uint64_t value)
{
	(void)rd64(addr);
	wr64(addr, value);
	wr32(addr, value);
	wr16(addr, value);
	wr8(addr, value);
	wr32(addr + 1, value); /* straddles */
}

static void scribble_device(void)
{
	static const uint64_t values[] = {0, 1, 0xff, 0x8000, 0xdeadbeefdeadbeef, UINT64_MAX};
	uint64_t bar;

	bar = rd32(pci(dev.slot, 0x10)) & ~15u;
	for (unsigned v = 0; v < sizeof(values) / sizeof(values[0]); v++) {
		for (uint64_t page = bar; page < bar + 0x8000; page += 0x1000) {
			for (unsigned reg = 0; reg < 64; reg += 4)
				scribble(page + reg, values[v]);
			scribble(page + 0xff8, values[v]);
		}
	}
}

static void scribble_config(unsigned slot)
{
	for (unsigned reg = 0; reg < 256; reg += 4) {
		uint32_t old = rd32(pci(slot, reg));

		wr32(pci(slot, reg), 0xffffffff);
		wr8(pci(slot, reg + 1), 0x5a);
		wr32(pci(slot, reg), old);
	}
	wr64(pci(slot, 0xffc), 0);
	(void)rd64(pci(slot, 0xfc));
}

void tiny_main(void)
{
	uint32_t bar;

	scribble_config(0);
	for (const struct vkind *kind = vkinds; kind < vkinds + N_VKINDS; kind++) {
		say(kind->name);
		ok(vdev_find(&dev, kind->id), "the device is there");
		scribble_device();
		scribble_config(dev.slot);
		ok(vdev_find(&dev, kind->id), "written all over, it is still there");
		ok(vkind_works(kind, &dev, &queue), "after a reset it works");
	}

	ok(vdev_find(&dev, RNG), "there is an entropy device");
	bar = rd32(pci(dev.slot, 0x10));
	wr32(pci(dev.slot, 0x10), 0xffffffff);
	ok(rd32(pci(dev.slot, 0x10)) == 0xffff8000, "its BAR tells its size");
	wr32(pci(dev.slot, 0x10), bar);

	ok(!vdev_negotiate(&dev, 1), "features without VERSION_1 are refused");
	ok(!vdev_negotiate(&dev, V_FEATURES | 1ull << 63), "features not offered are refused");
	ok(vdev_negotiate(&dev, V_FEATURES), "those offered are agreed on");
	vqueue_set_up(&dev, &queue, 0, 0xffff);
	vdev_driver_ok(&dev);
	for (unsigned q = 0; q < 1024; q += 63)
		wr16(dev.doorbells + q * 4, q);
	ok(!(vdev_status(&dev) & V_NEEDS_RESET),
	   "doorbells of queues that do not exist are ignored");
	wr32(dev.common + 32, 0x12345678); /* too late: the queue is in use */
	queue.desc[0] = (struct vdesc){(uint64_t)bytes, sizeof(bytes), D_WRITE, 0};
	vqueue_offer(&dev, &queue, 0);
	ok(vqueue_used(&queue, 1), "the device works");
}
