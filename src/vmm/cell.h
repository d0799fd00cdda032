/* SPDX-License-Identifier: Apache-2.0
 *
 * cell.h -- what a monitor leaves behind before it runs a guest: nearly all of the host.
 *
 * The order is cell_enter(), what takes capabilities over its namespaces, cell_drop(), then making
 * the machine, cell_lock() before the first device, and cell_lock_vcpu() or cell_lock_disk() on
 * each other thread. */
#ifndef PIL_CELL_H
#define PIL_CELL_H

#include "base/compiler.h"
#include "base/err.h"

struct options;

/* Namespaces of its own, and an empty root with only the folders of the sockets that @o names.
 * Files are opened before; no thread was made yet. */
int cell_enter(const struct options *o, struct pil_err *err) PIL_MUST_CHECK;

/* No capabilities, no way back.  Returns in a child, which dies with its parent; the process that
 * called waits for it and ends as it does. */
int cell_drop(const struct options *o, struct pil_err *err) PIL_MUST_CHECK;

/* Keeps this thread, and all it makes from now on, to the system calls a running machine needs. */
int cell_lock(struct pil_err *err) PIL_MUST_CHECK;

/* The same for the few that a vCPU's or a disk's thread needs; -errno. */
int cell_lock_vcpu(void) PIL_MUST_CHECK;
int cell_lock_disk(void) PIL_MUST_CHECK;

#endif
