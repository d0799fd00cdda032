/* SPDX-License-Identifier: Apache-2.0
 *
 * run: --disk @DISK
 * status: 0
 *
 * A disk reads, writes and flushes; asked for nonsense it says so. */
#include "tiny.h"

enum { IN = 0, OUT = 1, FLUSH = 4 };
static struct vdev disk;
static struct vqueue queue;
static struct {
	uint32_t type, reserved;
	uint64_t sector;
} head;
static uint8_t data[1024], status;
static unsigned n_asked;

static uint8_t ask(uint32_t type, uint64_t sector, uint16_t data_flags, unsigned len)
{
	head.type = type;
	head.sector = sector;
	status = 0xee;
	queue.desc[0] = (struct vdesc){(uint64_t)&head, 16, D_NEXT, 1};
	queue.desc[1] = (struct vdesc){(uint64_t)data, len, D_NEXT | data_flags, 2};
	queue.desc[2] = (struct vdesc){(uint64_t)&status, 1, D_WRITE, 0};
	if (!len)
		queue.desc[0].next = 2;
	vqueue_offer(&disk, &queue, 0);
	return vqueue_used(&queue, ++n_asked) ? *(volatile uint8_t *)&status : 0xff;
}

void tiny_main(void)
{
	ok(vdev_find(&disk, 2), "there is a disk");
	ok(rd64(disk.config) == 2048, "it has the size of its image");
	ok(vdev_negotiate(&disk, V_FEATURES | 1 << 9), "features are agreed on");
	vqueue_set_up(&disk, &queue, 0, 0xffff);
	vdev_driver_ok(&disk);
	ok(ask(IN, 7, D_WRITE, 1024) == 0, "two sectors are read");
	ok(data[0] == 7 && data[511] == 7 && data[512] == 8, "they hold what the image holds");
	data[0] = 0x42;
	ok(ask(OUT, 2047, 0, 512) == 0, "the last sector is written");
	ok(ask(FLUSH, 0, 0, 0) == 0, "and flushed");
	data[0] = 0;
	ok(ask(IN, 2047, D_WRITE, 512) == 0 && data[0] == 0x42, "it reads back");
	ok(ask(IN, 2047, D_WRITE, 1024) == 1, "reading beyond the end fails");
	ok(ask(OUT, UINT64_MAX, 0, 512) == 1, "writing far beyond it, too");
	ok(ask(0x7777, 0, D_WRITE, 512) == 2, "an unknown request is unsupported");
	ok(!(vdev_status(&disk) & V_NEEDS_RESET), "none of that breaks the device");
}
