/* SPDX-License-Identifier: Apache-2.0
 *
 * run:
 * status: 0
 *
 * Interrupts of a device arrive as MSI-X messages, wait while masked, and go where they are told.
 */
#include "tiny.h"

enum { RNG = 4, RX = 0 };
static struct vdev rng;
static struct vqueue queue;
static uint8_t bytes[64];

static void ask(void)
{
	queue.desc[0] = (struct vdesc){(uint64_t)bytes, sizeof(bytes), D_WRITE, 0};
	vqueue_offer(&rng, &queue, 0);
}

void tiny_main(void)
{
	unsigned sum = 0, cap;

	interrupts_on();
	ok(vdev_find(&rng, RNG), "there is an entropy device");
	cap = pci_find_cap(rng.slot, 0x11);
	ok(cap && (rd16(pci(rng.slot, cap + 2)) & 0x7ff) == 1, "it has two vectors");
	ok(vdev_negotiate(&rng, V_FEATURES), "features are agreed on");
	vqueue_set_up(&rng, &queue, RX, 1);
	msix_set(rng.slot, 1, 3);
	msix_enable(rng.slot);
	vdev_driver_ok(&rng);

	ask();
	ok(vqueue_used(&queue, 1), "it answers");
	ok(interrupt_came(3, 1), "its interrupt arrives");
	for (unsigned i = 0; i < sizeof(bytes); i++)
		sum |= bytes[i];
	ok(queue.used.ring[0].len == sizeof(bytes) && sum, "the answer is random bytes");

	wr16(pci(rng.slot, cap + 2), 0xc000);
	ask();
	ok(vqueue_used(&queue, 2) && interrupts[3] == 1, "a masked interrupt does not arrive");
	wr16(pci(rng.slot, cap + 2), 0x8000);
	ok(interrupt_came(3, 2), "it arrives when unmasked");

	msix_set(rng.slot, 1, 5);
	ask();
	ok(interrupt_came(5, 1) && interrupts[3] == 2, "the next one goes to another vector");

	wr16(rng.common + 22, 0);
	wr16(rng.common + 26, 7);
	ok(rd16(rng.common + 26) == 0xffff, "a vector that does not exist is refused");
	ask();
	ok(vqueue_used(&queue, 4), "without a vector it still answers");
	for (unsigned i = 5; i <= 60; i++) {
		ask();
		sum = vqueue_used(&queue, i);
	}
	ok(sum, "it does so however often its doorbell is rung");
}
