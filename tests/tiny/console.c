/* SPDX-License-Identifier: Apache-2.0
 *
 * run: --console-fd @PARROT
 * status: 0
 * stderr: virtio console: the guest broke a rule
 *
 * What is written to the console's queue comes out, and what comes in is put into its buffers; what
 * makes no sense does no harm. */
#include "tiny.h"

enum { IN, OUT, CTRL_IN, CTRL_OUT };
static struct vdev console;
static struct vqueue in, out;
static const char text[] = "hello";
static char room[16], scratch[16];

static bool start(void)
{
	bool agreed = vdev_negotiate(&console, V_FEATURES | V_INDIRECT);

	vqueue_set_up(&console, &in, IN, 0xffff);
	vqueue_set_up(&console, &out, OUT, 0xffff);
	vdev_driver_ok(&console);
	return agreed;
}

static bool offer_out(struct vdesc desc)
{
	out.desc[0] = desc;
	vqueue_offer(&console, &out, 0);
	return vqueue_used(&out, out.avail.idx);
}

static bool prints(void)
{
	return offer_out((struct vdesc){(uint64_t)text, sizeof(text) - 1, 0, 0});
}

/* What was printed is sent back. */
static bool comes_back(void)
{
	room[0] = 0;
	in.desc[0] = (struct vdesc){(uint64_t)room, sizeof(room), D_WRITE, 0};
	vqueue_offer(&console, &in, 0);
	return vqueue_used(&in, in.avail.idx) && room[0] == 'h' && room[4] == 'o';
}

void tiny_main(void)
{
	ok(vdev_find(&console, 3), "there is a console");
	ok(!vdev_negotiate(&console, V_FEATURES | 1 << 1), "it has no further ports");
	ok(start(), "features are agreed on");
	ok(prints(), "it takes a text");
	ok(comes_back() && in.used.ring[0].len == 5, "and gives what comes from outside");

	ok(offer_out((struct vdesc){(uint64_t)scratch, sizeof(scratch), D_WRITE, 0}) &&
		   out.used.ring[1].len == 0,
	   "output in a buffer for input is nothing");
	ok(offer_out((struct vdesc){(uint64_t)text, 0, 0, 0}), "nor is an empty one");
	wr32(console.config, 0x12345678);
	wr32(console.config + 8, 'x');
	wr16(console.doorbells + CTRL_IN * 4, CTRL_IN);
	wr16(console.doorbells + CTRL_OUT * 4, CTRL_OUT);
	ok(prints() && comes_back() && !(vdev_status(&console) & V_NEEDS_RESET),
	   "that and writes where there is nothing break nothing");

	in.desc[0] = (struct vdesc){(uint64_t)scratch, sizeof(scratch), 0, 0};
	vqueue_offer(&console, &in, 0);
	ok(vdev_needs_reset(&console), "a buffer for input that cannot be written does");
	ok(start() && prints() && comes_back(), "until it is reset");
}
