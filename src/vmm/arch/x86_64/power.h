/* SPDX-License-Identifier: Apache-2.0
 *
 * power.h -- the I/O ports of a machine: power off and reset (ACPI), the marks of the boot timer,
 * and a UART that can only speak, for a kernel's first and last words. */
#ifndef PIL_POWER_H
#define PIL_POWER_H

#include <stdint.h>

#include "vmm/kvm_vm.h"
#include "vmm/tail.h"

/* Offsets from LAYOUT_POWER_PORT.  The first three are named in the ACPI tables. */
enum power_port {
	POWER_SLEEP_CONTROL, /* ACPI: sleep type << 2 | 1 << 5 */
	POWER_SLEEP_STATUS,
	POWER_RESET, /* write POWER_RESET_VALUE */
	POWER_MARK,  /* a guest's mark for the boot timer */
	POWER_NUM_PORTS,
};

enum { POWER_RESET_VALUE = 0x42, POWER_SLEEP_S5 = 5 };

struct power {
	struct vm *vm;
	struct tail tail;
	int echo_fd; /* what the UART says is written here too; -1: nowhere */
	uint8_t line_control;
	void (*mark)(unsigned value); /* may be NULL; on a vCPU's thread */
};

/* Claims the ports on @vm->pio.  @power stays where it is while the machine lives. */
void power_init(struct power *power, struct vm *vm, int echo_fd);

#endif
