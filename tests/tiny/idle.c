/* SPDX-License-Identifier: Apache-2.0
 *
 * Not run by itself: a machine that is there until somebody ends it (tests/integration).  It says
 * so on its console and sleeps; its second processor spins. */
#include "tiny.h"

extern const char ap_start[], ap_start_end[];
void *memcpy(void *to, const void *from, size_t n);

void tiny_ap_main(void)
{
	for (;;)
		__asm__ volatile("pause");
}

void tiny_main(void)
{
	memcpy((void *)0x1000, ap_start, (size_t)(ap_start_end - ap_start));
	wr32(0xfee000f0, 0x1ff);
	wr32(0xfee00310, 1 << 24);
	wr32(0xfee00300, 0x4500);
	wr32(0xfee00300, 0x4601);
	ok(true, "idle");
	for (;;)
		__asm__ volatile("hlt");
}
