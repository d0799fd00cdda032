/* SPDX-License-Identifier: Apache-2.0
 *
 * filter.h -- the system calls an executor may make. */
#ifndef PIL_FILTER_H
#define PIL_FILTER_H

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"

/* A memfd with the filter as BPF, at its start, as bwrap --seccomp takes it.  -errno. */
int filter_create(struct pil_err *err) PIL_MUST_CHECK;

/* Is the system call of this name on the list?  For tests and documentation. */
bool filter_allows(const char *name);

#endif
