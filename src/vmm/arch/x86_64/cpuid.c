/* SPDX-License-Identifier: Apache-2.0
 *
 * What KVM supports, changed for a machine: the topology is that of the machine, caches are shared
 * as its processors are, and the hypervisor bit is set.  The list is made once, and each processor
 * gets a copy with its own number. */
#include "vmm/arch/x86_64/cpuid.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/fd.h"

#define BIT(n) (1u << (n))

enum { CPUID_MAX_ENTRIES = 256, TOPOLOGY_LEVELS = 3 };

enum {
	LEAF_FEATURES = 1,
	LEAF_CACHES = 4,
	LEAF_POWER = 6,
	LEAF_PERF = 10,
	LEAF_TOPOLOGY = 0xb,
	LEAF_TOPOLOGY_V2 = 0x1f,
};
#define LEAF_AMD_FEATURES 0x80000001u
#define LEAF_AMD_SIZES    0x80000008u
#define LEAF_AMD_CACHES   0x8000001du
#define LEAF_AMD_TOPOLOGY 0x8000001eu

static unsigned bits_for(unsigned count)
{
	return count > 1 ? 32 - (unsigned)__builtin_clz(count - 1) : 0;
}

/* Who shares the cache of this entry: everybody the third level, nobody the others. */
static void share_cache(struct kvm_cpuid_entry2 *e, const struct cpuid_opts *opts)
{
	unsigned level = (e->eax >> 5) & 7, sharing = level >= 3 ? opts->count : 1;

	e->eax = (e->eax & 0x3fff) | ((BIT(bits_for(sharing)) - 1) << 14);
	if (e->function == LEAF_CACHES)
		e->eax |= ((BIT(bits_for(opts->count)) - 1) & 0x3f) << 26;
}

/* False: the leaf is left out. */
static bool adapt(struct kvm_cpuid_entry2 *e, const struct cpuid_opts *opts)
{
	switch (e->function) {
	case LEAF_FEATURES:
		e->ebx = (e->ebx & 0xff00) | opts->count << 16 | opts->index << 24;
		e->ecx |= BIT(31) /* a hypervisor */ | BIT(21) /* x2apic */;
		if (opts->tsc_deadline)
			e->ecx |= BIT(24);
		if (!opts->nested)
			e->ecx &= ~BIT(5); /* VMX */
		if (opts->count > 1)
			e->edx |= BIT(28);
		return true;
	case LEAF_CACHES:
	case LEAF_AMD_CACHES:
		share_cache(e, opts);
		return true;
	case LEAF_POWER:
		e->eax = BIT(2); /* the APIC timer always runs */
		e->ebx = e->ecx = e->edx = 0;
		return true;
	case LEAF_PERF:
	case LEAF_TOPOLOGY:
	case LEAF_TOPOLOGY_V2:
		return false;
	case LEAF_AMD_FEATURES:
		if (!opts->nested)
			e->ecx &= ~BIT(2); /* SVM */
		return true;
	case LEAF_AMD_SIZES:
		e->ecx = bits_for(opts->count) << 12 | (opts->count - 1);
		return true;
	case LEAF_AMD_TOPOLOGY:
		e->eax = opts->index;
		e->ebx = opts->index & 0xff;
		e->ecx = 0;
		return true;
	default:
		return true;
	}
}

/* Level 0: one thread per core; level 1: @count cores in the only socket; level 2: no more. */
static void add_topology(struct kvm_cpuid2 *list, const struct cpuid_opts *opts)
{
	for (unsigned level = 0; level < TOPOLOGY_LEVELS; level++)
		list->entries[list->nent++] = (struct kvm_cpuid_entry2){
			.function = LEAF_TOPOLOGY,
			.index = level,
			.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
			.eax = level == 1 ? bits_for(opts->count) : 0,
			.ebx = level == 0   ? 1
			       : level == 1 ? opts->count
					    : 0,
			.ecx = level | (level < 2 ? (level + 1) << 8 : 0),
			.edx = opts->index,
		};
}

int cpuid_create(struct kvm_cpuid2 **out, int kvm_fd)
{
	struct kvm_cpuid2 *list =
		calloc(1, sizeof(*list) + CPUID_MAX_ENTRIES * sizeof(list->entries[0]));
	int ret = 0;

	if (!list)
		return -ENOMEM;
	list->nent = CPUID_MAX_ENTRIES - TOPOLOGY_LEVELS;
	if (ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, list))
		ret = -errno;
	if (ret)
		free(list);
	else
		*out = list;
	return ret;
}

int cpuid_set(const struct kvm_cpuid2 *supported, int vcpu_fd, const struct cpuid_opts *opts)
{
	_auto_free struct kvm_cpuid2 *list =
		calloc(1, sizeof(*list) + CPUID_MAX_ENTRIES * sizeof(list->entries[0]));

	if (!list)
		return -ENOMEM;
	for (unsigned i = 0; i < supported->nent; i++) {
		struct kvm_cpuid_entry2 e = supported->entries[i];

		if (adapt(&e, opts))
			list->entries[list->nent++] = e;
	}
	add_topology(list, opts);
	return ioctl(vcpu_fd, KVM_SET_CPUID2, list) ? -errno : 0;
}
