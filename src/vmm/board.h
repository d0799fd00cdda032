/* SPDX-License-Identifier: Apache-2.0
 *
 * board.h -- the devices a machine has, made from its options. */
#ifndef PIL_BOARD_H
#define PIL_BOARD_H

#include "base/compiler.h"
#include "base/err.h"
#include "base/loop.h"
#include "vmm/hop.h"
#include "vmm/kvm_vm.h"
#include "vmm/pci.h"

struct options;
struct virtio_device;
struct virtio_pci;

struct board {
	struct pci_bus bus;
	struct virtio_pci *all[PCI_SLOTS];
	unsigned n;
	struct virtio_device *console;  /* one of them */
	struct virtio_device *net;      /* another, or NULL */
	struct loop_source net_control; /* whoever started us sends new streams for it */
};

/* Makes the PCI bus and puts on it what @o asks for.  @board stays where it is. */
int board_init(struct board *board, struct options *o, struct vm *vm, struct loop *loop,
	       struct hop *hop, struct pil_err *err) PIL_MUST_CHECK;

/* Resets and destroys them; the vCPUs have stopped.  Data on its way to a disk is flushed. */
void board_finish(struct board *board);

#endif
