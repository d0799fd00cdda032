/* SPDX-License-Identifier: Apache-2.0
 *
 * run: --fs work,@BACKEND
 * status: 0
 *
 * What a vhost-user back end has to say reaches the guest as it wants: at the vector of the queue,
 * whichever that is just then, and not while it is masked; and mostly without the monitor. */
#include "tiny.h"

enum { FS = 26, REQUEST = 1, FORGET = 2, FIRST = 3, MOVED, OTHER, CAP_MSIX = 0x11, MANY = 200 };

static struct vdev fs;
static struct vqueue queue;
/* A request that wants no answer.  The back end does not read it; the device itself does, while the
 * back end is on its way. */
static struct {
	uint32_t len, opcode;
	uint64_t unique, nodeid;
	uint32_t ids[4];
} forget = {.len = sizeof(forget), .opcode = FORGET};

/* Rings; the back end rings back, which is to come as interrupt @i. */
static bool answered(unsigned i)
{
	unsigned before = interrupts[i];

	vqueue_offer(&fs, &queue, 0);
	return interrupt_came(i, before + 1);
}

/* Who has the queue, the device or the back end, interrupts at once. */
static bool begin(void)
{
	unsigned before = interrupts[FIRST];

	vdev_negotiate(&fs, V_FEATURES);
	vqueue_set_up(&fs, &queue, REQUEST, 1);
	queue.desc[0] = (struct vdesc){(uint64_t)&forget, sizeof(forget), 0, 0};
	msix_set(fs.slot, 0, OTHER);
	msix_set(fs.slot, 1, FIRST);
	msix_enable(fs.slot);
	vdev_driver_ok(&fs);
	return interrupt_came(FIRST, before + 1);
}

static void pause_for(unsigned long n)
{
	for (uint64_t since = ticks(); ticks() - since < n;)
		__asm__ volatile("pause");
}

void tiny_main(void)
{
	unsigned cap, before, n = 0;

	interrupts_on();
	ok(vdev_find(&fs, FS), "there is a folder");
	cap = pci_find_cap(fs.slot, CAP_MSIX);
	ok(begin(), "it takes the queue, and interrupts");
	ok(answered(FIRST), "a ring is answered");

	wr16(pci(fs.slot, cap + 2), 0xc000);
	before = interrupts[FIRST];
	vqueue_offer(&fs, &queue, 0);
	pause_for(PATIENCE / 64);
	ok(interrupts[FIRST] == before, "a masked interrupt does not arrive");
	wr16(pci(fs.slot, cap + 2), 0x8000);
	ok(interrupt_came(FIRST, before + 1), "it arrives when unmasked");
	ok(answered(FIRST), "and so does the next");

	msix_set(fs.slot, 1, MOVED);
	before = interrupts[FIRST];
	ok(answered(MOVED) && interrupts[FIRST] == before, "a vector can be another interrupt");
	wr16(fs.common + 22, REQUEST);
	wr16(fs.common + 26, 0);
	before = interrupts[MOVED];
	ok(answered(OTHER) && interrupts[MOVED] == before, "a queue can have another vector");
	wr16(fs.common + 26, 0xffff);
	before = interrupts[OTHER];
	vqueue_offer(&fs, &queue, 0);
	pause_for(PATIENCE / 64);
	ok(interrupts[OTHER] == before, "or none");

	vdev_reset(&fs);
	ok(begin(), "after a reset all begins anew");
	for (unsigned i = 0; i < MANY; i++)
		n += answered(FIRST);
	ok(n == MANY, "every ring is answered");
}
