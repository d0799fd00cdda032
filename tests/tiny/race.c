/* SPDX-License-Identifier: Apache-2.0
 *
 * run: --cpus 2
 * status: 0
 *
 * One processor sets a device up and uses it, again and again, while another writes to all of its
 * registers; left alone, the device works. */
#include "tiny.h"

enum { RNG = 4, ROUNDS = 12 };
extern const char ap_start[], ap_start_end[];
void *memcpy(void *to, const void *from, size_t n);
static struct vdev rng;
static struct vqueue queue;
static uint8_t bytes[32];
static volatile bool stop, stopped;

void tiny_ap_main(void)
{
	for (unsigned i = 0; !stop; i++) {
		wr32(rng.common + i * 4 % 64, i % 8 * 0x1001); /* far from our own memory */
		wr8(rng.common + 20, i & 8 ? 0xf : i);
		wr32(rng.doorbells, 0);
		wr32(rng.doorbells + 0x1000 + i * 4 % 64, i);
		(void)rd32(rng.config);
	}
	stopped = true;
}

static void use(void)
{
	vdev_negotiate(&rng, V_FEATURES);
	vqueue_set_up(&rng, &queue, 0, 1);
	vdev_driver_ok(&rng);
	queue.desc[0] = (struct vdesc){(uint64_t)bytes, sizeof(bytes), D_WRITE, 0};
	vqueue_offer(&rng, &queue, 0);
}

void tiny_main(void)
{
	uint64_t since;

	ok(vdev_find(&rng, RNG), "there is a device");
	memcpy((void *)0x1000, ap_start, (size_t)(ap_start_end - ap_start));
	wr32(0xfee000f0, 0x1ff);
	wr32(0xfee00310, 1 << 24);
	wr32(0xfee00300, 0x4500);
	wr32(0xfee00300, 0x4601);
	for (int i = 0; i < ROUNDS; i++)
		use();
	stop = true;
	since = ticks();
	while (waiting(since) && !stopped)
		;
	ok(stopped, "both processors came through");
	use();
	ok(vqueue_used(&queue, 1), "left alone, the device works");
}
