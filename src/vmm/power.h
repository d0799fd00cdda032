/* SPDX-License-Identifier: Apache-2.0
 *
 * power.h -- the I/O ports of a machine: power off and reset (ACPI), the marks of the boot timer,
 * and a UART that can only speak, for a kernel's first and last words. */
#ifndef PIL_POWER_H
#define PIL_POWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kvm_vm.h"

/* Offsets from LAYOUT_POWER_PORT.  The first three are named in the ACPI tables. */
enum power_port {
	POWER_SLEEP_CONTROL, /* ACPI: sleep type << 2 | 1 << 5 */
	POWER_SLEEP_STATUS,
	POWER_RESET, /* write POWER_RESET_VALUE */
	POWER_MARK,  /* a guest's mark for the boot timer */
	POWER_NUM_PORTS,
};

enum { POWER_RESET_VALUE = 0x42, POWER_SLEEP_S5 = 5 };

enum { TAIL_LINES = 48, TAIL_LINE_BYTES = 160 };

/* The last lines a guest wrote on a console, kept for the log. */
struct tail {
	char lines[TAIL_LINES][TAIL_LINE_BYTES];
	unsigned n_lines; /* ever completed; the latest is in lines[(n_lines - 1) % TAIL_LINES] */
	char line[TAIL_LINE_BYTES];
	size_t len;
	bool panicked;               /* one of the lines said so ... */
	char panic[TAIL_LINE_BYTES]; /* ... in these words */
};

void tail_add(struct tail *tail, const char *text, size_t len);
void tail_log(const struct tail *tail); /* at level err, escaped */

struct power {
	struct vm *vm;
	struct tail tail;
	int echo_fd; /* what the UART says is written here too; -1: nowhere */
	uint8_t line_control;
	void (*mark)(struct power *power, unsigned value); /* may be NULL; on a vCPU's thread */
};

/* Claims the ports on @vm->pio.  @power stays where it is while the machine lives. */
void power_init(struct power *power, struct vm *vm, int echo_fd);

#endif
