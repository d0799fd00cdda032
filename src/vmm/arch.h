/* SPDX-License-Identifier: Apache-2.0
 *
 * arch.h -- what a processor architecture brings to the monitor: one folder below arch/ each.
 *
 * The rest of vmm/ knows no architecture and builds for all.  pillion-vmm itself is built where
 * there is such a folder. */
#ifndef PIL_ARCH_H
#define PIL_ARCH_H

#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

struct vcpu;
struct vcpus_opts;
struct vm;

/* ---- addresses ---- */

struct arch_layout {
	uint64_t hole, hole_end;   /* between the two parts of the memory: registers */
	uint64_t bars;             /* window of the BARs of PCI devices */
	uint64_t ecam, ecam_bytes; /* configuration space of PCI bus 0 */
};
extern const struct arch_layout arch_layout;

extern const uint32_t arch_audit; /* AUDIT_ARCH_ of the monitor's own system calls */

/* ---- the machine ---- */

/* Extensions of KVM that a machine needs beside those of all architectures; the name NULL ends. */
struct arch_extension {
	int cap; /* KVM_CAP_ */
	const char *name;
};
extern const struct arch_extension arch_extensions[];

/* Makes the interrupt controllers of a machine that has no memory yet; -errno with @err. */
int arch_vm_init(const struct vm *vm, struct pil_err *err) PIL_MUST_CHECK;

/* ---- its processors ---- */

/* What all processors of a machine share while they are made; @vm is borrowed. */
struct arch_processors;
int arch_processors_create(struct arch_processors **out, const struct vm *vm) PIL_MUST_CHECK;
void arch_processors_destroy(struct arch_processors *shared); /* NULL is fine */

/* Gives @vcpu its features; the first one is put at the kernel's entry.  -errno. */
int arch_vcpu_init(const struct vcpu *vcpu, const struct arch_processors *shared,
		   const struct vcpus_opts *opts) PIL_MUST_CHECK;

/* Where it executes; 0: unknown.  On its own thread. */
uint64_t arch_vcpu_pc(const struct vcpu *vcpu);

/* ---- the guest that probe.c times: counts down in a loop, then leaves ---- */

void arch_probe_load(const struct vm *vm);        /* its code, into the machine's memory */
int arch_probe_enter(int vcpu_fd) PIL_MUST_CHECK; /* as Linux would run; -errno */
int arch_probe_set_count(int vcpu_fd, uint64_t count) PIL_MUST_CHECK; /* -errno */
void arch_probe_spin(uint64_t count);  /* the same loop, on the host */
extern const uint32_t arch_probe_exit; /* KVM_EXIT_ by which it leaves */

#endif
