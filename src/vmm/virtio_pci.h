/* SPDX-License-Identifier: Apache-2.0
 *
 * virtio_pci.h -- the transport of virtio devices: modern virtio over PCI (virtio 1.2, 4.1), with
 * MSI-X and without legacy interrupts.
 *
 * Every register may be written with anything at any time, by several processors at once. */
#ifndef PIL_VIRTIO_PCI_H
#define PIL_VIRTIO_PCI_H

#include "base/compiler.h"
#include "base/err.h"
#include "base/loop.h"
#include "virtio/virtio.h"
#include "vmm/hop.h"
#include "vmm/kvm_vm.h"
#include "vmm/pci.h"

struct virtio_pci;

/* Puts @dev (takes it, on failure as well) on @bus.  The others are borrowed. */
int virtio_pci_create(struct virtio_pci **out, struct virtio_device *dev, struct vm *vm,
		      struct pci_bus *bus, struct loop *loop, struct hop *hop,
		      struct pil_err *err) PIL_MUST_CHECK;

/* Resets the device, so that nothing touches the guest's memory any more, and destroys it.  The
 * vCPUs have stopped.  NULL is fine. */
void virtio_pci_destroy(struct virtio_pci *vp);

#endif
