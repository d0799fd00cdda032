/* SPDX-License-Identifier: Apache-2.0
 *
 * pci.h -- one PCI bus with a host bridge, its configuration space reached through ECAM.
 *
 * A function has one BAR of PCI_BAR_BYTES, where we put it: slot N's is at arch_layout.bars + N
 * times that.  A guest may write another address there and read it back; the registers do not move.
 */
#ifndef PIL_PCI_H
#define PIL_PCI_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "vmm/kvm_vm.h"

enum { PCI_SLOTS = 32, PCI_CONFIG_BYTES = 256, PCI_BAR_BYTES = 0x8000 };

struct pci_function {
	uint8_t config[PCI_CONFIG_BYTES];
	uint8_t writable[PCI_CONFIG_BYTES]; /* which bits of it the guest may change */
	uint8_t last_cap, end_cap;          /* while capabilities are added; private */
	unsigned slot;                      /* set by pci_add() */
	/* After a write to the configuration space, before a read of it: all may be NULL.  Called
	 * on vCPU threads, under the lock of the bus. */
	void (*config_written)(struct pci_function *fn, unsigned off, unsigned len);
	void (*config_read)(struct pci_function *fn, unsigned off, unsigned len);
	/* Accesses to the BAR, on vCPU threads; @off < PCI_BAR_BYTES, @len 1 to 8. */
	uint64_t (*bar_read)(struct pci_function *fn, uint64_t off, unsigned len);
	void (*bar_write)(struct pci_function *fn, uint64_t off, unsigned len, uint64_t value);
};

struct pci_bus {
	struct pci_function *slots[PCI_SLOTS]; /* borrowed */
	unsigned n;
	struct pci_function bridge;
	pthread_mutex_t lock; /* of all configuration spaces */
};

/* Claims ECAM and the window of the BARs on @vm->mmio.  @bus stays where it is. */
void pci_init(struct pci_bus *bus, struct vm *vm);

/* Fills the header of @fn: a function of ours, with an empty list of capabilities. */
void pci_function_init(struct pci_function *fn, uint16_t vendor, uint16_t device,
		       uint32_t class_code);

/* Appends a capability of @len bytes, whose first two are filled in; returns its offset. */
unsigned pci_add_capability(struct pci_function *fn, const void *cap, unsigned len);

/* Puts @fn (which stays where it is) in the next slot, its BAR at @fn's place.  -ENOSPC. */
int pci_add(struct pci_bus *bus, struct pci_function *fn) PIL_MUST_CHECK;

uint64_t pci_bar_gpa(const struct pci_function *fn);

/* Little-endian access to the configuration space, for its owner. */
void pci_set(struct pci_function *fn, unsigned off, unsigned len, uint64_t value);
uint64_t pci_get(const struct pci_function *fn, unsigned off, unsigned len);

#endif
