/* SPDX-License-Identifier: Apache-2.0
 *
 * run:
 * status: 0
 *
 * The registers can be reached through the window in the configuration space as well. */
#include "tiny.h"

static struct vdev dev;

void tiny_main(void)
{
	unsigned at;

	ok(vdev_find(&dev, 4), "there is a device");
	for (at = rd8(pci(dev.slot, 0x34)); at; at = rd8(pci(dev.slot, at + 1)))
		if (rd8(pci(dev.slot, at)) == 9 && rd8(pci(dev.slot, at + 3)) == 5)
			break;
	ok(at, "it has the window");
	wr8(pci(dev.slot, at + 4), 0);
	wr32(pci(dev.slot, at + 8), 18); /* the number of queues */
	wr32(pci(dev.slot, at + 12), 2);
	ok(rd16(pci(dev.slot, at + 16)) == 1, "reading through it reads the register");
	wr32(pci(dev.slot, at + 8), 20); /* the status */
	wr32(pci(dev.slot, at + 12), 1);
	wr8(pci(dev.slot, at + 16), V_ACK);
	ok(vdev_status(&dev) == V_ACK, "writing through it writes the register");
	wr32(pci(dev.slot, at + 8), 0xfffffff0);
	wr32(pci(dev.slot, at + 12), 4);
	(void)rd32(pci(dev.slot, at + 16));
	wr32(pci(dev.slot, at + 12), 0);
	(void)rd32(pci(dev.slot, at + 16));
	ok(vdev_status(&dev) == V_ACK, "outside of the BAR there is nothing");
}
