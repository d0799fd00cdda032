/* SPDX-License-Identifier: Apache-2.0
 *
 * layout.h -- where things lie in the guest's physical address space and among its I/O ports.
 *
 *	0 .. 640 KiB		memory; what the kernel is started with lies in its first pages
 *	0xe0000 .. 0xf0000	ACPI tables
 *	1 MiB .. 3 GiB		memory
 *	3 GiB .. 4 GiB		registers: PCI, interrupt controllers
 *	4 GiB ..		the rest of the memory */
#ifndef PIL_LAYOUT_H
#define PIL_LAYOUT_H

#define LAYOUT_START_INFO   0x6000u  /* struct hvm_start_info, its module and memory lists */
#define LAYOUT_CMDLINE      0x20000u /* the kernel's command line */
#define LAYOUT_LOW_END      0x9fc00u /* end of the memory below the first MiB */
#define LAYOUT_ACPI         0xe0000u
#define LAYOUT_ACPI_END     0xf0000u
#define LAYOUT_RESET_VECTOR 0xffff0u  /* see power.c */
#define LAYOUT_HIGH         0x100000u /* where a kernel may begin */

#define LAYOUT_HOLE       0xc0000000u  /* end of the memory below 4 GiB */
#define LAYOUT_HOLE_END   0x100000000u /* begin of the memory above it */
#define LAYOUT_BARS       0xc0000000u  /* window of the BARs of PCI devices */
#define LAYOUT_BARS_BYTES 0x20000000u
#define LAYOUT_ECAM       0xe0000000u /* configuration space of PCI bus 0 */
#define LAYOUT_ECAM_BYTES 0x100000u
#define LAYOUT_IOAPIC     0xfec00000u
#define LAYOUT_LAPIC      0xfee00000u
#define LAYOUT_IDENTITY   0xfffbc000u /* scratch pages that KVM wants on old Intel processors */
#define LAYOUT_TSS        0xfffbd000u

#define LAYOUT_UART_PORT  0x3f8u
#define LAYOUT_POWER_PORT 0x600u /* see power.h */

#endif
