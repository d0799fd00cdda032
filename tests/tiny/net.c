/* SPDX-License-Identifier: Apache-2.0
 *
 * run: --net-fd @FRAMES --net-control @CONTROL
 * status: 0
 * stderr: virtio net: the guest broke a rule
 *
 * Frames go out and come back, spread over buffers where that was agreed on.  The other end hangs
 * up and is replaced. */
#include "tiny.h"

enum { RX, TX, HDR = 12, RX_BYTES = 512, FRAME = 1000 };

static struct vdev net;
static struct vqueue rx, tx;
static uint8_t rx_data[VQ_SIZE][RX_BYTES], header[HDR], frame[FRAME];

static void start(uint64_t features)
{
	vdev_negotiate(&net, V_FEATURES | features);
	vqueue_set_up(&net, &rx, RX, 0xffff);
	vqueue_set_up(&net, &tx, TX, 0xffff);
	vdev_driver_ok(&net);
	for (unsigned i = 0; i < VQ_SIZE; i++) {
		rx.desc[i] = (struct vdesc){(uint64_t)rx_data[i], RX_BYTES, D_WRITE, 0};
		vqueue_offer(&net, &rx, i);
	}
}

static void offer(uint32_t header_len, uint32_t len)
{
	tx.desc[0] = (struct vdesc){(uint64_t)header, header_len, D_NEXT, 1};
	tx.desc[1] = (struct vdesc){(uint64_t)frame, len, 0, 0};
	vqueue_offer(&net, &tx, 0);
}

static bool send(uint32_t header_len, uint32_t len)
{
	offer(header_len, len);
	return vqueue_used(&tx, tx.avail.idx);
}

static bool link_is(bool up)
{
	uint64_t since = ticks();

	while (waiting(since))
		if ((rd16(net.config + 6) & 1) == up)
			return true;
	return false;
}

void tiny_main(void)
{
	for (unsigned i = 0; i < FRAME; i++)
		frame[i] = (uint8_t)(i * 7);
	frame[12] = 0x08;
	frame[13] = 0x06; /* ARP: it may leave, whatever is in it */
	ok(vdev_find(&net, 1), "there is a network card");
	ok(rd8(net.config) == 2, "it has an address of its own");

	start(1 << 15);
	ok(send(HDR, 60) && vqueue_used(&rx, 1), "a small frame comes back");
	ok(rx.used.ring[0].len == HDR + 60 && rx_data[0][HDR + 59] == frame[59] &&
		   rx_data[0][10] == 1,
	   "unchanged, in one buffer");
	ok(send(HDR, FRAME) && vqueue_used(&rx, 3), "a large one, too");
	ok(rx_data[1][10] == 2 && rx.used.ring[1].len == RX_BYTES &&
		   rx.used.ring[2].len == HDR + FRAME - RX_BYTES &&
		   rx_data[2][HDR + FRAME - RX_BYTES - 1] == frame[FRAME - 1],
	   "in two");
	ok(send(HDR, 13), "less than a frame is dropped");
	frame[13] = 0x00; /* IP, to 127.x: the host's, outside */
	frame[30] = 127;
	ok(send(HDR, 60) && rx.used.idx == 3, "a packet to localhost, too");
	frame[13] = 0x06;

	start(0);
	ok(send(HDR, FRAME) && send(HDR, 60) && vqueue_used(&rx, 1), "without merged buffers");
	ok(rx.used.ring[0].len == HDR + 60, "the frame that fits no buffer is dropped");
	offer(HDR - 1, 0);
	ok(vdev_needs_reset(&net), "half a header breaks the card");
	start(0);
	ok(send(HDR, 60) && vqueue_used(&rx, 1), "until it is reset");

	for (unsigned i = 14; i < 18; i++)
		frame[i] = 0xdd;
	ok(send(HDR, 60) && link_is(false), "the link goes down with the other end");
	ok(send(HDR, 60), "frames are dropped then");
	ok(link_is(true), "with another, it is up again");
	frame[14] = 0;
	ok(send(HDR, 60) && vqueue_used(&rx, 2), "and carries frames");
}
