/* SPDX-License-Identifier: Apache-2.0
 *
 * run: --disk @DISK
 * status: 0
 * stderr: virtio blk: the guest broke a rule
 *
 * A disk reads, writes, flushes and makes holes; asked for nonsense it says so. */
#include "tiny.h"

enum { IN = 0, OUT = 1, FLUSH = 4, DISCARD = 11, WRITE_ZEROES = 13, UNMAP = 1 };
enum { GOOD = 0, FAILED = 1, UNSUPPORTED = 2 }; /* what it answers */
static struct vdev disk;
static struct vqueue queue;
static struct {
	uint32_t type, reserved;
	uint64_t sector;
} head;
static _Alignas(8) uint8_t data[1024];
static uint8_t status;
static unsigned n_asked;

/* FLUSH, DISCARD, WRITE_ZEROES */
static bool start(void)
{
	bool agreed = vdev_negotiate(&disk, V_FEATURES | 1 << 9 | 1 << 13 | 1 << 14);

	vqueue_set_up(&disk, &queue, 0, 0xffff);
	vdev_driver_ok(&disk);
	n_asked = 0;
	return agreed;
}

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

static uint8_t clear(uint32_t type, uint64_t sector, uint32_t n_sectors, uint32_t flags)
{
	wr64((uint64_t)data, sector);
	wr32((uint64_t)data + 8, n_sectors);
	wr32((uint64_t)data + 12, flags);
	return ask(type, 0, 0, 16);
}

static bool reads_as(uint64_t sector, uint8_t value)
{
	data[0] = data[511] = (uint8_t)~value;
	return ask(IN, sector, D_WRITE, 512) == GOOD && data[0] == value && data[511] == value;
}

static void make_holes(void)
{
	ok(clear(WRITE_ZEROES, 100, 20, 0) == GOOD && reads_as(100, 0) && reads_as(119, 0),
	   "zeroes are written");
	ok(reads_as(99, 99) && reads_as(120, 120), "and nothing beside them");
	ok(clear(WRITE_ZEROES, 128, 8, UNMAP) == GOOD && reads_as(135, 0), "as a hole, too");
	ok(clear(DISCARD, 160, 16, 0) == GOOD, "sectors are discarded");
	ok(reads_as(159, 159) && reads_as(176, 176), "and those beside them are not");
	ok(clear(DISCARD, 0, 0, 0) == GOOD, "no sectors at all are fine");

	ok(clear(DISCARD, 2040, 9, 0) == FAILED, "discarding beyond the end fails");
	ok(clear(WRITE_ZEROES, UINT64_MAX, 1, 0) == FAILED, "zeroes far beyond it, too");
	ok(clear(WRITE_ZEROES, 2000, UINT32_MAX, 0) == FAILED, "and more than a disk has");
	ok(clear(DISCARD, 8, 8, UNMAP) == UNSUPPORTED, "a flag of another request");
	ok(clear(WRITE_ZEROES, 8, 8, 0x80000000) == UNSUPPORTED, "a flag that does not exist");
	ok(ask(DISCARD, 0, 0, 15) == FAILED, "half a range");
	ok(ask(DISCARD, 0, 0, 33 * 16) == FAILED, "more ranges than were offered");
	ok(ask(WRITE_ZEROES, 0, D_WRITE, 16) == FAILED, "ranges in a buffer for answers");
	ok(reads_as(8, 8) && reads_as(2040, 2040 & 255), "have cleared nothing");
}

void tiny_main(void)
{
	ok(vdev_find(&disk, 2), "there is a disk");
	ok(rd64(disk.config) == 2048, "it has the size of its image");
	ok(start(), "features are agreed on");
	ok(ask(IN, 7, D_WRITE, 1024) == GOOD, "two sectors are read");
	ok(data[0] == 7 && data[511] == 7 && data[512] == 8, "they hold what the image holds");
	data[0] = 0x42;
	ok(ask(OUT, 2047, 0, 512) == GOOD, "the last sector is written");
	ok(ask(FLUSH, 0, 0, 0) == GOOD, "and flushed");
	data[0] = 0;
	ok(ask(IN, 2047, D_WRITE, 512) == GOOD && data[0] == 0x42, "it reads back");
	ok(ask(IN, 2047, D_WRITE, 1024) == FAILED, "reading beyond the end fails");
	ok(ask(OUT, UINT64_MAX, 0, 512) == FAILED, "writing far beyond it, too");
	ok(ask(0x7777, 0, D_WRITE, 512) == UNSUPPORTED, "an unknown request is unsupported");
	make_holes();
	ok(!(vdev_status(&disk) & V_NEEDS_RESET), "none of that breaks the device");

	queue.desc[0] = (struct vdesc){(uint64_t)&head, 16, 0, 0};
	vqueue_offer(&disk, &queue, 0);
	ok(vdev_needs_reset(&disk), "no room for a status does");
	start();
	ok(reads_as(7, 7), "until it is reset");
}
