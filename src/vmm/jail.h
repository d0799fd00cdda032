/* SPDX-License-Identifier: Apache-2.0
 *
 * jail.h -- what a monitor leaves behind before it runs a guest: nearly all of the host.
 *
 * The order is jail_enter(), what takes capabilities over its namespaces, jail_drop(), then making
 * the machine, jail_lock() before the first device, and jail_lock_vcpu() or jail_lock_disk() on
 * each other thread. */
#ifndef PIL_VMM_JAIL_H
#define PIL_VMM_JAIL_H

#include "base/compiler.h"
#include "base/err.h"

struct options;

/* Namespaces of its own, and an empty root with only the folders of the sockets that @o names.
 * Files are opened before; no thread was made yet. */
int jail_enter(const struct options *o, struct pil_err *err) PIL_MUST_CHECK;

/* No capabilities, no way back.  Returns in a child, which dies with its parent; the process that
 * called waits for it and ends as it does. */
int jail_drop(const struct options *o, struct pil_err *err) PIL_MUST_CHECK;

/* Keeps this thread, and all it makes from now on, to the system calls a running machine needs. */
int jail_lock(struct pil_err *err) PIL_MUST_CHECK;

/* The same for the few that a vCPU's or a disk's thread needs; -errno. */
int jail_lock_vcpu(void) PIL_MUST_CHECK;
int jail_lock_disk(void) PIL_MUST_CHECK;

#endif
