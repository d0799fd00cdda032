/* SPDX-License-Identifier: Apache-2.0
 *
 * power.c -- see power.h.
 *
 * Theory of operation: several vCPUs may speak on the UART at once (a panic does not ask), so that
 * it has a lock. */
#include "vmm/arch/x86_64/power.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "vmm/arch/x86_64/layout.h"
#include "vmm/bus.h"

static pthread_mutex_t uart_lock = PTHREAD_MUTEX_INITIALIZER;

static void power_write(void *owner, uint64_t off, unsigned len, uint64_t value)
{
	struct power *power = owner;
	uint8_t v = (uint8_t)value;

	(void)len;
	switch ((enum power_port)off) {
	case POWER_SLEEP_CONTROL:
		if (v == (POWER_SLEEP_S5 << 2 | 1 << 5))
			vm_end(power->vm, power->tail.panicked ? VM_END_PANIC : VM_END_POWER_OFF,
			       NULL);
		break;
	case POWER_RESET:
		if (v == POWER_RESET_VALUE)
			vm_end(power->vm, VM_END_REBOOT, NULL);
		break;
	case POWER_MARK:
		if (power->mark)
			power->mark(v);
		break;
	default:
		break;
	}
}

static uint64_t power_read(void *owner, uint64_t off, unsigned len)
{
	(void)owner, (void)off, (void)len;
	return 0;
}

enum uart_register { UART_DATA, UART_LINE_CONTROL = 3, UART_LINE_STATUS = 5, UART_PORTS = 8 };
enum { UART_DIVISOR_ACCESS = 0x80, UART_EMPTY = 0x60 };

static void uart_write(void *owner, uint64_t off, unsigned len, uint64_t value)
{
	struct power *power = owner;
	char c = (char)value;

	(void)len;
	pthread_mutex_lock(&uart_lock);
	if (off == UART_LINE_CONTROL)
		power->line_control = (uint8_t)value;
	if (off == UART_DATA && !(power->line_control & UART_DIVISOR_ACCESS)) {
		tail_add(&power->tail, &c, 1);
		if (power->echo_fd >= 0 && write(power->echo_fd, &c, 1) < 0)
			log_dbg("uart: %s", strerror(errno));
	}
	pthread_mutex_unlock(&uart_lock);
}

static uint64_t uart_read(void *owner, uint64_t off, unsigned len)
{
	(void)owner, (void)len;
	return off == UART_LINE_STATUS ? UART_EMPTY : 0;
}

/* Where a PC's processor begins after a reset, in real mode: a kernel that knows no better way
 * (Linux, when it finds hardware-reduced ACPI and no EFI) jumps there to have the machine reset. */
static void write_reset_vector(const struct guest_mem *mem)
{
	const uint16_t port = LAYOUT_POWER_PORT + POWER_RESET;
	const uint8_t code[] = {
		0xba, port & 0xff,       port >> 8, /* mov $port, %dx */
		0xb0, POWER_RESET_VALUE,            /* mov $value, %al */
		0xee,                               /* out %al, (%dx) */
		0xf4,                               /* hlt */
	};
	void *at = guest_mem_at(mem, LAYOUT_RESET_VECTOR, sizeof(code));

	if (at)
		memcpy(at, code, sizeof(code));
}

void power_init(struct power *power, struct vm *vm, int echo_fd)
{
	*power = (struct power){.vm = vm, .echo_fd = echo_fd};
	write_reset_vector(&vm->mem);
	bus_add(&vm->pio, &(struct bus_region){.base = LAYOUT_POWER_PORT,
					       .len_bytes = POWER_NUM_PORTS,
					       .read = power_read,
					       .write = power_write,
					       .owner = power});
	bus_add(&vm->pio, &(struct bus_region){.base = LAYOUT_UART_PORT,
					       .len_bytes = UART_PORTS,
					       .read = uart_read,
					       .write = uart_write,
					       .owner = power});
}
