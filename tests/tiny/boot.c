/* SPDX-License-Identifier: Apache-2.0
 *
 * run: --cmdline "one two"
 * status: 0
 *
 * A kernel is started as PVH promises, and finds its PCI bus. */
#include "tiny.h"

extern uint64_t start_info;

void tiny_main(void)
{
	uint64_t info = start_info, memory = rd64(info + 40), acpi = rd64(info + 32);
	const char *cmdline = (const char *)rd64(info + 24);

	ok(rd32(info) == 0x336ec578, "start info has its magic number");
	ok(cmdline[0] == 'o' && cmdline[4] == 't' && !cmdline[7], "the command line came along");
	ok(rd32(info + 48) >= 3, "memory is listed");
	ok(rd64(memory) == 0 && rd32(memory + 16) == 1, "the first range is memory");
	ok(rd64(acpi) == 0x2052545020445352, "there is an RSDP");
	ok(rd32(rd64(acpi + 24)) == 0x54445358, "it points to an XSDT");
	ok(rd32(pci(0, 0)) == 0x00081b36, "slot 0 is the host bridge");
	ok(rd32(pci(31, 0)) == 0xffffffff, "an empty slot reads as ones");
	ok(rd32(pci(1, 0)) != 0xffffffff, "slot 1 is a device");
	ok(in8(0x80) == 0xff, "a port nobody claims reads as ones");
	ok(rd32(0xd0000000) == 0xffffffff, "an address nobody claims reads as ones");
	wr32(0xd0000000, 1);
	out8(0x80, 1);
}
