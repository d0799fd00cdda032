/* SPDX-License-Identifier: Apache-2.0
 *
 * acpi.h -- the tables that tell a guest's kernel of its processors, its PCI bus and how to power
 * off. */
#ifndef PIL_ACPI_H
#define PIL_ACPI_H

#include <stdint.h>

#include "virtio/guest_mem.h"

/* Writes the tables for @n_vcpus processors at LAYOUT_ACPI; returns the address of the RSDP. */
uint64_t acpi_write(const struct guest_mem *mem, unsigned n_vcpus);

#endif
