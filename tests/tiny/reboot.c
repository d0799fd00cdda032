/* SPDX-License-Identifier: Apache-2.0
 *
 * run:
 * status: 3
 *
 * The reset register of the ACPI tables asks for a reboot; other values do nothing. */
#include "tiny.h"

void tiny_main(void)
{
	out8(0x602, 0);
	out8(0x600, 0);
	out8(0x600, 1 << 5);
	ok(true, "values that mean nothing do nothing");
	reset();
	ok(false, "the machine was reset");
}
