/* SPDX-License-Identifier: Apache-2.0
 *
 * probe.h -- does this host's KVM run guests, and at what speed? */
#ifndef PIL_PROBE_H
#define PIL_PROBE_H

#include "base/err.h"

enum probe_kvm {
	PROBE_USABLE,
	PROBE_EMULATED, /* it is there, and too slow for anything but tests */
	PROBE_DENIED,
	PROBE_ABSENT,
	PROBE_NUM_KVMS,
};
extern const char *const probe_kvm_str[];

struct probe {
	enum probe_kvm kvm;
	unsigned max_vcpus; /* 0: unknown */
	double slowdown;    /* of a loop in a guest against the same on the host; 0: unknown */
	struct pil_err why; /* unless it is usable */
};

/* Takes some 20 ms, at most about a second. */
void probe_run(struct probe *probe);

/* One line of JSON: {"kvm":"usable","processors":128,"slowdown":1.0,"why":"...","hint":"..."},
 * where processors is how many a machine can have. */
void probe_print(const struct probe *probe);

#endif
