/* SPDX-License-Identifier: Apache-2.0
 *
 * kvm_vm.h -- a KVM virtual machine without processors: memory, interrupt controllers, buses. */
#ifndef PIL_KVM_VM_H
#define PIL_KVM_VM_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "virtio/guest_mem.h"
#include "vmm/bus.h"

/* How a machine ends; the values are the exit status of pillion-vmm. */
enum vm_end { VM_END_POWER_OFF, VM_END_ERROR, VM_END_PANIC, VM_END_REBOOT, VM_NUM_ENDS };
extern const char *const vm_end_str[];

struct vm_opts {
	uint64_t mem_bytes; /* whole MiB, at least 2 */
	unsigned n_vcpus;   /* at least 1 */
	int memory_fd;      /* of memory_file_create(), for vhost-user peers to map; -1: private */
};

enum { VM_MAX_ROUTES = 64 };

/* What KVM sends when an eventfd is added to: the place of a message in this table is its GSI. */
struct vm_routes {
	pthread_mutex_t lock;
	struct {
		bool used;
		uint64_t addr;
		uint32_t data;
	} all[VM_MAX_ROUTES];
};

struct vm {
	int kvm_fd, fd;
	unsigned n_vcpus;
	struct guest_mem mem;
	struct bus mmio, pio;
	int end_fd;     /* readable when the machine ends */
	atomic_int end; /* enum vm_end, -1 while it runs */
	char why[160];  /* one line on an end that is not the guest's wish; set before end_fd */
	atomic_flag decided;     /* how it ends; private */
	struct vm_routes routes; /* private */
};

enum { VM_MAX_VCPUS = 128 };

/* Makes the machine; @kvm_fd is /dev/kvm, opened (takes it and opts->memory_fd, on failure as
 * well). */
int vm_init(struct vm *vm, int kvm_fd, const struct vm_opts *opts,
	    struct pil_err *err) PIL_MUST_CHECK;
void vm_finish(struct vm *vm);

/* Opens /dev/kvm, or says why it cannot be and what helps.  -errno. */
int vm_open_kvm(struct pil_err *err) PIL_MUST_CHECK;

/* How many processors a machine can have on @kvm_fd. */
unsigned vm_max_vcpus(int kvm_fd);

/* Sends a message-signalled interrupt.  Any thread. */
void vm_signal_msi(const struct vm *vm, uint64_t addr, uint32_t data);

/* Has KVM send that message whenever @event_fd is added to, and now if it was.  Returns a number
 * for vm_remove_irqfd(), or -errno.  Any thread. */
int vm_add_irqfd(struct vm *vm, int event_fd, uint64_t addr, uint32_t data) PIL_MUST_CHECK;
void vm_remove_irqfd(struct vm *vm, int event_fd, int gsi);

/* Writes to guest-physical @gpa make @event_fd readable and are not seen otherwise.  0 or -errno.
 */
int vm_add_doorbell(const struct vm *vm, uint64_t gpa, int event_fd) PIL_MUST_CHECK;
void vm_remove_doorbell(const struct vm *vm, uint64_t gpa, int event_fd); /* none is fine */

/* The machine ends; the first call decides how.  Any thread. */
void vm_end(struct vm *vm, enum vm_end end, const char *why, ...) PIL_PRINTF(3, 4);

#endif
