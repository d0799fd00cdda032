/* SPDX-License-Identifier: Apache-2.0
 *
 * vcpu.h -- the processors of a machine, one thread each. */
#ifndef PIL_VCPU_H
#define PIL_VCPU_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "vmm/kvm_vm.h"

struct kvm_run;

struct vcpu {
	struct vm *vm; /* borrowed */
	unsigned index;
	int fd;
	struct kvm_run *run; /* shared with the kernel */
	size_t run_bytes;
	pthread_t thread;
	bool started;
	int (*enter)(void);
};

struct vcpus {
	struct vcpu *all;
	unsigned n;
};

struct vcpus_opts {
	uint32_t entry_gpa;      /* where the first one starts, in 32-bit protected mode (PVH) */
	uint32_t start_info_gpa; /* what it finds in ebx */
	bool nested;             /* see cpuid.h */
};

/* Makes the processors; none runs yet.  @opts is copied. */
int vcpus_init(struct vcpus *vcpus, struct vm *vm, const struct vcpus_opts *opts,
	       struct pil_err *err) PIL_MUST_CHECK;

/* Starts them; each thread first calls @enter (a seccomp filter; -errno; may be NULL).  What ends
 * the machine is told by vm_end(). */
int vcpus_start(struct vcpus *vcpus, int (*enter)(void), struct pil_err *err) PIL_MUST_CHECK;

/* Stops them wherever they are and waits for their threads.  A thread that waits for the loop is
 * released by hop_close() first. */
void vcpus_finish(struct vcpus *vcpus);

#endif
