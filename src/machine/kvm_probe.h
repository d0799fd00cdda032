/* SPDX-License-Identifier: Apache-2.0
 *
 * kvm_probe.h -- can this host's KVM run a machine at speed? */
#ifndef PIL_KVM_PROBE_H
#define PIL_KVM_PROBE_H

#include <stdbool.h>

#include "config/state.h"

enum kvm_state {
	KVM_ABSENT,   /* no /dev/kvm */
	KVM_DENIED,   /* no permission */
	KVM_EMULATED, /* there, and guest code does not run on the processor */
	KVM_USABLE,
	KVM_NUM_STATES
};

struct kvm_verdict {
	enum kvm_state state;
	unsigned max_processors; /* of one machine; 0: unknown */
	char why[200];           /* one line, with what to do where something can be done */
};

/* Starts a guest that counts (pillion-vmm --probe), once per boot of the host; the answer is kept
 * in the cache, unless it is that there is no KVM.  Permission is looked at each time. */
void kvm_probe(const struct state_dirs *dirs, struct kvm_verdict *out);

/* Drops what is kept: the next kvm_probe() starts a guest. */
void kvm_probe_forget(const struct state_dirs *dirs);

/* How many processors a machine gets: @wanted (0: all), but no more than the host and @max have. */
unsigned kvm_probe_processors(unsigned wanted, long of_host, unsigned max);

/* Takes apart what pillion-vmm --probe prints; false: not that.  For tests. */
bool kvm_probe_parse(const char *text, struct kvm_verdict *out);

#endif
