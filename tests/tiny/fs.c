/* SPDX-License-Identifier: Apache-2.0
 *
 * run: --fs work,@DIR/nobody
 * status: 0
 * stderr: virtio fs: the guest broke a rule
 *
 * A folder whose server is away fails every request at once. */
#include "tiny.h"

enum { HIPRIO, REQUEST, INIT = 26, FORGET = 2, NOT_CONNECTED = -107 };

static struct vdev fs;
static struct vqueue hiprio, queue;
static struct {
	uint32_t len, opcode;
	uint64_t unique, nodeid;
	uint32_t ids[4];
} in;
static struct {
	uint32_t len;
	int32_t error;
	uint64_t unique;
} out;

static void start(void)
{
	vdev_negotiate(&fs, V_FEATURES);
	vqueue_set_up(&fs, &hiprio, HIPRIO, 0xffff);
	vqueue_set_up(&fs, &queue, REQUEST, 0xffff);
	vdev_driver_ok(&fs);
}

static void offer(struct vqueue *q, uint32_t opcode, uint64_t unique, uint32_t in_len)
{
	in.len = in_len;
	in.opcode = opcode;
	in.unique = unique;
	out.error = 0;
	q->desc[0] = (struct vdesc){(uint64_t)&in, in_len, D_NEXT, 1};
	q->desc[1] = (struct vdesc){(uint64_t)&out, sizeof(out), D_WRITE, 0};
	vqueue_offer(&fs, q, 0);
}

static bool ask(struct vqueue *q, uint32_t opcode, uint64_t unique, uint32_t in_len)
{
	offer(q, opcode, unique, in_len);
	return vqueue_used(q, q->avail.idx);
}

void tiny_main(void)
{
	ok(vdev_find(&fs, 26), "there is a folder");
	ok(rd32(fs.config) == 0x6b726f77 && rd32(fs.config + 36) == 1, "its tag is work");
	start();
	ok(ask(&queue, INIT, 7, sizeof(in)) && out.error == NOT_CONNECTED && out.unique == 7,
	   "a request fails at once");
	ok(ask(&hiprio, FORGET, 8, sizeof(in)) && hiprio.used.ring[0].len == 0,
	   "what wants no answer gets none");
	offer(&queue, INIT, 9, sizeof(in) - 1);
	ok(vdev_needs_reset(&fs), "half a header breaks the device");
	start();
	ok(ask(&queue, INIT, 10, sizeof(in)) && out.unique == 10, "until it is reset");
}
