/* SPDX-License-Identifier: Apache-2.0
 *
 * run:
 * status: 0
 *
 * Memory that is reported free, or put into the balloon, is gone; nonsense does no harm. */
#include "tiny.h"

enum { INFLATE, REPORT = 4, REPORTING = 1 << 5, PAGE = 4096 };
#define SPARE 0x800000u /* 8 MiB: the second half of the memory */

static struct vdev balloon;
static struct vqueue inflate, report;
static uint32_t pfns[3];

void tiny_main(void)
{
	ok(vdev_find(&balloon, 5), "there is a balloon");
	ok(vdev_negotiate(&balloon, V_FEATURES | REPORTING), "it takes reports");
	vqueue_set_up(&balloon, &inflate, INFLATE, 0xffff);
	vqueue_set_up(&balloon, &report, REPORT, 0xffff);
	vdev_driver_ok(&balloon);

	wr8(SPARE + PAGE - 1, 1);
	wr8(SPARE + PAGE, 2);
	wr8(SPARE + 16 * PAGE, 3);
	report.desc[0] = (struct vdesc){SPARE + 1, 16 * PAGE, D_WRITE, 0};
	vqueue_offer(&balloon, &report, 0);
	ok(vqueue_used(&report, 1), "a report is taken");
	ok(rd8(SPARE + PAGE) == 0, "its pages are gone");
	ok(rd8(SPARE + PAGE - 1) == 1 && rd8(SPARE + 16 * PAGE) == 3, "those partly in it are not");

	wr8(SPARE + 5 * PAGE, 4);
	pfns[0] = 0xffffffff;
	pfns[1] = 0x7fffffff;
	pfns[2] = SPARE / PAGE + 5;
	inflate.desc[0] = (struct vdesc){(uint64_t)pfns, sizeof(pfns), 0, 0};
	vqueue_offer(&balloon, &inflate, 0);
	ok(vqueue_used(&inflate, 1) && rd8(SPARE + 5 * PAGE) == 0, "a page in the balloon is gone");
	wr8(SPARE + 5 * PAGE, 5);
	ok(rd8(SPARE + 5 * PAGE) == 5, "it can be used again");
	ok(!(vdev_status(&balloon) & V_NEEDS_RESET), "pages that do not exist do no harm");
	wr32(balloon.config, 0x12345678);
	ok(rd32(balloon.config) == 0, "the target is the host's");
}
