/* SPDX-License-Identifier: Apache-2.0
 *
 * run: --cpus 2
 * status: 0
 *
 * One processor rings doorbells and masks and unmasks a pending interrupt without end; the other
 * gets its answers, and its interrupts, all the same. */
#include "tiny.h"

enum { RNG = 4, REQUESTS = 40, FLOOD = 3000 };
extern const char ap_start[], ap_start_end[];
void *memcpy(void *to, const void *from, size_t n);
static struct vdev rng;
static struct vqueue queue;
static uint8_t bytes[32];
static volatile uint32_t rung;
static volatile bool stop, stopped;

void tiny_ap_main(void)
{
	unsigned cap = pci_find_cap(rng.slot, 0x11);

	for (; !stop; rung++) {
		wr32(rng.doorbells, 0);
		wr32(rng.doorbells + 4 + rung * 4 % 64, rung); /* of no queue */
		wr16(pci(rng.slot, cap + 2), rung % 2 ? 0xc000 : 0x8000);
	}
	wr16(pci(rng.slot, cap + 2), 0x8000);
	stopped = true;
}

static void start_flood(void)
{
	memcpy((void *)0x1000, ap_start, (size_t)(ap_start_end - ap_start));
	wr32(0xfee000f0, 0x1ff);
	wr32(0xfee00310, 1 << 24);
	wr32(0xfee00300, 0x4500);
	wr32(0xfee00300, 0x4601);
}

void tiny_main(void)
{
	uint64_t since = ticks();
	bool answered = true;
	unsigned n;

	interrupts_on();
	ok(vdev_find(&rng, RNG) && vdev_negotiate(&rng, V_FEATURES), "there is a device");
	vqueue_set_up(&rng, &queue, 0, 1);
	msix_set(rng.slot, 1, 3);
	msix_enable(rng.slot);
	vdev_driver_ok(&rng);
	queue.desc[0] = (struct vdesc){(uint64_t)bytes, sizeof(bytes), D_WRITE, 0};
	start_flood();
	for (n = 1; n <= REQUESTS && answered; n++) {
		vqueue_offer(&rng, &queue, 0);
		answered = vqueue_used(&queue, n);
	}
	ok(answered, "every request is answered");
	since = ticks();
	while (waiting(since) && rung < FLOOD)
		;
	ok(rung >= FLOOD, "there was a flood");
	stop = true;
	since = ticks();
	while (waiting(since) && !stopped)
		;
	ok(stopped, "both processors came through");
	n = interrupts[3];
	vqueue_offer(&rng, &queue, 0);
	ok(vqueue_used(&queue, REQUESTS + 1) && interrupt_came(3, n + 1),
	   "after it an answer brings its interrupt");
}
