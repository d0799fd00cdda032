/* SPDX-License-Identifier: Apache-2.0
 *
 * run:
 * status: 2
 * stderr: guest: Kernel panic - not syncing: out of seats
 *
 * A kernel that panics and then resets itself did not ask for a reboot; its last words are kept. */
#include "tiny.h"

void tiny_main(void)
{
	for (const char *c = "Kernel panic - not syncing: out of seats\n"; *c; c++)
		out8(0x3f8, (uint8_t)*c);
	reset();
}
