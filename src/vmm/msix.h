/* SPDX-License-Identifier: Apache-2.0
 *
 * msix.h -- the MSI-X vectors of one PCI function.  Thread-safe.
 *
 * A line is an eventfd that another process adds to when a vector is to be sent.  While the vector
 * is unmasked KVM sends it (the line is direct); else whoever watches the eventfd calls
 * msix_signal(). */
#ifndef PIL_MSIX_H
#define PIL_MSIX_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "vmm/kvm_vm.h"

enum { MSIX_MAX_VECTORS = 16, MSIX_ENTRY_BYTES = 16, MSIX_MAX_LINES = 8 };

struct msix {
	struct vm *vm; /* borrowed */
	pthread_mutex_t lock;
	unsigned n;
	uint16_t control; /* the writable bits of Message Control: enable, mask all */
	struct {
		uint64_t addr;
		uint32_t data, control; /* bit 0 of control: masked */
	} vectors[MSIX_MAX_VECTORS];
	uint32_t pending; /* one bit per vector */
	struct msix_line {
		int event_fd; /* borrowed; -1: none */
		unsigned vector;
		int gsi; /* while it is direct; else -1 */
		uint64_t addr;
		uint32_t data;
	} lines[MSIX_MAX_LINES];
};

enum { MSIX_ENABLE = 1 << 15, MSIX_MASK_ALL = 1 << 14 };

void msix_init(struct msix *msix, struct vm *vm, unsigned n);

/* Sends vector @i, now or as soon as it is unmasked.  False: the guest has not enabled MSI-X. */
bool msix_signal(struct msix *msix, unsigned i);

/* Has what is added to @event_fd (borrowed until the next call for the same line; -1: none) send
 * vector @vector, which need not exist. */
void msix_set_line(struct msix *msix, unsigned line, int event_fd, unsigned vector);

/* KVM sends what is added to the line's eventfd, or has already, as it does with what was added
 * before the line became direct. */
bool msix_line_is_direct(struct msix *msix, unsigned line);

/* The guest's accesses: to the table, to the pending bits, and to Message Control. */
uint64_t msix_table_read(struct msix *msix, uint64_t off, unsigned len);
void msix_table_write(struct msix *msix, uint64_t off, unsigned len, uint64_t value);
uint64_t msix_pending_read(struct msix *msix, uint64_t off, unsigned len);
void msix_control_write(struct msix *msix, uint16_t value);

#endif
