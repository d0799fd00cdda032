/* SPDX-License-Identifier: Apache-2.0
 *
 * pci.c -- one PCI bus: configuration space by ECAM, and the window in which BARs lie. */
#include "vmm/pci.h"

#include <assert.h>
#include <errno.h>
#include <linux/pci_regs.h>
#include <string.h>

#include "vmm/arch.h"

enum {
	BRIDGE_VENDOR = 0x1b36,
	BRIDGE_DEVICE = 0x0008,
	BRIDGE_CLASS = 0x060000,
	FIRST_CAP = 0x40,
};

void pci_set(struct pci_function *fn, unsigned off, unsigned len, uint64_t value)
{
	memcpy(fn->config + off, &value, len);
}

uint64_t pci_get(const struct pci_function *fn, unsigned off, unsigned len)
{
	uint64_t value = 0;

	memcpy(&value, fn->config + off, len);
	return value;
}

void pci_function_init(struct pci_function *fn, uint16_t vendor, uint16_t device,
		       uint32_t class_code)
{
	*fn = (struct pci_function){.end_cap = FIRST_CAP};
	pci_set(fn, PCI_VENDOR_ID, 2, vendor);
	pci_set(fn, PCI_DEVICE_ID, 2, device);
	pci_set(fn, PCI_REVISION_ID, 4, (uint64_t)class_code << 8 | 1);
	pci_set(fn, PCI_SUBSYSTEM_VENDOR_ID, 2, vendor);
	pci_set(fn, PCI_SUBSYSTEM_ID, 2, device);
	fn->writable[PCI_COMMAND] = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
	fn->writable[PCI_COMMAND + 1] = PCI_COMMAND_INTX_DISABLE >> 8;
	fn->writable[PCI_INTERRUPT_LINE] = 0xff;
}

unsigned pci_add_capability(struct pci_function *fn, const void *cap, unsigned len)
{
	unsigned at = fn->end_cap;

	assert(at + len <= PCI_CONFIG_BYTES);
	memcpy(fn->config + at, cap, len);
	fn->config[at + PCI_CAP_LIST_NEXT] = 0;
	fn->config[fn->last_cap ? fn->last_cap + PCI_CAP_LIST_NEXT : PCI_CAPABILITY_LIST] =
		(uint8_t)at;
	fn->config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
	fn->last_cap = (uint8_t)at;
	fn->end_cap = (uint8_t)((at + len + 3) & ~3u);
	return at;
}

uint64_t pci_bar_gpa(const struct pci_function *fn)
{
	return arch_layout.bars + (uint64_t)fn->slot * PCI_BAR_BYTES;
}

int pci_add(struct pci_bus *bus, struct pci_function *fn)
{
	if (bus->n == PCI_SLOTS)
		return -ENOSPC;
	fn->slot = bus->n;
	bus->slots[bus->n++] = fn;
	if (fn->bar_read) {
		const uint32_t mask = ~(uint32_t)(PCI_BAR_BYTES - 1);

		pci_set(fn, PCI_BASE_ADDRESS_0, 4, pci_bar_gpa(fn));
		memcpy(fn->writable + PCI_BASE_ADDRESS_0, &mask, sizeof(mask));
	}
	return 0;
}

/* The function whose configuration space lies at @off of ECAM, which also yields the register. */
static struct pci_function *function_at(struct pci_bus *bus, uint64_t off, unsigned *reg)
{
	bool first = (off >> 12 & 7) == 0;

	*reg = off & 0xfff;
	return first ? bus->slots[off >> 15 & (PCI_SLOTS - 1)] : NULL;
}

static uint64_t ecam_read(void *owner, uint64_t off, unsigned len)
{
	struct pci_bus *bus = owner;
	unsigned reg;
	struct pci_function *fn = function_at(bus, off, &reg);
	uint64_t value = 0;

	if (!fn)
		return UINT64_MAX;
	if (reg + len > PCI_CONFIG_BYTES)
		return 0;
	pthread_mutex_lock(&bus->lock);
	if (fn->config_read)
		fn->config_read(fn, reg, len);
	memcpy(&value, fn->config + reg, len);
	pthread_mutex_unlock(&bus->lock);
	return value;
}

static void ecam_write(void *owner, uint64_t off, unsigned len, uint64_t value)
{
	struct pci_bus *bus = owner;
	unsigned reg;
	struct pci_function *fn = function_at(bus, off, &reg);

	if (!fn || reg + len > PCI_CONFIG_BYTES)
		return;
	pthread_mutex_lock(&bus->lock);
	for (unsigned i = 0; i < len; i++, value >>= 8) {
		uint8_t may = fn->writable[reg + i], *at = &fn->config[reg + i];

		*at = (uint8_t)((*at & ~may) | (value & may));
	}
	if (fn->config_written)
		fn->config_written(fn, reg, len);
	pthread_mutex_unlock(&bus->lock);
}

static struct pci_function *bar_at(struct pci_bus *bus, uint64_t off, unsigned len)
{
	struct pci_function *fn =
		off / PCI_BAR_BYTES < PCI_SLOTS ? bus->slots[off / PCI_BAR_BYTES] : NULL;

	return fn && fn->bar_read && off % PCI_BAR_BYTES + len <= PCI_BAR_BYTES ? fn : NULL;
}

static uint64_t bars_read(void *owner, uint64_t off, unsigned len)
{
	struct pci_function *fn = bar_at(owner, off, len);

	return fn ? fn->bar_read(fn, off % PCI_BAR_BYTES, len) : UINT64_MAX;
}

static void bars_write(void *owner, uint64_t off, unsigned len, uint64_t value)
{
	struct pci_function *fn = bar_at(owner, off, len);

	if (fn)
		fn->bar_write(fn, off % PCI_BAR_BYTES, len, value);
}

void pci_init(struct pci_bus *bus, struct vm *vm)
{
	*bus = (struct pci_bus){0};
	pthread_mutex_init(&bus->lock, NULL);
	pci_function_init(&bus->bridge, BRIDGE_VENDOR, BRIDGE_DEVICE, BRIDGE_CLASS);
	bus->bridge.slot = 0;
	bus->slots[bus->n++] = &bus->bridge;
	bus_add(&vm->mmio, &(struct bus_region){.base = arch_layout.ecam,
						.len_bytes = arch_layout.ecam_bytes,
						.read = ecam_read,
						.write = ecam_write,
						.owner = bus});
	bus_add(&vm->mmio, &(struct bus_region){.base = arch_layout.bars,
						.len_bytes = PCI_SLOTS * PCI_BAR_BYTES,
						.read = bars_read,
						.write = bars_write,
						.owner = bus});
}
