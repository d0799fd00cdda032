/* SPDX-License-Identifier: Apache-2.0
 *
 * cpuid.h -- what a processor says it is. */
#ifndef PIL_CPUID_H
#define PIL_CPUID_H

#include <stdbool.h>

#include "base/compiler.h"

struct kvm_cpuid2;

struct cpuid_opts {
	unsigned index,
		count;     /* this processor, and how many there are: one socket, one thread each */
	bool tsc_deadline; /* KVM's APIC timer knows deadlines */
	bool nested;       /* the guest may run virtual machines of its own */
};

/* What KVM can offer on this host; release it with free(). */
int cpuid_create(struct kvm_cpuid2 **out, int kvm_fd) PIL_MUST_CHECK;

/* Gives @vcpu_fd what is in @supported, with the topology of @opts.  0 or -errno. */
int cpuid_set(const struct kvm_cpuid2 *supported, int vcpu_fd,
	      const struct cpuid_opts *opts) PIL_MUST_CHECK;

#endif
