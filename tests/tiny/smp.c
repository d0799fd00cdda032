/* SPDX-License-Identifier: Apache-2.0
 *
 * run: --cpus 3
 * status: 0
 *
 * The other processors wait for INIT and SIPI, then run. */
#include "tiny.h"

extern const char ap_start[], ap_start_end[];
void *memcpy(void *to, const void *from, size_t n);
static volatile uint32_t ran;

void tiny_ap_main(void)
{
	__sync_fetch_and_add(&ran, 1);
}

static void send_ipi(unsigned to, uint32_t command)
{
	wr32(0xfee00310, to << 24);
	wr32(0xfee00300, command);
}

void tiny_main(void)
{
	uint64_t since;

	ok(ran == 0, "nobody runs before being told to");
	memcpy((void *)0x1000, ap_start, (size_t)(ap_start_end - ap_start));
	wr32(0xfee000f0, 0x1ff);
	for (unsigned cpu = 1; cpu < 3; cpu++) {
		send_ipi(cpu, 0x4500);
		send_ipi(cpu, 0x4601);
		since = ticks();
		while (waiting(since) && ran < cpu)
			;
	}
	ok(ran == 2, "both started");
}
